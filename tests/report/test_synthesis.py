"""The synthesis over all studies: speedups, effects of the split, costs, tables and figures."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import figure_texts
from medscale.base.files import write_json
from medscale.data.patients import KNOWN
from medscale.measure.scaling.series import Point, Series, gather
from medscale.report import style
from medscale.report.names import BLUE
from medscale.report.synthesis.buying import what_to_buy
from medscale.report.synthesis.effects import (
    IMAGES,
    published_pairs,
    split_effects,
)
from medscale.report.synthesis.facts import facts
from medscale.report.synthesis.figures import how_far, look_on_device
from medscale.report.synthesis.losses import lost_time
from medscale.report.synthesis.runs import (
    all_runs,
    read_studies,
)
from medscale.report.synthesis.tables import studies_table, verdicts_table
from medscale.report.units import money_unit, time_unit
from study_tables import ALL, study


def test_the_table_says_why_a_speedup_is_missing_and_which_verdicts_rest_on_one_seed():
    member = study(["serial_1gpu", "ddp_amp_2gpu"])
    member.tables["timing"].loc[1, ["speedup", "speedup_ci_low", "speedup_ci_high"]] = np.nan
    for summary in member.summaries.values():
        summary["seeds"] = [1]
        summary["metrics"]["test"]["accuracy"]["values"] = [0.8]
    runs = all_runs([member])
    text = verdicts_table(runs)
    assert "no serial run on 1 GPU" in text
    networks = study(["serial_1gpu", "serial_1gpu_resnet50"])
    networks.tables["timing"]["baseline"] = ["serial_1gpu", "serial_1gpu_resnet50"]
    of_network = verdicts_table(all_runs([networks]))
    assert re.search(r"resnet50.* & 2 & -- & .*another network", of_network)
    assert "lower (1 seed)" in text
    two = study(["serial_1gpu", "ddp_2gpu"])
    rows = [row.split(" & ") for row in verdicts_table(all_runs([two])).splitlines()]
    (serial,) = (row for row in rows if row[0].strip().startswith("serial"))
    (parallel,) = (row for row in rows if row[0].strip().startswith("DDP"))
    assert serial[2:4] == ["1", "--"]
    assert parallel[2:4] == ["1.80 (1.70--1.90)", "0.90"]
    assert "(1 seed)" not in verdicts_table(all_runs([two]))
    assert "baseline (1 seed)" not in text
    two.tables["timing"].loc[1, ["speedup_ci_low", "speedup_ci_high"]] = np.nan  # one replicate
    assert " & 1.80 & 0.90 & " in verdicts_table(all_runs([two]))
    effects = split_effects([member], pd.DataFrame(), [])
    counted = facts([member], runs, effects, published_pairs([member], runs, {"glaucoma": []}))
    assert [row["label"] for row in counted["not_comparable"]] == ["DDP + AMP, 2 GPU"]
    assert [(v["short"], v["runs"], v["once"]) for v in counted["verdicts"]] == [("lower", 1, 1)]
    assert counted["tested_once"] == 1


def test_a_split_is_larger_than_parallel_training_only_beyond_its_interval():
    effects = pd.DataFrame(
        {
            "title": ["a", "a", "b"],
            "kind": ["split", "parallel", "parallel"],
            "words": "",
            "accuracy": 0.5,
            "accuracy_other": 0.7,
            "change": [24.0, 8.0, -30.0],
            "change_low": [10.0, -2.0, -40.0],
            "change_high": [40.0, 20.0, -20.0],
            "replicates": 1,
            "replicates_other": [1, 2, 2],
            "amp": [False, True, True],
            "mode": "random",
            **dict.fromkeys(IMAGES, np.nan),
        }
    )
    member = study(["serial_1gpu"])
    pairs = published_pairs([member], all_runs([member]), {"glaucoma": []})
    counted = facts([member], all_runs([member]), effects, pairs)
    assert counted["parallel_effect"]["change"] == 8.0  # of the study with the other split
    assert counted["parallel_effect"]["amp"]
    assert counted["leakage"]["once"] == "one seed each"
    assert counted["parallel_effect"]["once"] == "one of the two with one seed"
    assert counted["leakage"]["copies"] is None
    assert not counted["leakage_is_larger"]
    assert counted["effects_overlap"]
    assert counted["other_splits"] == []
    effects.loc[1, "change_high"] = 9.0
    counted = facts([member], all_runs([member]), effects, pairs)
    assert (counted["leakage_is_larger"], counted["effects_overlap"]) == (True, False)
    effects.loc[1, ["change", "change_low", "change_high"]] = [-30.0, -40.0, -20.0]
    counted = facts([member], all_runs([member]), effects, pairs)
    assert (counted["leakage_is_larger"], counted["effects_overlap"]) == (False, False)
    effects.loc[1, ["change", "change_low", "change_high"]] = [-12.0, -30.0, 5.0]
    counted = facts([member], all_runs([member]), effects, pairs)
    assert (counted["leakage_is_larger"], counted["effects_overlap"]) == (False, False)
    effects.loc[0, ["change", "change_low", "change_high"]] = [-24.0, -40.0, -12.0]
    effects.loc[1, ["change", "change_low", "change_high"]] = [-8.0, -11.0, 2.0]
    effects.loc[0, "replicates"] = effects.loc[0, "replicates_other"] = 2
    counted = facts([member], all_runs([member]), effects, pairs)
    assert (counted["leakage_is_larger"], counted["leakage"]["once"]) == (True, "")
    effects["kind"] = ["split", "parallel", "split"]
    counted = facts([member], all_runs([member]), effects, pairs)
    assert counted["leakage"]["title"] == "b"
    assert [row["title"] for row in counted["other_splits"]] == ["a"]


def test_a_study_of_one_run_claims_nothing():
    member = study(["serial_1gpu"])
    runs, effects = all_runs([member]), split_effects([member], pd.DataFrame(), [])
    claims = facts([member], runs, effects, published_pairs([member], runs, {"glaucoma": []}))
    assert (claims["fastest"], claims["loss"], claims["leakage"]) == (None, None, None)
    assert (claims["parallel"], claims["tested"], claims["verdicts"]) == (0, 0, [])
    assert (claims["tested_parallel"], claims["verdicts_parallel"]) == (0, [])
    assert (claims["cores"], claims["processes"]) == (None, 0)


def test_cores_are_given_only_where_all_runs_have_the_same():
    member = study(["serial_1gpu", "ddp_2gpu"])
    member.tables["timing"]["stand_in"] = True
    environment = {"environment": {"cpus_machine": 1}}
    for summary in member.summaries.values():
        summary |= environment
    runs, effects = all_runs([member]), split_effects([member], pd.DataFrame(), [])
    pairs = published_pairs([member], runs, {"glaucoma": []})
    counted = facts([member], runs, effects, pairs)
    assert (counted["cores"], counted["processes"]) == (1, 2)
    member.summaries["ddp_2gpu"]["environment"] = {"cpus_machine": 4}
    assert facts([member], runs, effects, pairs)["cores"] is None


def test_the_facts_count_what_intervals_show():
    member = study(ALL)
    runs, effects = all_runs([member]), split_effects([member], pd.DataFrame(), [])
    synthesis_facts = facts(
        [member], runs, effects, published_pairs([member], runs, {"glaucoma": []})
    )
    assert (synthesis_facts["parallel"], synthesis_facts["faster"], synthesis_facts["slower"]) == (
        2,
        2,
        0,
    )
    assert synthesis_facts["fastest"]["label"] == "DDP + AMP, 2 GPU"
    assert synthesis_facts["fastest_above_one"] == synthesis_facts["fastest"]
    assert synthesis_facts["shares"]["data"] == {"low": 0.1, "high": 0.1, "runs": 5}
    assert synthesis_facts["shares"]["communication"] == {"low": 0.1, "high": 0.1, "runs": 2}
    assert synthesis_facts["tested_once"] == 0
    timing = member.summaries["ddp_2gpu"]["timing"]
    timing["communication_measured"] = False
    timing["seconds_by_kind"]["data"]["mean"] = 11.0  # of 20 seconds
    timing["seconds_by_kind"]["communication"]["mean"] = 1.0
    without = facts([member], runs, effects, published_pairs([member], runs, {"glaucoma": []}))
    assert without["shares"]["data"] == {"low": 0.1, "high": 0.55, "runs": 5}
    assert without["shares"]["communication"] == {"low": 0.1, "high": 0.1, "runs": 1}
    assert synthesis_facts["reaching"] == {"glaucoma": 1}  # of the others, one replicate does not
    assert {v["short"]: (v["runs"], v["once"]) for v in synthesis_facts["verdicts"]} == {
        "different within the margin": (1, 0),
        "lower": (1, 0),
        "not established to differ": (1, 0),
    }
    assert synthesis_facts["tested_parallel"] == 2  # not the serial run of another batch
    assert {v["short"]: v["runs"] for v in synthesis_facts["verdicts_parallel"]} == {
        "different within the margin": 1,
        "lower": 1,
    }


def test_speedups_of_stand_ins_are_not_counted():
    member = study(["serial_1gpu", "ddp_2gpu", "ddp_amp_2gpu", "ddp_2cpu"])
    timing = member.tables["timing"]
    timing["stand_in"] = timing["run"].str.endswith("gpu")

    def counted() -> dict[str, Any]:
        runs, effects = all_runs([member]), split_effects([member], pd.DataFrame(), [])
        pairs = published_pairs([member], runs, {"glaucoma": []})
        return facts([member], runs, effects, pairs)

    some = counted()
    assert (some["parallel"], some["faster"], some["parallel_stand_ins"]) == (1, 1, 2)
    assert some["fastest"]["label"] == "DDP, 2 CPU"  # not DDP + AMP, 2 GPU, a stand-in
    timing["stand_in"] = True
    none = counted()
    assert (none["parallel"], none["parallel_stand_ins"], none["fastest"]) == (0, 3, None)


def test_another_split_is_compared_by_independent_intervals(tmp_path: Path):
    variants = {"random": {"title": "Random", "split": "random"}}
    runs_of_study = ["serial_1gpu", "ddp_2gpu", "ddp_amp_2gpu", "serial_amp_1gpu"]
    member = study(runs_of_study, variants=variants)
    other_study = study(ALL, name="skin")
    path = tmp_path / "glaucoma" / "variants.csv"
    path.parent.mkdir()
    pd.DataFrame(
        {
            "study": ["glaucoma", "random"],
            "run": ["serial_1gpu"] * 2,
            "replicates": [2, 1],
            "accuracy_mean": [0.5, 0.7],
            "accuracy_low": [0.47, 0.66],
            "accuracy_high": [0.53, 0.74],
        }
    ).to_csv(path, index=False)
    indexes = [tmp_path / name / "index.parquet" for name in ("glaucoma", "random")]
    for index, copy in zip(indexes, ("d", "a"), strict=True):
        index.parent.mkdir(exist_ok=True)
        images = {"split": ["train", "train", "test", "test"], "sha256": ["a", "b", "c", copy]}
        pd.DataFrame(images | {"group": ["1", "2", "2", "1"]}).to_parquet(index)
    runs = all_runs([member, other_study])
    effects = split_effects([member], runs, [str(path)], list(map(str, indexes)))
    counts = effects[["train", "train_other", "test_other", "copies", "shared_groups"]]
    assert counts.iloc[0].tolist() == [2, 2, 2, 1, 2]
    assert effects["replicates_other"].tolist() == [1, 2]
    assert effects["amp"].tolist() == [False, True]
    assert effects["kind"].tolist() == ["split", "parallel"]
    assert effects["change"].tolist() == pytest.approx([20.0, -10.0])
    assert effects["accuracy"].tolist() == pytest.approx([0.5, 0.8])
    assert effects["accuracy_other"].tolist() == pytest.approx([0.7, 0.7])
    # half widths of 3 and 4 points are one of 5
    assert effects["change_low"].iloc[0] == pytest.approx(15.0)
    assert effects["change_high"].iloc[0] == pytest.approx(25.0)


def test_studies_keep_the_order_of_the_configuration_and_their_own_audits(tmp_path: Path):
    sections = {}
    for name in ("a", "b"):
        section = {"title": name, "baseline": "x", "margin": 2.0, "split": "grouped"}
        sections[name] = section | {"personal": False, "variants": {}}
        write_json(tmp_path / name / "audit.json", {"used": ord(name)})
    audits = [str(tmp_path / name / "audit.json") for name in ("b", "a")]
    results = []
    for name, run in (("a", "serial_1cpu"), ("b", "ddp_2cpu"), ("b", "serial_1cpu")):
        folder = tmp_path / "results" / name / run
        write_json(folder / "summary.json", {"study": name, "run": {"name": run}})
        results.append(str(folder))
    study_list = read_studies(sections, results, audits, [])
    runs = [list(member.summaries) for member in study_list]
    assert runs == [["ddp_2cpu", "serial_1cpu"], ["serial_1cpu"]]
    assert [(member.name, member.audit["used"]) for member in study_list] == [("b", 98), ("a", 97)]


def test_units_are_those_that_a_person_would_say():
    assert time_unit(90) == (1.0, "seconds")
    assert time_unit(600)[1] == "minutes"
    assert time_unit(30_000)[1] == "hours"
    assert money_unit(3.0, "USD") == money_unit(0.0, "USD") == (1.0, "USD")
    assert money_unit(2e-5, "USD") == (1000.0, "USD for 1,000 trainings")
    assert money_unit(2e-6, "USD") == (1e6, "USD for 1,000,000 trainings")


def test_the_activity_that_exceeds_its_share_of_the_serial_time_by_most_is_counted():
    member = study(["serial_1gpu", "ddp_2gpu", "ddp_amp_2gpu"])
    seconds = member.summaries["ddp_amp_2gpu"]["timing"]["seconds_by_kind"]
    seconds["compute"], seconds["communication"] = {"mean": 4.5}, {"mean": 2.0}  # 9 / 2, and 0 / 2
    lost = lost_time([member], all_runs([member]))
    assert lost["runs"] == 2
    assert {a["words"]: a["runs"] for a in lost["activities"]} == {
        "communication": 1,
        "slower computing": 1,
    }
    seconds["data"] = {"mean": 0.5}
    seconds["compute"], seconds["communication"] = {"mean": 4.7}, {"mean": 0.0}  # 0.2 s more
    lost = lost_time([member], all_runs([member]))
    assert lost["activities"] == [{"words": "slower computing", "runs": 2}]
    seconds["data"] = {"mean": 1.0}  # 0.5 s more than half of 1 s
    more = study(["serial_1gpu", "ddp_2gpu"], name="skin")
    lost = lost_time([member, more], all_runs([member, more]))
    assert [(a["words"], a["runs"]) for a in lost["activities"]] == [
        ("slower computing", 2),
        ("waiting for data", 1),
    ]
    for kind in ("data", "compute", "communication"):
        seconds[kind] = {"mean": 0.1}  # faster than its share
    member.summaries["ddp_2gpu"]["timing"]["communication_measured"] = False
    assert lost_time([member], all_runs([member])) == {"runs": 0, "activities": []}


def test_each_run_has_a_row_of_what_to_buy_filled_where_no_other_is_faster_and_cheaper():
    runs = ["serial_1gpu", "ddp_2gpu", "ddp_amp_2gpu", "serial_amp_1gpu", "ddp_2cpu"]
    member, unknown = study(runs), np.nan
    member.tables["cost"] = pd.DataFrame(
        {
            "run": runs,
            "replicates": 2,
            "reached": [2, 2, 2, 1, 2],
            "seconds": [10.0, 6.0, 7.0, 3.0, unknown],
            "seconds_low": [9.0, 5.0, 6.0, 3.0, unknown],
            "seconds_high": [11.0, 7.0, 8.0, 3.0, unknown],
            "money": [1.0, 1.2, 1.4, 0.3, unknown],
        }
    )
    without, unreached = (study(runs, title=title) for title in ("Without", "Unreached"))
    without.tables["cost"] = pd.DataFrame()  # of detectors alone
    unreached.tables["cost"] = member.tables["cost"].assign(reached=1)
    with style.house():
        figure = what_to_buy([without, member, unreached], "USD")
        assert figure_texts.faults(figure) == []
        nothing = what_to_buy([without, unreached], "USD")
    assert nothing.get_label() == "no run reaches a target"
    time, money = figure.axes
    assert [time.get_xscale(), money.get_xscale()] == ["log", "log"]
    assert time.get_xlim()[0] < 5.0 < 11.0 < time.get_xlim()[1]  # every replicate's time
    assert [text.get_text() for text in time.get_yticklabels()] == [
        "serial, 1 GPU", "DDP, 2 GPU", "DDP + AMP, 2 GPU", "serial + AMP, 1 GPU", "DDP, 2 CPU",
    ]  # fmt: skip
    assert time.get_yticks().tolist() == [-1, -2, -3, -4, -5]
    heading, *_, last = time.texts
    bottom, top = time.get_ylim()
    assert (heading.get_text(), heading.get_position()[1]) == ("Glaucoma", 0)
    assert bottom < -5 == last.get_position()[1] < 0 < top
    absent = [text.get_text() for text in time.texts][-2:]
    assert absent == ["reached by 1 of 2", "partly on fewer devices"]
    marks = [line for line in money.lines if line.get_marker() == "o"]
    assert [(line.get_xdata()[0], line.get_markerfacecolor()) for line in marks] == [
        (1.0, BLUE), (1.2, BLUE), (1.4, "white"),
    ]  # fmt: skip


def test_the_table_of_studies_says_which_networks_have_batch_normalization():
    members = [study(["serial_1gpu"], name=name) for name in ("a", "b")]
    for member, has in zip(members, (True, False), strict=True):
        member.audit["used"] = 10
        member.summaries["serial_1gpu"] |= {
            "classes": ["x", "y"],
            "counts": {"test": {"images": 2, "groups": 2}},
            "recipe": {"batch_is": "global", "batch_size": 32},
            "patients": KNOWN,
            "replicates": [1, 2],
            "batch_norm": has,
        }
    text, rows = studies_table(members)
    assert rows["batch_norm"].tolist() == [True, False]
    assert r"batch\\norm" in text
    assert [" & yes & " in text, " & no & " in text] == [True, True]


def test_series_on_cpus_and_gpus_and_published_points_stay_apart():
    def line(device: str, scale: float) -> Series:
        names = {n: f"{'serial' if n == 1 else 'ddp'}_{n}{device}" for n in (1, 2)}
        points = [Point(run, (scale / n,), 1.0, 8, "a training") for n, run in names.items()]
        (series,) = gather(points)
        return series

    measured = [line("cpu", 4.0), line("gpu", 4.0)]
    with style.house():
        figure = how_far([study(["serial_1gpu"])], {"glaucoma": (measured, [line("gpu", 4.0)])})
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["DDP, CPU", "DDP, GPU", "published", "ideal"]
    cpu, gpu = (look_on_device(f"ddp_2{device}") for device in ("cpu", "gpu"))
    assert (cpu.marker != gpu.marker, cpu.colour != gpu.colour) == (True, True)
    (ring,) = [drawn for drawn in figure.axes[0].lines if drawn.get_zorder() == 5]
    assert ring.get_markerfacecolor() == "none"  # the measured point shows through
