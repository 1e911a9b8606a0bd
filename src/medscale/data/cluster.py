"""Dask clients from the configuration: a local cluster, SLURM jobs, or a running scheduler."""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from itertools import accumulate, chain, islice
from pathlib import Path
from typing import Any

import dask
from distributed import Client, KilledWorker, LocalCluster, Security, WorkerPlugin, as_completed
from distributed.client import CancelledError
from distributed.comm import CommClosedError

from medscale.base.environment import kept_environment
from medscale.base.errors import MedscaleError
from medscale.base.interrupts import blocked
from medscale.base.limits import usable_cores
from medscale.base.log import log, track
from medscale.base.scratch import scratch
from medscale.data import guard
from medscale.data.certificates import security_of, write_certificate
from medscale.data.event_loop import event_loop
from medscale.data.settings import Dask, Limits
from medscale.data.versions import versions

CONNECT_S = 10  # to the scheduler of an address, which may be wrong
ANSWER_S = 30  # from processes that run, as Dask's default: a busy machine answers late
WORKER_S = 60
SCHEDULER = "MEDSCALE_DASK"  # environment variable: address of a scheduler of a running job
CERTIFICATES = "MEDSCALE_DASK_TLS"  # environment variable: folder of its key and certificate
AHEAD = 512  # limit of tasks at the scheduler; above the number of workers of any cluster
LARGEST = 8  # calls of a task, for calls of some milliseconds or more

DASK_SETTINGS = {
    # Dask's monitoring (a profile every 10 ms, a tick every 20 ms) took a tenth of the workers'
    # time (bench/workers.py).
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "5s",
    "distributed.scheduler.active-memory-manager.start": False,
    "distributed.worker.memory.terminate": False,
    "distributed.nanny.pre-spawn-environ": guard.ENVIRONMENT,
    # The HTTP servers, which Dask starts even without its dashboard, have no pages.
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
    "distributed.nanny.http.routes": [],
    "distributed.comm.timeouts.connect": f"{ANSWER_S}s",
    "distributed.admin.log-format": "%(name)s: %(message)s",
}


# Limits of the child processes of workers, and the function that they call (``guard.call``).
Decoding = tuple[Limits, Callable[..., Any]]


class WarmUp(WorkerPlugin):
    """Prepares a worker for its first task: imports modules, and limits BLAS to one thread.

    One thread is enough, since there are as many workers as cores. The plugin contains the
    functions that the worker will call, since unpickling them imports their modules.
    """

    name = "medscale-warm-up"

    def __init__(self, functions: Sequence[Callable[..., Any]], decoding: Decoding | None) -> None:
        self.functions, self.decoding = functions, decoding

    def setup(self, worker: Any) -> None:
        """Set the worker's threads; Dask calls this when the plugin reaches a worker."""
        from threadpoolctl import threadpool_limits

        self.limits = threadpool_limits(1)
        if self.decoding is not None:
            guard.warm_up(*self.decoding)


@contextmanager
def client(
    settings: Dask,
    *functions: Callable[..., Any],
    decoding: Decoding | None = None,
    tasks: int | None = None,
    folder: Path | None = None,
) -> Iterator[Client]:
    """Yield a Dask client with prepared workers, and stop its processes afterwards.

    Args:
        settings: section ``dask`` of the configuration.
        functions: functions that the workers will call; their modules are imported beforehand.
        decoding: limits and function of the workers' child processes.
        tasks: number of tasks, which limits the number of local workers.
        folder: folder that every worker must see, such as that of the raw images.

    Raises:
        MedscaleError: when the scheduler does not answer or has no workers, or when the workers
            lack the package, have other versions, or do not see the folder.
    """
    with (
        dask.config.set(DASK_SETTINGS),
        _start_cluster(settings, tasks) as address,
        _connect(address) as connection,
    ):
        if settings.scheduler != "local":
            _await_worker(connection, settings)
        _warm_up(connection, WarmUp(functions, decoding))
        if settings.scheduler != "local":
            _check_versions(connection)
        if folder is not None:
            _check_folder(connection, folder)
        yield connection


