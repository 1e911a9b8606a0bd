"""Where a trained network looked: Grad-CAM of test images that it has right and wrong."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from medscale.base.errors import MedscaleError
from medscale.data.augment import MEAN, STD, Augmenter
from medscale.data.metadata import encode
from medscale.data.shards import Shards
from medscale.engine.models.gradcam import gradcam
from medscale.engine.models.registry import build, load_weights
from medscale.evaluate.replicates import Gallery, Replicate

EACH = 6  # right cases, and wrong ones
APART = 0.2  # probability: training may have predicted in mixed precision


def gallery(replicate: Replicate, shards: Shards) -> Gallery:
    """Grad-CAM, on the CPU, of the cases that ``choose`` takes from a replicate's test predictions.

    Raises:
        MedscaleError: when weights, shards and predictions do not belong together.
    """
    table = replicate.predictions[replicate.predictions["split"] == "test"]
    odds = table.filter(regex=r"^p_\d+$").to_numpy(np.float64)
    ids, labels = table["id"].to_numpy(np.int64), table["label"].to_numpy(np.int64)
    chosen = choose(labels, odds)
    places = pd.Index(shards.ids).get_indexer(ids[chosen])
    if (places < 0).any():
        raise MedscaleError(
            f"{shards.folder} has no image {ids[chosen][places < 0][0]}: it is of another index"
        )
    pixels, features = _inputs(replicate, shards, places)
    plain = replicate.plan.model.model_copy(update={"pretrained": None})  # its weights are replaced
    network = build(
        plain, len(shards.classes), shards.shape[2], 0 if features is None else features.shape[1]
    )
    load_weights(network, replicate.folder / "model.safetensors")
    predicted, names = odds[chosen].argmax(axis=1), np.array(shards.classes)
    cases = pd.DataFrame(
        {"id": ids[chosen], "true": names[labels[chosen]], "predicted": names[predicted]}
    )
    cases["probability"], cases["right"] = odds[chosen].max(axis=1), predicted == labels[chosen]
    try:
        inputs = pixels if features is None else (pixels, features)
        heat, logits = gradcam(network, inputs, torch.from_numpy(predicted))
    except MedscaleError as error:
        return Gallery(cases, np.empty((0, 1, 1), np.float32), _seen(pixels), str(error))
    apart = float(np.abs(torch.softmax(logits, 1).numpy() - odds[chosen]).max())
    if apart > APART:
        raise MedscaleError(
            f"{replicate.folder}: model.safetensors gives other probabilities than predictions.parquet (by up to "
            f"{apart:.2f}); they were not written by the same training, or the images changed: train this run again"
        )
    return Gallery(cases, heat.numpy(), _seen(pixels))


def choose(labels: np.ndarray, odds: np.ndarray) -> np.ndarray:
    """Rows of up to ``EACH`` right and then as many wrong images: of each class in turn the most confident ones.

    What a network is surest of shows best what it goes by; wrong and sure is what does harm.
    """
    predicted, confidence = odds.argmax(axis=1), odds.max(axis=1)
    chosen = []
    for right in (True, False):
        rows = np.flatnonzero((predicted == labels) == right)
        rows = rows[np.argsort(-confidence[rows], kind="stable")]
        turn = pd.Series(labels[rows]).groupby(labels[rows]).cumcount().to_numpy()
        rows = rows[np.lexsort((-confidence[rows], turn))][:EACH]
        chosen.append(rows)
    return np.concatenate(chosen)


def _inputs(
    replicate: Replicate, shards: Shards, places: np.ndarray
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """What the network is called with for images of the shards: pixels, and metadata where it takes some."""
    augmenter = Augmenter(replicate.plan.augment, np.ones(len(shards.classes)), replicate.plan.seed)
    neutral = augmenter.neutral(len(places), shards.shape[:2])
    pixels = augmenter.apply(torch.from_numpy(shards.gather(places)), neutral, training=False)
    features = encode(shards.rows, replicate.plan.model.metadata)
    return pixels, None if features is None else torch.from_numpy(features[places])


def _seen(pixels: torch.Tensor) -> np.ndarray:
    """Normalized pixels (n,3,H,W) as images again, uint8, shape n,H,W,3."""
    values = pixels.permute(0, 2, 3, 1).numpy() * np.array(STD, np.float32) + np.array(
        MEAN, np.float32
    )
    return (255 * values).round().clip(0, 255).astype(np.uint8)
