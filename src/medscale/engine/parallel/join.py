"""Join the processes of a run, and leave them in order."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh

from medscale.base.errors import MedscaleError, Stopped
from medscale.base.limits import usable_cores
from medscale.engine.parallel.rendezvous import open_store
from medscale.engine.parallel.world import World
from medscale.engine.plan import RunPlan

# How long rank 0 may read, verify or write while the other ranks wait.
PATIENCE = timedelta(minutes=10)


@contextmanager
def join(plan: RunPlan) -> Iterator[World]:
    """Join the other ranks of a run for the time of the context.

    All ranks meet at a barrier before the process groups are destroyed: without it, some successful
    runs end in SIGABRT. After an error the groups are left alone, as waiting for a rank that failed
    would only take time. Raises MedscaleError when the number of processes or devices does not fit
    the plan.
    """
    rank, size, local_rank, local_size = (
        int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    )
    if size != plan.processes:
        raise MedscaleError(
            f"{plan.run.name} needs {plan.processes} processes, the launcher started {size}"
        )
    device = _device(plan, local_rank)
    threads = pin(local_rank, local_size, one_core=device.type == "cpu")
    timeout = timedelta(seconds=plan.parallel.timeout_s)
    cuda = device.type == "cuda"
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if cuda else "gloo",
        store=open_store(rank, size),
        rank=rank,
        world_size=size,
        timeout=timeout,
        device_id=device if cuda else None,
    )
    mesh = _mesh(plan, device, timeout)
    control = dist.new_group(backend="gloo", timeout=timeout)
    patient = dist.new_group(backend="gloo", timeout=PATIENCE)
    assert isinstance(control, dist.ProcessGroup)
    assert isinstance(patient, dist.ProcessGroup)
    world = World(rank, size, local_rank, device, mesh, control, patient, threads)
    stopped: Stopped | None = None
    try:
        yield world
    except Stopped as error:  # all ranks stop together, so they can leave in order
        stopped = error
    world.meet()
    dist.destroy_process_group()
    if stopped is not None:
        raise stopped


def pin(local_rank: int, local_size: int, *, one_core: bool) -> int:
    """Bind this process to its share of the available cores, disjoint from other ranks' shares.

    A CPU device is one core with one thread, so that ``ddp_2cpu`` has twice the cores of
    ``serial_1cpu``. If there are more ranks than cores, processes are not bound.

    Returns:
        Number of intra-op threads, also set in PyTorch.
    """
    cores = sorted(os.sched_getaffinity(0))
    share = 1 if one_core else max(1, len(cores) // local_size)
    threads = min(share, max(1, usable_cores() // local_size))
    if len(cores) >= local_size * share:
        os.sched_setaffinity(0, cores[local_rank * share : (local_rank + 1) * share])
    torch.set_num_threads(threads)
    return threads


def _mesh(plan: RunPlan, device: torch.device, timeout: timedelta) -> DeviceMesh:
    """Arrange ranks as (replica, stage).

    ``init_device_mesh`` would give its groups timeouts of many minutes.
    """
    ranks = torch.arange(plan.processes).view(plan.replicas, plan.run.stages)
    groups = []
    for lines in (ranks.T, ranks):
        group, _ = dist.new_subgroups_by_enumeration(lines.tolist(), timeout=timeout)
        assert isinstance(group, dist.ProcessGroup)
        groups.append(group)
    return DeviceMesh.from_group(groups, device.type, mesh=ranks, mesh_dim_names=("dp", "pp"))


def _device(plan: RunPlan, local_rank: int) -> torch.device:
    if plan.backend == "cpu":
        return torch.device("cpu")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count <= local_rank:
        raise MedscaleError(
            f"{plan.run.name} needs {plan.procs_per_node} GPUs on this machine, PyTorch can use "
            f"{count}; ask for fewer devices, or check that PyTorch fits the driver (nvidia-smi)"
        )
    device = torch.device("cuda", local_rank)
    torch.cuda.set_device(device)
    # All work of this process is on one stream besides the default one, which cannot be captured
    # as a CUDA graph. Autograd repeats each operation on the stream of its forward pass.
    torch.cuda.set_stream(torch.cuda.Stream(device))
    return device
