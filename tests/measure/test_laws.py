"""Tests of the scaling laws: known laws are recovered, too few points refused."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.optimize import brentq, minimize_scalar

from medscale.base.errors import MedscaleError
from medscale.measure.scaling.advice import (
    is_undecided,
    recommendation,
    representative,
    speedup_of,
    superlinear,
    verdict,
    worthwhile,
)
from medscale.measure.scaling.laws import Value, capacity, fit, fits, preferred_law, serial_fraction
from medscale.measure.scaling.series import Point, gather, without_one_device
from medscale.measure.scaling.target import costs, frontier, target_of
from medscale.report.reported import read_reported, times

ROOT = Path(__file__).parents[2]
COUNTS = np.repeat([1, 2, 4, 8, 16, 32], 3).astype(float)


def published(study: str) -> dict[str, object]:
    return {
        series.name: series
        for series in gather(times(read_reported(ROOT / "reported.yaml", study)))
    }


@pytest.mark.parametrize(
    ("law", "serial", "crosstalk"),
    [("amdahl", 0.08, 0.0), ("gustafson", 0.15, 0.0), ("usl", 0.03, 0.002), ("usl", 0.3, 0.0004)],
)
def test_a_known_law_is_recovered(law, serial, crosstalk):
    exact = fit(law, COUNTS, 70 * capacity(law, COUNTS, serial, crosstalk))
    assert exact.serial.value == pytest.approx(serial, rel=0.01)
    assert exact.crosstalk.value == pytest.approx(crosstalk, rel=0.01)
    assert exact.single == pytest.approx(70, rel=0.01)
    noise = np.exp(np.random.default_rng(3).normal(0, 0.03, len(COUNTS)))
    noisy = fit(law, COUNTS, 70 * capacity(law, COUNTS, serial, crosstalk) * noise)
    assert noisy.serial.low <= serial <= noisy.serial.high
    assert noisy.crosstalk.low <= crosstalk <= noisy.crosstalk.high
    assert noisy.serial.high - noisy.serial.low < 0.2


def test_the_laws_by_hand():
    n = np.array([1.0, 4.0])
    assert capacity("amdahl", n, 0.1, 0.0).tolist() == pytest.approx([1, 4 / 1.3])
    assert capacity("gustafson", n, 0.15, 0.0).tolist() == pytest.approx([1, 0.15 + 0.85 * 4])
    assert capacity("usl", n, 0.1, 0.02).tolist() == pytest.approx([1, 4 / (1.3 + 0.02 * 12)])
    # Efficiency is one half where 1 + s (n - 1) = 2, and where a + (1 - a) n = n / 2.
    for law, serial, half in (
        ("amdahl", 0.1, 11),
        ("gustafson", 0.8, 8 / 3),
        ("gustafson", 0.4, 0),
    ):
        law_fit = fit(law, COUNTS, capacity(law, COUNTS, serial, 0.0))
        assert law_fit.half.value == pytest.approx(half or math.inf, rel=1e-3)
        assert math.isinf(law_fit.best.value)


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    rng, inside = np.random.default_rng(0), 0
    for _ in range(60):
        observed_capacity = capacity("amdahl", COUNTS, 0.1, 0.0) * np.exp(
            rng.normal(0, 0.05, len(COUNTS))
        )
        law_fit = fit("amdahl", COUNTS, observed_capacity)
        inside += law_fit.serial.low <= 0.1 <= law_fit.serial.high
    assert inside >= 52  # of 60; fewer than 52 has a probability below 0.01 at 95 %


def test_intervals_hold_both_parameters_of_precise_times():
    rng, inside = np.random.default_rng(0), np.zeros(2)
    for _ in range(30):
        noise = np.exp(rng.normal(0, 0.005, len(COUNTS)))
        law_fit = fit("usl", COUNTS, capacity("usl", COUNTS, 0.3, 0.01) * noise)
        values = (law_fit.serial, law_fit.crosstalk)
        inside += [v.low <= x <= v.high for v, x in zip(values, (0.3, 0.01), strict=True)]
    assert (inside >= 25).all()  # of 30; fewer than 25 has a probability below 0.01 at 95 %


@pytest.mark.parametrize("serial", [0.001, 0.05, 0.3])
@pytest.mark.parametrize("noise", [0.0005, 0.005, 0.05])
def test_an_interval_ends_where_the_sum_of_squares_reaches_its_limit(serial, noise):
    # Repeated times of a GPU differ by less than 1 %, and the interval is then narrow. Its ends
    # are computed here by another way: as roots, with the formula of the law written out.
    rng = np.random.default_rng(5)
    logs = np.log(COUNTS / (1 + serial * (COUNTS - 1))) + rng.normal(0, noise, len(COUNTS))

    def squares(s):
        deviations = logs - np.log(COUNTS / (1 + s * (COUNTS - 1)))
        return ((deviations - deviations.mean()) ** 2).sum()

    best = minimize_scalar(squares, bounds=(0, 1), method="bounded", options={"xatol": 1e-10}).x
    freedom = len(COUNTS) - 2
    limit = squares(best) * (1 + stats.t.ppf(0.975, freedom) ** 2 / freedom)
    low = brentq(lambda s: squares(s) - limit, 0, best) if squares(0) > limit else 0
    high = brentq(lambda s: squares(s) - limit, best, 1)
    interval = fit("amdahl", COUNTS, np.exp(logs)).serial
    assert [interval.value, interval.low, interval.high] == pytest.approx(
        [best, low, high], abs=0.01 * (high - low)
    )


@settings(max_examples=8, deadline=None)
@given(st.floats(0.0, 0.9), st.floats(1e-4, 0.05))
def test_the_fastest_number_is_where_the_law_turns(serial, crosstalk):
    law_fit = fit("usl", COUNTS, capacity("usl", COUNTS, serial, crosstalk))
    best = law_fit.best.value
    assert law_fit.best.low <= best <= law_fit.best.high
    at = capacity("usl", np.array([best]), law_fit.serial.value, law_fit.crosstalk.value)[0]
    for device_count in (0.9 * best, 1.1 * best):
        if device_count >= 1:
            assert capacity(
                "usl", np.array([device_count]), law_fit.serial.value, law_fit.crosstalk.value
            )[0] <= at * (1 + 1e-9)
    half = law_fit.half.value
    assert capacity("usl", np.array([half]), law_fit.serial.value, law_fit.crosstalk.value)[
        0
    ] / half == pytest.approx(0.5)


def test_two_points_make_no_law_and_three_no_usl():
    with pytest.raises(MedscaleError, match="at least 3 different numbers of devices, not 2"):
        fit("amdahl", [1, 1, 2, 2], [1, 1.1, 1.9, 2])
    with pytest.raises(MedscaleError, match="at least 4"):
        fit("usl", [1, 2, 4], [1, 2, 3])
    assert fits([1, 2, 2], [1, 2, 2]) == {}
    assert set(fits([1, 2, 4], [1, 2, 3])) == {"amdahl", "gustafson"}
    assert preferred_law({}) is None


@pytest.mark.parametrize(
    "throughput", [[0.0, 1, 2], [-1.0, 1, 2], [math.nan, 1, 2], [math.inf, 1, 2]]
)
def test_impossible_measurements_are_refused(throughput):
    with pytest.raises(MedscaleError, match="above 0"):
        fit("amdahl", [1, 2, 4], throughput)


def test_odd_series_stay_within_bounds():
    n = [1, 2, 4, 8]
    linear, worse, above = (
        fit("usl", n, n),
        fit("usl", n, [8, 4, 2, 1]),
        fit("amdahl", n, [1, 3, 7, 15]),
    )
    assert linear.serial.value == pytest.approx(0, abs=1e-6)
    assert math.isinf(linear.half.value) or linear.half.value > 1000
    assert worse.best.value == pytest.approx(1, abs=0.2)
    assert above.serial.value == 0
    flat = fit("amdahl", n, [5, 5, 5, 5])
    assert flat.serial.value == pytest.approx(1)


def test_the_law_with_fewer_parameters_is_preferred_where_the_other_adds_nothing():
    noise = np.exp(np.random.default_rng(1).normal(0, 0.02, len(COUNTS)))
    assert preferred_law(fits(COUNTS, capacity("amdahl", COUNTS, 0.1, 0.0) * noise)).law == "amdahl"
    assert preferred_law(fits(COUNTS, capacity("usl", COUNTS, 0.02, 0.004) * noise)).law == "usl"


def test_the_criterion_of_hurvich_and_tsai_by_hand():
    noise = np.exp(np.random.default_rng(1).normal(0, 0.02, 6))
    law_fits = fits(COUNTS[::3], capacity("amdahl", COUNTS[::3], 0.1, 0.0) * noise)
    # The parameters are the serial part, the throughput of one device, the variance, and crosstalk.
    for law, k, correction in (("amdahl", 3, 24 / 2), ("gustafson", 3, 24 / 2), ("usl", 4, 40 / 1)):
        likelihood = 6 * math.log(law_fits[law].error ** 2)
        assert law_fits[law].aicc == pytest.approx(likelihood + 2 * k + correction)
    assert math.isinf(fit("amdahl", [1, 2, 4, 4], [1, 1.9, 3.5, 3.4]).aicc)


def test_the_serial_fraction_of_karp_and_flatt():
    assert serial_fraction(4 / (1 + 0.1 * 3), 4) == pytest.approx(0.1)
    assert serial_fraction(4.5, 4) < 0
    assert serial_fraction(0.5, 2) > 1


def test_the_glaucoma_projects_cpu_series_turns_at_its_own_32_workers():
    series = published("glaucoma")["ddp_cpu"]
    laws = series.laws()
    assert laws["amdahl"].serial.value == pytest.approx(0.049, abs=0.002)
    assert laws["usl"].serial.value == pytest.approx(0.0209, abs=0.002)
    assert laws["usl"].crosstalk.value == pytest.approx(0.00096, abs=0.0001)
    assert laws["usl"].best.value == pytest.approx(31.9, abs=1)
    assert laws["usl"].best.low < 32 < laws["usl"].best.high
    assert worthwhile(series.table()) == 16
    sentence = speedup_of(series, "CPU workers")
    assert "12.13 times the speed on 32 CPU workers (efficiency 0.38; by the Univ" in sentence
    assert "the time is shortest at 32 CPU workers" in sentence


def test_a_speedup_above_the_number_of_devices_is_called_that():
    series = published("dermatology")["ddp_amp_gpu"]
    above = superlinear(series.table())
    assert above["devices"].tolist() == [2]
    assert above["speedup"].iloc[0] == pytest.approx(2.271, abs=0.001)
    assert series.law() is not None
    # Three points leave one degree of freedom: no law is cited.
    assert speedup_of(series, "GPUs").endswith("GPUs (efficiency 0.84)")
    assert "leaves the serial part undecided" in recommendation(series, "GPUs")


def test_published_series_and_what_cannot_be_compared():
    assert set(published("glaucoma")) == {"ddp_cpu", "ddp_gpu", "ddp_amp_gpu", "ddp_amp_mp_gpu"}
    assert published("glaucoma")["ddp_gpu"].constant_batch == "per_device"
    assert [p.run for p in published("skin")["ddp_gpu"].points] == ["ddp_1gpu", "ddp_4gpu"]
    without_law = speedup_of(published("skin")["ddp_gpu"], "GPUs")
    assert without_law.endswith(" GPUs (efficiency 0.84)")
    melanoma = published("melanoma")["ddp_gpu"]
    assert melanoma.points[0].seconds == (360, 430)  # a range is two measurements
    points = times(read_reported(ROOT / "reported.yaml", "pneumonia"))
    assert without_one_device(points, gather(points)) == [
        "ddp_2gpu",
        "fsdp_3gpu",
        "ddp_4gpu_yolov8n",
    ]
    assert gather(times({})) == []


def test_whether_the_projects_conclusions_hold():
    conclusions = {
        (study, name): verdict(series)
        for study in ("glaucoma", "skin", "melanoma")
        for name, series in published(study).items()
    }
    assert conclusions["glaucoma", "ddp_cpu"] == "consistent up to 16 of 32 devices"
    assert (
        conclusions["glaucoma", "ddp_gpu"]
        == conclusions["skin", "ddp_gpu"]
        == conclusions["melanoma", "ddp_gpu"]
        == "consistent"
    )
    assert conclusions["glaucoma", "ddp_amp_mp_gpu"] == "consistent up to 2 of 4 devices"
    assert verdict(published("dermatology")["ddp_amp_gpu"], "GPUs") == (
        "not judged, since the published speedup of 2.27 on 2 GPUs exceeds the number of devices"
    )
    assert verdict(published("pneumonia")["ddp_cpu"]) == "consistent up to 2 of 4 devices"
    (slower,) = gather([point("ddp_1gpu", 8.0), point("ddp_2gpu", 9.0)])
    assert verdict(slower) == "not consistent"


def point(run: str, *seconds: float, batch: int | None = 32, work: str = "") -> Point:
    return Point(run, seconds, images=100, global_batch=batch, work=work)


def test_a_series_counts_from_one_device_in_the_same_precision():
    runs = [
        "serial_1gpu",
        "serial_amp_1gpu",
        "ddp_1gpu",
        "ddp_2gpu",
        "ddp_4gpu",
        "ddp_amp_2gpu",
        "fsdp_2gpu",
    ]
    series_by_name = {
        series.name: series
        for series in gather([point(run, 8.0 / (1 + i)) for i, run in enumerate(runs)])
    }
    assert [p.run for p in series_by_name["ddp_gpu"].points] == ["ddp_1gpu", "ddp_2gpu", "ddp_4gpu"]
    assert series_by_name["ddp_amp_gpu"].points[0].run == "serial_amp_1gpu"
    assert series_by_name["fsdp_gpu"].points[0].run == "ddp_1gpu"
    assert gather([point("serial_1gpu", 4.0), point("ddp_amp_2gpu", 2.0)]) == []
    assert gather([point("serial_1gpu", 4.0, work="a"), point("ddp_2gpu", 2.0, work="b")]) == []
    mixed = [point("ddp_2gpu", 2.0, work="b"), point("ddp_4gpu", 1.0, work="a")]
    mixed.append(point("serial_1gpu", 4.0, work="a"))
    for points in (mixed, mixed[::-1]):  # in any order
        (series,) = gather(points)
        assert [p.run for p in series.points] == ["serial_1gpu", "ddp_4gpu"]
        assert without_one_device(points, [series]) == ["ddp_2gpu"]


def test_strong_and_weak_scaling_are_distinguished():
    strong = gather([point("ddp_1gpu", 4.0), point("ddp_2gpu", 2.0), point("ddp_4gpu", 1.0)])[0]
    weak = [
        point("ddp_1gpu", 4.0),
        point("ddp_2gpu", 2.0, batch=64),
        point("ddp_4gpu", 1.0, batch=128),
    ]
    assert strong.constant_batch == "global"
    assert gather(weak)[0].constant_batch == "per_device"
    assert gather([*weak[:2], point("ddp_4gpu", 1.0, batch=64)])[0].constant_batch == "other"
    pipeline = [
        point("serial_amp_1gpu", 4.0),
        point("ddp_amp_mp_2gpu", 3.0),
        point("ddp_amp_mp_4gpu", 2.0, batch=64),
    ]
    assert gather(pipeline)[0].constant_batch == "per_device"


def test_intervals_over_replicates_stand_in_the_table():
    runs = [point("serial_1cpu", 8.0, 8.4), point("ddp_2cpu", 4.5), point("ddp_4cpu", 2.5, 2.6)]
    table = gather(runs)[0].table()
    row = table.iloc[2]
    assert row["speedup_ci_low"] < row["speedup"] < row["speedup_ci_high"]
    assert row["efficiency"] == pytest.approx(row["speedup"] / 4)
    expected = [serial_fraction(8.2 / 4.5, 2), serial_fraction(8.2 / 2.55, 4)]
    assert table["serial_fraction"].tolist() == pytest.approx([math.nan, *expected], nan_ok=True)


@pytest.mark.parametrize(
    ("low", "high", "expected"), [(0.04, 0.6, True), (0.06, 0.6, False), (0.04, 0.4, False)]
)
def test_a_law_is_undecided_if_its_serial_part_may_be_small_and_large(low, high, expected):
    law_fit = fit("amdahl", COUNTS, capacity("amdahl", COUNTS, 0.3, 0.0))
    assert is_undecided(replace(law_fit, serial=Value(0.3, low, high))) == expected


@pytest.mark.parametrize(
    ("times_", "begins"),
    [
        (
            (8.0, 4.4, 2.4),
            "The 4 GPUs of the largest run are worth using: their efficiency is 0.83",
        ),
        (
            (8.0, 4.4, 4.2),
            "Up to 2 GPUs are worth using: their efficiency is 0.91, "
            "that of 4 is 0.48, below one half",
        ),
        (
            (8.0, 9.0, 9.5),
            "Use one device. The efficiency of 2 GPUs is 0.44, below one half with its interval",
        ),
    ],
)
def test_recommendations_follow_from_the_rules(times_, begins):
    series = gather(
        [
            point(f"ddp_{n}gpu", seconds, 1.01 * seconds)
            for n, seconds in zip((1, 2, 4), times_, strict=True)
        ]
    )
    assert recommendation(series[0], "GPUs").startswith(begins)
    assert representative(series) is series[0]


def test_a_law_says_where_efficiency_falls_to_one_half():
    # Amdahl's law with a serial part of 0.1: 1 + 0.1 (n - 1) = 2 for n = 11.
    seconds = {n: 8 * (1 + 0.1 * (n - 1)) / n for n in (1, 2, 4, 8)}
    (series,) = gather([point(f"ddp_{n}gpu", s, 1.001 * s) for n, s in seconds.items()])
    assert "efficiency falls to one half at 11 GPUs (95 % " in recommendation(series, "GPUs")


def test_devices_are_not_recommended_if_the_speedup_may_be_one():
    wide = gather([point("ddp_1gpu", 8.0, 5.0), point("ddp_2gpu", 6.0, 6.4)])[0]
    advice = recommendation(wide, "GPUs")
    assert advice.startswith(
        "Whether 2 GPUs are worth using is not decided: their efficiency is 0.52, but the speedup "
    )
    assert "which includes 1" in advice
    alone = recommendation(gather([point("ddp_1gpu", 8.0), point("ddp_2gpu", 7.9)])[0], "GPUs")
    assert "the speedup of 1.01 is that of one replicate and has no interval" in alone
    slower = recommendation(gather([point("ddp_1gpu", 8.0), point("ddp_2gpu", 9.0)])[0], "GPUs")
    assert slower.startswith(
        "Whether 2 GPUs are worth using is not decided: their efficiency of 0.44 is that of one "
        "replicate and has no interval"
    )
    spread = gather([point("ddp_1gpu", 8.0, 5.0), point("ddp_2gpu", 7.4, 7.8)])[0]
    assert "has a 95 % interval of 0." in recommendation(spread, "GPUs")
    assert recommendation(spread, "GPUs").endswith("which includes one half.")


def test_time_and_money_until_the_target():
    def history(*accuracy: float, processes: int = 1, fewer: int = 0) -> pd.DataFrame:
        """Return a history whose last ``fewer`` epochs ran on half of the processes."""
        times = {"seconds": 10.0, "validation_s": 1.0, "checkpoint_s": 0.5}
        columns = {key: [value] * len(accuracy) for key, value in times.items()}
        counts = [processes] * (len(accuracy) - fewer) + [processes // 2] * fewer
        places = {"processes": counts, "hardware": "a CPU"}
        return pd.DataFrame({"val_accuracy": accuracy, **columns, **places})

    base = [history(0.5, 0.7, 0.8), history(0.6, 0.6, 0.9)]
    target = target_of(base, "val_accuracy", None, 0.9)
    assert target.value == pytest.approx(0.9 * 0.8)
    assert target.seconds(base[0], 1) == pytest.approx(34.5)
    assert math.isnan(target.seconds(history(0.1, 0.2), 1))
    assert math.isnan(target.seconds(base[0], 2))  # the epochs of a run on two devices ran on one
    marks = {"stand_in": False}
    runs = {
        "serial_1cpu": base,
        "ddp_2cpu": [history(0.8, 0.9, processes=2), history(0.2, 0.3, processes=2)],
        "ddp_4cpu": [history(0.9, processes=4)] * 2,
        # the second replicate reaches the target on fewer devices
        "ddp_8cpu": [history(0.9, processes=8), history(0.1, 0.9, processes=8, fewer=1)],
    }
    device_seconds = {"serial_1cpu": 60, "ddp_2cpu": 120, "ddp_4cpu": 240, "ddp_8cpu": 400}
    clock = {"wall_seconds": {"mean": 60.0}, "energy_joules": {"mean": 7.2e6}}
    summaries = [
        {"run": {"name": run}, "marks": marks, "backend": "cpu", "format": "fp32"}
        | {"provenance": {"replicates": []}}
        | {"timing": clock | {"device_seconds": {"mean": seconds}}}
        for run, seconds in device_seconds.items()
    ]
    table = costs(summaries, runs, target, {"cpu": 2.0}).set_index("run")
    replicates_at_target = {"serial_1cpu": 2, "ddp_2cpu": 1, "ddp_4cpu": 2, "ddp_8cpu": 2}
    assert table["reached"].to_dict() == replicates_at_target
    assert table.loc["ddp_2cpu", "seconds"] == pytest.approx(11.5)  # of the one that reaches it
    # One went on with fewer devices, so that the times on its name's devices are not known.
    unknown = ["seconds", "seconds_low", "seconds_high", "money", "whole_seconds"]
    assert table.loc["ddp_8cpu", unknown].isna().all()
    assert table.loc["ddp_4cpu", unknown].notna().all()
    assert table["whole_seconds"].to_list()[:3] == [60, 60, 60]
    for run, seconds in device_seconds.items():  # whatever the devices were
        assert table.loc[run, "whole_device_hours"] == pytest.approx(seconds / 3600)
        assert table.loc[run, "whole_money"] == pytest.approx(2 * seconds / 3600)
    assert table.loc["ddp_4cpu", "device_hours"] == pytest.approx(4 * 11.5 / 3600)
    assert table.loc["ddp_4cpu", "money"] == pytest.approx(2 * 4 * 11.5 / 3600)
    assert table.loc["serial_1cpu", "energy_kwh"] == pytest.approx(2.0)
    assert frontier(table.reset_index()) == [
        "ddp_4cpu",
        "serial_1cpu",
    ]  # the third did not reach it each time
