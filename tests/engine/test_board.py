"""TensorBoard logs: the same numbers as history.csv, once an epoch, also after a restart."""

from __future__ import annotations

import math
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from medscale.engine.train.board import board, tag
from training_runs import Training


def scalars(folder: Path) -> dict[str, dict[int, float]]:
    """Value by epoch of each tag."""
    accumulator = EventAccumulator(str(folder), purge_orphaned_data=True)
    accumulator.Reload()
    return {
        name: {scalar.step: scalar.value for scalar in accumulator.Scalars(name)}
        for name in accumulator.Tags()["scalars"]
    }


def test_columns_that_belong_together_are_called_alike() -> None:
    names = ["train_loss", "val_accuracy", "seconds", "communication_s", "lr", "images_per_second"]
    tags = [
        "loss/train",
        "accuracy/val",
        "seconds/epoch",
        "seconds/communication",
        "lr",
        "images_per_second",
    ]
    assert [tag(name) for name in names] == tags


def test_what_was_written_after_the_checkpoint_does_not_count(tmp_path: Path) -> None:
    with board(tmp_path / "logs", 0) as note:
        for epoch in (1, 2, 3):
            note({"epoch": epoch, "train_loss": float(epoch), "val_accuracy": math.nan})
    (log,) = (tmp_path / "logs").iterdir()
    log.rename(log.with_name(log.name.replace(".host.", ".node-7.cluster.org.")))  # killed there
    with suppress(KeyboardInterrupt), board(tmp_path / "logs", 1) as note:
        note({"epoch": 2, "train_loss": 20.0})
        raise KeyboardInterrupt
    assert scalars(tmp_path / "logs") == {"loss/train": {1: 1.0, 2: 20.0}}
    files = [file.name.split(".") for file in (tmp_path / "logs").iterdir()]
    assert [(*name[:3], name[4]) for name in files] == 2 * [("events", "out", "tfevents", "host")]
    with board(tmp_path / "logs", 0) as note:
        note({"epoch": 1, "train_loss": 5.0})
    assert scalars(tmp_path / "logs") == {"loss/train": {1: 5.0}}


def test_a_training_writes_its_history_where_that_is_asked_for(training: Training) -> None:
    folder = training.fork("serial_1cpu", tensorboard=True, recipe={"epochs": 2})
    history = pd.read_csv(folder / "history.csv").set_index("epoch")
    logs = scalars(folder / "tensorboard")
    columns = history.columns.drop("hardware")  # a text
    assert set(logs) == {tag(column) for column in columns}
    for column in columns:
        assert logs[tag(column)] == pytest.approx(history[column].to_dict(), rel=1e-5)
