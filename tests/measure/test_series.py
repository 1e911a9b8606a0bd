"""Series of runs, published and measured: what is compared, and which devices are recommended."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest

from medscale.measure.scaling.advice import (
    recommendation,
    representative,
    speedup_of,
    superlinear,
    verdict,
    worthwhile,
)
from medscale.measure.scaling.laws import serial_fraction
from medscale.measure.scaling.series import Point, gather, without_one_device
from medscale.measure.scaling.target import costs, frontier, target_of
from medscale.report.reported import read_reported, times

ROOT = Path(__file__).parents[2]


def published(study: str) -> dict[str, object]:
    return {
        series.name: series
        for series in gather(times(read_reported(ROOT / "reported.yaml", study)))
    }


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
