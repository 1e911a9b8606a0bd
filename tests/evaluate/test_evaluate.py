"""Results of replicates: what they sum up, predictions that are refused, folders written whole."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import save_file
from scipy import stats

from medscale.base.errors import MedscaleError
from medscale.base.files import read_json, write_csv, write_json, write_parquet
from medscale.config.sections import Evaluate
from medscale.evaluate import metrics
from medscale.evaluate.evaluation import evaluate
from medscale.evaluate.replicates import read, same_run
from medscale.evaluate.summary import one_line, summarise
from medscale.report.quality import facts as quality_facts
from medscale.report.result.folder import whole_folder, write_result
from medscale.report.result.reading import read_result
from synthetic_runs import configuration, make_index, make_run

TWO, FOUR = ["normal", "glaucoma"], ["a", "b & c", "dé", "e_f"]


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
    few_groups = {"mean": 0.75, "low": None, "high": None}
    summary["metrics"]["test"]["accuracy"] = few_groups
    assert " accuracy 75.0 % (interval undefined), balanced " in one_line(summary)


def test_times_are_of_the_epochs_on_all_devices_without_the_first(make_replicates):
    folders, index, _ = make_replicates(run="ddp_2cpu")
    for folder in folders:
        history = pd.read_csv(folder / "history.csv")
        history["compute_s"] = [9.0, 1.0, 2.0, 5.0, 5.0, 5.0]
        history["processes"] = [2, 2, 2, 1, 1, 1]
        write_csv(folder / "history.csv", history)
    timing = read_json(folders[0] / "timing.json")
    write_json(folders[0] / "timing.json", timing | {"communication_measured": False})
    tensors = {"conv.weight": np.ones(1, np.float32), "norm.running_mean": np.ones(1, np.float32)}
    save_file(tensors, folders[0] / "model.safetensors")
    summary = summarise(evaluate(folders, index, resamples=50))
    assert summary["timing"]["seconds_by_kind"]["compute"]["values"] == [1.5, 1.5]
    assert summary["timing"]["communication_measured"] is False  # of one of two replicates
    assert summary["batch_norm"] is True


def test_the_use_of_gpus_is_the_mean_over_ranks_and_unknown_if_a_replicate_lacks_it(
    make_replicates,
):
    folders, index, _ = make_replicates(run="ddp_2cpu")
    assert summarise(evaluate(folders, index, resamples=50))["timing"]["gpu_use_percent"] is None
    for folder, use in zip(folders, ([90.0, 80.0], [100.0, 90.0]), strict=True):
        timing = read_json(folder / "timing.json")
        write_json(folder / "timing.json", timing | {"gpu_use_percent": use})
    timing = summarise(evaluate(folders, index, resamples=50))["timing"]
    assert timing["gpu_use_percent"]["values"] == [85.0, 95.0]
    record = read_json(folders[0] / "timing.json")
    write_json(folders[0] / "timing.json", record | {"gpu_use_percent": None})
    assert summarise(evaluate(folders, index, resamples=50))["timing"]["gpu_use_percent"] is None


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
    point = quality_facts._point(read_result(folders[0].parent / "result"))
    assert np.isnan(point["ppv"]["low"])
