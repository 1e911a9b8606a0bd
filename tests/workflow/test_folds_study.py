"""A cross-validation through Snakemake: folds are replicates of a run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner

from data_trees import class_tree
from file_tables import differences
from medscale.base.files import read_json
from medscale.cli import main as cli
from medscale.serve.predict import load
from snakemake_command import snakemake

RUN = "serial_1cpu"


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    """Settings of a study of 24 small images in 2 folds."""
    class_tree(tmp_path / "raw", {"a": 12, "b": 12})
    study = {
        "source": {"kind": "folder", "path": str(tmp_path / "raw")},
        "classes": ["a", "b"],
        "split": {"folds": 2, "val": 0.2},
        "preprocess": {"size": 16},
        "augment": {"crop": None},
        "model": {"name": "tiny_cnn", "options": {"width": 4}},
        "recipe": {"epochs": 1, "batch_size": 8, "warmup_epochs": 0},
        "evaluate": {"gradcam": "all"},
        "seeds": [3],
        "runs": [RUN],
    }
    changes = {"workdir": str(tmp_path / "work"), "only": ["mine"], "dask": {"workers": 1}}
    file = tmp_path / "folds.yaml"
    file.write_text(yaml.safe_dump({**changes, "studies": {"mine": study}}))
    return file


@pytest.mark.slow
def test_a_cross_validation_is_trained_and_evaluated(settings: Path, tmp_path: Path) -> None:
    target, work = f"results/mine/{RUN}", tmp_path / "work"
    process = snakemake(target, "--cores", "2", "--configfile", str(settings), seconds=400)
    assert process.returncode == 0, process.stdout + process.stderr
    summary = read_json(work / target / "summary.json")
    assert summary["replicates"] == ["seed3_fold1", "seed3_fold2"]
    assert summary["counts"]["test"]["images"] == 24
    index = pd.read_parquet(work / "data/mine/index.parquet")
    assert sorted(index["fold"].unique()) == [1, 2]
    assert read_json(work / "data/mine/shards/meta.json")["images"] == 24
    notes = read_json(work / "data/mine/audit.json")["notes"]
    assert any(note.startswith("2 folds of whole groups") for note in notes)
    for fold in (1, 2):
        replicate = work / f"runs/mine/{RUN}/seed3_fold{fold}"
        assert read_json(replicate / "spec.json")["fold"] == fold
        table = pd.read_parquet(replicate / "predictions.parquet")
        test_ids = table.loc[table["split"] == "test", "id"]
        assert set(test_ids) == set(index.loc[index["fold"] == fold, "id"])
        assert (work / f"logs/mine/{RUN}/seed3_fold{fold}.train.log").is_file()
    assert differences(work)[0] == []  # docs/files.md describes all files
    repetition = snakemake("-n", target, "--configfile", str(settings))
    assert "nothing would run" in repetition.stdout + repetition.stderr
    _leaves(work / target, tmp_path)


def _leaves(result: Path, folder: Path) -> None:
    """Evaluate the result on the study's own images, record it and publish it."""
    outside = folder / "outside"
    commands = [
        ["evaluate", str(result), str(folder / "raw"), "--out", str(outside)],
        ["track", str(result), "--to", str(folder / "mlruns")],
        ["publish", str(result), "--to", str(folder / "model")],
    ]
    for command in commands:
        answer = CliRunner().invoke(cli.main, command)
        assert answer.exit_code == 0, answer.output
    # Each image trained the network of another fold.
    assert read_json(outside / "summary.json")["copies"] == {"train": 24, "val": 0, "test": 0}
    table = pd.read_csv(outside / "predictions.csv")
    assert table.groupby(["seed", "fold"]).size().to_dict() == {(3, 1): 24, (3, 2): 24}
    scores = pd.read_csv(outside / "metrics.csv")
    assert {"seed_3_fold1_value", "seed_3_fold2_value"} <= set(scores)
    runs = folder.glob("mlruns/*/*/tags/mlflow.runName")
    assert sorted(run.read_text() for run in runs) == [
        f"{RUN} seed 3 fold {fold}" for fold in (1, 2)
    ]
    pixels = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
    published, original = (load(path, device="cpu") for path in (folder / "model", result))
    assert len(published.networks) == 2
    assert np.array_equal(published.probabilities(pixels), original.probabilities(pixels))
    assert "a network for each of 2 folds" in (folder / "model" / "README.md").read_text()


def test_a_fold_can_be_asked_for_by_its_name(settings: Path) -> None:
    files = ("profiles/slurm/site.yaml", str(settings))
    options = ("-np", "--profile", "slurm", "--configfile", *files)
    process = snakemake(f"runs/mine/{RUN}/seed3_fold2/timing.json", *options)
    assert process.returncode == 0, process.stderr
    assert "seed3_fold2" in process.stdout
    process = snakemake(f"runs/mine/{RUN}/seed3_fold3/timing.json", *options)
    assert process.returncode != 0
    assert "mine has no fold 3: split.folds is 2" in process.stdout + process.stderr
