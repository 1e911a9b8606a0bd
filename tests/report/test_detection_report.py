"""The report of localization: seeds that differ more than the interval shows are named."""

from __future__ import annotations

from typing import Any

from medscale.base.provenance import COMMON_KEYS
from medscale.report.detection.make import facts, spread
from medscale.report.result.origin import CONDITIONS


def summary(*values: float | None, low: float | None = 0.3) -> dict[str, Any]:
    score = {"values": list(values), "low": low, "high": 0.4}
    return {"run": {"name": "serial_1gpu_yolov8n"}, "metrics": {"test": {"map50": score}}}


def test_seeds_are_named_where_they_range_wider_than_the_interval():
    seeds_range = spread(summary(0.6, 0.02))
    assert seeds_range == {"label": "serial, 1 GPU, yolov8n", "least": 0.02, "most": 0.6}
    assert spread(summary(0.34, 0.36)) is None
    assert spread(summary(0.6)) is None
    assert spread(summary(0.6, 0.02, low=None)) is None


def test_replicates_that_differ_in_more_than_the_seed_are_named_with_the_difference():
    summaries = [
        summary(0.34, 0.36) | {"seeds": [1, 2], "provenance": {"differ": keys}}
        for keys in (["commit", "code", "inputs"], [])
    ]
    run_facts = facts(summaries)
    assert (run_facts["runs"], run_facts["replicates"]) == (2, 2)
    assert run_facts["drawn_seeds"] == [1]
    assert run_facts["mixed"] == [
        {"label": "serial, 1 GPU, yolov8n", "differences": ["code", "inputs"]}
    ]


def test_every_condition_that_replicates_share_has_a_name():
    assert set(COMMON_KEYS) == set(CONDITIONS)
