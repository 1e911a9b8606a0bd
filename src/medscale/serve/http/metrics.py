"""What Prometheus is told; nothing of callers or images."""

from __future__ import annotations

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
    """The service's counters, in a registry of its own."""

    def __init__(self) -> None:
        disable_created_metrics()
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.requests = Counter(
            "medscale_requests", "answered requests", ["path", "status"], registry=registry
        )
        self.seconds = Histogram(
            "medscale_request_seconds",
            "from a request to its answer",
            ["path"],
            buckets=SECONDS,
            registry=registry,
        )
        self.refused = Counter(
            "medscale_refused", "refused requests and images", ["reason"], registry=registry
        )
        self.images = Counter("medscale_images", "predicted images", ["model"], registry=registry)
        self.sizes = Histogram(
            "medscale_batch_images", "images a batch", ["work"], buckets=SIZES, registry=registry
        )
        self.busy = Histogram(
            "medscale_batch_seconds",
            "a process's time for a batch",
            ["work"],
            buckets=SECONDS,
            registry=registry,
        )
        self.lost = Counter(
            "medscale_processes_lost", "processes that died, replaced", ["work"], registry=registry
        )
        self.alive = Gauge(
            "medscale_processes", "processes that take work", ["work"], registry=registry
        )
        self.waiting = Gauge(
            "medscale_waiting",
            "pieces of work that wait for a process",
            ["work"],
            registry=registry,
        )
        self.accepted = Gauge(
            "medscale_accepted_images", "accepted and not yet answered", registry=registry
        )

    def text(self) -> tuple[bytes, str]:
        """All of them in Prometheus' text format, and its media type."""
        return generate_latest(self.registry), CONTENT_TYPE_LATEST
