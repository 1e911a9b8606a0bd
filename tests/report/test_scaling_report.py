"""The chapter scaling: its facts and tables for given series and costs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from medscale.measure.scaling.series import Point, Series, gather
from medscale.measure.scaling.target import Target
from medscale.report import style
from medscale.report.scaling import figures, tables
from medscale.report.scaling.analysis import Analysis
from medscale.report.scaling.facts import facts

DEVICES = {"cpu": {"title": "core", "price": 0.05}, "cuda": {"title": "A100", "price": 2.0}}
COST = pd.DataFrame(
    {
        "run": ["ddp_2gpu", "serial_1gpu", "serial_amp_1gpu"],
        "replicates": 2,
        "reached": [2, 1, 0],
        "seconds": [90.0, 100.0, np.nan],
        "seconds_low": [80.0, 100.0, np.nan],
        "seconds_high": [99.0, 100.0, np.nan],
        "device_hours": [0.05, 100 / 3600, np.nan],
        "money": [0.1, 200 / 3600, np.nan],
        "whole_seconds": [7300.0, 7200.0, np.nan],
        "energy_kwh": np.nan,
    }
)


def series(times: dict[str, tuple[float, ...]], **fields: Any) -> list[Series]:
    return gather([Point(run, seconds, work="same", **fields) for run, seconds in times.items()])


def facts_of(**changes: Any) -> dict[str, Any]:
    measured = series({"serial_1gpu": (8.0, 8.1), "ddp_2gpu": (4.5, 4.6)}, global_batch=32)
    usual: dict[str, Any] = {"measured": measured, "published": [], "alone": []}
    usual |= {"published_alone": [], "cost": COST, "best": ["ddp_2gpu"]}
    usual |= {"target": Target("val_accuracy", 0.8)}
    backends = [{"backend": name} for name in ("cuda", "cpu", "cuda")]
    return facts(backends, Analysis(**usual | changes), 0.95, "USD", DEVICES)


def test_the_facts_name_series_prices_and_what_did_not_reach_the_target():
    of_study = facts_of(alone=["fsdp_2gpu"])
    (advice,) = of_study["advice"]
    assert (advice["device"], advice["series"], advice["stand_in"]) == ("gpu", "DDP", False)
    assert advice["text"].startswith("The 2 GPUs of the largest run are worth using: their effi")
    assert of_study["alone"] == ["FSDP, 2 GPU"]
    assert (of_study["series"], of_study["best"]) == (True, ["DDP, 2 GPU"])
    assert (of_study["unreached"], of_study["fewer"]) == (True, True)
    assert (of_study["target"], of_study["metric"]) == (0.8, "validation accuracy")
    assert of_study["prices"] == [
        {"device": "gpu", "title": "A100", "price": 2.0},
        {"device": "cpu", "title": "core", "price": 0.05},
    ]
    without = facts_of(measured=[], cost=COST[:2], target=Target("val_accuracy", np.nan))
    assert (without["series"], without["advice"], without["target"]) == (False, [], None)
    assert (without["unreached"], without["fewer"]) == (False, False)
    empty = facts_of(cost=pd.DataFrame(), best=[])  # of detectors alone
    assert (empty["unreached"], empty["fewer"], empty["first_apart"]) == (False, False, False)


def test_a_series_is_named_with_its_devices_and_with_the_other_strategy_that_it_counts_from():
    published = series(
        {
            "ddp_amp_1gpu": (8.0,),
            "ddp_amp_mp_2gpu": (7.0,),
            "ddp_amp_mp_4gpu": (5.0,),
            "serial_1cpu": (60.0,),
            "ddp_2cpu": (31.0,),
        }
    )
    stand_ins = {"serial_1gpu": (8.0, 8.1), "ddp_2gpu": (4.5, 4.6)}
    of_study = facts_of(measured=series(stand_ins, stand_in=True), published=published)
    assert [(row["label"], row["verdict"]) for row in of_study["published"]] == [
        ("DDP + AMP + MP on GPUs, against DDP + AMP, 1 GPU", "consistent up to 2 of 4 devices"),
        ("DDP on CPUs", "consistent"),
    ]
    assert "1.94 times the speed on 2 CPU workers" in of_study["published"][1]["speedup"]
    assert "1.60 times the speed on 4 GPUs" in of_study["published"][0]["speedup"]
    (advice,) = of_study["advice"]
    assert "The 2 CPU processes in place of GPUs of the largest run" in advice["text"]
    on_cpus = facts_of(measured=series({"serial_1cpu": (8.0, 8.1), "ddp_2cpu": (4.5, 4.6)}))
    assert "2 CPU processes of the" in on_cpus["advice"][0]["text"]


def test_costs_have_units_that_suit_the_largest():
    timings = {
        run: {"seconds_per_epoch": {"mean": 5.0}, "images_per_second": {"mean": 200.0}}
        for run in COST["run"]
    }
    text = tables.cost(COST, ["ddp_2gpu"], "USD", timings)
    rows = [line.removesuffix(r" \\").split(" & ") for line in text.splitlines()]
    by_run = {row[0].split(",")[0]: row[1:] for row in rows if len(row) > 3}
    assert "device-minutes" in text  # 180 seconds
    assert r"seconds\\to target" in text
    assert r"whole\\hours" in text
    assert by_run["DDP"] == ["5.00", "200", "2 of 2", "90.0", "3.00", "0.10", "2.03"]
    assert by_run["serial"] == ["5.00", "200", "1 of 2", "100", "1.67", "0.056", "2.00"]
    assert by_run["serial + AMP"] == ["5.00", "200", "0 of 2", "--", "--", "--", "--"]
    assert [tables.CHOSEN in line for line in text.splitlines() if "GPU" in line] == [
        *(True, False, False)
    ]

    small = tables.cost(COST.assign(money=[2e-5, 1e-5, np.nan]), [], "USD", timings)
    assert r"USD\\ for 1,000 trainings" in small
    assert " & 0.020 & 2.03" in small


def test_the_figure_of_speedups_has_a_panel_for_each_source_and_kind_of_device():
    gpus = series({"serial_1gpu": (8.0, 8.1), "ddp_2gpu": (4.0, 4.1)}, stand_in=True)
    cpus = series({"serial_1cpu": (9.0,), "ddp_2cpu": (3.0,)})
    stand_in = " (CPU processes in place of GPUs)"
    with style.house():
        both = figures.speedups([*gpus, *cpus], cpus).axes
        alone = figures.speedups(gpus, []).axes
        published = figures.speedups([], gpus[:1]).axes
        none = figures.speedups([], [])
    titles = [[axes.get_title() for axes in panels] for panels in (both, alone, published)]
    assert titles == [
        ["ours: CPU", f"ours: GPU{stand_in}", "published: CPU"],
        [f"GPU{stand_in}"],
        [f"published: GPU{stand_in}"],
    ]
    assert none.get_label() == "no run on several devices has a counterpart on one"
    points = [axes.containers[0].lines[0].get_ydata()[-1] for axes in (*both, *alone)]
    assert points == pytest.approx([3.0, 16.1 / 8.1, 3.0, 16.1 / 8.1], rel=1e-3)
    assert [label.get_text() for label in alone[0].get_legend().get_texts()] == ["ideal", "DDP"]


def test_the_figure_of_costs_draws_runs_of_which_all_replicates_reach_the_target():
    with style.house():
        time, used, money = figures.cost(COST, ["ddp_2gpu"], "USD").axes
        assert [text.get_text() for text in time.texts] == [
            "reached by 1 of 2",
            "reached by 0 of 2",
        ]
        drawn = [[line.get_xdata()[0] for line in axes.lines][-1:] for axes in (time, used, money)]
        assert drawn == [[90.0], [pytest.approx(3.0)], [0.1]]
        assert [axes.get_xlabel() for axes in (time, used, money)] == [
            *("seconds to the target", "device-minutes", "USD")
        ]
        assert time.get_xlim() == (0, pytest.approx(1.12 * 99))  # the longest drawn time
        none = figures.cost(COST[2:], [], "USD").axes
        assert [axes.get_xlim() for axes in none] == [(0, 1)] * 3
        assert none[2].get_xlabel() == "USD"


def test_the_law_of_each_series_is_listed_and_series_of_one_batch_stand_together():
    times = {"serial_1gpu": (16.0,), "ddp_2gpu": (9.0,), "ddp_4gpu": (5.5,), "ddp_8gpu": (3.75,)}
    times |= {"serial_1cpu": (16.0,), "ddp_2cpu": (9.0,)}
    gpus, cpus = series(times)
    table = tables.laws({"ours": [gpus], "published": [cpus]})
    assert table["law"].tolist() == ["amdahl", "gustafson", "usl", ""]
    assert table["source"].tolist() == ["ours"] * 3 + ["published"]
    assert table["devices"].tolist() == ["1 2 4 8"] * 3 + ["1 2"]
    # Times of 2 + 14/p seconds: an eighth of the work is not shared.
    amdahl = table.iloc[0]
    assert amdahl["serial"] == pytest.approx(0.125, rel=1e-4)
    assert amdahl["preferred"]
    assert table["preferred"].sum() == 1
    kept = series({"serial_1gpu": (8.0,), "ddp_2gpu": (4.5,)}, global_batch=32)
    assert tables.series([gpus, *kept])["held"].tolist() == ["global"] * 2 + [""] * 4
    assert tables.series([]).empty
