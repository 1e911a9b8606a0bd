"""The world of a run as one rank sees it: rank, device, cores, process groups, and what all ranks agree on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh

from medscale.base.errors import MedscaleError, Stopped
from medscale.engine.plan import RunPlan
from medscale.resources.cards import too_few

T = TypeVar("T")
PR_SET_PDEATHSIG = 1
ALONE = timedelta(minutes=10)  # what rank 0 may take to read, verify or write while the others wait


@dataclass(frozen=True)
class World:
    """One rank's place.

    Attributes:
        rank: number of this process among all, from 0.
        size: number of processes (world size).
        local_rank: number of this process on its node.
        device: where this rank computes.
        mesh: ranks as (replica, stage), dimensions ``dp`` and ``pp``.
        control: a gloo group for small host tensors and objects, apart from the gradients' traffic.
        patient: the same, for what waits while rank 0 reads or writes alone.
        threads: intra-op threads of this rank.
    """

    rank: int
    size: int
    local_rank: int
    device: torch.device
    mesh: DeviceMesh
    control: dist.ProcessGroup
    patient: dist.ProcessGroup
    threads: int

    @property
    def replica(self) -> int:
        """Which share of the data this rank's copy of the model sees."""
        return self.mesh.get_local_rank("dp")

    @property
    def stage(self) -> int:
        """Which part of the model this rank has."""
        return self.mesh.get_local_rank("pp")

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, which decides and writes."""
        return self.rank == 0

    def from_main(self, value: T) -> T:
        """Rank 0's value, on every rank: a decision is made once."""
        box = [value]
        dist.broadcast_object_list(box, src=0, group=self.patient)
        return box[0]

    def gather(self, value: T) -> list[T] | None:
        """Every rank's value in rank order, on rank 0; None elsewhere."""
        box: list[Any] | None = [None] * self.size if self.is_main else None
        dist.gather_object(value, box, dst=0, group=self.patient)
        return box

    def total(self, values: torch.Tensor) -> torch.Tensor:
        """Sum of a small tensor over all ranks, on the host; exact and independent of order for integers."""
        host = values.detach().to("cpu", copy=True)
        dist.all_reduce(host, group=self.control)
        return host


@contextmanager
def join(plan: RunPlan) -> Iterator[World]:
    """Join the other ranks of a run that torchrun started, and leave them in order.

    A barrier stands before the groups are destroyed: without it some clean runs end in SIGABRT. After an
    error the groups are left as they are: waiting for a peer that failed would only take time.

    Raises:
        MedscaleError: when the plan and the number of processes disagree, or the devices are not there.
    """
    rank, size, local = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    local_size = int(os.environ["LOCAL_WORLD_SIZE"])
    if size != plan.run.devices:
        raise MedscaleError(
            f"{plan.run.name} needs {plan.run.devices} processes, torchrun started {size}"
        )
    device = _device(plan, local)
    threads = pin(local, local_size, one_core=device.type == "cpu")
    if plan.nodes == 1:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    timeout = timedelta(seconds=plan.parallel.timeout_s)
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
        timeout=timeout,
        device_id=device if device.type == "cuda" else None,
    )
    mesh = _mesh(plan, device, timeout)
    control, patient = (
        dist.new_group(backend="gloo", timeout=timeout),
        dist.new_group(backend="gloo", timeout=ALONE),
    )
    assert isinstance(control, dist.ProcessGroup)
    assert isinstance(patient, dist.ProcessGroup)
    stopped: Stopped | None = None
    try:
        yield World(rank, size, local, device, mesh, control, patient, threads)
    except Stopped as error:  # all ranks stop together
        stopped = error
    dist.barrier(group=patient)
    dist.destroy_process_group()
    if stopped is not None:
        raise stopped


def _mesh(plan: RunPlan, device: torch.device, timeout: timedelta) -> DeviceMesh:
    """Ranks as (replica, stage); init_device_mesh would give its groups timeouts of many minutes."""
    ranks = torch.arange(plan.run.devices).view(plan.run.replicas, plan.run.stages)
    groups = []
    for lines in (ranks.T, ranks):
        group, _ = dist.new_subgroups_by_enumeration(lines.tolist(), timeout=timeout)
        assert isinstance(group, dist.ProcessGroup)
        groups.append(group)
    return DeviceMesh.from_group(groups, device.type, mesh=ranks, mesh_dim_names=("dp", "pp"))


def pin(local_rank: int, local_size: int, *, one_core: bool) -> int:
    """Bind this process to its share of the cores it may use, disjoint from those of the other ranks on the node.

    A CPU device is one core with one thread, so that ``ddp_2cpu`` has twice what ``serial_1cpu`` has. With more ranks
    than cores nothing is bound.

    Returns:
        Number of intra-op threads, also set in PyTorch.
    """
    cores = sorted(os.sched_getaffinity(0))
    share = 1 if one_core else max(1, len(cores) // local_size)
    mine = cores[local_rank * share : (local_rank + 1) * share]
    if len(cores) >= local_size * share:
        os.sched_setaffinity(0, mine)
    torch.set_num_threads(share)
    return share


def _device(plan: RunPlan, local_rank: int) -> torch.device:
    if plan.backend == "cpu":
        return torch.device("cpu")
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if found <= local_rank:
        raise too_few(plan.run.name, plan.procs_per_node, found)
    device = torch.device("cuda", local_rank)
    torch.cuda.set_device(device)
    return device
