"""The CPU cores and the memory that this process may use, where a container or a job limits them.

``dask.system`` and ``distributed.system`` read the same limits. They are not used, since importing
Dask takes a tenth of the time in which Snakemake starts, and each start asks for the cores.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


def usable_cores() -> int:
    """Return the number of cores that this process may use, at least 1.

    These are the cores to which it is bound, or less by a quota (``docker run --cpus``, a CPU limit
    of Kubernetes). Of a quota of 2.5 cores 2 are used, as the process is stopped for the rest of
    each period if more threads work.
    """
    cores = [float(len(os.sched_getaffinity(0)))]
    for folder in _control_groups("cpu"):
        limit = _numbers(folder / "cpu.max") or [  # version 2, then version 1 of the interface
            *_numbers(folder / "cpu.cfs_quota_us"),
            *_numbers(folder / "cpu.cfs_period_us"),
        ]
        if len(limit) == 2:
            quota, period = limit
            cores.append(quota / period)
    return max(1, int(min(cores)))


def memory_limit() -> int | None:
    """Return the memory (bytes) that this process may use at most; None: no limit is set.

    Version 1 of the interface states a number above any machine's memory where no limit is set.
    """
    folders = list(_control_groups("memory"))
    names = ("memory.max", "memory.limit_in_bytes")  # version 2, version 1
    limits = [limit for folder in folders for name in names for limit in _numbers(folder / name)]
    return min(limits, default=None)


def _control_groups(controller: str) -> Iterator[Path]:
    """Yield the folders of the control groups of this process, and of those above them.

    In a container, the root of the folders is the container's own group. The path of a process can
    then name a folder that does not exist.
    """
    with suppress(OSError):
        for line in MEMBERSHIP.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers == "" or controller in controllers.split(","):  # version 2, version 1
                root = CGROUPS / controller if controllers else CGROUPS
                folder = root / path.lstrip("/")
                yield folder
                yield from (parent for parent in folder.parents if parent.is_relative_to(root))


def _numbers(path: Path) -> list[int]:
    """Return the numbers of a file's only line; none without such a file or a limit (max, -1)."""
    with suppress(OSError, ValueError):
        numbers = [int(word) for word in path.read_text().split()]
        return numbers if min(numbers) > 0 else []
    return []
