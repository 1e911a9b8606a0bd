"""A Dask scheduler that runs already, with certificates, as a user starts one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dask as dask_library
from distributed import LocalCluster, Security

from medscale.data.event_loop import event_loop


@contextmanager
def running_scheduler(workers: int, folder: Path) -> Iterator[str]:
    """Yield the address of a scheduler, whose certificate Dask's settings name."""
    security = Security.temporary()
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    key.write_text(security.tls_client_key)
    certificate.write_text(security.tls_client_cert)
    tls = {
        "distributed.comm.tls.ca-file": str(certificate),
        "distributed.comm.tls.client": {"key": str(key), "cert": str(certificate)},
        "distributed.comm.tls.worker": {"key": str(key), "cert": str(certificate)},
    }
    with (
        dask_library.config.set(tls),
        LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            dashboard_address="127.0.0.1:0",
            host="127.0.0.1",
            security=security,
            loop=event_loop(),
        ) as cluster_,
    ):
        yield cluster_.scheduler_address
