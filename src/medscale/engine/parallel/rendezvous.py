"""The address where the nodes of a run meet, derived by each task of a SLURM job step alike."""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from contextlib import suppress

FIRST_PORT, PORTS = 20000, 10000


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
