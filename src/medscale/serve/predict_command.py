"""`medscale predict`: its command-line options, and its table on the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from medscale.base.console import plain
from medscale.base.errors import MedscaleError
from medscale.base.paths import existing_image
from medscale.base.text import subject
from medscale.data.prepare import NO_CONTRAST
from medscale.report.names import class_name
from medscale.serve import inputs
from medscale.serve.calibration import SENTENCES, Calibration
from medscale.serve.inputs import NamedImage
from medscale.serve.predict import Prediction, Predictor

TABLE_ROWS = 40  # images on the terminal
# fields of a prediction that the JSON of an image has
KEYS = ("probabilities", "boxes", "error", "unknown", "note")
MOST_RESULTS = 3  # classes or boxes of an image on the terminal


def named_images(images: Sequence[Path]) -> list[NamedImage]:
    """Return all images, and all in the folders, with their names.

    The images of a single folder are named by their paths within it. Raises MedscaleError for a
    path that does not exist.
    """
    images = [existing_image(path) for path in images]
    if len(images) == 1:
        return inputs.name_images(images[0])
    return [item for path in images for item in _with_folder(path)]


def facts(predictor: Predictor, predictions: Sequence[Prediction]) -> dict[str, Any]:
    """Return the predictions for JSON: by class probabilities, or boxes in pixels."""
    inference = predictor.inference
    return {
        "result": predictor.name,
        "task": inference.task,
        "marks": inference.marks,
        "seeds": [weights.seed for weights in predictor.weights],
        "calibration": _calibration(predictions) or "none",
        "predictions": [
            {"path": image.source, "label": image.label, "title": _title(predictor, image)}
            | {key: vars(image)[key] for key in KEYS}
            for image in predictions
        ],
    }


def lines(
    predictor: Predictor, predictions: Sequence[Prediction], csv: Path | None
) -> Iterator[str | Table]:
    """Yield lines and a table, for rich: the first predictions, a row an image.

    ``csv`` is the file of all predictions, or None without one.
    """
    seeds = predictor.inference.seeds_in_words(predictor.weights)
    names = filter(None, (predictor.name, seeds))
    title = f"{', '.join(names)}, not a medical device"
    if predictor.inference.marks.get("synthetic"):
        title += "; trained on synthetic images"
    yield plain(title)
    table = Table("image", "prediction", box=None, pad_edge=False)
    for prediction in predictions[:TABLE_ROWS]:
        table.add_row(plain(prediction.source), _in_words(predictor, prediction))
    if len(predictions) > TABLE_ROWS:
        table.add_row(
            f"and {len(predictions) - TABLE_ROWS} more", "" if csv else "--csv FILE writes all"
        )
    yield table
    if (calibration := _calibration(predictions)) is not None:
        yield SENTENCES[calibration]
    if note := inputs.unknown_sentence([image.unknown for image in predictions]):
        yield plain(note)
    for note in sentences_on_notes(predictions):
        yield plain(note)
    if csv is not None:
        yield f"{len(predictions)} images in {plain(str(csv))}"


def _calibration(predictions: Sequence[Prediction]) -> Calibration | None:
    """Return the calibration of all probabilities; None where no image has any."""
    return next((image.calibration for image in predictions if image.probabilities), None)


def check_readable(predictions: Sequence[Prediction]) -> None:
    """Raise a MedscaleError where images could not be read."""
    if failed := sum(prediction.error is not None for prediction in predictions):
        raise MedscaleError(
            f"{failed} of {len(predictions)} images could not be read; the reason stands in place "
            "of the prediction"
        )


def sentences_on_notes(predictions: Sequence[Prediction]) -> Iterator[str]:
    """Yield a sentence on files of several frames or pages, and one on those without contrast."""
    with_notes = [prediction for prediction in predictions if prediction.note]
    for sign, problem, remedy in (
        ("frame ", "several frames or pages, of which one was used", "name others as FILE[2]"),
        (NO_CONTRAST, NO_CONTRAST, "they are blank, or their values fill a part of the range"),
    ):
        files = [prediction for prediction in with_notes if sign in str(prediction.note)]
        if files:
            beginning = subject(len(files), "file", "have")
            yield f"{beginning} {problem} ({files[0].source}: {files[0].note}); {remedy}."


def _title(predictor: Predictor, prediction: Prediction) -> str | None:
    """Return the most probable class as readers see it; None for a detector or without an image."""
    label = prediction.label
    return None if label is None else class_name(label, predictor.inference.class_titles)


def _in_words(predictor: Predictor, prediction: Prediction) -> str:
    if prediction.error is not None:
        return f"[red]{plain(prediction.error)}[/]"
    if (boxes := prediction.boxes) is not None:
        places = [
            f"{b.confidence:.2f} at {b.x:.0f},{b.y:.0f} ({b.width:.0f}x{b.height:.0f})"
            for b in boxes[:MOST_RESULTS]
        ]
        more = f" and {len(boxes) - MOST_RESULTS} more" if len(boxes) > MOST_RESULTS else ""
        number = f"{len(boxes)} boxes" if len(boxes) > 1 else "1 box"
        return f"{number}: {'; '.join(places)}{more}" if boxes else "no boxes"
    titles = predictor.inference.class_titles
    ranking = sorted(prediction.probabilities.items(), key=lambda pair: -pair[1])
    best, *further = [
        f"{plain(class_name(name, titles))} {100 * value:.1f} %"
        for name, value in ranking[:MOST_RESULTS]
    ]
    return ", ".join([f"[bold]{best}[/]", *further])


def _with_folder(path: Path) -> list[NamedImage]:
    """Return an image, or those of a folder, by paths that begin with the folder."""
    return [
        (str(path / name) if path.is_dir() else name, image)
        for name, image in inputs.name_images(path)
    ]
