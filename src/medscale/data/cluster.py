"""A Dask client from the configuration: a local cluster, SLURM jobs, or a scheduler that runs already."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from itertools import accumulate, chain, islice
from pathlib import Path
from typing import Any

import dask
from distributed import Client, KilledWorker, LocalCluster, WorkerPlugin, as_completed
from distributed.client import CancelledError
from distributed.comm import CommClosedError

from medscale.base.errors import MedscaleError
from medscale.base.log import log, track
from medscale.resources.machines import Dask

CONNECT_S = 10
WORKER_S = 60
SCHEDULER = "MEDSCALE_DASK"  # address of the scheduler whose workers are SLURM jobs, where another process started them
AHEAD = 512  # tasks that are with the scheduler at a time: more than any cluster has workers
LARGEST = 8  # calls a task, where each takes some milliseconds or more


class OneThread(WorkerPlugin):
    """Warms a worker up: its imports are done and OpenCV and BLAS use one thread, as the tasks fill the cores."""

    name = "medscale-one-thread"

    def setup(self, worker: Any) -> None:
        """Called by each worker when it starts or when the plugin arrives."""
        import cv2
        from threadpoolctl import threadpool_limits

        import medscale.data.audit
        import medscale.data.build  # noqa: F401

        cv2.setNumThreads(1)
        cv2.utils.logging.setLogLevel(
            cv2.utils.logging.LOG_LEVEL_SILENT
        )  # what is wrong with an image is told in the audit
        self.limits = threadpool_limits(1)


@contextmanager
def client(
    settings: Dask, tasks: int | None = None, folder: Path | None = None
) -> Iterator[Client]:
    """A Dask client with warmed workers; what was started for it is gone afterwards.

    Args:
        settings: the ``dask`` section of the configuration.
        tasks: how many tasks there are at most: no more local workers than that are started.
        folder: a folder that every worker must see, such as the raw images.

    Raises:
        MedscaleError: when the scheduler cannot be reached or has no workers, or they lack the package, have other
            versions of it, or do not see the folder.
    """
    with (
        dask.config.set(_QUIET),
        _started(settings, tasks) as address,
        _connected(address) as connection,
    ):
        if settings.scheduler != "local":
            _await_worker(connection, settings)
        _warm_up(connection)
        if settings.scheduler != "local":
            _check_versions(connection)
        if folder is not None:
            _check_folder(connection, folder)
        yield connection


def run_all(
    connection: Client,
    function: Callable[..., Any],
    arguments: Sequence[tuple[Any, ...]],
    what: str,
    coming: int | None = None,
    largest: int = LARGEST,
) -> Iterator[Any]:
    """Call ``function`` on the workers once for each tuple of arguments; yield results as they come, with progress.

    A MedscaleError belongs into the result (the function returns it), from where it is raised here: raised in a worker
    it would be logged there as a crash.

    Args:
        connection: to a scheduler with workers.
        function: what a worker calls.
        arguments: of each call.
        what: name of the progress; empty for none.
        coming: how many workers there will be, where they do not all start at once.
        largest: most calls a task; what a lost worker's task had done is done again.
    """
    workers = max(len(connection.scheduler_info(n_workers=-1)["workers"]), coming or 0)
    try:
        with closing(
            _results(connection, function, arguments, _sizes(len(arguments), workers, largest))
        ) as results:
            for result in track(results, what, len(arguments)):
                if isinstance(result, MedscaleError):
                    raise result
                yield result
    except (KilledWorker, CancelledError, CommClosedError) as error:
        raise MedscaleError(
            f"{what}: a Dask worker or the scheduler died ({type(error).__name__}), often for lack of memory; "
            "start again with fewer workers (dask.workers), finished chunks are kept"
        ) from None


def _results(
    connection: Client,
    function: Callable[..., Any],
    arguments: Sequence[tuple[Any, ...]],
    sizes: list[int],
) -> Generator[Any]:
    """Results as they come. No more than AHEAD tasks are with the scheduler at a time, so that memory does not grow."""
    ends = list(accumulate(sizes))
    batches = [arguments[end - size : end] for size, end in zip(sizes, ends, strict=True)]
    parts = (
        connection.map(
            partial(_call_each, function), batches[start : start + AHEAD // 2], pure=False
        )
        for start in range(0, len(batches), AHEAD // 2)
    )
    done = as_completed(chain(*islice(parts, 2)), loop=connection.loop, with_results=True)
    try:
        for future, results in done:
            del future
            if done.count() <= AHEAD // 2:
                done.update(next(parts, []))
            yield from results
    finally:
        if done.futures:
            connection.cancel(list(done.futures))


def _sizes(calls: int, workers: int, largest: int) -> list[int]:
    """Calls a task: a task costs the scheduler 5 ms however short it is, and the last ones are to end together.

    Guided self-scheduling (Polychronopoulos and Kuck 1987): each task takes a share of what is left, so that sizes fall
    to one, from ``largest`` at most.
    """
    sizes: list[int] = []
    while calls > 0:
        sizes.append(min(largest, -(-calls // (4 * workers))))
        calls -= sizes[-1]
    return sizes


def _call_each(function: Callable[..., Any], calls: Sequence[tuple[Any, ...]]) -> list[Any]:
    """Results of the calls, on a worker; an error is the last one."""
    results: list[Any] = []
    for one in calls:
        results.append(function(*one))
        if isinstance(results[-1], MedscaleError):
            break
    return results


_QUIET = {
    # What watches workers (a profile each 10 ms, a tick each 20 ms) took a tenth of their time: bench/workers.py.
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "5s",
    "distributed.scheduler.active-memory-manager.start": False,
    "distributed.worker.memory.terminate": False,
    # Dask has its workers give freed memory back at once: an image's pages are then zeroed anew, a quarter of the time.
    "distributed.nanny.pre-spawn-environ": {
        "MALLOC_TRIM_THRESHOLD_": str(2**28),
        "MALLOC_MMAP_THRESHOLD_": str(2**25),
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    },
    "distributed.comm.timeouts.connect": f"{CONNECT_S}s",
    "distributed.admin.log-format": "%(name)s: %(message)s",
}


@contextmanager
def _started(settings: Dask, tasks: int | None) -> Iterator[str | Any]:
    """A running cluster (local, SLURM) or the address of one."""
    if settings.scheduler == "local":
        cores = len(os.sched_getaffinity(0))
        workers = min(settings.workers or cores, tasks or cores)
        with LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            memory_limit=0,
            silence_logs=logging.CRITICAL,
        ) as cluster:
            yield cluster
    elif settings.scheduler == "slurm" and SCHEDULER in os.environ:
        yield os.environ[SCHEDULER]
    elif settings.scheduler == "slurm":
        with workers_by_slurm(settings) as address:
            yield address
    else:
        yield settings.scheduler


@contextmanager
def workers_by_slurm(settings: Dask, python: str | None = None) -> Iterator[str]:
    """Address of a scheduler in this process, whose workers are SLURM jobs; they end with it.

    Args:
        settings: the ``dask`` section; ``slurm`` has the arguments of dask-jobqueue's SLURMCluster.
        python: what starts Python where the workers run, such as ``apptainer exec IMAGE python``; None: this Python.

    Raises:
        MedscaleError: when the settings are not accepted, or there is no sbatch.
    """
    from dask_jobqueue import SLURMCluster

    if settings.workers is None:
        raise MedscaleError(
            "dask.scheduler is slurm: say with dask.workers how many workers to ask for"
        )
    with dask.config.set(_QUIET):
        # Jobs inherit the environment, and Dask reads its configuration from it.
        os.environ["DASK_INTERNAL_INHERIT_CONFIG"] = dask.config.serialize(
            dask.config.global_config
        )
        try:
            cluster = SLURMCluster(**{"python": python, **settings.slurm})
            cluster.scale(settings.workers)
        except (ValueError, TypeError, OSError, RuntimeError) as error:
            raise MedscaleError(
                f"dask.slurm is not accepted by dask-jobqueue's SLURMCluster: {error}"
            ) from None
        with cluster:
            yield cluster.scheduler_address


@contextmanager
def _connected(address: str | Any) -> Iterator[Client]:
    try:
        connection = Client(address, timeout=CONNECT_S, set_as_default=False)
    except (OSError, ValueError) as error:
        raise MedscaleError(
            f"no Dask scheduler answers at {address} ({type(error).__name__}); "
            "start one (`dask scheduler`) and its workers, or set dask.scheduler to local"
        ) from None
    with connection:
        yield connection


def _await_worker(connection: Client, settings: Dask) -> None:
    log.info("waiting for a Dask worker of %s", settings.scheduler)
    slurm = settings.scheduler == "slurm"
    try:
        connection.wait_for_workers(1, timeout=None if slurm else WORKER_S)
    except TimeoutError:
        raise MedscaleError(
            f"the Dask scheduler at {settings.scheduler} has no workers after {WORKER_S} s; "
            f"start some: `dask worker {settings.scheduler}`"
        ) from None


def _warm_up(connection: Client) -> None:
    try:
        connection.register_plugin(OneThread())
    except (
        Exception
    ) as error:  # a worker's error comes back as a plain Exception with the text of the original
        raise MedscaleError(
            f"the Dask workers cannot load medscale ({error}); start them in an environment with this package"
        ) from None


def _check_versions(connection: Client) -> None:
    """Refuse workers whose code or libraries would give other bytes than this process's."""
    from medscale.data.build import versions

    here = versions()
    for worker, there in connection.run(versions).items():
        if different := [name for name in here if here[name] != there.get(name)]:
            what = ", ".join(
                f"{name} {there.get(name)} instead of {here[name]}" for name in different
            )
            raise MedscaleError(
                f"the Dask worker at {worker} has {what}; start it in this environment"
            )


def _check_folder(connection: Client, folder: Path) -> None:
    blind = [
        worker for worker, sees in connection.run(os.path.isdir, str(folder)).items() if not sees
    ]
    if blind:
        raise MedscaleError(
            f"the Dask worker at {blind[0]} does not see the folder {folder}; it must be on a shared disk"
        )
