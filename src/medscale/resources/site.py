"""Check of a site's settings (profiles/slurm/site.yaml) against the partition that SLURM has."""

from __future__ import annotations

import getpass
import math
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass

from medscale.base import provenance
from medscale.base.errors import MedscaleError
from medscale.resources import slurm
from medscale.resources.machines import Cluster, Node

FILE = provenance.SITE
# Partition, time limit, nodes, and the CPUs, memory (MB) and GRES of each of these nodes.
FORMAT = "%R|%l|%D|%c|%m|%G"
DURATION = re.compile(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)")
GPUS = re.compile(r"gpu(?::([^:,()]+))?:(\d+)")


@dataclass(frozen=True)
class NodeKind:
    """Equal nodes of a partition."""

    count: int
    cpus: int
    memory_mb: int
    gpus: dict[str, int]  # cards by SLURM's name of their kind; "" where it names none

    def gpus_of(self, model: str | None) -> int:
        """Return the cards of a kind, or of all kinds."""
        return sum(self.gpus.values()) if model is None else self.gpus.get(model, 0)

    def __str__(self) -> str:
        cards = " and ".join(f"{n} GPUs {model}".rstrip() for model, n in self.gpus.items())
        parts = (f"{self.cpus} CPUs", f"{self.memory_mb} MB", cards or "no GPU")
        return f"{self.count} nodes of {', '.join(parts)}"


@dataclass(frozen=True)
class Partition:
    """A partition by ``sinfo``: its time limit in minutes (infinite: inf), and its nodes."""

    name: str
    limit: float
    nodes: list[NodeKind]

    def __str__(self) -> str:
        limit = "none" if math.isinf(self.limit) else f"{self.limit:.0f} minutes"
        nodes = " and ".join(map(str, self.nodes))
        return f"partition {self.name}: {nodes}, time limit {limit}"


def complete(cluster: Cluster | None) -> Cluster:
    """Return the section ``cluster`` of the configuration if it is complete.

    Raises:
        MedscaleError: otherwise; the message names the missing settings.
    """
    if cluster is None:
        raise MedscaleError(
            "jobs go through SLURM, but the configuration has no section `cluster`: --configfile "
            f"replaces the profile's own file, so name both: --configfile {FILE} and yours"
        )
    missing = [name for name in ("account", "partition") if getattr(cluster, name) is None]
    if missing:
        raise MedscaleError(
            f"{FILE} does not have your {' and '.join(missing)} yet: set "
            f"cluster.{' and cluster.'.join(missing)} there (`sacctmgr show assoc "
            f"user={getpass.getuser()} format=account` and `sinfo` list them)"
        )
    return cluster


def check(cluster: Cluster | None, node: Node) -> str:
    """Return one line on the account and the partition.

    Raises:
        MedscaleError: when SLURM does not answer, has no such account or partition, or would never
            start a job of that size or time limit.
    """
    cluster = complete(cluster)
    partitions = check_partitions(cluster, node)
    user = getpass.getuser()
    # A cluster without accounting has no sacctmgr, or one that fails, and takes any account.
    accounts = _accounts(user)
    if accounts and cluster.account not in accounts:
        raise MedscaleError(
            f"{FILE}: you have no account {cluster.account!r}; there are: "
            f"{', '.join(sorted(accounts))}"
        )
    unknown = "" if accounts else " (not checked: sacctmgr does not answer)"
    return f"account {cluster.account}{unknown}, {'; '.join(map(str, partitions))}"


def check_partitions(cluster: Cluster, node: Node) -> list[Partition]:
    """Return the partitions of the site's settings, of which SLURM takes the first free one.

    SLURM accepts a job that no node of a partition can hold, or whose time limit is above the
    partition's, and lets it wait for ever.

    Raises:
        MedscaleError: for settings that no partition fulfils, or when SLURM has no such partition.
    """
    if shutil.which("sinfo") is None:
        raise MedscaleError(
            "there is no sinfo: run this where jobs are submitted, on the cluster's login node"
        )
    present = read_partitions(slurm.ask("sinfo", "--noheader", "--exact", f"--format={FORMAT}"))
    names = str(cluster.partition).split(",")
    if missing := [name for name in names if name not in present]:
        raise MedscaleError(
            f"{FILE}: SLURM has no partition {missing[0]!r}; there are: "
            f"{', '.join(sorted(present))}"
        )
    faults = [list(_faults(cluster, node, present[name])) for name in names]
    if all(faults):
        raise MedscaleError(
            f"{FILE}: jobs would wait for ever: {'; '.join(faults[0])} ({present[names[0]]})"
        )
    return [present[name] for name in names]


def read_partitions(lines: list[str]) -> dict[str, Partition]:
    """Return the partitions that lines of ``sinfo --exact`` in ``FORMAT`` describe, by name."""
    partitions: dict[str, Partition] = {}
    for line in lines:
        name, limit, count, cpus, memory, gres = line.split("|")
        kinds: dict[str, int] = {}
        for model, number in GPUS.findall(gres):
            kinds[model] = kinds.get(model, 0) + int(number)
        partition = partitions.setdefault(name, Partition(name, _minutes(limit), []))
        sizes = [int(text.rstrip("+")) for text in (count, cpus, memory)]
        partition.nodes.append(NodeKind(sizes[0], sizes[1], sizes[2], kinds))
    return partitions


def _faults(cluster: Cluster, node: Node, partition: Partition) -> Iterator[str]:
    """Yield the settings that no node of a partition fulfils, each with its remedy."""
    if cluster.max_minutes > partition.limit:
        yield f"cluster.max_minutes: {cluster.max_minutes} must be at most {partition.limit:.0f}"
    kinds = partition.nodes
    model = cluster.gpu_model
    most = {
        "cpus": max(kind.cpus for kind in kinds),
        "memory_mb": max(kind.memory_mb for kind in kinds),
        "gpus": max(kind.gpus_of(model) for kind in kinds),
    }
    required = {"cpus": node.cpus, "memory_mb": node.memory_mb or 0, "gpus": node.gpus}
    for name, number in required.items():
        if number > most[name]:
            of_model = f" of kind {model}" if model is not None and name == "gpus" else ""
            yield f"node.{name}: {number} must be at most {most[name]}{of_model}"
    if all(required[name] <= most[name] for name in required) and not any(
        kind.cpus >= node.cpus
        and kind.memory_mb >= required["memory_mb"]
        and kind.gpus_of(model) >= node.gpus
        for kind in kinds
    ):
        yield "no node has all that `node` says"


def _accounts(user: str) -> set[str]:
    """Return the accounts of a user; none where SLURM's accounting does not answer."""
    try:
        lines = slurm.ask("sacctmgr", "-nP", "list", "assoc", f"user={user}", "format=account")
    except MedscaleError:
        return set()
    return {line.strip() for line in lines}


def _minutes(limit: str) -> float:
    """Return a time limit in minutes, which SLURM writes as [[days-]hours:]minutes:seconds."""
    match = DURATION.fullmatch(limit)
    if match is None:  # infinite
        return math.inf
    days, hours, minutes, seconds = (int(text or 0) for text in match.groups())
    return (days * 24 + hours) * 60 + minutes + seconds / 60
