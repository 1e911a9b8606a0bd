"""Tests of the metrics against scikit-learn, of the intervals, and of refused predictions."""

from __future__ import annotations

import errno
import json
import os
import time
import tracemalloc
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    f1_score,
    precision_recall_fscore_support,
    roc_auc_score,
)

from medscale.base.errors import MedscaleError
from medscale.base.files import read_json, write_csv, write_json, write_parquet
from medscale.config.sections import Evaluate
from medscale.evaluate import bootstrap, metrics
from medscale.evaluate.evaluation import evaluate
from medscale.evaluate.replicates import Predictions, read, same_run
from medscale.evaluate.summary import one_line, summarise
from medscale.report.quality import facts as quality_facts
from medscale.report.result.folder import whole_folder, write_result
from medscale.report.result.reading import read_result
from synthetic_runs import configuration, make_index, make_run, probabilities

TWO, FOUR = ["normal", "glaucoma"], ["a", "b & c", "dé", "e_f"]


def cases(classes: int, images: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return labels and rounded probabilities, so that scores are tied."""
    labels = np.random.default_rng(seed).integers(0, classes, images)
    odds = np.round(probabilities(labels, classes, 1.0, seed), 1) + 0.01
    return labels, odds / odds.sum(axis=1, keepdims=True)


def by_scikit_learn(labels: np.ndarray, odds: np.ndarray) -> tuple[dict, dict]:
    """Return the metrics of the predicted classes, over all classes and of each class."""
    predicted, codes = odds.argmax(axis=1), np.arange(odds.shape[1])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="y_pred contains|A single label was found")
        overall = {
            "accuracy": accuracy_score(labels, predicted),
            "balanced_accuracy": balanced_accuracy_score(labels, predicted),
        }
    for average in ("macro", "weighted"):
        scores = precision_recall_fscore_support(
            labels, predicted, average=average, zero_division=0
        )
        for name, value in zip(("precision", "recall", "f1"), scores, strict=False):
            overall[f"{name}_{average}"] = value
    precision, recall, f1, support = precision_recall_fscore_support(
        labels, predicted, labels=codes, zero_division=0
    )
    recall, f1 = (np.where(support > 0, values, np.nan) for values in (recall, f1))
    return overall, {"precision": precision, "recall": recall, "f1": f1}


@settings(max_examples=40, deadline=None)
@given(classes=st.integers(2, 5), images=st.integers(2, 60), seed=st.integers(0, 999))
@example(classes=3, images=14, seed=85)  # all images almost separate a class, a resample does not
@example(classes=5, images=25, seed=855)  # the slope is 88, which rounding changes by 5e-9
def test_every_resample_has_the_values_that_scikit_learn_gives_for_its_images(
    classes, images, seed
):
    labels, odds = cases(classes, images, seed)
    groups = np.sort(np.random.default_rng(seed).integers(0, max(2, images // 3), images))
    groups = pd.factorize(groups)[0]
    draws = bootstrap.draw(int(groups.max()) + 1, 5, seed)
    overall, by_class = bootstrap.resample(labels, odds, groups, draws)
    for number, counts in enumerate(draws):
        image_rows = np.repeat(np.arange(images), counts[groups])
        points = metrics.point(labels[image_rows], odds[image_rows])
        points_by_class = metrics.per_class(labels[image_rows], odds[image_rows])
        assert set(points) == set(overall) == set(metrics.names(classes))
        assert set(points_by_class) == set(by_class) == set(metrics.PER_CLASS)
        decisions, decisions_by_class = by_scikit_learn(labels[image_rows], odds[image_rows])
        for expected, values in (
            (points, overall),
            (points_by_class, by_class),
            (decisions, overall),
            (decisions_by_class, by_class),
        ):
            for name, value in expected.items():
                # Where logits almost separate the outcomes, the likelihood is flat at its maximum.
                if name.startswith("calibration_") and abs(value) > 20:
                    continue
                np.testing.assert_allclose(
                    values[name][number], value, rtol=1e-9, atol=1e-12, err_msg=name
                )


def test_many_classes_need_no_confusion_matrix_of_each_resample():
    labels, odds = np.arange(800) % 400, np.random.default_rng(0).random((800, 400))
    tracemalloc.start()
    bootstrap.decisions(labels, odds, np.arange(800), bootstrap.draw(800, 200, 0))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 30e6  # the matrices would take 256 MB


def test_auroc_is_of_the_last_of_two_classes_and_the_mean_over_more():
    labels, odds = cases(2, 200, 1)
    assert metrics.point(labels, odds)["auroc"] == pytest.approx(roc_auc_score(labels, odds[:, 1]))
    labels, odds = cases(4, 200, 1)
    values = metrics.point(labels, odds)
    assert values["auroc"] == pytest.approx(
        roc_auc_score(labels, odds, multi_class="ovr", average="macro")
    )
    assert values["auroc_micro"] == pytest.approx(
        roc_auc_score(np.eye(4)[labels], odds, average="micro")
    )
    assert values["f1_macro"] == pytest.approx(f1_score(labels, odds.argmax(1), average="macro"))
    assert values["balanced_accuracy"] == pytest.approx(
        balanced_accuracy_score(labels, odds.argmax(1))
    )


def test_the_interval_holds_the_true_accuracy_in_about_95_of_100_datasets():
    rng, hits, sets = np.random.default_rng(0), 0, 300
    for number in range(sets):
        is_correct = rng.random(150) < 0.8
        labels = np.zeros(150, np.int64)
        odds = np.where(is_correct[:, None], [0.9, 0.1], [0.1, 0.9])
        resampled = bootstrap.decisions(
            labels, odds, np.arange(150), bootstrap.draw(150, 400, number)
        )
        low, high = bootstrap.interval(resampled.overall["accuracy"])
        hits += low <= 0.8 <= high
    assert 0.90 <= hits / sets <= 0.985


def test_drawing_patients_gives_wider_intervals_than_drawing_images_when_a_patients_images_agree():
    rng = np.random.default_rng(3)
    groups = np.repeat(np.arange(60), 8)
    is_correct = np.repeat(rng.random(60) < 0.75, 8)
    labels = np.repeat(rng.integers(0, 2, 60), 8)
    odds = np.where((labels == 1) == is_correct, 0.8, 0.2)
    odds = np.stack([1 - odds, odds], axis=1)
    by_patient = bootstrap.resample(labels, odds, groups, bootstrap.draw(60, 500, 0)).overall
    by_image = bootstrap.resample(labels, odds, np.arange(480), bootstrap.draw(480, 500, 0)).overall
    for name in ("accuracy", "auroc"):
        wide, narrow = (
            np.ptp(bootstrap.interval(values[name])) for values in (by_patient, by_image)
        )
        assert wide > 1.8 * narrow, name


def test_a_thousand_resamples_of_3000_images_take_seconds():
    labels, odds = cases(2, 3000, 0)
    start = time.process_time()  # other programs on the machine do not lengthen it
    bootstrap.resample(labels, odds, np.arange(3000), bootstrap.draw(3000, 1000, 0))
    assert time.process_time() - start < 5


@pytest.fixture
def make_replicates(tmp_path: Path) -> Callable[..., tuple[list[Path], Path, pd.DataFrame]]:
    """Return a function that writes an index and run folders, and returns their paths."""

    def make(classes=TWO, run="ddp_2cpu", **options):
        index = make_index(tmp_path / "data", classes, images=options.pop("images", 300))
        folders = make_run(tmp_path / "runs", configuration(), run, index, **options)
        return folders, tmp_path / "data" / "index.parquet", index

    return make


def change(folder: Path, edit: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    file = folder / "predictions.parquet"
    write_parquet(file, edit(pd.read_parquet(file)))


def test_replicates_are_summed_up_with_both_spreads_apart(make_replicates):
    folders, index, _ = make_replicates()
    evaluation = evaluate(folders, index, resamples=200)
    summary = summarise(evaluation)
    accuracy = summary["metrics"]["test"]["accuracy"]
    values = [metrics.point(*_test_images(folder))["accuracy"] for folder in folders]
    assert accuracy["values"] == pytest.approx(values)
    assert accuracy["mean"] == pytest.approx(np.mean(values))
    assert accuracy["seed_sd"] == pytest.approx(np.std(values, ddof=1))
    assert accuracy["low"] < accuracy["mean"] < accuracy["high"]
    over_seeds = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (accuracy["seed_low"], accuracy["seed_high"]) == pytest.approx(tuple(over_seeds))
    assert evaluation.confusion.sum() == 2 * summary["counts"]["test"]["images"]
    assert summary["counts"]["test"]["groups"] < summary["counts"]["test"]["images"]
    assert summary["timing"]["seconds_per_epoch"]["sd"] > 0
    assert summary["marks"] == {"synthetic": True, "stand_in": False, "scale": "demo"}


def _test_images(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    table = pd.read_parquet(folder / "predictions.parquet").query("split == 'test'")
    return table["label"].to_numpy(), table.filter(like="p_").to_numpy(np.float64)


def test_the_same_predictions_give_the_same_bytes(make_replicates, tmp_path):
    folders, index, _ = make_replicates()
    for name in ("one", "two"):
        write_result(evaluate(folders, index, resamples=100), tmp_path / "results" / name)
    files = sorted(file.name for file in (tmp_path / "results" / "one").iterdir())
    assert {
        "summary.json",
        "metrics.csv",
        "per_class.csv",
        "curves.pdf",
        "confusion.pdf",
        "roc.pdf",
        "quality.pdf",
    } <= set(files)
    for name in files:
        bytes_a, bytes_b = (
            (tmp_path / "results" / part / name).read_bytes() for part in ("one", "two")
        )
        assert bytes_a == bytes_b, name


def test_many_classes_with_odd_names_are_evaluated(make_replicates, tmp_path):
    folders, index, _ = make_replicates(classes=FOUR, run="ddp_amp_2gpu")
    present: list[bool] = []
    summary = write_result(
        evaluate(folders, index, resamples=100),
        tmp_path / "out",
        further=lambda new, _: present.append((new / "summary.json").exists()),
    )
    assert present == [False]  # a folder that a killed process left is taken for no result
    assert 0.5 < summary["metrics"]["test"]["auroc_micro"]["mean"] < 1
    assert "b & c" in (tmp_path / "out" / "model_card.md").read_text(encoding="utf-8")
    assert "place of GPUs" in (tmp_path / "out" / "model_card.md").read_text(encoding="utf-8")
    assert one_line(summary).startswith("ddp_amp_2gpu ")
    assert one_line(summary).endswith("[synthetic, stand-in]")


def test_one_class_in_the_test_images_leaves_auroc_undefined(make_replicates, tmp_path):
    folders, index, table = make_replicates()
    table.loc[table["split"] == "test", "label"] = "normal"
    write_parquet(index, table)
    for folder in folders:
        change(folder, lambda t: t.assign(label=t["label"].where(t["split"] != "test", 0)))
    summary = write_result(evaluate(folders, index, resamples=50), tmp_path / "out")
    assert summary["metrics"]["test"]["auroc"]["mean"] is None
    assert (
        json.loads((tmp_path / "out" / "summary.json").read_text())["metrics"]["test"]["accuracy"][
            "mean"
        ]
        > 0
    )
    assert "AUROC undefined" in one_line(summary)


def test_times_are_of_the_epochs_on_all_devices_without_the_first(make_replicates):
    folders, index, _ = make_replicates(run="ddp_2cpu")
    for folder in folders:
        history = pd.read_csv(folder / "history.csv")
        history["compute_s"] = [9.0, 1.0, 2.0, 5.0, 5.0, 5.0]
        history["processes"] = [2, 2, 2, 1, 1, 1]
        write_csv(folder / "history.csv", history)
    seconds = summarise(evaluate(folders, index, resamples=50))["timing"]["seconds_by_kind"]
    assert seconds["compute"]["values"] == [1.5, 1.5]


def test_a_single_replicate_has_no_spread_over_seeds(make_replicates):
    folders, index, _ = make_replicates()
    summary = summarise(evaluate(folders[:1], index, resamples=50))
    assert summary["metrics"]["test"]["accuracy"]["seed_sd"] is None
    assert summary["timing"]["seconds_per_epoch"]["sd"] is None


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda t: t[t["id"] != t["id"].max()], "1 images of test are missing"),
        (lambda t: pd.concat([t, t.tail(1)]), "1 images of test occur twice"),
        (lambda t: t.assign(id=t["id"].where(t["id"] != t["id"].max(), 10**6)), "are missing"),
        (lambda t: t.assign(label=1 - t["label"]), "labels of val differ from the index"),
        (lambda t: t.assign(p_0=np.nan), "are not probabilities"),
        (lambda t: t.assign(p_0=t["p_0"] + 0.5), "are not probabilities"),
        (lambda t: t.assign(p_2=0.0), "3 classes, but the index has 2"),
    ],
)
def test_predictions_that_do_not_fit_the_index_are_refused(make_replicates, edit, message):
    folders, index, _ = make_replicates()
    change(folders[1], edit)
    with pytest.raises(MedscaleError, match=message) as error:
        evaluate(folders, index)
    assert str(folders[1]) in str(error.value)


def test_folders_that_are_no_replicates_of_one_run_are_refused(make_replicates, tmp_path):
    folders, index, table = make_replicates()
    other_run = make_run(tmp_path / "runs", configuration(), "serial_1cpu", table)
    with pytest.raises(MedscaleError, match="not a replicate"):
        evaluate([folders[0], other_run[1]], index)
    with pytest.raises(MedscaleError, match="same seed twice"):
        evaluate([folders[0], folders[0]], index)
    (folders[0] / "history.csv").unlink()
    with pytest.raises(MedscaleError, match=r"history\.csv cannot be read"):
        evaluate(folders, index)
    spec = read_json(folders[1] / "spec.json")
    write_json(folders[1] / "spec.json", spec | {"backend": "abacus"})
    with pytest.raises(MedscaleError, match="not the plan of a run"):
        evaluate(folders[1:], index)


def test_a_replicate_may_have_other_settings_without_effect(make_replicates):
    folders, _, _ = make_replicates()
    spec = read_json(folders[1] / "spec.json")
    # A seed that was added later has the time limits of that day.
    parallel = spec["parallel"] | {"timeout_s": 500.0, "microbatches": 8}
    changed = {"nodes": 2 * spec["nodes"], "parallel": parallel}
    write_json(folders[1] / "spec.json", spec | changed)
    same_run([read(folder) for folder in folders])
    write_json(folders[1] / "spec.json", spec | {"recipe": spec["recipe"] | {"ema": 0.9}})
    with pytest.raises(MedscaleError, match="not a replicate"):
        same_run([read(folder) for folder in folders])


def test_a_result_folder_is_replaced_whole_or_not_at_all(tmp_path):
    folder = tmp_path / "result"
    with whole_folder(folder) as new:
        (new / "old.txt").write_text("old")
    with pytest.raises(FileNotFoundError), whole_folder(folder) as new:
        (new / "nowhere" / "half.txt").write_text("half")
    assert [file.name for file in tmp_path.iterdir()] == ["result"]
    assert [file.name for file in folder.iterdir()] == ["old.txt"]
    with whole_folder(folder) as new:
        (new / "new.txt").write_text("new")
    assert [file.name for file in folder.iterdir()] == ["new.txt"]
    assert [file.name for file in tmp_path.iterdir()] == ["result"]


def test_a_result_folder_that_cannot_be_replaced_stays(tmp_path, monkeypatch):
    folder, replace = tmp_path / "result", os.replace

    def fail_once(source, target):
        if target == folder and (source / "new.txt").exists():
            raise OSError(errno.EIO, "Input/output error")
        replace(source, target)

    with whole_folder(folder) as new:
        (new / "old.txt").write_text("old")
    monkeypatch.setattr(os, "replace", fail_once)
    with pytest.raises(MedscaleError, match="cannot be replaced"), whole_folder(folder) as new:
        (new / "new.txt").write_text("new")
    assert [file.name for file in folder.iterdir()] == ["old.txt"]
    assert [file.name for file in tmp_path.iterdir()] == ["result"]


def all_right(patients: int, classes: int = 2) -> Predictions:
    """Return right answers to one image of each patient."""
    labels = np.arange(patients) % classes
    own = np.arange(patients)
    return Predictions(own, labels, own, np.eye(classes)[[labels]])


@pytest.mark.parametrize(
    ("patients", "name", "low"),
    # By hand, Clopper and Pearson: 0.025 ** (1 / 51) = 0.9302; of 25 patients of the smaller class:
    # 0.025 ** (1 / 25) = 0.8628.
    [(51, "accuracy", 0.9302), (51, "f1_weighted", 0.9302), (51, "auroc", 0.8628)],
)
def test_a_perfect_score_of_few_patients_has_an_interval(patients, name, low):
    predicted = all_right(patients)
    for score, expected in ((1.0, (low, 1.0)), (0.0, (0.0, 1 - low))):
        ends = metrics.interval(name, predicted, np.full(100, score), None)
        assert ends == pytest.approx(expected, abs=1e-4)
    differences = metrics.interval(name, predicted, np.zeros(9), None, is_difference=True)
    assert differences == pytest.approx((low - 1, 1 - low), abs=1e-4)
    wrong = metrics.interval("mcc", predicted, np.full(9, -1.0), None)
    assert wrong == pytest.approx((-1, -0.8628), abs=1e-4)
    exact = stats.binomtest(patients, patients).proportion_ci(0.95, method="exact")
    if name == "accuracy":
        assert metrics.interval(name, predicted, np.ones(9), None) == pytest.approx(exact)


def test_the_interval_of_an_average_is_that_of_the_smallest_class_in_the_average():
    labels = np.repeat([0, 1, 2], [20, 10, 2])  # the third class has two patients
    own = np.arange(32)
    predicted, ones = Predictions(own, labels, own, np.eye(3)[[labels]]), np.ones(9)
    for class_mask, patients in (
        (None, 2), (np.array([True, True, False]), 10), (np.array([True, False, False]), 20),
    ):  # fmt: skip
        low, high = metrics.interval("auroc", predicted, ones, class_mask)
        assert (low, high) == pytest.approx((0.025 ** (1 / patients), 1))
    part = predicted.part(labels == 2)  # no class of the average is in it
    undefined = metrics.interval("auroc", part, ones * np.nan, np.array([True, True, False]))
    assert np.isnan(undefined).all()


def test_one_patient_of_a_class_leaves_its_score_open():
    labels, own = np.arange(60) == 0, np.arange(60)
    scores = np.where(labels, 0.9, own / 60)
    odds = np.stack([1 - scores, scores], axis=1)[None]
    predicted = Predictions(own, labels.astype(np.int64), own, odds)
    areas = metrics.resamples(predicted, bootstrap.draw(60, 200, 0))[0].overall["auroc"]
    assert np.nanmin(areas) > 0.8  # only the patients of the other class vary
    assert metrics.interval("auroc", predicted, areas, None) == (0, 1)


def test_perfect_answers_have_intervals_with_a_width_or_none(make_replicates):
    folders, index, _ = make_replicates(images=120)
    for folder in folders:
        change(folder, lambda t: t.assign(p_0=1.0 - t["label"], p_1=t["label"].astype(float)))
    evaluation = evaluate(folders, index, resamples=50)
    scores = evaluation.scores.set_index(["split", "metric"])
    for name in ("accuracy", "balanced_accuracy", "mcc", "auroc", "f1_macro"):
        score = scores.loc[("test", name)]
        assert 0 < score["low"] < score["mean"] == score["high"] == 1
    assert (evaluation.per_class["low"] < evaluation.per_class["high"]).all()
    parts = evaluation.subgroups
    assert (parts["low"] < parts["high"])[parts["mean"].notna()].all()
    point = evaluation.operating.iloc[0]
    assert 0 < point["sensitivity_low"] < point["sensitivity"] == 1
    assert np.isnan(point["ppv_low"])  # follows from both rates, and no resample changes it
    write_result(evaluation, folders[0].parent / "result")
    card = (folders[0].parent / "result" / "model_card.md").read_text(encoding="utf-8")
    assert "| 1.000 | 1.000 |" in card  # predictive values without an interval
    fixed = Evaluate(prevalence={"glaucoma": 0.1})
    curve = evaluate(folders, index, fixed, resamples=50).decision
    assert quality_facts.useful_thresholds(curve) is None  # no error, so no interval
    assert quality_facts._point(read_result(folders[0].parent / "result"))["ppv"]["low"] is None
