"""Linear reference of a study: logistic regression on principal components of small images.

If a network is not better than this linear model, the task does not need a network. The reference
is fitted on the study's split, so that its scores can be compared with those of the runs in pairs.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pandas as pd
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression

from medscale.base.errors import MedscaleError
from medscale.data import folds
from medscale.data.shards import Shards
from medscale.evaluate import metrics
from medscale.evaluate.assessment import PAIRED_METRICS, RESAMPLES, draws, pairing
from medscale.evaluate.replicates import Predictions, test_rows
from medscale.evaluate.summary import plain

SIDE = 32  # pixels; a larger side costs time and gained no AUROC on chest radiographs
COMPONENTS = 50
PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # C of scikit-learn: smaller is more regularization
MAX_TRAINING_IMAGES = 10_000  # about; bounds time and memory of the fit
BLOCK = 1024  # images read at a time
# Grey levels: by so much the channels of a grey image can differ after JPEG and colour conversion.
GREY = 3


class _Fit(NamedTuple):
    """The reference, fitted on the training images of one division, and its test predictions."""

    ids: np.ndarray  # ids of the N test images, int64, shape N
    probabilities: np.ndarray  # probabilities of the test images, shape N,K
    images: int  # number of training images in the fit
    colour: bool  # whether the images have colours
    components: int  # number of principal components
    variance: float  # share of the variance that the components explain, 0 to 1
    penalty: float  # C of scikit-learn's LogisticRegression
    majority: int  # code of the most frequent training class


def reference(
    study: str, shards: Shards, index: pd.DataFrame, resamples: int = RESAMPLES
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Fit the reference of a study and evaluate it on the test split.

    The strength of regularization is the one with the smallest cross-entropy on the validation
    split. With folds, the reference is fitted for each fold, and its out-of-fold predictions are
    pooled like those of the runs.

    Args:
        study: name of the study, for messages.
        shards: preprocessed images with their splits.
        index: index.parquet, for the groups of the bootstrap.
        resamples: number of bootstrap resamples; they are those of the study's runs.

    Returns:
        The content of reference.json (``method`` and ``majority`` are of the first fold), and
        ``PAIRED_METRICS`` of each resample.

    Raises:
        MedscaleError: when the test split has no image, or the training images have one class.
    """
    count = folds.count(index)
    fits = [_fit(study, shards.of_fold(fold)) for fold in [*range(1, count + 1)] or [None]]
    test, classes, first = test_rows(index), shards.classes, fits[0]
    predictions = _pooled(fits, test, shards.folder, with_folds=count > 0)
    # The averages are over the same classes as those of the study's runs, to be comparable.
    class_mask = predictions.class_mask
    values = metrics.resamples(predictions, draws(predictions, resamples), class_mask)[0].overall
    points = metrics.points(predictions, class_mask)[0]
    intervals = {
        name: metrics.interval(name, predictions, [points], [values], class_mask)
        for name in metrics.names(len(classes))
    }
    summary = {
        "study": study,
        "method": {
            "features": f"{SIDE} x {SIDE} pixels, {'colour' if first.colour else 'grey'}",
            "components": first.components,
            "variance": first.variance,
            "penalty": first.penalty,
        },
        "images": {"train": first.images, "test": len(test)},
        "majority": {
            "class": classes[first.majority],
            "share": float((predictions.labels == first.majority).mean()),
        },
        "smallest_class": metrics.smallest_class(predictions, class_mask),
        "metrics": {
            "test": {
                name: {"mean": points[name], "low": low, "high": high}
                for name, (low, high) in intervals.items()
            }
        },
        "paired_with": pairing(predictions, resamples),
    }
    return plain(summary), pd.DataFrame({name: values[name] for name in PAIRED_METRICS})


def _pooled(
    fits: Sequence[_Fit], test: pd.DataFrame, folder: Path, *, with_folds: bool
) -> Predictions:
    """Return the predictions of all fits in the order of the test images of the index.

    Raises:
        MedscaleError: when the shards in ``folder`` lack test images of the index.
    """
    ids = np.concatenate([fit.ids for fit in fits])
    order = np.argsort(ids, kind="stable")
    if not np.array_equal(ids[order], test["id"].to_numpy(np.int64)):
        raise MedscaleError(f"{folder} lacks test images of the index; delete the folder")
    probabilities = np.concatenate([fit.probabilities for fit in fits])[order]
    number = np.repeat(np.arange(len(fits)), [len(fit.ids) for fit in fits])[order]
    return Predictions.of(test, probabilities[None], number if with_folds else None)


