"""The cores and the memory that a container leaves to this process."""

import os
from pathlib import Path

import pytest

from medscale.base import limits

GB = 2**30
# By case: text of /proc/self/cgroup, the kernel's files, and the cores that they leave of 64.
CASES = {
    "no limit": ("0::/user.slice\n", {"user.slice/cpu.max": "max 100000", "memory.max": "max"}, 64),
    "docker, version 2": ("0::/\n", {"cpu.max": "250000 100000"}, 2),
    "less than one core": ("0::/\n", {"cpu.max": "50000 100000"}, 1),
    "more than the machine": ("0::/\n", {"cpu.max": "9900000 100000"}, 64),
    "a limit of the group above": (
        "0::/pod/container\n",
        {"pod/cpu.max": "300000 100000", "pod/container/cpu.max": "max 100000"},
        3,
    ),
    "version 1, in a container": (
        "4:memory:/docker/1\n3:cpuset:/\n2:cpu,cpuacct:/docker/1\n0::/\n",
        {"cpu/cpu.cfs_quota_us": "400000", "cpu/cpu.cfs_period_us": "100000"},
        4,
    ),
    "version 1, no limit": (
        "2:cpu,cpuacct:/\n",
        {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"},
        64,
    ),
    "another controller's group": ("3:cpuset:/a\n", {"cpuset/a/cpu.max": "100000 100000"}, 64),
}


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Return a function that writes the files of a machine with 64 cores."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    monkeypatch.setattr(limits, "CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(limits, "MEMBERSHIP", tmp_path / "membership")

    def write(membership: str, files: dict[str, str]) -> None:
        (tmp_path / "membership").write_text(membership)
        for name, text in files.items():
            path = tmp_path / "cgroup" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{text}\n")

    return write


@pytest.mark.parametrize("case", CASES)
def test_a_quota_of_the_container_limits_the_cores(case, kernel):
    membership, files, cores = CASES[case]
    kernel(membership, files)
    assert limits.usable_cores() == cores


def test_the_smallest_memory_limit_counts(kernel):
    kernel(
        "0::/pod/container\n", {"pod/memory.max": str(4 * GB), "pod/container/memory.max": "max"}
    )
    assert limits.memory_limit() == 4 * GB
    kernel("4:memory:/docker/1\n", {"memory/memory.limit_in_bytes": str(2 * GB)})
    assert limits.memory_limit() == 2 * GB
    kernel("0::/\n", {})
    assert limits.memory_limit() is None


def test_a_machine_without_control_groups_has_no_limits(kernel):
    assert limits.usable_cores() == 64
    assert limits.memory_limit() is None
