"""Folds as replicates of a run: pooled out-of-fold predictions, spread over folds, paired tests."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.metrics import accuracy_score, roc_auc_score

from medscale.base.errors import MedscaleError
from medscale.base.files import read_json, write_parquet
from medscale.config.sections import Evaluate
from medscale.data import folds as columns
from medscale.data.index_file import read_index
from medscale.data.settings import Split
from medscale.data.shards import Shards
from medscale.data.split import assign_folds
from medscale.evaluate import calibration
from medscale.evaluate.by_fold import compare_folds, corrected_t_test
from medscale.evaluate.evaluation import Evaluation, evaluate
from medscale.evaluate.operating import threshold
from medscale.evaluate.reference import reference
from medscale.evaluate.replicates import Predictions, join_predictions, read
from medscale.report.result.folder import write_result
from medscale.report.show import show
from medscale.serve import bundle
from medscale.serve.predict import load
from synthetic_runs import make_index, make_shards
from training_runs import TINY, Training

FOLDS, CLASSES = 3, ["normal", "glaucoma"]
RUNS = ("serial_1cpu", "ddp_2cpu")
SPLIT = {"folds": FOLDS, "train": None, "val": 0.2, "test": None}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of 42 images of 21 patients in 3 folds, and its runs, trained on the CPU."""
    folder = tmp_path_factory.mktemp("folds")
    data = folder / "data"
    index = make_index(data, CLASSES, images=42)
    index = index.join(assign_folds(index, Split(folds=FOLDS, val=0.2)))
    write_parquet(data / "index.parquet", index)
    make_shards(data / "shards", index, size=16)
    training = Training(folder, data / "shards", {**TINY, "split": SPLIT})
    for run in RUNS:
        for fold in range(1, FOLDS + 1):
            name = f"{run}/seed1_fold{fold}"
            shutil.copy2(f"{training.fork(run, name, fold=fold)}.json", folder / name / "spec.json")
    return folder


def replicates(study: Path, run: str) -> list[Path]:
    return [study / run / f"seed1_fold{fold}" for fold in range(1, FOLDS + 1)]


@pytest.fixture(scope="module")
def evaluations(study: Path) -> dict[str, Evaluation]:
    settings, index = Evaluate(specificities=[0.8]), study / "data" / "index.parquet"
    return {run: evaluate(replicates(study, run), index, settings, 50) for run in RUNS}


@pytest.fixture(scope="module")
def result(study: Path, evaluations: dict[str, Evaluation]) -> Path:
    runs = [read(folder) for folder in replicates(study, RUNS[0])]
    shards = Shards.open(study / "data" / "shards")
    out = study / "results" / "glaucoma" / RUNS[0]
    write_result(evaluations[RUNS[0]], out, None, lambda *a: bundle.put(runs, shards, *a))
    return out


def test_each_image_is_predicted_once_by_a_network_without_its_group(study: Path) -> None:
    index = read_index(study / "data" / "index.parquet")
    shards = Shards.open(study / "data" / "shards")
    runs = [read(folder) for folder in replicates(study, RUNS[0])]
    pooled = join_predictions(runs, index, "test")
    assert pooled.ids.tolist() == index["id"].tolist()
    for run in runs:
        rows = shards.of_fold(run.plan.fold).rows
        test_predictions = run.predictions[run.predictions["split"] == "test"]
        trained = rows[rows["split"] == "train"]
        assert not set(test_predictions["id"]) & set(trained["id"])
        groups = index.set_index("id")["group"]
        assert not set(groups[test_predictions["id"]]) & set(trained["group"])
        odds = pooled.probabilities[0, pooled.folds == run.plan.fold - 1]
        assert np.array_equal(odds, test_predictions[["p_0", "p_1"]].to_numpy(np.float64))
    assert len(list((study / "data" / "shards").glob("images-*.npy"))) == 1  # stored once


def test_strategies_agree_in_every_fold(evaluations: dict[str, Evaluation]) -> None:
    serial, ddp = (evaluations[run] for run in RUNS)
    assert serial.paired_with == ddp.paired_with
    means = [e.scores.set_index(["split", "metric"])["mean"] for e in (serial, ddp)]
    assert np.allclose(*means, atol=1e-3, equal_nan=True)