def _fit(study: str, shards: Shards) -> _Fit:
    """Fit the reference on the training images of a division, and predict its test images."""
    train, test = shards.positions("train"), shards.positions("test")
    labels, classes = shards.labels, shards.classes
    if not len(test) or len(np.unique(labels[train])) < 2:
        raise MedscaleError(
            f"{study}: the linear reference needs test images, and training images of two classes"
        )
    train_sample = _sample(train, labels[train])
    colour = _has_colour(shards, train_sample)
    pixels = _pixels(shards, train_sample, colour)
    components = min(COMPONENTS, len(train_sample) - 1, pixels.shape[1])
    pca = PCA(components, whiten=True, svd_solver="randomized", random_state=0).fit(pixels)
    model = _best(pca, pixels, labels[train_sample], shards, colour)
    return _Fit(
        shards.ids[test],
        _probabilities(model, _project(pca, shards, test, colour), classes),
        len(train_sample),
        colour,
        components,
        float(pca.explained_variance_ratio_.sum()),
        float(model.C),
        int(np.bincount(labels[train], minlength=len(classes)).argmax()),
    )


def _sample(positions: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return positions of images that are evenly spaced within each class, ascending.

    Every class keeps its share of the images, and at least one image.

    Args:
        positions: of all training images, ascending.
        labels: their class codes.
    """
    share = min(1.0, MAX_TRAINING_IMAGES / len(positions))
    parts = []
    for code in np.unique(labels):
        members = positions[labels == code]
        count = max(1, round(share * len(members)))
        parts.append(members[np.linspace(0, len(members) - 1, count).astype(int)])
    return np.sort(np.concatenate(parts))


def _best(
    pca: PCA, pixels: np.ndarray, labels: np.ndarray, shards: Shards, colour: bool
) -> LogisticRegression:
    """Return the regression whose probabilities have the smallest validation cross-entropy."""
    features = pca.transform(pixels)
    models = [LogisticRegression(C=c, max_iter=1000).fit(features, labels) for c in PENALTIES]
    validation = shards.positions("val")
    if not len(validation):
        return models[len(models) // 2]
    projected = _project(pca, shards, validation, colour)
    truth = shards.labels[validation]

    def loss(model: LogisticRegression) -> float:
        probabilities = _probabilities(model, projected, shards.classes)
        # A class without training images has probability 0 in all models.
        return float(-np.log(np.maximum(probabilities[np.arange(len(truth)), truth], 1e-12)).mean())

    return min(models, key=loss)


def _probabilities(
    model: LogisticRegression, features: np.ndarray, classes: list[str]
) -> np.ndarray:
    """Return the probabilities of all classes, shape N,K; 0 for classes without training images."""
    probabilities = np.zeros((len(features), len(classes)))
    probabilities[:, model.classes_] = model.predict_proba(features)
    return probabilities


def _project(pca: PCA, shards: Shards, positions: np.ndarray, colour: bool) -> np.ndarray:
    """Return the principal components of images, which are read in blocks, shape N,components."""
    blocks = np.split(positions, range(BLOCK, len(positions), BLOCK))
    return np.concatenate([pca.transform(_pixels(shards, block, colour)) for block in blocks])


def _pixels(shards: Shards, positions: np.ndarray, colour: bool) -> np.ndarray:
    """Return images as rows of at most ``SIDE`` x ``SIDE`` pixels, float32 in [0, 1]."""
    side = min(SIDE, *shards.shape[:2])
    rows = []
    for block in np.split(positions, range(BLOCK, len(positions), BLOCK)):
        for image in shards.gather(block):
            small = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
            rows.append(small.ravel() if colour else small[..., 1].ravel())
    return np.stack(rows).astype(np.float32) / 255


def _has_colour(shards: Shards, positions: np.ndarray) -> bool:
    """Return whether the channels of the first images differ by more than rounding."""
    images = shards.gather(positions[:BLOCK])
    return float(np.ptp(images, axis=-1).mean()) > GREY
