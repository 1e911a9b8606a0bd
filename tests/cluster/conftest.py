"""The cluster, the study that runs on it, and the table of what happened that ends the tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import rig as rigs
from rig import ROOT, Rig

LINES: list[tuple[str, str, float]] = []  # what was done, what happened, seconds


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--cluster-folder", help="of a cluster that stays: a second call goes on with what is there"
    )


@pytest.fixture(scope="session")
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    """The pretended cluster, running."""
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        pytest.skip("the pretended cluster needs root on Debian")
    cluster_folder = request.config.getoption("--cluster-folder", None)
    folder = Path(cluster_folder or tempfile.mkdtemp(prefix="mc-", dir="/tmp"))
    rig = rigs.start(folder)
    LINES.extend((phase, "ready", seconds) for phase, seconds in rig.seconds.items())
    LINES.append(("image", rig.image, 0.0))
    yield rig
    if cluster_folder is None:
        rigs.stop(rig)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def local(rig: Rig) -> Path:
    """Workdir of the same study, carried out by Snakemake on this machine without SLURM."""
    workdir = rig.folder / "local"
    configfile = rig.configure(
        workdir, cluster=None, dask={"scheduler": "local", "workers": 2, "slurm": {}}
    )
    start = time.monotonic()
    command = [
        sys.executable,
        "-m",
        "snakemake",
        "--configfile",
        str(configfile),
        "--sdm",
        rig.software,
    ]
    with open(configfile.with_suffix(".log"), "ab") as log:
        process = subprocess.run(
            [*command, "--", "results"], cwd=ROOT, env=rig.environment, stdout=log, stderr=log
        )
    assert process.returncode == 0, rigs.tail(configfile.with_suffix(".log"))
    LINES.append(("the study without SLURM", "complete", time.monotonic() - start))
    return workdir


@pytest.fixture(scope="session")
def study(rig: Rig) -> Path:
    """Workdir of the small study, carried out through SLURM."""
    workdir = rig.folder / "study"
    configfile = rig.configure(workdir)
    start = time.monotonic()
    process = rig.snakemake(configfile, "results")
    try:
        rigs.finish(process, configfile.with_suffix(".log"), 1200)
    finally:
        process.kill()
    LINES.append(("the study through SLURM", "complete", time.monotonic() - start))
    return workdir


@pytest.fixture
def outcome() -> Iterator[list[str]]:
    """Put here what was done and what happened: it is printed with its seconds at the end."""
    lines: list[str] = []
    start = time.monotonic()
    yield lines
    if len(lines) == 2:
        LINES.append((lines[0], lines[1], time.monotonic() - start))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if LINES:
        terminalreporter.section("on the pretended cluster")
        for phase, event, seconds in LINES:
            terminalreporter.write_line(
                f"{phase:34}  {event:76}  {f'{seconds:.0f} s' if seconds else '':>6}"
            )
