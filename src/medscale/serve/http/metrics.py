"""Counters for Prometheus; they hold nothing about callers or images."""

from __future__ import annotations

from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """The counters of one service, in their own registry, so that services share none."""

    def __init__(self) -> None:
        disable_created_metrics()
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        to: dict[str, Any] = {"registry": self.registry}
        self.requests = Counter("medscale_requests", "answered requests", ["path", "status"], **to)
        self.seconds = Histogram(
            "medscale_request_seconds",
            "from a request to its answer",
            ["path"],
            buckets=SECONDS,
            **to,
        )
        self.refused = Counter("medscale_refused", "refused requests and images", ["reason"], **to)
        self.images = Counter("medscale_images", "predicted images", ["model"], **to)
        self.sizes = Histogram(
            "medscale_batch_images", "images in a batch", ["work"], buckets=SIZES, **to
        )
        self.busy = Histogram(
            "medscale_batch_seconds",
            "time of a process for a batch",
            ["work"],
            buckets=SECONDS,
            **to,
        )
        self.lost = Counter(
            "medscale_processes_lost", "processes that died and were replaced", ["work"], **to
        )
        self.alive = Gauge("medscale_processes", "processes that accept work", ["work"], **to)
        self.waiting = Gauge("medscale_waiting", "jobs that wait for a process", ["work"], **to)
        self.accepted = Gauge(
            "medscale_accepted_images", "images accepted and not yet answered", **to
        )

    def text(self) -> tuple[bytes, str]:
        """Return all counters in Prometheus' text format, and its media type."""
        return generate_latest(self.registry), CONTENT_TYPE_LATEST
