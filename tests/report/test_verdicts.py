"""The verdicts on the accuracy of runs, and the causes of the largest loss."""

from __future__ import annotations

import pandas as pd
import pytest

from medscale.evaluate.paired import APART, OPEN, SAME
from medscale.report.synthesis.causes import largest_loss
from medscale.report.synthesis.effects import (
    published_pairs,
    split_effects,
)
from medscale.report.synthesis.facts import facts
from medscale.report.synthesis.runs import (
    all_runs,
    changed,
    compared,
    same_scores,
)
from medscale.report.synthesis.tables import verdicts_table
from study_tables import ALL, RUNS, study


def test_a_difference_is_established_only_by_interval_and_test_together():
    runs = all_runs([study(ALL)]).set_index("run")
    assert runs["verdict"].to_dict() == {
        "serial_1gpu": "baseline",
        "ddp_2gpu": "differs, within the margin",
        "ddp_amp_2gpu": "lower",
        "serial_1gpu_bs64": "not established",
        "serial_1gpu_resnet50": "another network",
    }
    assert set(compared(runs.reset_index())["run"]) == {
        "ddp_2gpu",
        "ddp_amp_2gpu",
        "serial_1gpu_bs64",
    }


def test_a_difference_within_the_spread_over_seeds_is_not_established():
    member = study(["serial_1gpu", "ddp_amp_2gpu"])
    accuracy = member.summaries["ddp_amp_2gpu"]["metrics"]["test"]["accuracy"]
    accuracy["values"] = [0.81, 0.58]  # one seed loses nothing, one 21 points
    runs = all_runs([member])
    assert runs["verdict"].iloc[1] == "not established"
    loss = largest_loss([member], runs)
    assert loss is not None
    assert (loss["established"], loss["rejected"]) == (False, True)
    member.summaries["ddp_amp_2gpu"]["seeds"] = [1]
    accuracy["values"] = [0.7]  # with one seed the spread is not known
    assert all_runs([member])["verdict"].iloc[1] == "lower"


@pytest.mark.parametrize(
    ("reading", "verdict"), [(SAME, "equal"), (OPEN, "inconclusive"), (APART, "lower")]
)
def test_readings_of_the_test_become_verdicts(reading: str, verdict: str):
    member = study(["serial_1gpu", "ddp_amp_2gpu"])
    member.tables["tests"]["reading"] = reading
    assert all_runs([member])["verdict"].iloc[1] == verdict


def test_the_largest_loss_names_its_factors_and_the_runs_that_tell_them_apart():
    member = study(ALL)
    assert list(changed(member, "ddp_amp_2gpu")) == ["strategy", "precision", "statistics"]
    loss = largest_loss([member], all_runs([member]))
    assert loss is not None
    assert (loss["run"], loss["mean"], loss["established"]) == ("ddp_amp_2gpu", -10.0, True)
    assert [part["run"] for part in loss["parts"]] == ["ddp_2gpu"]
    assert [missing["run"] for missing in loss["lacking"]] == ["serial_amp_1gpu"]
    assert loss["seed_sd"] == pytest.approx(2.0)
    assert loss["others"] == []


def test_further_established_losses_are_named_beside_the_largest():
    member = study(list(RUNS))
    loss = largest_loss([member], all_runs([member]))
    assert loss is not None
    assert (loss["run"], loss["mean"]) == ("serial_amp_1gpu", -12.0)
    assert [(other["run"], other["factors"]) for other in loss["others"]] == [
        ("ddp_amp_2gpu", list(changed(member, "ddp_amp_2gpu").values()))
    ]


def test_a_factor_that_a_run_on_another_device_separates_lacks_no_run():
    member = study(["serial_1gpu", "ddp_2gpu", "ddp_amp_2gpu"])
    loss = largest_loss([member], all_runs([member]))
    assert loss is not None
    lacking = [missing["run"] for missing in loss["lacking"]]
    member = study(["serial_1gpu", "ddp_2cpu", "ddp_amp_2gpu"])
    loss = largest_loss([member], all_runs([member]))
    assert loss is not None
    assert [missing["run"] for missing in loss["lacking"]] == lacking == ["serial_amp_1gpu"]
    member = study(["serial_1gpu", "ddp_amp_2gpu"])
    loss = largest_loss([member], all_runs([member]))
    assert loss is not None
    assert [missing["run"] for missing in loss["lacking"]] == ["serial_amp_1gpu", "ddp_2gpu"]


def test_a_verdict_on_all_runs_says_so():
    def words(*runs: str) -> list[str]:
        member = study(["serial_1gpu", *runs])
        member.tables["tests"]["reading"] = SAME
        tested, effects = all_runs([member]), split_effects([member], pd.DataFrame(), [])
        pairs = published_pairs([member], tested, {"glaucoma": []})
        return [v["everywhere"] for v in facts([member], tested, effects, pairs)["verdicts"]]

    assert words("ddp_2gpu") == [""]
    assert words("ddp_2gpu", "ddp_amp_2gpu") == ["both"]
    assert words("ddp_2gpu", "ddp_amp_2gpu", "serial_amp_1gpu") == ["all"]


