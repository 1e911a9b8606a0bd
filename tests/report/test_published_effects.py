"""Published speedups and changes of accuracy beside ours, in the synthesis."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from medscale.measure.scaling.series import Point, gather
from medscale.report.synthesis.effects import published_changes, published_pairs, split_effects
from medscale.report.synthesis.facts import facts
from medscale.report.synthesis.runs import all_runs
from study_tables import study


def test_published_speedups_are_counted_by_the_interval_of_ours():
    member = study(["serial_1gpu"])
    pairs = pd.DataFrame(
        {
            "title": "Glaucoma",
            "speedup_reported": [1.9, 1.5, 1.0, 1.7, 1.9, 1.5],
            "speedup": [1.4, 1.4, 1.4, 1.1, 1.4, 1.4],
            "speedup_low": [1.2, 1.2, 1.2, np.nan, 1.2, 1.2],
            "speedup_high": [1.6, 1.6, 1.6, np.nan, 1.6, 1.6],
            "stand_in": [False, False, False, False, True, True],
        }
    )
    counted = facts(
        [member], all_runs([member]), split_effects([member], pd.DataFrame(), []), pairs
    )
    assert counted["published"] == {
        "pairs": 4, "inside": 1, "above": 1, "below": 1, "without": 1, "stand_ins": 2,
        "studies": ["glaucoma"],
    }  # fmt: skip


def test_a_published_speedup_is_paired_with_ours_of_the_same_run():
    member = study(["serial_1gpu", "ddp_2gpu"])
    member.tables["reported"] = pd.DataFrame(
        [
            ("ddp_2gpu", "ddp_8gpu", 6.0),  # compared with the nearest run, not with the same
            ("ddp_2gpu", "ddp_2gpu", 1.8),
            ("ddp_2gpu", "ddp_2gpu", 1.7),  # a second figure of the same run
            ("ddp_16gpu", "ddp_16gpu", 9.0),  # not carried out here
        ],
        columns=["run", "meant", "speedup_reported"],
    )

    def pairs(*, stand_in: bool) -> pd.DataFrame:
        times = {1: (8.0, 8.2), 2: (5.0, 5.1), 4: (3.0, 3.1)}
        points = [
            Point(f"{'serial' if n == 1 else 'ddp'}_{n}gpu", t, 1.0, 2, "", stand_in=stand_in)
            for n, t in times.items()
        ]
        unpublished = study(["serial_1gpu"], name="skin")
        measured = {"skin": [], "glaucoma": gather(points)}
        return published_pairs([unpublished, member], all_runs([member]), measured)

    assert published_pairs([member], pd.DataFrame(), {"glaucoma": []}).empty  # nothing measured
    (row,) = pairs(stand_in=True).to_dict("records")
    assert (row["run"], row["speedup_reported"], row["stand_in"]) == ("ddp_2gpu", 1.8, True)
    assert row["speedup"] == pytest.approx(8.1 / 5.05, rel=0.01)
    assert row["speedup_low"] < row["speedup"] < row["speedup_high"]
    assert pairs(stand_in=False)["stand_in"].tolist() == [False]


def test_the_largest_published_change_of_accuracy_is_from_one_device_of_the_same_kind():
    member = study(["serial_1gpu"])
    member.tables["reported"] = pd.DataFrame(
        [
            ("accuracy", "serial_1cpu", 87.0),
            ("accuracy", "ddp_2cpu", 76.0),
            ("accuracy", "ddp_4cpu", 77.0),
            ("accuracy", "ddp_2gpu", 60.0),
            ("accuracy", "ddp_amp_2cpu", 50.0),
            ("accuracy", "", 10.0),
            ("whole training", "ddp_8cpu", 1.0),
        ],
        columns=["quantity", "meant", "reported"],
    )
    assert published_changes([member]) == [
        {"study": "glaucoma", "label": "DDP, 2 CPU", "change": -11.0}
    ]
    assert published_changes([study(["serial_1gpu"])]) == []
