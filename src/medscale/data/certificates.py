"""Key and certificate by which a Dask scheduler, its workers and clients encrypt (TLS)."""

from __future__ import annotations

import os
from pathlib import Path

from distributed import Security

KEY, CERTIFICATE = "key.pem", "certificate.pem"


def write_certificate(folder: Path) -> None:
    """Write a new key and its certificate as files that only this user can read."""
    security = Security.temporary()
    for name, text in ((KEY, security.tls_client_key), (CERTIFICATE, security.tls_client_cert)):
        descriptor = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)


def security_of(folder: str) -> Security:
    """Return the settings of encryption by the key and the certificate in a folder."""
    roles = ("client", "scheduler", "worker")
    key, certificate = str(Path(folder, KEY)), str(Path(folder, CERTIFICATE))
    return Security(
        require_encryption=True,
        tls_ca_file=certificate,
        **{f"tls_{role}_key": key for role in roles},
        **{f"tls_{role}_cert": certificate for role in roles},
    )