def test_pooled_scores_use_the_temperature_and_threshold_of_each_fold(
    study: Path, evaluations: dict[str, Evaluation]
) -> None:
    evaluation = evaluations[RUNS[0]]
    tables = [read(folder).predictions for folder in replicates(study, RUNS[0])]
    test_predictions = pd.concat([table[table["split"] == "test"] for table in tables])
    scores = evaluation.scores.set_index(["split", "metric"])["mean"]
    assert scores["test", "auroc"] == pytest.approx(
        roc_auc_score(test_predictions["label"], test_predictions["p_1"])
    )
    apply_temperature, sensitive = [], []
    for table, temperature in zip(tables, evaluation.temperatures, strict=True):
        val, test = (table[table["split"] == split] for split in ("val", "test"))
        odds = [part[["p_0", "p_1"]].to_numpy(np.float64) for part in (val, test)]
        assert temperature == calibration.temperature(val["label"].to_numpy(), odds[0])
        apply_temperature.append(calibration.apply_temperature(odds[1], temperature))
        limit = threshold(val.loc[val["label"] == 0, "p_1"].to_numpy(np.float64), 0.8)
        sensitive.append(test.loc[test["label"] == 1, "p_1"].to_numpy(np.float64) > limit)
    point = calibration.point(
        test_predictions["label"].to_numpy(), np.concatenate(apply_temperature)
    )
    assert scores["test", "nll_calibrated"] == pytest.approx(point["nll"])
    (row,) = evaluation.operating.to_dict("records")
    assert row["sensitivity"] == pytest.approx(np.concatenate(sensitive).mean())


def test_scores_by_fold_are_those_of_its_images(
    study: Path, evaluations: dict[str, Evaluation]
) -> None:
    evaluation = evaluations[RUNS[0]]
    assert evaluation.folds is not None
    accuracies = []
    for folder in replicates(study, RUNS[0]):
        table = read(folder).predictions
        test = table[table["split"] == "test"]
        accuracies.append(accuracy_score(test["label"], test["p_1"] > test["p_0"]))
    scores = evaluation.folds.scores
    rows = scores[scores["metric"] == "accuracy"]
    assert rows["value"].tolist() == pytest.approx(accuracies)
    assert rows["images"].sum() == 42
    assert (rows["low"] <= rows["value"]).all()
    assert (rows["value"] <= rows["high"]).all()
    spread = evaluation.folds.spread.set_index("metric").loc["accuracy"]
    assert spread["mean"] == pytest.approx(np.mean(accuracies))
    assert spread["sd"] == pytest.approx(np.std(accuracies, ddof=1))
    ends = evaluation.folds.spread.set_index("metric")[["low", "high"]].dropna()
    assert (ends["low"] >= 0).all()
    assert (ends.drop(index="nll", errors="ignore")["high"] <= 1).all()


def test_a_planted_leak_is_refused(study: Path, tmp_path: Path) -> None:
    index = read_index(study / "data" / "index.parquet")
    first, second = (index.index[index["fold"] == fold][0] for fold in (1, 2))
    index.loc[first, "group"] = index.loc[second, "group"]  # a patient in two folds
    write_parquet(tmp_path / "index.parquet", index)
    with pytest.raises(MedscaleError, match="in 2 splits"):
        evaluate(replicates(study, RUNS[0]), tmp_path / "index.parquet")


def test_a_missing_fold_is_named(study: Path) -> None:
    with pytest.raises(MedscaleError, match="seed 1 has the folds 1, 3, the index has 1, 2, 3"):
        evaluate(replicates(study, RUNS[0])[::2], study / "data" / "index.parquet")


def test_predictions_are_the_mean_over_the_networks_of_the_folds(study: Path, result: Path) -> None:
    inference = bundle.read(result)
    assert inference.folds == FOLDS
    assert [weights.fold for weights in inference.replicates] == [1, 2, 3]
    predictor = load(result, device="cpu")
    pixels = Shards.open(study / "data" / "shards").gather(np.arange(5))
    single = [load(result, device="cpu", fold=fold) for fold in range(1, FOLDS + 1)]
    assert [len(p.networks) for p in (predictor, *single)] == [3, 1, 1, 1]
    mean = np.mean([network.probabilities(pixels) for network in single], axis=0)
    assert np.allclose(predictor.probabilities(pixels), mean, atol=1e-6)
    with pytest.raises(MedscaleError, match="has no fold 4: it has 3 folds"):
        load(result, fold=4)