def run_all(
    connection: Client,
    function: Callable[..., Any],
    arguments: Sequence[tuple[Any, ...]],
    title: str,
    workers: int | None = None,
    largest: int = LARGEST,
) -> Iterator[Any]:
    """Call ``function`` on the workers for each tuple of arguments; yield results as they arrive.

    The function returns a MedscaleError instead of raising it, since Dask would log it as a crash.
    This process raises it.

    Args:
        connection: client of a scheduler with workers.
        function: the function to call.
        arguments: arguments of each call.
        title: title of the progress messages; empty for none.
        workers: expected number of workers, if they do not all start at once.
        largest: largest number of calls of a task. If a worker is lost, the calls of its task are
            repeated.

    Raises:
        MedscaleError: when a call returns one, or a worker or the scheduler dies.
    """
    worker_count = len(connection.scheduler_info(n_workers=-1)["workers"])
    sizes = _task_sizes(len(arguments), max(worker_count, workers or 0), largest)
    try:
        with closing(_results(connection, function, arguments, sizes)) as results:
            for result in track(results, title, len(arguments)):
                if isinstance(result, MedscaleError):
                    raise result
                yield result
    except (KilledWorker, CancelledError, CommClosedError) as error:
        raise MedscaleError(
            f"{title}: a Dask worker or the scheduler died ({type(error).__name__}), often for "
            "lack of memory; start again with fewer workers (dask.workers): finished chunks are "
            "kept"
        ) from None


