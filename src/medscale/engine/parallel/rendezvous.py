"""Where the nodes of a run meet: worked out in each task of a SLURM job step, alike on all of them."""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from contextlib import suppress

FIRST_PORT, PORTS = 20000, 10000


def meeting_point(environment: Mapping[str, str]) -> str | None:
    """``host:port`` for the tasks of a SLURM job step; None outside of one.

    The host is the step's first node, by its name where that resolves, else the address from which the step was started
    (the job's first node, too). The port comes from the job's number, so that jobs that share a node do not meet.
    """
    nodes, job = environment.get("SLURM_STEP_NODELIST"), environment.get("SLURM_JOB_ID", "")
    if nodes is None or not job.isdecimal():
        return None
    host = first_host(nodes)
    with suppress(KeyError):
        host = host if _resolves(host) else environment["SLURM_LAUNCH_NODE_IPADDR"]
    return f"{host}:{FIRST_PORT + int(job) % PORTS}"


def first_host(nodes: str) -> str:
    """First name of a SLURM node list: ``a[07-09,12]-x,b3`` gives ``a07-x``."""
    first = re.split(r",(?![^\[]*\])", nodes)[0]
    return re.sub(r"\[(\w+)[^\]]*\]", r"\1", first)


def _resolves(host: str) -> bool:
    try:
        socket.getaddrinfo(host, None)
    except OSError:
        return False
    return True