def test_result_says_that_its_predictions_are_out_of_fold(result: Path) -> None:
    summary = read_json(result / "summary.json")
    assert summary["replicates"] == ["seed1_fold1", "seed1_fold2", "seed1_fold3"]
    assert summary["seeds"] == [1]
    assert summary["counts"]["test"]["images"] == 42
    assert len(summary["timing"]["wall_seconds"]["values"]) == FOLDS
    assert summary["folds"]["count"] == FOLDS
    card = (result / "model_card.md").read_text()
    assert "3-fold, pooled out-of-fold" in card
    assert "the mean of several networks is not, and" in card
    assert "| 1, fold 3 |" in card
    texts = [line for line in show(result) if isinstance(line, str)]
    assert any(line.startswith("3-fold cross-validation, pooled out-of-fold: 42") for line in texts)


def test_reference_is_fitted_for_each_fold(study: Path, evaluations: dict[str, Evaluation]) -> None:
    index = read_index(study / "data" / "index.parquet")
    shards = Shards.open(study / "data" / "shards")
    summary, _ = reference("glaucoma", shards, index, resamples=50)
    assert summary["images"]["test"] == 42
    assert summary["paired_with"] == evaluations[RUNS[0]].paired_with


def test_corrected_t_test_by_hand() -> None:
    # Nadeau & Bengio (2003), equation 9, in numbers: mean 3, sd 2, 1/5 + 1/4 = 0.45.
    values = np.array([1.0, 1.0, 3.0, 5.0, 5.0])
    line = corrected_t_test(values, 0.25)
    error = math.sqrt(0.45) * 2
    half = 2.7764451051977987 * error  # Student's t, 97.5 %, 4 degrees of freedom
    assert line["sd"] == 2
    assert (line["low"], line["high"]) == pytest.approx((3 - half, 3 + half))
    assert line["p"] == pytest.approx(2 * stats.t.sf(3 / error, 4))
    plain = stats.ttest_1samp(values, 0).pvalue
    assert corrected_t_test(values, 0)["p"] == pytest.approx(plain)
    assert (
        corrected_t_test(values, 0.25)["p"] > plain
    )  # overlapping training sets are no new evidence
    for values in (np.zeros(3), np.full(3, 2.0), np.array([3.0, 3.0, 3.0000000000000004])):
        line = corrected_t_test(values, 0.25)
        assert line["mean"] == values[0]
        assert np.isnan([line[key] for key in ("low", "high", "p")]).all()
    assert np.isnan(list(corrected_t_test(np.array([1.0, np.nan]), 0.25).values())).all()


def predictions_of(correct: list[bool], folds: np.ndarray | None) -> Predictions:
    """Predictions of one seed that are correct or not; the labels 0 and 1 take turns."""
    ids = np.arange(len(correct))
    positive = np.where(correct, ids % 2, 1 - ids % 2)
    odds = np.stack([np.where(positive, 0.2, 0.8), np.where(positive, 0.8, 0.2)], axis=1)
    return Predictions(ids, ids % 2, ids, odds[None], folds)


def test_runs_are_compared_by_fold() -> None:
    folds = np.repeat([0, 1, 2], 4)
    base = predictions_of([True] * 12, folds)
    run = predictions_of([True, True, True, False, *[True] * 4, False, False, True, True], folds)
    table = compare_folds(["run", "base"], [run, base], 1, 0.5).set_index("metric")
    changes = np.array([-25.0, 0.0, -50.0])
    assert table.loc["accuracy", "mean"] == pytest.approx(-25)
    assert table.loc["accuracy", "sd"] == pytest.approx(25)
    error = 25 * math.sqrt(1 / 3 + 0.5)
    assert table.loc["accuracy", "p"] == pytest.approx(2 * stats.t.sf(25 / error, 2))
    assert corrected_t_test(changes, 0.5)["p"] == table.loc["accuracy", "p"]
    runs_by_fold = predictions_of([True] * 12, np.tile([0, 1, 2], 4))
    with pytest.raises(MedscaleError, match="different folds"):
        compare_folds(["run", "other"], [run, runs_by_fold], 1, 0.5)
    with pytest.raises(MedscaleError, match="different folds"):
        compare_folds(["run", "other"], [run, predictions_of([True] * 12, None)], 1, 0.5)


def test_a_missing_fold_is_refused(study: Path) -> None:
    index = read_index(study / "data" / "index.parquet")
    with pytest.raises(MedscaleError, match="divided into 3 folds"):
        columns.of_fold(index, 4)