def _results(
    connection: Client,
    function: Callable[..., Any],
    arguments: Sequence[tuple[Any, ...]],
    sizes: list[int],
) -> Generator[Any]:
    """Yield results as they arrive.

    At most ``AHEAD`` tasks are at the scheduler at a time, so that its memory does not grow with
    the number of images.
    """
    ends = accumulate(sizes)
    batches = [arguments[end - size : end] for size, end in zip(sizes, ends, strict=True)]
    call = partial(_call_each, function)
    parts = (
        connection.map(call, batches[start : start + AHEAD // 2], pure=False)
        for start in range(0, len(batches), AHEAD // 2)
    )
    completed = as_completed(chain(*islice(parts, 2)), loop=connection.loop, with_results=True)
    try:
        for future, results in completed:
            del future  # so that the scheduler can forget the task
            if completed.count() <= AHEAD // 2:
                completed.update(next(parts, []))
            yield from results
    finally:
        if completed.futures:
            connection.cancel(list(completed.futures))


def _task_sizes(calls: int, workers: int, largest: int) -> list[int]:
    """Return the number of calls of each task; sizes decrease from at most ``largest`` to one.

    A task costs the scheduler 5 ms, however short it is, so that a task contains several calls. The
    last tasks are small, so that all workers end at about the same time. Each task has a share of
    the remaining calls: guided self-scheduling (Polychronopoulos & Kuck, IEEE Transactions on
    Computers 1987).
    """
    sizes: list[int] = []
    while calls > 0:
        sizes.append(min(largest, -(-calls // (4 * workers))))
        calls -= sizes[-1]
    return sizes


def _call_each(function: Callable[..., Any], calls: Sequence[tuple[Any, ...]]) -> list[Any]:
    """Return the results of the calls of one task, up to the first error; runs on a worker."""
    results: list[Any] = []
    for arguments in calls:
        results.append(function(*arguments))
        if isinstance(results[-1], MedscaleError):
            break
    return results


@contextmanager
def _start_cluster(settings: Dask, tasks: int | None) -> Iterator[str | Any]:
    """Yield a running cluster (local, SLURM) or the address of one."""
    if settings.scheduler == "local":
        with kept_environment(), ExitStack() as stack:
            with blocked():  # a cluster that is interrupted while it starts cannot be closed
                cluster = stack.enter_context(_local_cluster(settings, tasks))
            yield cluster
    elif settings.scheduler == "slurm" and SCHEDULER in os.environ:
        yield os.environ[SCHEDULER]
    elif settings.scheduler == "slurm":
        with workers_by_slurm(settings):
            yield os.environ[SCHEDULER]
    else:
        yield settings.scheduler


def _local_cluster(settings: Dask, tasks: int | None) -> LocalCluster:
    """Start a scheduler in this process, and a worker for each core or task."""
    cores = usable_cores()
    return LocalCluster(
        n_workers=min(settings.workers or cores, tasks or cores),
        threads_per_worker=1,
        processes=True,
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
        worker_dashboard_address="127.0.0.1:0",
        scheduler_kwargs={"dashboard": settings.dashboard},
        security=Security.temporary(),
        memory_limit=0,
        silence_logs=logging.CRITICAL,
        loop=event_loop(),
    )


@contextmanager
def workers_by_slurm(settings: Dask, python: str | None = None) -> Iterator[None]:
    """Run a scheduler in this process whose workers are SLURM jobs, until the context ends.

    Environment variables hold its address and the folder of its certificates, for this process and
    its children. The folder is below the working folder, which the workers' nodes also see. The
    jobs end with the context.

    Args:
        settings: section ``dask``; ``slurm`` has the arguments of dask-jobqueue's SLURMCluster.
        python: command that starts Python on the workers' nodes, such as ``apptainer exec IMAGE
            python``; None: this Python.

    Raises:
        MedscaleError: when the settings are not accepted, or sbatch is missing.
    """
    if settings.workers is None:
        raise MedscaleError(
            "dask.scheduler is slurm, but the number of workers is not set; set dask.workers"
        )
    with dask.config.set(DASK_SETTINGS), scratch(".dask-tls-", Path.cwd()) as folder:
        # Jobs inherit the environment, from which Dask reads its configuration.
        dask_config = dask.config.serialize(dask.config.global_config)
        with kept_environment(DASK_INTERNAL_INHERIT_CONFIG=dask_config):
            write_certificate(folder)
            with _slurm_cluster(settings, folder, python) as cluster:
                os.environ |= {SCHEDULER: cluster.scheduler_address, CERTIFICATES: str(folder)}
                yield


def _slurm_cluster(settings: Dask, folder: Path, python: str | None) -> Any:
    """Start a scheduler and submit its workers; ``folder`` has the certificates."""
    from dask_jobqueue import SLURMCluster

    page = {"dashboard": settings.dashboard, "dashboard_address": ":0"}
    encryption = {
        "security": security_of(str(folder)),
        "loop": event_loop(),
        "scheduler_options": page | dict(settings.slurm.get("scheduler_options", {})),
    }
    try:
        cluster = SLURMCluster(**{"python": python, **settings.slurm, **encryption})
        cluster.scale(settings.workers)
    except (ValueError, TypeError, OSError, RuntimeError) as error:
        raise MedscaleError(
            f"dask.slurm is not accepted by dask-jobqueue's SLURMCluster: {error}"
        ) from None
    return cluster


@contextmanager
def _connect(address: str | Any) -> Iterator[Client]:
    connection, cause = None, ""
    try:  # for the scheduler of a user, Dask reads its own settings (distributed.comm.tls)
        folder = os.environ.get(CERTIFICATES) if isinstance(address, str) else None
        security = None if folder is None else security_of(folder)
        connection = Client(
            address,
            timeout=CONNECT_S if isinstance(address, str) else ANSWER_S,
            set_as_default=False,
            security=security,
            loop=event_loop(),
        )
    except (OSError, ValueError, TypeError) as error:
        cause = type(error).__name__
    if connection is None:
        # A client closes when it is freed. If that happened by chance while another client starts
        # in this thread, it would wait forever for the lock of that start.
        gc.collect()
        raise MedscaleError(
            f"no Dask scheduler answers at {address} ({cause}); start one with certificates and "
            "its workers (docs/cluster.md), or set dask.scheduler to local"
        )
    with connection:
        yield connection


def _await_worker(connection: Client, settings: Dask) -> None:
    """Wait for the first worker; without a time limit for SLURM, whose jobs may wait long."""
    log.info("waiting for a Dask worker of %s", settings.scheduler)
    try:
        connection.wait_for_workers(1, timeout=None if settings.scheduler == "slurm" else WORKER_S)
    except TimeoutError:
        raise MedscaleError(
            f"the Dask scheduler at {settings.scheduler} has no workers after {WORKER_S} s; "
            f"start some: `dask worker {settings.scheduler}`"
        ) from None


def _warm_up(connection: Client, plugin: WarmUp) -> None:
    try:
        connection.register_plugin(plugin)
    except Exception as error:  # a worker's error arrives as an Exception with the original's text
        raise MedscaleError(
            f"the Dask workers cannot load medscale ({error}); start them in an environment with "
            "this package"
        ) from None


def _check_versions(connection: Client) -> None:
    """Check that the workers' code and libraries compute the same bytes as this process."""
    expected = versions()
    for worker, actual in connection.run(versions).items():
        differences = [
            f"{name} {actual.get(name)} instead of {version}"
            for name, version in expected.items()
            if actual.get(name) != version
        ]
        if differences:
            raise MedscaleError(
                f"the Dask worker at {worker} has {', '.join(differences)}; start it in this "
                "environment"
            )


def _check_folder(connection: Client, folder: Path) -> None:
    for worker, is_folder in connection.run(os.path.isdir, str(folder)).items():
        if not is_folder:
            raise MedscaleError(
                f"the Dask worker at {worker} does not see the folder {folder}; it must be on a "
                "shared disk"
            )
