"""The report of localization: seeds that differ more than the interval shows are named."""

from __future__ import annotations

from typing import Any

from medscale.report.detection.make import spread


def summary(*values: float | None, low: float | None = 0.3) -> dict[str, Any]:
    score = {"values": list(values), "low": low, "high": 0.4}
    return {"run": {"name": "serial_1gpu_yolov8n"}, "metrics": {"test": {"map50": score}}}


def test_seeds_are_named_where_they_range_wider_than_the_interval():
    seeds_range = spread(summary(0.6, 0.02))
    assert seeds_range == {"label": "serial, 1 GPU, yolov8n", "least": 0.02, "most": 0.6}
    assert spread(summary(0.34, 0.36)) is None
    assert spread(summary(0.6)) is None
    assert spread(summary(0.6, 0.02, low=None)) is None