def test_a_run_that_changes_one_thing_lacks_no_other():
    member = study(["serial_1gpu", "serial_1gpu_bs64"])
    loss = largest_loss([member], all_runs([member]))
    assert loss is not None
    assert (len(loss["factors"]), loss["parts"], loss["lacking"]) == (2, [], [])
    assert not loss["established"]
    assert loss["factors"][0] == "the global batch (32 to 64 images)"
    member.summaries["serial_1gpu_bs64"]["learning_rate"] = 2e-3
    assert changed(member, "serial_1gpu_bs64")["batch"] == (
        "the global batch (32 to 64 images), and with it the learning rate"
    )


def test_a_gain_is_no_loss_and_one_seed_has_no_spread():
    member = study(["serial_1gpu", "ddp_2gpu"])
    for summary in member.summaries.values():
        summary["metrics"]["test"]["accuracy"]["seed_sd"] = None
    loss = largest_loss([member], all_runs([member]))
    assert loss is not None
    assert loss["seed_sd"] is None
    ends = ["accuracy", "accuracy_low", "accuracy_high"]
    member.tables["tests"].loc[0, ends] = [0.5, 0.1, 0.9]
    assert largest_loss([member], all_runs([member])) is None


def test_only_runs_that_change_further_things_have_the_same_change_with_others():
    member = study(["serial_1gpu", "ddp_2gpu", "ddp_2cpu"])
    loss = largest_loss([member], all_runs([member]))
    assert loss is not None
    assert (loss["run"], loss["wider"], loss["parts"]) == ("ddp_2gpu", [], [])
    member.summaries["ddp_2gpu"]["global_batch"] = 64  # 32 on each device
    member.tables["parity"].loc[1, "images"] = 32
    loss = largest_loss([member], all_runs([member]))
    assert loss is not None
    assert [missing["run"] for missing in loss["lacking"]] == ["serial_1gpu_bs64"]


def test_a_loss_within_the_margin_or_on_another_device_is_said_to_be_one():
    member = study(["serial_1gpu", "ddp_2gpu"])
    loss = largest_loss([member], all_runs([member]))
    assert loss is not None
    assert (loss["within"], loss["established"], loss["margin"]) == (True, False, 2.0)
    assert loss["changes"] == loss["factors"]
    member.tables["timing"].loc[1, "device"] = "cpu"
    loss = largest_loss([member], all_runs([member]))
    assert loss is not None
    assert loss["changes"] == [*loss["factors"], "the kind of device"]
    member.tables["timing"]["stand_in"] = [True, False]  # both computed on CPUs
    loss = largest_loss([member], all_runs([member]))
    assert loss is not None
    assert loss["changes"] == loss["factors"]


def test_a_loss_that_runs_with_the_same_change_do_not_have_points_to_chance():
    member = study(["serial_1gpu", "serial_amp_1gpu", "ddp_amp_2gpu"])
    row = member.tables["tests"]["run"] == "ddp_amp_2gpu"
    member.tables["tests"].loc[row, ["accuracy", "accuracy_low", "accuracy_high"]] = [-1, -4, 2]
    loss = largest_loss([member], all_runs([member]))
    assert loss is not None
    assert (loss["run"], loss["factors"]) == ("serial_amp_1gpu", ["the precision"])
    assert [part["run"] for part in loss["wider"]] == ["ddp_amp_2gpu"]
    assert (loss["points_to_chance"], loss["same_seeds"]) == (True, True)
    member.summaries["serial_amp_1gpu"]["seeds"] = [1, 3]
    member.tables["tests"].loc[row, "accuracy"] = -12  # within -16 to -8
    loss = largest_loss([member], all_runs([member]))
    assert loss is not None
    assert (loss["points_to_chance"], loss["same_seeds"]) == (False, False)


def test_a_stand_in_that_repeats_a_run_on_cpus_is_no_second_comparison():
    member = study(["serial_1gpu", "ddp_2gpu", "ddp_2cpu"])
    member.tables["timing"]["stand_in"] = ["gpu" in r for r in member.tables["timing"]["run"]]
    runs = all_runs([member])
    assert runs["same_as"].tolist() == ["", "ddp_2cpu", ""]
    assert compared(runs)["run"].tolist() == ["ddp_2cpu"]
    rows = verdicts_table(runs).splitlines()
    repeated = next(row for row in rows if "that of DDP, 2 CPU" in row)
    assert "1.0" not in repeated, "the change of accuracy is that of the other run"
    assert "1.0 (" in next(row for row in rows if "DDP, 2 CPU" in row and row != repeated)
    assert same_scores(member, runs) == {}
    alike = runs.assign(same_as="")
    assert same_scores(member, alike) == {"ddp_2cpu": "ddp_2gpu"}
    member.summaries["ddp_2cpu"]["metrics"]["test"]["accuracy"]["values"] = [0.8, 0.8]
    assert all_runs([member])["same_as"].tolist() == ["", "", ""]


def test_a_test_set_that_is_too_small_for_the_margin_is_named():
    members = [study(["serial_1gpu"], name=name, title=name) for name in ("large", "small")]
    members[1].summaries["serial_1gpu"]["counts"] = {"test": {"images": 300, "groups": 182}}
    runs, effects = all_runs(members), split_effects(members, pd.DataFrame(), [])
    counted = facts(
        members, runs, effects, published_pairs(members, runs, {"large": [], "small": []})
    )
    assert (counted["fewest_patients"], counted["too_few_patients"]) == (183, ["small"])
