"""Talking to SLURM: is the site's account and partition there, and jobs that a Snakemake which is gone left behind."""

from __future__ import annotations

import getpass
import shutil
import subprocess
import time
from pathlib import Path

from medscale.base.errors import MedscaleError
from medscale.resources.machines import Cluster

PREFIX = "medscale"  # of job names, as profiles/slurm says
SITE = "profiles/slurm/site.yaml"
GONE_S = 120.0


def stated(cluster: Cluster | None) -> Cluster:
    """The configuration's section, complete.

    Raises:
        MedscaleError: naming what profiles/slurm/site.yaml does not say yet.
    """
    if cluster is None:
        raise MedscaleError(
            "jobs go through SLURM, but the configuration has no section `cluster`: --configfile takes the place of "
            f"the profile's own file, so name both: --configfile {SITE} and yours"
        )
    missing = [name for name in ("account", "partition") if getattr(cluster, name) is None]
    if missing:
        raise MedscaleError(
            f"{SITE} does not say your {' and '.join(missing)} yet: set cluster.{' and cluster.'.join(missing)} there "
            f"(`sacctmgr show assoc user={getpass.getuser()} format=account` and `sinfo` list them)"
        )
    return cluster


def check(cluster: Cluster | None) -> str:
    """One line about the cluster as it answers.

    Raises:
        MedscaleError: when SLURM does not answer, or knows no such account or partition.
    """
    cluster = stated(cluster)
    if shutil.which("sbatch") is None:
        raise MedscaleError(
            "there is no sbatch: run this where jobs are submitted, on the cluster's login node"
        )
    partitions = dict(
        line.split("|", 1) for line in _ask("sinfo", "--noheader", "--format=%R|%l %D %c %m %G")
    )
    if cluster.partition not in partitions:
        raise MedscaleError(
            f"{SITE}: SLURM has no partition {cluster.partition!r}; there are: {', '.join(sorted(partitions))}"
        )
    user = getpass.getuser()
    accounts = {
        name.strip()
        for name in _ask("sacctmgr", "-nP", "list", "assoc", f"user={user}", "format=account")
    }
    if accounts and cluster.account not in accounts:
        raise MedscaleError(
            f"{SITE}: you have no account {cluster.account!r}; there are: {', '.join(sorted(accounts))}"
        )
    limit, nodes, cpus, memory, gpus = partitions[str(cluster.partition)].split()
    return (
        f"account {cluster.account}, partition {cluster.partition}: {nodes} nodes of {cpus} cores, {memory} MB and "
        f"{gpus}; its time limit is {limit}"
    )


def end_orphans(root: Path, workdir: str) -> list[str]:
    """Cancel the jobs that an earlier Snakemake left behind for a workdir, and wait until they are gone; their names.

    It was killed, or lost its connection: nobody would gather what they make, and new jobs for the same runs would find
    them in the way. They keep their checkpoints, from which the new jobs go on. To be called while Snakemake's lock on
    the workdir is held, so that no living Snakemake has such jobs.

    Raises:
        MedscaleError: when they do not end.
    """
    ours = _orphans(root, workdir)
    if ours:
        _ask("scancel", *ours)
        until = time.monotonic() + GONE_S
        while left := sorted(_orphans(root, workdir).keys() & ours.keys()):
            if time.monotonic() > until:
                raise MedscaleError(
                    f"SLURM jobs of an earlier Snakemake do not end: {', '.join(left)}; scancel them"
                )
            time.sleep(1)
    return list(ours.values())


def _orphans(root: Path, workdir: str) -> dict[str, str]:
    """Names of the jobs in the queue that were submitted from ``root`` for a workdir, by their ids."""
    lines = [
        line.split("|", 3) for line in _ask("squeue", "--me", "--noheader", "--format=%i|%j|%Z|%k")
    ]
    return {
        job: said
        for job, name, folder, said in lines
        if name.startswith(f"{PREFIX}_") and Path(folder) == root and said.endswith(f"({workdir})")
    }


def _ask(*command: str) -> list[str]:
    """Lines that a SLURM program answers."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MedscaleError(f"{command[0]} does not answer: {error}") from None
    if done.returncode != 0:
        raise MedscaleError(f"{' '.join(command)} failed: {done.stderr.strip() or done.returncode}")
    return [line for line in done.stdout.splitlines() if line.strip()]
