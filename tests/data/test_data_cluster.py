"""Dask clients: each fault of a scheduler or of its workers is one message."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Coroutine, Iterator
from pathlib import Path

import dask as dask_library
import psutil
import pytest
from distributed import Client, Security

from dask_scheduler import running_scheduler
from medscale.base.errors import MedscaleError
from medscale.data import cluster, event_loop
from medscale.data.certificates import security_of
from medscale.data.cluster import client, run_all
from medscale.data.settings import Dask
from medscale.data.versions import versions


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a Dask scheduler that runs already, with one worker process."""
    with running_scheduler(1, tmp_path_factory.mktemp("certificates")) as address:
        yield address


@pytest.fixture
def lonely(tmp_path: Path) -> Iterator[str]:
    """Address of a scheduler without workers."""
    with running_scheduler(0, tmp_path) as address:
        yield address


def connect(settings: Dask, folder: Path | None = None) -> None:
    with client(settings, folder=folder):
        pass


def test_a_running_scheduler_is_used_and_left_running(scheduler: str) -> None:
    for _ in range(2):
        with client(Dask(scheduler=scheduler)) as connection:
            assert sorted(run_all(connection, pow, [(2, 3), (3, 2)], "powers")) == [8, 9]


def test_all_is_done_though_few_tasks_are_with_the_scheduler(
    scheduler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "AHEAD", 3)
    with client(Dask(scheduler=scheduler)) as connection:
        assert sorted(run_all(connection, pow, [(n, 2) for n in range(20)], "squares")) == [
            n**2 for n in range(20)
        ]


def test_a_workers_blindness_is_one_message(scheduler: str, tmp_path: Path) -> None:
    with pytest.raises(MedscaleError, match=r"does not see .*gone; it must be on a shared disk"):
        connect(Dask(scheduler=scheduler), tmp_path / "gone")


def test_other_versions_are_refused(scheduler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    of_worker = {**versions(), "opencv": "3.0"}
    monkeypatch.setattr(cluster.Client, "run", lambda *_: {"tcp://there:1": of_worker})
    with pytest.raises(MedscaleError, match=r"worker at tcp://there:1 has opencv 3\.0 instead of"):
        connect(Dask(scheduler=scheduler))


def test_no_scheduler_is_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "CONNECT_S", 1)
    with pytest.raises(MedscaleError, match="no Dask scheduler answers at tls://127"):
        connect(Dask(scheduler="tls://127.0.0.1:9"))


def test_a_scheduler_without_workers_is_one_message(
    lonely: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "WORKER_S", 0.2)
    with pytest.raises(MedscaleError, match="has no workers after"):
        connect(Dask(scheduler=lonely))


def test_workers_without_the_package_are_one_message(
    lonely: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "WORKER_S", 600)  # however busy the machine is
    (tmp_path / "medscale.py").write_text("raise ImportError('not this one')\n")
    line = [
        sys.executable,
        "-m",
        "distributed.cli.dask_worker",
        lonely,
        "--no-nanny",
        "--no-dashboard",
        *("--tls-ca-file", str(tmp_path / "certificate.pem")),
        *("--tls-cert", str(tmp_path / "certificate.pem")),
        *("--tls-key", str(tmp_path / "key.pem")),
    ]
    worker = subprocess.Popen(
        line,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
        stderr=subprocess.DEVNULL,
    )
    try:
        with pytest.raises(MedscaleError, match="cannot load medscale"):
            connect(Dask(scheduler=lonely))
    finally:
        worker.kill()
        worker.wait()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (Dask(scheduler="slurm"), "set dask.workers"),
        (
            Dask(scheduler="slurm", workers=1, slurm={"cores": 1, "memory": "1GB", "nonsense": 1}),
            "dask.slurm is not",
        ),
        (Dask(scheduler="slurm", workers=1), "dask.slurm is not"),
    ],
)
def test_wrong_slurm_settings_are_one_message(settings: Dask, message: str) -> None:
    with pytest.raises(MedscaleError, match=message):
        connect(settings)


def _die(_: int) -> None:
    os._exit(1)


