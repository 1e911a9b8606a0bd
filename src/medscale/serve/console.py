"""`medscale predict`: options of the command line to a prediction, and its table on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from rich.markup import escape
from rich.table import Table

from medscale.base.errors import MedscaleError
from medscale.base.log import track
from medscale.serve import inputs
from medscale.serve.inputs import Facts, Named
from medscale.serve.predict import Prediction, Predictor, load

SHOWN = 40  # images whose predictions stand on the terminal
MOST = 3  # classes of an image


def opened(result: Path, seed: str | None, device: str | None) -> Predictor:
    """The result as the options ask for it.

    Raises:
        MedscaleError: for a seed that is no number, and as ``load``.
    """
    if seed in (None, "all"):
        return load(result, "all" if seed else None, device)
    if not str(seed).isdecimal():
        raise MedscaleError(f"--seed is a number or 'all', not {seed!r}")
    return load(result, int(str(seed)), device)


def known(text: str | None) -> Facts | pd.DataFrame | None:
    """Metadata from ``age=61,sex=female`` or a CSV file.

    Raises:
        MedscaleError: when it is neither.
    """
    if text is None:
        return None
    if "=" not in text:
        try:
            return pd.read_csv(text)
        except (OSError, ValueError) as error:
            raise MedscaleError(
                f"--metadata {text}: no table can be read there ({error})"
            ) from None
    pairs = [part.split("=", 1) for part in text.split(",")]
    if any(len(pair) != 2 for pair in pairs):
        raise MedscaleError(
            f"--metadata {text!r}: write it as age=61,sex=female, or name a CSV file"
        )
    return {name.strip(): _value(value.strip()) for name, value in pairs}


def predict(
    predictor: Predictor,
    images: Sequence[Path],
    metadata: Facts | pd.DataFrame | None,
    *,
    batch_size: int,
    calibrated: bool,
) -> list[Prediction]:
    """Predictions of all images and of all in the folders, with a progress bar; of one folder by paths within it.

    Raises:
        MedscaleError: for a path that does not exist, and as ``Predictor.predict``.
    """
    for path in images:
        if not path.exists():
            raise MedscaleError(f"{path} does not exist; name image files, or folders of them")
    items = (
        inputs.named(images[0])
        if len(images) == 1
        else [one for path in images for one in _below(path)]
    )
    found = predictor.stream(items, metadata, batch_size, calibrated)
    return list(track(found, "predicting", len(items)))


def shown(predictor: Predictor, predictions: Sequence[Prediction]) -> Table:
    """The first predictions, a line an image."""
    marks = predictor.inference.marks
    said = [f"{predictor.inference.study}/{predictor.inference.run}, not a medical device"]
    said += ["trained on synthetic images"] if marks.get("synthetic") else []
    table = Table("image", "prediction", box=None, title="; ".join(said), title_justify="left")
    for one in predictions[:SHOWN]:
        table.add_row(escape(one.source), _told(one))
    if len(predictions) > SHOWN:
        table.add_row(f"and {len(predictions) - SHOWN} more", "--csv FILE writes all")
    return table


def _told(one: Prediction) -> str:
    if one.error is not None:
        return f"[red]{escape(one.error)}[/]"
    if one.boxes is not None:
        each = [
            f"{b.confidence:.2f} at {b.x:.0f},{b.y:.0f} ({b.width:.0f}x{b.height:.0f})"
            for b in one.boxes[:MOST]
        ]
        more = f" and {len(one.boxes) - MOST} more" if len(one.boxes) > MOST else ""
        return f"{len(one.boxes)} boxes: {'; '.join(each)}{more}" if each else "no boxes"
    best = sorted(one.probabilities.items(), key=lambda pair: -pair[1])[:MOST]
    (first, *others) = [f"{escape(name)} {100 * probability:.1f} %" for name, probability in best]
    return ", ".join([f"[bold]{first}[/]", *others])


def _below(path: Path) -> list[Named]:
    """An image, or those of a folder, by paths as a person would name them."""
    return [
        (str(path / name) if path.is_dir() else name, image) for name, image in inputs.named(path)
    ]


def _value(text: str) -> float | str | None:
    try:
        return float(text)
    except ValueError:
        return text or None
