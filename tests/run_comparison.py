"""Comparison of two run folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from safetensors.numpy import load_file

# Largest differences of a weight (of about 0.1) and of a mean loss, in fp32 without batch norm.
WEIGHTS, LOSS = 2e-6, 1e-6
NUMBERS = ["epoch", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "lr"]


def equal_runs(folder_a: Path, folder_b: Path) -> bool:
    """Whether weights, history and predictions are equal bit by bit."""
    history = [pd.read_csv(folder / "history.csv")[NUMBERS] for folder in (folder_a, folder_b)]
    predictions = [
        pd.read_parquet(folder / "predictions.parquet") for folder in (folder_a, folder_b)
    ]
    weights = [(folder / "model.safetensors").read_bytes() for folder in (folder_a, folder_b)]
    return (
        history[0].equals(history[1])
        and predictions[0].equals(predictions[1])
        and weights[0] == weights[1]
    )


def distance(folder_a: Path, folder_b: Path) -> tuple[float, float, float]:
    """Largest differences of weights, of losses in the history, and of predicted probabilities."""
    weights = [load_file(folder / "model.safetensors") for folder in (folder_a, folder_b)]
    assert weights[0].keys() == weights[1].keys()
    history = [
        pd.read_csv(folder / "history.csv")[["train_loss", "val_loss"]].to_numpy()
        for folder in (folder_a, folder_b)
    ]
    predictions = [
        pd.read_parquet(folder / "predictions.parquet") for folder in (folder_a, folder_b)
    ]
    assert predictions[0][["id", "split", "label"]].equals(predictions[1][["id", "split", "label"]])
    chances = [table.filter(like="p_").to_numpy() for table in predictions]
    return (
        max(float(np.abs(weights[0][name] - weights[1][name]).max()) for name in weights[0]),
        float(np.abs(history[0] - history[1]).max()),
        float(np.abs(chances[0] - chances[1]).max()),
    )
