"""`medscale evaluate`: a trained run on a folder of external, labelled images."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medscale.base import paths
from medscale.base.errors import MedscaleError
from medscale.base.files import expand_home, read_json
from medscale.config.sections import Evaluate
from medscale.data.index import AUDIT_CSV, AUDIT_JSON, build_index
from medscale.data.settings import Dask, Source, Split
from medscale.evaluate.operating import check_prevalence
from medscale.report.result.summary import read_summary
from medscale.serve.external import ExternalSet, classification, evaluate_external
from medscale.serve.inputs import mapping


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


def _settings(result: Path, prevalence: Sequence[str], classes: Sequence[str]) -> Evaluate:
    """Return the settings that the result was evaluated with, and prevalences as CLASS=SHARE."""
    section = Evaluate.model_validate(read_summary(result).get("evaluate", {}))
    shares = {
        name: _share(name, value) for name, value in _pairs("--prevalence", prevalence).items()
    }
    stated = section.prevalence | shares
    settings = section.model_copy(update={"prevalence": stated})
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
