"""Settings of the service with their limits; the defaults suit one user on one machine."""

from __future__ import annotations

import re
from ipaddress import IPv4Network, IPv6Network, ip_address
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, IPvAnyNetwork, SecretStr, field_validator

from medscale.data.settings import LIMITS

LOCAL = ("localhost", "127.0.0.1", "::1")
NAME = re.compile(r"[\w.-]+", re.ASCII)
MB = 10**6  # bytes in a megabyte, pixels in a megapixel


class Settings(BaseModel):
    """Address, processes and limits of the service."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    results: tuple[Path, ...] = Field(
        min_length=1, description="result folders, or folders that contain result folders"
    )
    seed: str = Field(
        "best", description="which replicate of a run predicts: best, all (their mean) or a number"
    )
    device: Literal["auto", "cpu", "cuda"] = "auto"
    host: str = "127.0.0.1"
    port: int = Field(8000, ge=0, le=65535)
    # that callers must send; None: every caller that reaches the port may use the service
    key: SecretStr | None = None
    hosts: tuple[str, ...] = Field(
        (), description="further host names that callers may use for this machine"
    )

    proxies: tuple[IPvAnyNetwork, ...] = Field(
        (), description="addresses of trusted proxies, whose X-Forwarded-For names the caller"
    )

    workers: int = Field(
        1, ge=1, le=64, description="processes that predict; each holds all models"
    )
    decoders: int = Field(2, ge=1, le=256, description="processes that decode images")
    threads: int | None = Field(
        None, ge=1, description="threads of a process that predicts; None: its share of the cores"
    )
    batch: int = Field(32, ge=1, le=1024, description="most images in a batch")

    megabytes: float = Field(32, gt=0, le=1000, description="largest request")
    megapixels: float = Field(
        LIMITS.megapixels, gt=0, le=1000, description="largest image, decoded"
    )
    images: int = Field(16, ge=1, le=1000, description="most images in a request")
    queue: int = Field(
        256,
        ge=2,
        le=100_000,
        description="most images accepted and not yet answered; at most half are of one caller",
    )
    pending_megabytes: float = Field(
        512, gt=0, description="most bytes of requests accepted and not yet answered"
    )
    connections: int = Field(
        512, ge=2, le=100_000, description="most open connections; at most half are of one caller"
    )
    rate: float = Field(
        20, ge=0, description="requests a second of one caller, in the long run; 0: no limit"
    )
    burst: int = Field(40, ge=1, description="requests of one caller at once")
    header_seconds: float = Field(
        10, gt=0, description="time in which a request's headers must have arrived"
    )
    send_seconds: float = Field(
        60, gt=0, description="time in which a caller must have received an answer"
    )
    body_seconds: float = Field(30, gt=0, description="time in which a request must have arrived")
    decode_seconds: float = Field(
        LIMITS.seconds, gt=0, description="time in which an image must be decoded"
    )
    request_decode_seconds: float = Field(
        60, gt=0, description="time of processes for decoding all images of a request"
    )
    predict_seconds: float = Field(120, gt=0, description="time in which a batch must be predicted")
    answer_seconds: float = Field(
        300, gt=0, description="time in which an accepted request must be answered"
    )
    stop_seconds: int = Field(
        60, ge=1, description="time for what was accepted when the service is stopped"
    )

    @field_validator("hosts")
    @classmethod
    def _are_names(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        for host in hosts:
            if not NAME.fullmatch(host):
                raise ValueError(f"{host!r} is no host name; write it without scheme and port")
        return tuple(host.lower() for host in hosts)

    @property
    def names(self) -> set[str]:
        """Host names that a request may name; empty if any may be, behind a key.

        A page of another site can give its own name this machine's address (DNS rebinding), which
        only the name in the request tells.
        """
        is_open = not self.on_loopback and not self.hosts
        return set() if is_open else {*LOCAL, self.host.lower(), *self.hosts}

    @property
    def on_loopback(self) -> bool:
        """Whether only this machine can reach the service."""
        try:
            return self.host == "localhost" or ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def trusted(self) -> list[IPv4Network | IPv6Network]:
        """Networks of trusted proxies, also as a socket for both kinds of addresses has them."""
        mapped = [
            IPv6Network((f"::ffff:{network.network_address}", 96 + network.prefixlen))
            for network in self.proxies
            if isinstance(network, IPv4Network)
        ]
        return [*self.proxies, *mapped]

    @property
    def most_bytes(self) -> int:
        """Largest request in bytes."""
        return int(self.megabytes * MB)

    @property
    def max_pixels(self) -> int:
        """Largest image in pixels."""
        return int(self.megapixels * MB)
