"""Linear reference of a study: logistic regression on principal components of small images.

A network that does not beat it has learned nothing that needs a network. The reference is fitted on
the study's own split, so that its scores can be compared with those of the runs in pairs.
"""

from typing import Any, NamedTuple

import cv2
import numpy as np
import pandas as pd
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression

from medscale.base.errors import MedscaleError
from medscale.data import folds
from medscale.data.shards import Shards
from medscale.evaluate import bootstrap, metrics
from medscale.evaluate.assessment import PAIRED, RESAMPLES, draws, pairing
from medscale.evaluate.replicates import Predicted, test_rows
from medscale.evaluate.summary import plain

SIDE = 32  # pixels; a larger side costs time and gained no AUROC on chest radiographs
COMPONENTS = 50
PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # C of scikit-learn: smaller is more regularization
MOST = 10_000  # training images that are fitted, which bounds time and memory
BLOCK = 1024  # images that are read at a time
GREY = 3  # grey levels that JPEG and colour spaces add between the channels of a grey image


class _Fitted(NamedTuple):
    """The reference fitted on the training images of a division, and its test predictions."""

    ids: np.ndarray  # of the test images, shape N
    odds: np.ndarray  # their probabilities, shape N,K
    images: int  # training images that were fitted
    colour: bool  # whether the images have colours
    components: int
    variance: float  # share that the components explain
    penalty: float  # C of scikit-learn
    majority: int  # code of the most frequent training class


def reference(
    study: str, shards: Shards, index: pd.DataFrame, resamples: int = RESAMPLES
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Fit the reference of a study and evaluate it on the test split.

    The validation split chooses the strength of regularization by its cross-entropy. With folds it
    is fitted for each, and its out-of-fold predictions are pooled, as those of the runs are. Raises
    MedscaleError when no image is in the test split, or training has one class alone.

    Args:
        shards: preprocessed images with their splits.
        index: index.parquet, for the groups that are resampled.
        resamples: number of bootstrap resamples, the same ones as those of the study's runs.

    Returns:
        The content of reference.json (``method`` and ``majority`` are of the first fold), and the
        metrics ``PAIRED`` of each resample.
    """
    count = folds.count(index)
    fits = [_fit(study, shards.of_fold(fold)) for fold in [*range(1, count + 1)] or [None]]
    test, classes = test_rows(index), shards.classes
    ids = np.concatenate([fit.ids for fit in fits])
    order = np.argsort(ids, kind="stable")
    if not np.array_equal(ids[order], test["id"].to_numpy(np.int64)):
        raise MedscaleError(f"{shards.folder} lacks test images of the index; delete the folder")
    codes = test["label"].cat.codes.to_numpy(np.int64)
    groups = pd.factorize(test["group"].astype(str), sort=True)[0].astype(np.int64)
    odds = np.concatenate([fit.odds for fit in fits])[order]
    number = np.repeat(np.arange(len(fits)), [len(fit.ids) for fit in fits])[order]
    predicted = Predicted(ids[order], codes, groups, odds[None], number if count else None)
    values = bootstrap.resample(codes, odds, groups, draws(predicted, resamples)).overall
    points, first = metrics.point(codes, odds), fits[0]
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
            "share": float((codes == first.majority).mean()),
        },
        "metrics": {
            "test": {
                name: _score(points[name], values[name]) for name in metrics.names(len(classes))
            }
        },
        "paired_with": pairing(predicted, resamples),
    }
    return plain(summary), pd.DataFrame({name: values[name] for name in PAIRED})


def _fit(study: str, shards: Shards) -> _Fitted:
    """Fit the reference on the training images of a division, and predict its test images."""
    train, test = shards.positions("train"), shards.positions("test")
    labels, classes = shards.labels, shards.classes
    if not len(test) or len(np.unique(labels[train])) < 2:
        raise MedscaleError(
            f"{study}: the linear reference needs test images, and training images of two classes"
        )
    fitted = train[np.linspace(0, len(train) - 1, min(len(train), MOST)).astype(int)]
    colour = _has_colour(shards, fitted)
    pixels = _pixels(shards, fitted, colour)
    components = min(COMPONENTS, len(fitted) - 1, pixels.shape[1])
    pca = PCA(components, whiten=True, svd_solver="randomized", random_state=0).fit(pixels)
    model = _best(pca, pixels, labels[fitted], shards, colour)
    return _Fitted(
        shards.ids[test],
        _probabilities(model, _project(pca, shards, test, colour), classes),
        len(fitted),
        colour,
        components,
        float(pca.explained_variance_ratio_.sum()),
        float(model.C),
        int(np.bincount(labels[train], minlength=len(classes)).argmax()),
    )


def _score(value: float, resampled: np.ndarray) -> dict[str, float]:
    low, high = bootstrap.interval(resampled)
    return {"mean": value, "low": low, "high": high}


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
        odds = _probabilities(model, projected, shards.classes)
        # A class that training lacks has probability 0; it is the same for all models.
        return float(-np.log(np.maximum(odds[np.arange(len(truth)), truth], 1e-12)).mean())

    return min(models, key=loss)


def _probabilities(
    model: LogisticRegression, features: np.ndarray, classes: list[str]
) -> np.ndarray:
    """Return the probabilities of all classes, shape N,K; 0 for classes that training lacks."""
    odds = np.zeros((len(features), len(classes)))
    odds[:, model.classes_] = model.predict_proba(features)
    return odds


def _project(pca: PCA, shards: Shards, positions: np.ndarray, colour: bool) -> np.ndarray:
    """Return the principal components of images, shape N,components, read block by block."""
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
