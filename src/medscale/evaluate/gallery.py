"""Grad-CAM heat maps of test images that a trained network classifies rightly and wrongly."""

import numpy as np
import pandas as pd
import torch
from torch import nn

from medscale.base.errors import MedscaleError
from medscale.data.augment import MEAN, STD, Augmenter
from medscale.data.metadata import encode
from medscale.data.shards import Shards
from medscale.engine.models.gradcam import gradcam
from medscale.engine.models.registry import build, load_weights
from medscale.evaluate.replicates import Gallery, Replicate

CASES_PER_KIND = 6  # number of correct cases, and of errors
TOLERANCE = 0.2  # of probabilities; wide, since training may have predicted in mixed precision


def gallery(replicate: Replicate, shards: Shards) -> Gallery:
    """Compute Grad-CAM on the CPU for the test images that ``choose`` selects.

    The method is that of Selvaraju et al. (ICCV 2017), see ``engine.models.gradcam``.

    Raises:
        MedscaleError: when weights, shards and predictions are not of the same training.
    """
    table = replicate.predictions[replicate.predictions["split"] == "test"]
    probabilities = table.filter(regex=r"^p_\d+$").to_numpy(np.float64)
    ids, labels = table["id"].to_numpy(np.int64), table["label"].to_numpy(np.int64)
    case_rows = choose(labels, probabilities)
    places = pd.Index(shards.ids).get_indexer(ids[case_rows])
    if (places < 0).any():
        raise MedscaleError(
            f"{shards.folder} has no image {ids[case_rows][places < 0][0]}: it is of another index"
        )
    pixels, features = _inputs(replicate, shards, places)
    network = _network(replicate, shards, 0 if features is None else features.shape[1])
    predicted_codes, names = probabilities[case_rows].argmax(axis=1), np.array(shards.classes)
    cases = pd.DataFrame(
        {
            "id": ids[case_rows],
            "true": names[labels[case_rows]],
            "predicted": names[predicted_codes],
            "probability": probabilities[case_rows].max(axis=1),
            "right": predicted_codes == labels[case_rows],
        }
    )
    try:
        inputs = pixels if features is None else (pixels, features)
        heat, logits = gradcam(network, inputs, torch.from_numpy(predicted_codes))
    except MedscaleError as error:
        return Gallery(cases, np.empty((0, 1, 1), np.float32), _images(pixels), str(error))
    difference = float(np.abs(torch.softmax(logits, 1).numpy() - probabilities[case_rows]).max())
    if difference > TOLERANCE:
        raise MedscaleError(
            f"{replicate.folder}: model.safetensors gives other probabilities than "
            f"predictions.parquet (by up to {difference:.2f}); they were not written by the same "
            "training, or the images changed: train this run again"
        )
    return Gallery(cases, heat.numpy(), _images(pixels))


def _network(replicate: Replicate, shards: Shards, metadata_width: int) -> nn.Module:
    """Return the trained network of a replicate."""
    # Without pretrained weights, which would only be replaced by those of model.safetensors.
    plain = replicate.plan.model.model_copy(update={"pretrained": None})
    network = build(plain, len(shards.classes), shards.shape[2], metadata_width)
    load_weights(network, replicate.folder / "model.safetensors")
    return network


def choose(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Choose up to ``CASES_PER_KIND`` correct images and as many errors, the most confident first.

    The classes take turns. Confident predictions show best which regions a network relies on, and
    confident errors do the most harm.

    Args:
        labels: true class codes, int64, shape N.
        probabilities: shape N,K; the predicted class is the one with the largest.

    Returns:
        Row numbers, the correctly classified images first.
    """
    predicted_codes, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    case_rows = []
    for is_correct in (True, False):
        rows = np.flatnonzero((predicted_codes == labels) == is_correct)
        rows = rows[np.argsort(-confidence[rows], kind="stable")]
        turn = pd.Series(labels[rows]).groupby(labels[rows]).cumcount().to_numpy()
        rows = rows[np.lexsort((-confidence[rows], turn))][:CASES_PER_KIND]
        case_rows.append(rows)
    return np.concatenate(case_rows)


def _inputs(
    replicate: Replicate, shards: Shards, places: np.ndarray
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return the network's inputs for images of the shards: pixels, and metadata if it uses any."""
    augmenter = Augmenter(replicate.plan.augment, np.ones(len(shards.classes)), replicate.plan.seed)
    neutral = augmenter.neutral(len(places), shards.shape[:2])
    pixels = augmenter.apply(torch.from_numpy(shards.gather(places)), neutral, training=False)
    features = encode(shards.rows, replicate.plan.model.metadata)
    return pixels, None if features is None else torch.from_numpy(features[places])


def _images(pixels: torch.Tensor) -> np.ndarray:
    """Turn normalized pixels (n,3,H,W) back into images, uint8, shape n,H,W,3."""
    std, mean = np.array(STD, np.float32), np.array(MEAN, np.float32)
    values = pixels.permute(0, 2, 3, 1).numpy() * std + mean
    return (255 * values).round().clip(0, 255).astype(np.uint8)
