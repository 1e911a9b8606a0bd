"""Tests of speedup: only runs with equal work are compared, with a named baseline."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from medscale.base.errors import MedscaleError
from medscale.engine.run import RunSpec
from medscale.measure.scaling.speedup import ratio, speedups


def summary(
    run: str, seconds: list[float], *, stand_in: bool | None = None, **changes: Any
) -> dict[str, Any]:
    spec = RunSpec.parse(run)
    stand_in = spec.device == "gpu" if stand_in is None else stand_in
    clock = {
        "seconds_per_epoch": {"values": seconds},
        "images_per_second": {"mean": 100 / seconds[0]},
    }
    clock |= {"threads_per_rank": 1, "global_batch": 32, "train_images": 100}
    clock |= {"hardware": ["a CPU"]}
    clock |= {key: changes.pop(key) for key in list(changes) if key in clock}
    return {
        "study": "glaucoma",
        "run": {"name": run},
        "marks": {"synthetic": True, "stand_in": stand_in, "scale": "demo"},
        "backend": "cuda" if spec.device == "gpu" and not stand_in else "cpu",
        "format": "bf16" if spec.amp else "fp32",
        "model": {"name": "medical_cnn"},
        "recipe": {"batch_is": "global"},
        "environment": {"cpu": "a CPU", "gpus": []},
        "timing": clock,
        **changes,
    }


def table(*summaries: dict[str, Any]) -> pd.DataFrame:
    return speedups(summaries).set_index("run")


def test_speedup_and_efficiency_against_the_serial_run_of_the_kind():
    speedups = table(
        summary("serial_1cpu", [8.0, 8.4]),
        summary("ddp_4cpu", [2.5, 2.625]),
        summary("serial_1gpu", [1.0]),
        summary("ddp_2gpu", [0.8]),
        summary("ddp_mp_4gpu", [0.5]),
    )
    assert speedups["strategy"].tolist() == ["serial", "ddp", "serial", "ddp", "ddp_mp"]
    assert speedups.loc["ddp_4cpu", "speedup"] == pytest.approx(8.2 / 2.5625)
    assert speedups.loc["ddp_4cpu", "efficiency"] == pytest.approx(8.2 / 2.5625 / 4)
    assert speedups.loc["ddp_4cpu", "speedup_low"] == pytest.approx(8.0 / 2.625)
    assert speedups.loc["ddp_4cpu", "speedup_high"] == pytest.approx(8.4 / 2.5)
    assert speedups.loc["ddp_4cpu", "baseline"] == "serial_1cpu"
    assert speedups.loc["ddp_2gpu", "speedup"] == pytest.approx(1.25)
    assert math.isnan(speedups.loc["ddp_2gpu", "speedup_ci_low"])
    assert speedups.loc["serial_1cpu", ["speedup", "speedup_low", "speedup_high"]].tolist() == [
        1,
        1,
        1,
    ]


def test_a_missing_baseline_is_reported_not_replaced():
    speedups = table(summary("ddp_2cpu", [2.0]), summary("serial_1gpu", [1.0]))
    assert math.isnan(speedups.loc["ddp_2cpu", "speedup"])
    note = (
        "no speedup is given, since the study has no serial run on one CPU without mixed precision"
    )
    assert speedups.loc["ddp_2cpu", "note"] == note
    assert speedups.loc["ddp_2cpu", "baseline"] == ""


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"stand_in": False}, "another kind of device"),
        ({"train_images": 99}, "trained on 100 images, not 99"),
        ({"model": {"name": "densenet121"}}, "another network"),
    ],
)
def test_runs_of_other_work_or_devices_are_not_compared(changes, reason):
    speedups = table(summary("serial_1gpu", [2.0]), summary("ddp_2gpu", [1.0], **changes))
    assert math.isnan(speedups.loc["ddp_2gpu", "speedup"])
    assert reason in speedups.loc["ddp_2gpu", "note"]


def test_what_differs_but_can_be_compared_is_noted():
    speedups = table(
        summary("serial_1gpu", [2.0]),
        summary("ddp_2gpu", [1.0]),
        summary("ddp_amp_2gpu", [0.5], global_batch=64, threads_per_rank=2),
    )
    note = speedups.loc["ddp_amp_2gpu", "note"]
    assert "the speedup contains the gain of AMP (bf16 over fp32)" in note
    assert "global batch 64 against 32" in note
    assert "2 threads a process against 1" in note
    assert speedups.loc["ddp_amp_2gpu", "amp_gain"] == pytest.approx(2.0)
    assert speedups.loc["ddp_2gpu", "note"] == ""


def test_another_network_has_its_own_baseline():
    other_network = {"name": "densenet121"}
    speedups = table(
        summary("serial_1gpu", [2.0]),
        summary("serial_1gpu_densenet121", [6.0], model=other_network),
        summary("ddp_2gpu_densenet121", [3.0], model=other_network),
    )
    assert speedups.loc["ddp_2gpu_densenet121", "speedup"] == pytest.approx(2.0)


@given(
    st.lists(st.floats(0.5, 5), min_size=2, max_size=4),
    st.lists(st.floats(0.5, 5), min_size=2, max_size=4),
)
def test_the_range_holds_the_ratio(above, below):
    speedups = ratio(above, below)
    assert speedups["_low"] <= speedups[""] * (1 + 1e-9)
    assert speedups[""] <= speedups["_high"] * (1 + 1e-9)
    assert speedups["_ci_low"] <= speedups[""] <= speedups["_ci_high"]


def test_the_interval_is_that_of_the_printed_ratio():
    # By hand: means 1.4 and 1, variances of their logarithms 0.5 / 2 / 1.96 and 0.08 / 2.
    speedups = ratio([0.9, 1.9], [0.8, 1.2])
    of_base, of_run = 0.5 / 2 / 1.4**2, 0.08 / 2
    freedom = (of_base + of_run) ** 2 / (of_base**2 + of_run**2)
    half = stats.t.ppf(0.975, freedom) * math.sqrt(of_base + of_run)
    assert speedups[""] == pytest.approx(1.4)
    assert speedups["_ci_low"] == pytest.approx(1.4 / math.exp(half))
    assert speedups["_ci_high"] == pytest.approx(1.4 * math.exp(half))


@pytest.mark.parametrize("replicates", [2, 3, 5])
@pytest.mark.parametrize("spread", [(0.02, 0.02), (0.01, 0.05), (0.05, 0.3)])
def test_an_interval_of_few_replicates_holds_the_true_ratio(replicates, spread):
    rng, inside = np.random.default_rng(0), 0
    for _ in range(1000):
        base, run = (np.exp(rng.normal(-(s**2) / 2, s, replicates)) for s in spread)  # mean 1
        speedups = ratio(2 * base, run)
        inside += speedups["_ci_low"] <= 2 <= speedups["_ci_high"]
    assert inside > 915  # 95 % would be 950; Welch's interval is approximate


def test_the_best_of_several_equal_ways_is_not_faster():
    rng, claimed = np.random.default_rng(1), {1: 0, 6: 0}
    for _ in range(500):
        base, *ways = np.exp(rng.normal(0, 0.05, (7, 5)))
        for comparisons in claimed:
            lows = [ratio(base, way, comparisons=comparisons)["_ci_low"] for way in ways]
            claimed[comparisons] += max(lows) > 1
    assert claimed[6] < 0.04 * 500  # 2.5 % at each end
    assert claimed[1] > 0.05 * 500  # unadjusted: too often


def test_equal_times_have_an_interval_without_width():
    speedups = ratio([3.0, 3.0], [1.5, 1.5, 1.5])
    assert list(speedups.values()) == [2.0] * 5


def test_summaries_of_two_studies_or_of_a_run_twice_are_refused():
    with pytest.raises(MedscaleError, match="one study"):
        table(summary("serial_1cpu", [1.0]), summary("ddp_2cpu", [1.0], study="skin"))
    with pytest.raises(MedscaleError, match="twice"):
        table(summary("serial_1cpu", [1.0]), summary("serial_1cpu", [1.0]))
