"""Calibration, operating points, subgroups, ensembles and galleries against other libraries."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.special import softmax
from sklearn.metrics import (
    average_precision_score,
    brier_score_loss,
    log_loss,
    precision_recall_fscore_support,
)
from typer.testing import CliRunner

from medscale.base.errors import MedscaleError
from medscale.base.files import read_json, write_parquet
from medscale.cli.main import main
from medscale.config.sections import Evaluate
from medscale.data.shards import Shards
from medscale.evaluate import bootstrap, calibration, metrics
from medscale.evaluate.ensembles import METRICS, Member, ensembles
from medscale.evaluate.evaluation import evaluate
from medscale.evaluate.operating import operating_points, threshold, thresholds
from medscale.evaluate.replicates import Predictions, read
from medscale.evaluate.subgroups import parts, subgroups
from medscale.report.chapters import chapters_of
from medscale.report.result.folder import write_result
from medscale.report.result.gallery import read_gallery
from medscale.workflow.graph import Graph
from medscale.workflow.runs import Runs
from synthetic_runs import configuration, make_index, make_run, make_shards, probabilities


def cases(
    classes: int, images: int, skill: float = 1.0, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    labels = np.random.default_rng(seed).integers(0, classes, images)
    odds = probabilities(labels, classes, skill, seed).astype(np.float64)
    return labels, odds / odds.sum(axis=1, keepdims=True)


def predicted(labels: np.ndarray, *odds: np.ndarray) -> Predictions:
    return Predictions(np.arange(len(labels)), labels, np.arange(len(labels)), np.stack(odds))


@pytest.mark.parametrize("classes", [2, 5])
def test_scores_of_probabilities_are_those_of_scikit_learn_and_torchmetrics(classes):
    import torch
    from torchmetrics.classification import MulticlassCalibrationError

    labels, odds = cases(classes, 300)
    values = metrics.point(labels, odds)
    assert values["nll"] == pytest.approx(log_loss(labels, odds))
    one_hot = np.eye(classes)[labels]
    brier = (
        brier_score_loss(labels, odds[:, 1])
        if classes == 2
        else ((odds - one_hot) ** 2).sum(1).mean()
    )
    assert values["brier"] == pytest.approx(brier)
    ece = MulticlassCalibrationError(classes, n_bins=calibration.BINS, norm="l1")
    assert values["ece"] == pytest.approx(
        float(ece(torch.from_numpy(odds), torch.from_numpy(labels))), abs=1e-6
    )
    expected = average_precision_score(one_hot, odds, average="macro") if classes > 2 else None
    assert values["auprc"] == pytest.approx(expected or average_precision_score(labels, odds[:, 1]))
    micro = precision_recall_fscore_support(labels, odds.argmax(1), average="micro")[:3]
    assert micro == pytest.approx([values["accuracy"]] * 3)  # as the model card says


def test_a_temperature_corrects_overconfident_probabilities():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 1.5, (4000, 3))
    labels = np.array([rng.choice(3, p=row) for row in softmax(logits, axis=1)])
    sharp = softmax(2.5 * logits, axis=1)
    fitted_temperature = calibration.temperature(labels, sharp)
    assert fitted_temperature == pytest.approx(2.5, rel=0.08)
    mended = calibration.apply_temperature(sharp, fitted_temperature)
    assert (mended.argmax(1) == sharp.argmax(1)).all()
    before, after = calibration.point(labels, sharp), calibration.point(labels, mended)
    assert all(after[name] < before[name] for name in calibration.ERRORS)
    assert after["ece"] < 0.03 < before["ece"]
    losses = [
        calibration.point(labels, calibration.apply_temperature(sharp, fitted_temperature * by))[
            "nll"
        ]
        for by in (0.97, 1.03)
    ]
    assert after["nll"] < min(losses)


@pytest.mark.parametrize("classes", [2, 5])
def test_few_images_that_are_all_correct_make_no_certainty(classes):
    labels = np.arange(12) % classes
    odds = np.full((12, classes), 0.1 / (classes - 1))
    odds[np.arange(12), labels] = 0.9
    temperature = calibration.temperature(labels, odds)
    calibrated = calibration.apply_temperature(odds, temperature)
    # Equal probabilities: the minimum is at the smoothed target, 13 of 14.
    assert calibrated.max(axis=1) == pytest.approx(np.full(12, 13 / 14), abs=1e-4)


def test_temperatures_at_the_ends():
    labels, odds = cases(2, 50)
    certain = np.eye(2)[labels]
    assert calibration.RANGE[0] <= calibration.temperature(labels, certain) <= calibration.RANGE[1]
    wrong_odds = np.eye(2)[1 - labels]
    assert calibration.temperature(labels, wrong_odds) == pytest.approx(
        calibration.RANGE[1], rel=1e-3
    )
    assert np.isnan(calibration.temperature(labels[:0], odds[:0]))
    assert calibration.apply_temperature(odds, float("nan")) is odds
    above_one = np.array([[1.0005, 0.0]])  # by rounding in half precision
    assert calibration.point(labels[:1] * 0, above_one)["ece"] == pytest.approx(0.0005)


def test_reliability_counts_every_image_once():
    labels, odds = cases(3, 200)
    table = calibration.reliability(labels, np.stack([odds, odds]))
    assert table["images"].sum() == 400
    assert (table["high"] - table["low"]).to_numpy() == pytest.approx(1 / calibration.BINS)
    assert ((table["confidence"] > table["low"]) & (table["confidence"] <= table["high"])).all()
    ece = (table["images"] * (table["confidence"] - table["accuracy"]).abs()).sum() / 400
    assert ece == pytest.approx(calibration.point(labels, odds)["ece"])


def test_precision_on_the_grid_is_that_of_the_highest_score_that_reaches_the_recall():
    labels, odds = cases(2, 40)
    positive, scores = labels == 1, odds[:, 1]
    curve = metrics.precision_recall_points(positive, scores)
    for recall, value in zip(metrics.GRID, curve, strict=True):
        limits = sorted(set(scores), reverse=True)
        expected_precision = next(
            s
            for s in limits
            if (scores[positive] >= s).mean() >= max(recall, 1e-9) - 1e-12 or recall == 0
        )
        assert value == pytest.approx(positive[scores >= expected_precision].mean()), recall
    assert metrics.precision_recall_points(np.ones(5, bool), np.ones(5)) is None


@pytest.mark.parametrize(
    ("specificity", "expected"), [(0.9, 0.9), (0.95, 1.0), (0.5, 0.5), (0.01, 0.1)]
)
def test_a_threshold_is_the_smallest_that_keeps_the_specificity(specificity, expected):
    scores = np.arange(1, 11) / 10
    assert threshold(scores, specificity) == expected
    assert (scores <= threshold(scores, specificity)).mean() >= specificity


def test_operating_points_are_chosen_on_validation_and_counted_on_test():
    val, test = (predicted(*cases(2, 400, seed=seed)) for seed in (1, 2))
    limits, drawn = thresholds(val, ["well", "ill"], [0.9, 0.95]), bootstrap.draw(400, 300, 0)
    table = operating_points(test, limits, ["well", "ill"], Evaluate(), drawn)
    assert table["class"].tolist() == ["ill", "ill"]
    for row in table.itertuples():
        scores = val.probabilities[0][val.labels == 0, 1]
        assert (
            (scores <= row.threshold).mean()
            >= row.wanted
            > (scores <= row.threshold - 1e-3).mean() - 0.01
        )
        called = test.probabilities[0][:, 1] > row.threshold
        assert row.sensitivity == pytest.approx(called[test.labels == 1].mean())
        assert row.specificity == pytest.approx(1 - called[test.labels == 0].mean())
        assert row.sensitivity_low < row.sensitivity < row.sensitivity_high
        assert row.positives + row.negatives == 400
    val, test = (predicted(*cases(4, 99, seed=seed)) for seed in (1, 2))
    limits, drawn = thresholds(val, list("abcd"), [0.9]), np.ones((9, 99), int)
    many = operating_points(test, limits, list("abcd"), Evaluate(), drawn)
    assert many["class"].tolist() == list("abcd")


def test_subgroups_are_evaluated_apart_and_counted():
    labels, odds = cases(2, 200, seed=3)
    part = predicted(labels, odds)
    rows = pd.DataFrame(
        {"age": np.where(np.arange(200) < 5, np.nan, np.arange(200) % 100), "source": "one place"}
    )
    rows["sex"] = np.where(np.arange(200) % 2, "f", "m")
    draws = bootstrap.draw(200, 100, 0)
    whole = [bootstrap.resample(labels, odds, part.groups, draws)]
    table = subgroups(part, rows, Evaluate(), draws, whole)
    counts = table.drop_duplicates(["by", "part"]).set_index(["by", "part"])["images"]
    assert counts["age"].to_dict() == {
        "below 40": 75, "40 to below 60": 40, "60 to below 80": 40, "80 and over": 40, "unknown": 5,
    }  # fmt: skip
    assert list(dict.fromkeys(table["by"])) == ["all", "age", "sex"]  # all images are of one source
    row = table.set_index(["part", "metric"]).loc[("f", "accuracy")]
    women = rows["sex"] == "f"
    assert row["classes"] == "[0, 1]"
    assert row["mean"] == pytest.approx((odds[women].argmax(1) == labels[women]).mean())
    assert row["low"] < row["mean"] < row["high"]
    assert table.loc[table["part"] == "unknown", "mean"].isna().all()  # too few
    assert (
        table.loc[table["by"] == "all", "mean"].iloc[0] == metrics.point(labels, odds)["accuracy"]
    )


def test_age_bands_ascend_in_years_and_not_by_their_names():
    ages = pd.DataFrame({"age": [30.0, 7, 110, np.nan, 1, 20]})
    settings = Evaluate(age_bands=[5, 18, 100], subgroups=["age"])
    assert [name for _, name, _ in parts(ages, settings)] == [
        "below 5", "5 to below 18", "18 to below 100", "100 and over", "unknown",
    ]  # fmt: skip


def test_averaging_networks_that_err_apart_gains():
    labels = np.random.default_rng(0).integers(0, 3, 500)
    odds = [probabilities(labels, 3, 1.0, seed).astype(float) for seed in range(4)]
    draws = bootstrap.draw(500, 200, 0)
    members = []
    for name, pair in (("serial_1cpu", odds[:2]), ("ddp_2cpu", odds[2:])):
        points = [metrics.point(labels, member_odds) for member_odds in pair]
        resampled = [
            bootstrap.resample(labels, member_odds, np.arange(500), draws).overall
            for member_odds in pair
        ]
        means = {metric: float(np.mean([p[metric] for p in points])) for metric in METRICS}
        table = pd.DataFrame(
            {metric: np.mean([r[metric] for r in resampled], axis=0) for metric in METRICS}
        )
        members.append(Member(name, "net", predicted(labels, *pair), means, table))
    table = ensembles(members, draws)
    assert table[["kind", "of", "members"]].to_numpy().tolist() == [
        ["replicates", "serial_1cpu", 2], ["replicates", "ddp_2cpu", 2], ["all", "", 4],
    ]  # fmt: skip
    whole = table.iloc[2]
    assert whole["accuracy"] == pytest.approx((np.mean(odds, axis=0).argmax(1) == labels).mean())
    assert whole["accuracy_gain"] > 0 < whole["accuracy_gain_low"]
    assert whole["accuracy_single"] == pytest.approx(
        np.mean([(member_odds.argmax(1) == labels).mean() for member_odds in odds])
    )
    assert whole["nll_gain_high"] < 0
    assert ensembles(members[:1], draws)["kind"].tolist() == ["replicates"]
    other = replace(members[1], name="serial_1cpu_other", network="other")
    with_other = ensembles([*members, other], draws).set_index(["kind", "of"])
    assert with_other["members"].iloc[3:].to_dict() == {("network", "net"): 4, ("all", ""): 6}
    assert with_other.loc[("network", "net"), "nll"] == whole["nll"]
    # Networks without an error gain nothing; patients that the test set excludes may change that.
    perfect = predicted(labels, *[np.eye(3)[labels]] * 2)
    ones = pd.DataFrame(1.0, range(200), METRICS)
    (row,) = ensembles(
        [Member("serial_1cpu", "net", perfect, dict.fromkeys(METRICS, 1.0), ones)], draws
    ).to_dict("records")
    exact = 1 - 0.025 ** (1 / 500)
    ends = row["accuracy_gain_low"], row["accuracy_gain_high"]
    assert (row["accuracy_gain"], *ends) == pytest.approx((0, -exact, exact))


@pytest.fixture
def run(tmp_path) -> SimpleNamespace:
    """A run with the weights and the predictions of a tiny network."""
    import torch
    from safetensors.torch import save_file

    from medscale.data.augment import Augmenter
    from medscale.engine.models.registry import build

    index = make_index(tmp_path / "data", ["well", "ill", "worse"], images=120)
    make_shards(tmp_path / "data" / "shards", index)
    config = configuration(model={"name": "tiny_cnn", "options": {"width": 4}})
    folder = make_run(tmp_path / "runs", config, "serial_1cpu", index)[0]
    torch.manual_seed(1)
    replicate, shards = read(folder), Shards.open(tmp_path / "data" / "shards")
    network = build(replicate.plan.model, 3).eval()
    with torch.no_grad():
        network.fc2.weight.mul_(40)  # sure of itself, so that classes differ
    save_file(network.state_dict(), folder / "model.safetensors")
    augmenter = Augmenter(replicate.plan.augment, np.ones(3), 0)
    pixels = augmenter.apply(
        torch.from_numpy(shards.gather(np.arange(120))),
        augmenter.neutral(120, (32, 32)),
        training=False,
    )
    with torch.no_grad():
        odds = torch.softmax(network(pixels), 1).numpy()
    table = replicate.predictions
    table[["p_0", "p_1", "p_2"]] = odds[table["id"]]
    write_parquet(folder / "predictions.parquet", table)
    return SimpleNamespace(
        folder=folder, index=tmp_path / "data" / "index.parquet", shards=shards, odds=odds
    )


def test_a_gallery_shows_right_and_wrong_cases_of_the_weights_that_predicted(run, tmp_path):
    from medscale.evaluate.gallery import CASES_PER_KIND, gallery

    evaluation = evaluate([run.folder], run.index, resamples=50)
    case_gallery = gallery(evaluation.replicates[0], run.shards)
    is_correct = case_gallery.cases["right"].to_numpy()
    assert 0 < (~is_correct).sum() <= CASES_PER_KIND
    assert is_correct.sum() <= CASES_PER_KIND
    np.testing.assert_allclose(
        case_gallery.cases["probability"], run.odds[case_gallery.cases["id"]].max(axis=1)
    )
    assert ((case_gallery.cases["true"] == case_gallery.cases["predicted"]) == is_correct).all()
    assert case_gallery.images.shape == (len(case_gallery.cases), 32, 32, 3)
    places = pd.Index(run.shards.ids).get_indexer(case_gallery.cases["id"])
    assert np.abs(case_gallery.images.astype(int) - run.shards.gather(places)).max() <= 1
    assert len(set(case_gallery.cases["true"][~is_correct])) > 1
    summary = write_result(evaluation, tmp_path / "out", case_gallery)
    gallery_read = read_gallery(tmp_path / "out", summary)
    np.testing.assert_array_equal(gallery_read.heat, case_gallery.heat)
    pd.testing.assert_frame_equal(gallery_read.cases, case_gallery.cases)
    assert (tmp_path / "out" / "gradcam.pdf").stat().st_size > 1000


def test_weights_of_another_training_are_refused(run):
    import torch
    from safetensors.torch import save_file

    from medscale.engine.models.registry import build
    from medscale.evaluate.gallery import gallery

    replicate = read(run.folder)
    torch.manual_seed(9)
    save_file(build(replicate.plan.model, 3).state_dict(), run.folder / "model.safetensors")
    with pytest.raises(MedscaleError, match="gives other probabilities than predictions"):
        gallery(replicate, run.shards)


def test_results_are_shown_in_the_terminal(tmp_path):
    index = make_index(tmp_path / "data", ["well", "[ill]"], images=120)
    index["sex"] = np.where(np.arange(120) % 3, "f", "m")
    write_parquet(tmp_path / "data" / "index.parquet", index)
    folders = make_run(tmp_path / "runs", configuration(), "ddp_amp_2gpu", index)
    evaluation = evaluate(folders, tmp_path / "data" / "index.parquet", resamples=50)
    summary = write_result(evaluation, tmp_path / "out")
    assert summary["calibration"]["temperature"] == pytest.approx(np.mean(evaluation.temperatures))
    result = CliRunner().invoke(main, ["show", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    for phrase in (
        "glaucoma: medical_cnn, DDP + AMP, 2 GPU",
        "synthetic images; CPU processes in place of GPUs",
        "[ill]",
        f"{100 * summary['metrics']['test']['accuracy']['mean']:.1f}",
        "sex: f",
        "95 %",
        f"temperature {summary['calibration']['temperature']:.2f}",
    ):
        assert phrase in result.output, phrase
    metrics = result.stdout.split("\n\n")[1].splitlines()
    assert metrics[0].startswith("metric ")
    assert max(map(len, metrics)) <= 80
    listing = CliRunner().invoke(main, ["show", str(tmp_path)])
    lines = listing.stdout.splitlines()
    assert lines[0] == f"{tmp_path}/"
    accuracy = f"{100 * summary['metrics']['test']['accuracy']['mean']:.1f}"
    assert lines[2].split()[:2] == ["out†", accuracy]
    assert lines[-1] == "demo: synthetic images; CPU processes in place of GPUs (†)"
    facts = json.loads(CliRunner().invoke(main, ["show", str(tmp_path), "--json"]).stdout)
    assert facts["results"] == [{"folder": str(tmp_path / "out"), **summary}]
    with pytest.raises(
        MedscaleError, match=r"olt does not exist; similar names among 1 result: .*/out"
    ):
        CliRunner().invoke(main, ["show", str(tmp_path / "olt")], catch_exceptions=False)
    assert read_json(tmp_path / "out" / "summary.json")["confusions"][0]["images"] > 0


def test_networks_are_looked_into_where_the_study_asks_for_it():
    demo, full = Graph({"scale": "demo"}), Graph({})
    graph_without_maps = Graph({"studies": {"glaucoma": {"evaluate": {"gradcam": "none"}}}})

    def option(graph: Graph, study: str, run: str) -> str:
        return Runs(graph).gradcam_option(SimpleNamespace(study=study, run=run))

    assert option(demo, "glaucoma", "serial_1cpu") == ["--gradcam"]
    assert not option(demo, "glaucoma", "ddp_2cpu")
    assert option(full, "glaucoma", "serial_1cpu")
    assert not option(full, "pneumonia", "serial_1gpu_yolov8n")
    assert not option(graph_without_maps, "glaucoma", "serial_1gpu")
    assert "gradcam" in [chapter.name for chapter in chapters_of(full.config, "glaucoma")]
    assert "gradcam" not in [
        chapter.name for chapter in chapters_of(graph_without_maps.config, "glaucoma")
    ]
