"""Queries to SLURM: account and partition of the site, queue, and jobs without a Snakemake."""

from __future__ import annotations

import getpass
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from medscale.base.errors import MedscaleError
from medscale.resources.machines import Cluster

PREFIX = "medscale"  # of job names; profiles/slurm has the same
SITE = "profiles/slurm/site.yaml"
CANCEL_TIMEOUT_S = 120.0


def complete(cluster: Cluster | None) -> Cluster:
    """Return the section ``cluster`` of the configuration if it is complete.

    Raises:
        MedscaleError: otherwise; the message names the missing settings.
    """
    if cluster is None:
        raise MedscaleError(
            "jobs go through SLURM, but the configuration has no section `cluster`: --configfile "
            f"replaces the profile's own file, so name both: --configfile {SITE} and yours"
        )
    missing = [name for name in ("account", "partition") if getattr(cluster, name) is None]
    if missing:
        raise MedscaleError(
            f"{SITE} does not have your {' and '.join(missing)} yet: set "
            f"cluster.{' and cluster.'.join(missing)} there (`sacctmgr show assoc "
            f"user={getpass.getuser()} format=account` and `sinfo` list them)"
        )
    return cluster


def check(cluster: Cluster | None) -> str:
    """Return one line on the account and the partition.

    Raises:
        MedscaleError: when SLURM does not answer, or has no such account or partition.
    """
    cluster = complete(cluster)
    if shutil.which("sbatch") is None:
        raise MedscaleError(
            "the program sbatch was not found; run this on the cluster's login node, from which jobs "
            "are submitted"
        )
    partitions = dict(
        line.split("|", 1) for line in _ask("sinfo", "--noheader", "--format=%R|%l %D %c %m %G")
    )
    if cluster.partition not in partitions:
        raise MedscaleError(
            f"{SITE}: SLURM has no partition {cluster.partition!r}; there are: "
            f"{', '.join(sorted(partitions))}"
        )
    user = getpass.getuser()
    accounts = {
        name.strip()
        for name in _ask("sacctmgr", "-nP", "list", "assoc", f"user={user}", "format=account")
    }
    if accounts and cluster.account not in accounts:
        raise MedscaleError(
            f"{SITE}: you have no account {cluster.account!r}; there are: "
            f"{', '.join(sorted(accounts))}"
        )
    limit, nodes, cpus, memory, gpus = partitions[str(cluster.partition)].split()
    return (
        f"account {cluster.account}, partition {cluster.partition}: {nodes} nodes of {cpus} cores, "
        f"{memory} MB and {gpus}; its time limit is {limit}"
    )


def end_orphans(root: Path, workdir: str) -> list[str]:
    """Cancel the jobs of an earlier Snakemake for a workdir, and return their titles.

    If a Snakemake was killed or lost its connection, nothing collects the outputs of its jobs. They
    would conflict with new jobs for the same runs, which continue from the checkpoints. Call this
    while Snakemake's lock on the workdir is held, so that no running Snakemake owns the jobs.

    Raises:
        MedscaleError: when the jobs do not end within two minutes.
    """
    orphans = _orphans(root, workdir)
    if orphans:
        _ask("scancel", *orphans)
        deadline = time.monotonic() + CANCEL_TIMEOUT_S
        while remaining := sorted(_orphans(root, workdir).keys() & orphans.keys()):
            if time.monotonic() > deadline:
                raise MedscaleError(
                    "SLURM jobs of an earlier Snakemake do not end: "
                    f"{', '.join(remaining)}; cancel them with scancel"
                )
            time.sleep(1)
    return list(orphans.values())


@dataclass(frozen=True)
class QueuedJob:
    """A job in SLURM's queue."""

    number: str  # id of the job
    state: str  # name by SLURM: PENDING, RUNNING, …
    elapsed: str  # time since its start, in SLURM's form
    place: str  # nodes, or the reason for waiting
    title: str  # comment of the job in SLURM: stage, study, run and workdir


def queue(root: Path, workdir: str) -> list[QueuedJob]:
    """Return the queued jobs that were submitted from ``root`` for a workdir.

    Raises:
        MedscaleError: when SLURM does not answer.
    """
    form = "--format=%i|%j|%Z|%T|%M|%R|%k"
    lines = [line.split("|", 6) for line in _ask("squeue", "--me", "--noheader", form)]
    return [
        QueuedJob(number, state, elapsed, place, comment)
        for number, name, folder, state, elapsed, place, comment in lines
        if name.startswith(f"{PREFIX}_")
        and Path(folder) == root
        and comment.endswith(f"({workdir})")
    ]


def _orphans(root: Path, workdir: str) -> dict[str, str]:
    """Return the titles, by number, of the queued jobs of a workdir."""
    return {job.number: job.title for job in queue(root, workdir)}


def _ask(*command: str) -> list[str]:
    """Return the lines that a SLURM program prints."""
    try:
        process = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MedscaleError(f"{command[0]} does not answer: {error}") from None
    if process.returncode != 0:
        raise MedscaleError(
            f"{' '.join(command)} failed: {process.stderr.strip() or process.returncode}"
        )
    return [line for line in process.stdout.splitlines() if line.strip()]
