"""Where the processes of a run meet: a file on one node, one address on the cluster on several."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import psutil

from medscale.base.errors import MedscaleError

if TYPE_CHECKING:
    import torch.distributed as dist

FIRST_PORT, PORTS = 20000, 10000
STORE = "MEDSCALE_STORE"  # environment variable: file of the processes of one node
ADDRESS, PORT = "MASTER_ADDR", "MASTER_PORT"  # environment variables of several nodes
WAIT = timedelta(minutes=10)  # for the other nodes to start


def meeting_point(environment: Mapping[str, str]) -> str | None:
    """Return ``host:port`` for the tasks of a SLURM job step; None outside of one.

    The host is the name of the step's first node. Where that name does not resolve, it is the
    address from which the step was started, which is the job's first node as well. The port follows
    from the job's number, so that jobs on the same node use different ports.
    """
    nodes, job = environment.get("SLURM_STEP_NODELIST"), environment.get("SLURM_JOB_ID", "")
    if nodes is None or not job.isdecimal():
        return None
    host = first_host(nodes)
    with suppress(KeyError):
        host = host if _resolves(host) else environment["SLURM_LAUNCH_NODE_IPADDR"]
    return f"{host}:{FIRST_PORT + int(job) % PORTS}"


def node_number(environment: Mapping[str, str]) -> int | None:
    """Return the number of this task of a SLURM job step, of one task a node; None outside."""
    number = environment.get("SLURM_PROCID", "")
    return int(number) if "SLURM_STEP_NODELIST" in environment and number.isdecimal() else None


def place(rendezvous: str) -> dict[str, str]:
    """Return the environment variables of ``host:port``.

    Raises MedscaleError if it is none.
    """
    host, _, port = rendezvous.rpartition(":")
    if not host or not port.isdecimal():
        raise MedscaleError(f"--rendezvous {rendezvous}: write HOST:PORT")
    return {ADDRESS: host.strip("[]"), PORT: port}


def open_store(rank: int, size: int) -> dist.Store:
    """Return the store through which the ranks find each other, and bind them to an interface.

    On one node it is a file in the launcher's private folder, and all connections use the loopback
    interface. On several nodes rank 0 listens on the address of the rendezvous alone, and
    connections use the interface that leads there. Ranks write addresses into the store, no pickled
    objects. Raises MedscaleError when rank 0 cannot listen on the address.
    """
    import torch.distributed as dist  # takes seconds, and the launcher needs none of it

    if STORE in os.environ:
        _use_interface("lo")
        return dist.FileStore(os.environ[STORE], size)
    host, port = os.environ[ADDRESS], int(os.environ[PORT])
    if rank != 0:
        store = dist.TCPStore(host, port, size, False, WAIT)
        _use_interface(_interface(_local_address(host, port)))
        return store
    listener = _listen(host, port)
    _use_interface(_interface(listener.getsockname()[0]))
    return dist.TCPStore(
        host, port, size, True, WAIT, wait_for_workers=False, master_listen_fd=listener.detach()
    )


def _listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens on one address; PyTorch's own would listen on all."""
    try:
        family, address = _own_address(host, port)
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(1024)
    except OSError as error:
        raise MedscaleError(
            f"this node cannot listen on {host}:{port} ({error.strerror or error}); name an "
            "address of its cluster network, and a free port, by --rendezvous"
        ) from None
    return listener


def _own_address(host: str, port: int) -> tuple[int, Any]:
    """Return address family and socket address at which other nodes reach this node.

    ``host``: the name of this node, or an address of it.

    Many machines give their own name an address of the loopback interface, such as Debian's
    127.0.1.1. It is used only where the loopback interface is asked for. Otherwise it is replaced
    by the address from which SLURM's step was started. Raises OSError if there is none.
    """
    for name in filter(None, (host, os.environ.get("SLURM_LAUNCH_NODE_IPADDR"))):
        for family, *_, address in socket.getaddrinfo(name, port, type=socket.SOCK_STREAM):
            number = str(address[0])
            if host in ("localhost", number) or not ip_address(number.split("%")[0]).is_loopback:
                return family, address
    raise OSError("other nodes do not reach the address that this node gives this name")


def _local_address(host: str, port: int) -> str:
    """Return the address of this machine from which ``host`` is reached; sends nothing."""
    family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect(address)
        return str(probe.getsockname()[0])


def _interface(address: str) -> str | None:
    """Return the name of the interface that has an address, as gloo and NCCL expect it."""
    for name, addresses in psutil.net_if_addrs().items():
        if any(entry.address.split("%")[0] == address for entry in addresses):
            return name
    return "lo" if address.startswith("127.") else None


def _use_interface(name: str | None) -> None:
    """Bind gloo and NCCL to an interface, unless the user has named one."""
    if name is not None:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", name)
        os.environ.setdefault("NCCL_SOCKET_IFNAME", name)


def first_host(nodes: str) -> str:
    """Return the first name of a SLURM node list: ``a[07-09,12]-x,b3`` gives ``a07-x``."""
    first = re.split(r",(?![^\[]*\])", nodes)[0]
    return re.sub(r"\[(\w+)[^\]]*\]", r"\1", first)


def _resolves(host: str) -> bool:
    try:
        socket.getaddrinfo(host, None)
    except OSError:
        return False
    return True
