"""One rank's view of a run: its device, its process groups, and exchange of small values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh

T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """This rank and its peers."""

    rank: int  # number of this process among all, from 0
    size: int  # number of processes (world size)
    local_rank: int  # number of this process on its node
    device: torch.device  # where this rank computes
    mesh: DeviceMesh  # ranks as (replica, stage), with dimensions ``dp`` and ``pp``
    # gloo group for small host tensors and objects, apart from the gradients' traffic
    control: dist.ProcessGroup
    # gloo group with a longer timeout, for waiting while rank 0 reads or writes alone
    patient: dist.ProcessGroup
    threads: int  # intra-op threads of this rank

    @property
    def replica(self) -> int:
        """Number of the replica that this rank belongs to; it decides the share of the data."""
        return self.mesh.get_local_rank("dp")

    @property
    def replicas(self) -> int:
        """Number of replicas."""
        return self.mesh.size(0)

    @property
    def replica_group(self) -> dist.ProcessGroup:
        """This rank's stage in all replicas; ``mesh["dp"]`` would make a new mesh at each call."""
        return self.mesh.get_group("dp")

    @property
    def stage(self) -> int:
        """Number of this rank's stage in its replica."""
        return self.mesh.get_local_rank("pp")

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, which makes decisions and writes files."""
        return self.rank == 0

    def meet(self) -> None:
        """Block until every rank has called this method: a barrier."""
        dist.barrier(group=self.patient)

    def from_main(self, value: T) -> T:
        """Return rank 0's value on every rank, so that a decision is made once."""
        values = [value]
        dist.broadcast_object_list(values, src=0, group=self.patient)
        return values[0]

    def gather(self, value: T) -> list[T] | None:
        """Return the values of all ranks in order on rank 0; None on other ranks."""
        values: list[Any] | None = [None] * self.size if self.is_main else None
        dist.gather_object(value, values, dst=0, group=self.patient)
        return values

    def total(self, values: torch.Tensor) -> torch.Tensor:
        """Return the sum of a small tensor over all ranks, on the host; exact for integers."""
        host = values.detach().to("cpu", copy=True)
        dist.all_reduce(host, group=self.control)
        return host
