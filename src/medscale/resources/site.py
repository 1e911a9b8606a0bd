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
from medscale.resources.jobs import gres
from medscale.resources.machines import Cluster, Node

FILE = provenance.SITE
# Partition, time limit, nodes, and the CPUs, memory (MB) and GRES of each of these nodes.
FORMAT = "%R|%l|%D|%c|%m|%G"
# Refusals of sbatch that do not pass: a name that SLURM does not have or the user may not use, and
# a partition that takes no jobs.
LASTING = re.compile(r"[Ii]nvalid|not permitted|denied|not allowed|partition not available")
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

    A cluster without accounting has no accounts; elsewhere each job needs one.

    Raises:
        MedscaleError: otherwise; the message names the missing settings.
    """
    if cluster is None:
        raise MedscaleError(
            "jobs go through SLURM, but the configuration has no section `cluster`: --configfile "
            f"replaces the profile's own file, so name both: --configfile {FILE} and yours"
        )
    missing = [name for name in ("account", "partition") if getattr(cluster, name) is None]
    if missing and not (missing == ["account"] and _without_accounting()):
        raise MedscaleError(
            f"{FILE} does not have your {' and '.join(missing)} yet: set "
            f"cluster.{' and cluster.'.join(missing)} there (`sacctmgr show assoc "
            f"user={getpass.getuser()} format=account` and `sinfo` list them)"
        )
    return cluster


def check(cluster: Cluster | None, node: Node) -> tuple[str, list[str]]:
    """Return a line on the account and the partitions, and obstacles to the start of jobs.

    Raises:
        MedscaleError: when SLURM does not answer, has no such account or partition, refuses a job
            with these settings, or would never start a job of that size or time limit.
    """
    cluster = complete(cluster)
    if shutil.which("sinfo") is None:
        raise MedscaleError(
            "there is no sinfo: run this where jobs are submitted, on the cluster's login node"
        )
    partitions = check_partitions(cluster, node)
    texts = [_check_account(cluster), *map(str, partitions)]
    return "; ".join(texts), _check_submission(cluster, node)


def check_partitions(cluster: Cluster, node: Node) -> list[Partition]:
    """Return the partitions of the site's settings, of which SLURM takes the first free one.

    SLURM accepts a job that no node of a partition can hold, or whose time limit is above the
    partition's, and lets it wait for ever.

    Raises:
        MedscaleError: for settings that no partition fulfils, or when SLURM has no such partition.
    """
    present = read_partitions(slurm.ask("sinfo", "--noheader", "--exact", f"--format={FORMAT}"))
    partitions = _fitting(str(cluster.partition), cluster, node, present)
    if cluster.cpu_partition is not None:
        without_gpus = cluster.model_copy(update={"gpu_model": None})
        cpu_node = node.model_copy(update={"gpus": 0})
        partitions += _fitting(cluster.cpu_partition, without_gpus, cpu_node, present)
    return partitions


def _fitting(
    names: str, cluster: Cluster, node: Node, present: dict[str, Partition]
) -> list[Partition]:
    """Return the partitions with the given names (separated by commas), if one fits the node."""
    partitions = names.split(",")
    if missing := [name for name in partitions if name not in present]:
        raise MedscaleError(
            f"{FILE}: SLURM has no partition {missing[0]!r}; there are: "
            f"{', '.join(sorted(present))}"
        )
    faults = [list(_faults(cluster, node, present[name])) for name in partitions]
    if all(faults):
        raise MedscaleError(
            f"{FILE}: jobs would wait for ever: {'; '.join(faults[0])} ({present[partitions[0]]})"
        )
    return [present[name] for name in partitions]


def read_partitions(lines: list[str]) -> dict[str, Partition]:
    """Return the partitions that lines of ``sinfo --exact`` in ``FORMAT`` describe, by name."""
    partitions: dict[str, Partition] = {}
    for line in lines:
        name, limit, count, cpus, memory, gres = line.split("|")
        kinds: dict[str, int] = {}
        for model, number in GPUS.findall(gres):
            kinds[model] = kinds.get(model, 0) + int(number)
        seconds = slurm.seconds_of(limit)  # None: infinite
        minutes = math.inf if seconds is None else seconds / 60
        partition = partitions.setdefault(name, Partition(name, minutes, []))
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


def _check_account(cluster: Cluster) -> str:
    """Return a text on the account; raise MedscaleError for one that the user does not have."""
    if _without_accounting():
        if cluster.account is not None:
            raise MedscaleError(
                f"{FILE}: this cluster has no accounting, and Snakemake can submit nothing for an "
                "account: set cluster.account to null"
            )
        return "no account, as the cluster has no accounting"
    user = getpass.getuser()
    try:
        lines = slurm.ask("sacctmgr", "-nP", "list", "assoc", f"user={user}", "format=account")
    except MedscaleError:
        return f"account {cluster.account} (not checked: sacctmgr does not answer)"
    accounts = {line.strip() for line in lines}
    if accounts and cluster.account not in accounts:
        raise MedscaleError(
            f"{FILE}: you have no account {cluster.account!r}; there are: "
            f"{', '.join(sorted(accounts))}"
        )
    return f"account {cluster.account}"


def _without_accounting() -> bool:
    """Whether SLURM itself says that it keeps no accounts."""
    return slurm.settings().get("AccountingStorageType", "").endswith("/none")


def _check_submission(cluster: Cluster, node: Node) -> list[str]:
    """Let SLURM judge a job on a GPU and a job on a CPU, without submitting them.

    Return SLURM's sentences on obstacles that can pass, such as nodes that are down.

    Raises:
        MedscaleError: when SLURM refuses the account, the partition or an option.
    """
    sentences = []
    for gpus in sorted({0, min(node.gpus, 1)}):
        refusal = slurm.refusal(submission(cluster, gpus))
        if refusal is not None and LASTING.search(refusal):
            raise MedscaleError(
                f"{FILE}: SLURM refuses jobs {'with GPUs' if gpus else 'without GPUs'} in "
                f"partition {cluster.partition_of(gpus)}: {refusal}; correct account, partition, "
                "gpu_model or options there"
            )
        if refusal is not None:
            partition = cluster.partition_of(gpus)
            sentences.append(f"jobs in {partition} would wait: {refusal} (`sinfo -R`)")
    return list(dict.fromkeys(sentences))


def submission(cluster: Cluster, gpus: int) -> list[str]:
    """Return the options of sbatch of a small job with these settings."""
    return [
        *([f"--account={cluster.account}"] if cluster.account else []),
        f"--partition={cluster.partition_of(gpus)}",
        *(f"--{name}={text}" for name, text in cluster.options.items()),
        *([f"--gres={gres(cluster, gpus)}"] if gpus else []),
        f"--time={min(cluster.max_minutes, cluster.least_minutes)}",
        f"--mem={cluster.least_mb}",
    ]
