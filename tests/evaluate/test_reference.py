"""Tests of the linear reference on shards whose classes a line can or cannot tell apart."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from medscale.base.errors import MedscaleError
from medscale.data.shards import Shards, seal, write_chunk
from medscale.evaluate import reference as reference_module
from medscale.evaluate.bootstrap import smallest_share
from medscale.evaluate.evaluation import evaluate
from medscale.evaluate.reference import reference
from medscale.report.overview.linear import Linear, differences
from synthetic_runs import configuration, make_index, make_run, make_shards


def open_shards(folder, index: pd.DataFrame, images: np.ndarray) -> Shards:
    """Return a shard set of images, uint8, shape N,H,W,C."""
    write_chunk(folder, 0, images)
    codes = index["label"].cat.codes.to_numpy(np.int64)
    rows = index[["id", "split", "group"]].assign(label=codes)
    seal(folder, rows, list(index["label"].cat.categories), {"preprocess": {}})
    return Shards.open(folder)


@pytest.mark.parametrize("classes", [["normal", "ill"], ["a", "b", "c"]])
def test_brighter_classes_are_distinguished_and_noise_is_not(tmp_path, classes):
    index = make_index(tmp_path, classes, images=240)
    codes = index["label"].cat.codes.to_numpy()
    rng = np.random.default_rng(1)
    noise = rng.integers(0, 100, (240, 40, 40, 3))
    bright = (noise + 30 * codes[:, None, None, None]).astype(np.uint8)
    good, resamples = reference("s", open_shards(tmp_path / "a", index, bright), index, 50)
    bad, _ = reference("s", open_shards(tmp_path / "b", index, noise.astype(np.uint8)), index, 50)
    auroc = good["metrics"]["test"]["auroc"]
    assert auroc["mean"] > 0.99
    assert auroc["low"] <= auroc["mean"] <= auroc["high"]
    assert 0.2 < bad["metrics"]["test"]["auroc"]["mean"] < 0.8
    assert len(resamples) == 50
    assert good["method"]["features"] == "32 x 32 pixels, colour"
    train, test = (codes[index["split"] == split] for split in ("train", "test"))
    majority_class = np.bincount(train).argmax()
    assert good["majority"] == {
        "class": classes[majority_class],
        "share": np.mean(test == majority_class),
    }


def test_its_resamples_are_paired_with_those_of_the_runs(tmp_path):
    index = make_index(tmp_path / "data", ["normal", "ill"])
    make_shards(tmp_path / "shards", index)
    folders = make_run(tmp_path / "runs", configuration(), "serial_1cpu", index)
    run = evaluate(folders, tmp_path / "data" / "index.parquet", resamples=50)
    linear, resamples = reference("glaucoma", Shards.open(tmp_path / "shards"), index, 50)
    assert linear["paired_with"] == run.paired_with
    assert list(resamples.columns) == list(run.resamples.columns)
    assert linear["method"]["features"] == "32 x 32 pixels, grey"


def test_averages_are_over_the_classes_of_the_runs(tmp_path):
    index = make_index(tmp_path / "data", ["a", "b", "c"], images=240)
    is_rare = (index["label"] == "c") & (index["split"] == "test")
    index = index.drop(index[is_rare].index[3:]).reset_index(drop=True)
    is_rare = (index["label"] == "c") & (index["split"] == "test")
    levels = index["label"].cat.codes.to_numpy() * ~is_rare.to_numpy()  # such images look like a
    images = np.broadcast_to(20 + 60 * levels[:, None, None, None], (len(index), 40, 40, 3))
    shards = open_shards(tmp_path / "shards", index, images.astype(np.uint8))
    linear, _ = reference("s", shards, index, 20)
    scores = linear["metrics"]["test"]
    assert scores["accuracy"]["mean"] == 1 - is_rare.sum() / (index["split"] == "test").sum()
    assert scores["balanced_accuracy"]["mean"] == 1  # two thirds, if it included the class c


def test_a_class_that_training_lacks_has_no_probability(tmp_path):
    index = make_index(tmp_path / "data", ["a", "b", "c"])
    index.loc[(index["split"] == "train") & (index["label"] == "c"), "split"] = "val"
    make_shards(tmp_path / "shards", index)
    linear, _ = reference("s", Shards.open(tmp_path / "shards"), index, 20)
    assert linear["metrics"]["test"]["accuracy"]["mean"] < 1


def test_a_sample_of_many_training_images_has_every_class(tmp_path, monkeypatch):
    monkeypatch.setattr(reference_module, "MAX_TRAINING_IMAGES", 20)
    index = make_index(tmp_path, ["a", "b"], images=240)
    rare = index.index[(index["label"] == "b") & (index["split"] == "train")]
    index = index.drop(rare[:-1]).reset_index(drop=True)
    images = np.random.default_rng(0).integers(0, 255, (len(index), 40, 40, 3), np.uint8)
    summary, _ = reference("s", open_shards(tmp_path / "shards", index, images), index, 50)
    assert summary["images"]["train"] == 21, "20 images of a, and the only one of b"


def test_one_class_in_training_is_one_message(tmp_path):
    index = make_index(tmp_path / "data", ["a", "b"])
    index.loc[(index["split"] == "train") & (index["label"] == "b"), "split"] = "val"
    make_shards(tmp_path / "shards", index)
    with pytest.raises(MedscaleError, match="training images of two classes"):
        reference("s", Shards.open(tmp_path / "shards"), index, 20)


@pytest.mark.parametrize(
    ("patients", "gains", "expected"),
    [
        # no resample has another patient of the smallest class
        (1, [0.1, 0.1 + 1e-6], (0.1 - smallest_share(1), 1.0)),
        (10, [0.0, 0.0], (-smallest_share(10), smallest_share(10))),  # two perfect scores
        (10, [0.1, 0.1 + 1e-6], (0.1, 0.1 + 1e-6)),
    ],
)
def test_a_gain_over_the_reference_of_few_patients_is_uncertain(patients, gains, expected) -> None:
    scores = {"test": {"auroc": {"mean": 0.8}}}
    base = Linear(
        {"paired_with": "x", "smallest_class": patients, "metrics": scores},
        pd.DataFrame({"auroc": [0.8, 0.8]}),
    )
    run = SimpleNamespace(
        name="ddp_2cpu",
        summary={"bootstrap": {"paired_with": "x"}},
        score=lambda metric: {"mean": 0.9},
        resamples=pd.DataFrame({"auroc": 0.8 + np.array(gains)}),
    )
    (row,) = differences([run], base).to_dict("records")
    assert (row["low"], row["high"]) == pytest.approx(expected, abs=1e-6)
