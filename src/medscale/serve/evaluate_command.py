"""`medscale evaluate`: a trained run on a folder of external, labelled images."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from medscale.base import paths
from medscale.base.console import plain
from medscale.base.errors import MedscaleError
from medscale.base.files import expand_home, read_json
from medscale.config.sections import Evaluate
from medscale.data.index import AUDIT_CSV, AUDIT_JSON, build_index
from medscale.data.settings import Dask, Source, Split
from medscale.evaluate.calibration import CALIBRATED
from medscale.evaluate.metrics import NAMES, in_percent
from medscale.evaluate.operating import check_prevalence
from medscale.report.marks import mark
from medscale.report.names import OVER
from medscale.report.result.summary import read_summary
from medscale.report.show import operating_point
from medscale.serve.external import ExternalSet, classification, evaluate_external
from medscale.serve.inputs import mapping

SHOWN = 10  # operating points on the terminal


def evaluate(
    result: Path,
    folder: Path,
    out: Path | None,
    *,
    kind: str = "folder",
    patient: str | None = None,
    labels: Sequence[str] = (),
    prevalence: Sequence[str] = (),
    title: str | None = None,
    training_index: Path | None = None,
    device: str | None = None,
) -> tuple[Path, dict[str, Any]]:
    """Index a folder, predict its images, and write the evaluation; return folder and summary.

    Raises MedscaleError for a result or folder that cannot be read, classes that do not match,
    and an option that is not of the form NAME=VALUE or gives two values to a name.

    Args:
        result: result folder of a classification.
        folder: labelled images in a layout of ``kind``.
        out: the new folder; None for ``<study>-<run>-on-<folder>`` here.
        kind: dataset kind of the layout.
        patient: ``source.patient``.
        labels: pairs THEIRS=OURS of class names.
        prevalence: pairs CLASS=SHARE, instead of those of the study.
        title: name of the set; None for the folder's.
        training_index: index.parquet of the study; None for the one in the result's working folder.
        device: of the networks.
    """
    inference, folder = classification(result), expand_home(folder)
    settings = _settings(result, prevalence, inference.classes)
    source = Source(kind=kind, path=folder, patient=patient, labels=_pairs("--label", labels))
    name = f"{inference.study}-{inference.run}-on-{folder.resolve().name}"
    out = paths.new_folder(out or Path(name), paths.SUMMARY)
    with tempfile.TemporaryDirectory(prefix="medscale-external-") as temporary:
        work = Path(temporary)
        build_index(source, Split(mode="external"), inference.classes, Dask(), work)
        images = ExternalSet(
            title=title or folder.resolve().name,
            index=work / paths.INDEX,
            raw=folder,
            notes=read_json(work / AUDIT_JSON)["notes"],
            further={name: (work / name).read_bytes() for name in (AUDIT_CSV, AUDIT_JSON)},
        )
        training_index = training_index or _training_index(result, inference.study)
        summary = evaluate_external(result, images, out, settings, training_index, device)
    return out, summary


def _training_index(result: Path, study: str) -> Path | None:
    """Return the index.parquet of the study in the result's working folder, or None."""
    index = paths.workdir_of(result) / "data" / study / paths.INDEX
    return index if index.is_file() else None


def lines(summary: dict[str, Any], folder: str, titles: Mapping[str, str]) -> Iterator[str | Table]:
    """Yield lines and tables, for rich, of an external evaluation and its folder.

    ``titles``: of the classes, by name.
    """
    name = f"{summary['study']}/{summary['run']['name']} on {summary['title']}"
    yield f"[bold]{plain(name)}[/], not a medical device"
    if words := mark([summary["marks"]]):
        yield f"[yellow]{plain(words)}[/]"
    counts = summary["counts"]["test"]
    yield f"{counts['images']} images; 95 % intervals are over {OVER[summary['patients']]}"
    shared = [copies_sentence(summary["copies"]), *patients_note(summary["same_patients"])]
    for note in [*summary["notes"], *shared]:
        yield f"[yellow]note[/] {plain(note)}"
    names = NAMES | CALIBRATED
    table = Table("metric", "inside (test)", "outside", "outside - inside", box=None)
    for row in summary["shift"]:
        scale = 100 if row["metric"] in NAMES and in_percent(row["metric"]) else 1
        cells = [_around(row, side, scale) for side in ("inside", "outside", "difference")]
        words = names[row["metric"]] + (" (%)" if scale == 100 else "")
        table.add_row(words, *cells)
    yield table
    for row in summary["operating"][:SHOWN]:
        yield from operating_point(row, titles)
    yield "thresholds and temperatures are those of the result, from its validation images"
    yield f"figures, tables and predictions: {plain(folder)}/"


def copies_sentence(copies: dict[str, int] | None) -> str:
    """Return a sentence on the external images that are copies of the study's images."""
    if copies is None:
        return (
            "Whether images are copies of training images is not known: the study's index.parquet "
            "is not available (--index)."
        )
    total = ", ".join(f"{count} of {split}" for split, count in copies.items())
    if any(copies.values()):
        return f"Images that are copies, byte by byte, of images of the study: {total}."
    return "No image is a copy, byte by byte, of an image of the study."


def patients_note(same: dict[str, int] | None) -> list[str]:
    """Return a note on external images of patients who have names of the study's patients."""
    if same is None:
        return ["Whether patients of the study are among these is not known."]
    if not any(same.values()):
        return []
    total = ", ".join(f"{count} of {split}" for split, count in same.items())
    return [
        f"Images whose patient has the name of a patient of the study: {total}. If these are the "
        "same people, the set is not independent of the study."
    ]


def _settings(result: Path, prevalence: Sequence[str], classes: Sequence[str]) -> Evaluate:
    """Return the settings that the result was evaluated with, and prevalences as CLASS=SHARE."""
    section = Evaluate.model_validate(read_summary(result).get("evaluate", {}))
    shares = {
        name: _share(name, value) for name, value in _pairs("--prevalence", prevalence).items()
    }
    stated = section.prevalence | shares
    settings = Evaluate.model_validate(section.model_dump() | {"prevalence": stated})
    check_prevalence(settings, classes)  # before any image is read
    return settings


def _pairs(option: str, texts: Sequence[str]) -> dict[str, str]:
    pairs = [text.rpartition("=") for text in texts]
    if malformed := [text for text, pair in zip(texts, pairs, strict=True) if not pair[0]]:
        raise MedscaleError(f"{option} {malformed[0]!r}: write it as NAME=VALUE")
    return mapping(option, [(name.strip(), value.strip()) for name, _, value in pairs])


def _share(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 0 < value < 1:
        raise MedscaleError(f"--prevalence {name}={text}: a share between 0 and 1, such as 0.03")
    return value


def _around(row: dict[str, Any], name: str, scale: float) -> str:
    values = [row[f"{name}{end}"] for end in ("", "_low", "_high")]
    if values[0] is None:
        return "–"
    digits = 1 if scale == 100 else 3
    mean, low, high = ("–" if value is None else f"{scale * value:.{digits}f}" for value in values)
    return mean if low == "–" else f"{mean} ({low} to {high})"