def test_a_worker_that_dies_is_one_message() -> None:
    with (
        dask_library.config.set({"distributed.scheduler.allowed-failures": 0}),
        pytest.raises(MedscaleError, match="a Dask worker or the scheduler died"),
        client(Dask(workers=1)) as connection,
    ):
        list(run_all(connection, _die, [(0,)], "dying"))


def _fails(_: int) -> MedscaleError:
    return MedscaleError("told by the task")


def test_an_error_of_a_task_is_raised_here(scheduler: str) -> None:
    with (
        client(Dask(scheduler=scheduler)) as connection,
        pytest.raises(MedscaleError, match="told by the task"),
    ):
        list(run_all(connection, _fails, [(1,), (2,)], "failing"))


@pytest.mark.parametrize(("calls", "workers"), [(0, 1), (1, 4), (128, 2), (129, 2), (1000, 64)])
def test_tasks_hold_all_calls_and_shrink_to_one(calls: int, workers: int) -> None:
    sizes = cluster._task_sizes(calls, workers, largest=8)
    assert sum(sizes) == calls
    assert sizes == sorted(sizes, reverse=True)
    assert all(1 <= size <= 8 for size in sizes)
    assert calls < 4 * workers or len(sizes) >= 4 * workers  # all workers have several
    assert sizes[-1:] in ([], [1])


def test_an_event_loop_that_starts_late_is_awaited(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine may take longer than the ten seconds that Dask waits for its own loop."""
    run, wait = asyncio.run, threading.Event.wait

    def late(main: Coroutine[object, object, None]) -> None:
        time.sleep(0.5)
        run(main)

    def impatient(event: threading.Event, timeout: float | None = None) -> bool:
        return wait(event, None if timeout is None else min(timeout, 0.1))

    monkeypatch.setattr(event_loop.asyncio, "run", late)
    monkeypatch.setattr(threading.Event, "wait", impatient)
    loop = event_loop._event_loop.__wrapped__(os.getpid())
    assert loop.asyncio_loop.is_running()  # type: ignore[attr-defined]
    assert event_loop.event_loop() is event_loop.event_loop()


class Attack:
    """A task whose unpickling makes a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = str(folder)

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (self._folder,)


def test_who_has_no_certificate_runs_nothing_on_the_workers(tmp_path: Path) -> None:
    with client(Dask(workers=1)) as connection:
        address = connection.scheduler.address
        assert address.startswith("tls://127.0.0.1:")
        for attempt in (address, address.replace("tls://", "tcp://")):
            security = Security.temporary() if attempt.startswith("tls") else None
            with (
                pytest.raises(OSError, match=r"(?i)timed out|certificate|expects|reset"),
                Client(attempt, security=security, timeout=2, set_as_default=False) as attacker,
            ):
                attacker.submit(str, Attack(tmp_path / "attacked")).result()
        connections = [
            connection.laddr.ip
            for process in psutil.Process().children(recursive=True)
            for connection in process.net_connections()
            if connection.status == psutil.CONN_LISTEN
        ]
        assert set(connections) <= {"127.0.0.1"}
    assert not (tmp_path / "attacked").exists()


@pytest.mark.parametrize("address", ["tcp://host:8786", "ws://host:1", "host:8786", "Slurm"])
def test_an_address_without_encryption_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="nor an address with encryption"):
        Dask(scheduler=address)


def test_jobs_of_slurm_get_the_certificates_in_private_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import dask_jobqueue

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(dask_jobqueue.SLURMCluster, "scale", lambda *_: None)
    settings = Dask(scheduler="slurm", workers=1, slurm={"cores": 1, "memory": "1GB"})
    with cluster.workers_by_slurm(settings):
        assert os.environ[cluster.SCHEDULER].startswith("tls://")
        (folder,) = tmp_path.glob(".dask-tls-*")
        assert str(folder) == os.environ[cluster.CERTIFICATES]
        assert folder.stat().st_mode & 0o077 == 0
        security = security_of(str(folder))
        with Client(os.environ[cluster.SCHEDULER], security=security) as connection:
            assert connection.scheduler_info()["workers"] == {}
    assert not list(tmp_path.glob(".dask-tls-*"))
    assert cluster.SCHEDULER not in os.environ
