"""Metadata of a study's images in Croissant 1.1 (Akhtar et al., NeurIPS 2024) by mlcroissant.

The distribution is the study's index, without the images. Answers come from the datasheet. An
unknown answer is left out, except for the licence, which is stated as unknown.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from medscale.base.code import shown_path
from medscale.base.errors import MedscaleError
from medscale.base.extras import require
from medscale.base.files import read_json, sha256, write_json
from medscale.base.paths import INDEX
from medscale.config.sections import Study
from medscale.data import folds
from medscale.data.download import command_line
from medscale.data.kind import load_kind
from medscale.data.patients import sentence
from medscale.data.settings import Datasheet
from medscale.report.datasheet.make import UNKNOWN, description
from medscale.workflow.crate.anonymous import refuse_copy
from medscale.workflow.targets import snakemake_command

if TYPE_CHECKING:
    import mlcroissant as mlc

AUDIT, CROISSANT = "audit.json", "croissant.json"
IMAGES, CLASSES, SPLIT_NAMES = "images", "classes", "splits"  # record sets
VERSION = "http://mlcommons.org/croissant/1.1"
PARQUET = "application/x-parquet"
INVALID_CHARACTERS = re.compile(r"[^A-Za-z0-9_.-]")  # characters that identifiers do not have here
SIDES = 4  # numbers of a box: x, y, width, height
# Terms that Croissant 1.0 (section ML-specific features) gives to the splits.
SPLIT_TERMS = {"train": "TrainingSplit", "val": "ValidationSplit", "test": "TestSplit"}
TERMS = "http://mlcommons.org/croissant/"
MEANINGS = {
    "id": "number of the image, 0 to N - 1",
    "path": "path of the image file, relative to the folder of raw images",
    "label": "class of the image",
    "split": "part of the study that uses the image; of a cross-validation, in its first fold",
    folds.FOLD: "fold of the cross-validation that tests the image",
    "split_published": "split that the dataset's authors published",
    "group": "patient, or cluster of near-duplicates; a split never divides a group",
    "patient": "the patient where known (of DICOM headers: a digest)",
    "width": "width of the image in pixels",
    "height": "height of the image in pixels",
    "sha256": "SHA-256 of the image file",
    "source": "the source set that the image comes from",
    "alike": "path of the first image of the near-duplicate cluster",
    "boxes": "x, y, width, height in pixels of each finding in the image's frame",
    "age": "age of the patient in years",
    "sex": "sex of the patient",
    "view": "projection of the radiograph",
}
PERSONAL = ("patient", "age", "sex")  # columns on a person
LIMITS = "The images do not suffice to validate a medical device."


def write(study: str, settings: Study, folder: Path, options: str = "") -> Path:
    """Write a validated ``croissant.json`` into a study's data folder, and return its path.

    Args:
        study: name of the study.
        settings: the study's section of the configuration.
        folder: ``data/<study>`` with index.parquet and audit.json.
        options: options of Snakemake that read the configuration, for the command in a message.

    Raises:
        MedscaleError: when mlcroissant is not installed, the folder has no index or that of a
            crate, or the metadata are not valid.
    """
    require("Croissant metadata", "exchange", "mlcroissant")
    for name in (INDEX, AUDIT):
        if not (folder / name).is_file():
            command = snakemake_command(f"data/{study}/{INDEX}", options)
            raise MedscaleError(f"{shown_path(folder / name)} does not exist; make it: {command}")
    refuse_copy(folder)
    content = describe(study, settings, folder)
    path = folder / CROISSANT
    write_json(path, content)
    return path


def describe(study: str, settings: Study, folder: Path) -> dict[str, Any]:
    """Return the metadata of a study's images as JSON-LD; see ``write``."""
    import mlcroissant as mlc

    answers = description(settings)
    ctx = mlc.Context(conforms_to=VERSION)
    metadata = mlc.Metadata(
        ctx=ctx,
        name=study,
        description=_sentences(settings, answers),
        license=[answers.licence or UNKNOWN],
        cite_as=answers.citation,
        creators=[mlc.Organization(name=answers.creators)] if answers.creators else [],
        distribution=[_index(ctx, folder)],
        record_sets=_record_sets(ctx, folder),
        **_responsible(settings, answers, folder),
    )
    content = dict(metadata.to_json())
    with _quiet():
        try:
            mlc.Dataset(jsonld=content)
        except mlc.ValidationError as error:
            raise MedscaleError(f"Croissant metadata of {study}: {error}") from None
    return content


def _index(ctx: mlc.Context, folder: Path) -> mlc.FileObject:
    """Return the index as the file from which the fields of the images are read."""
    import mlcroissant as mlc

    return mlc.FileObject(
        ctx=ctx,
        id=INDEX,
        name=INDEX,
        description="One row for each image that is used; the images are not distributed.",
        content_url=INDEX,
        content_size=f"{(folder / INDEX).stat().st_size} B",
        encoding_formats=[PARQUET],
        sha256=sha256(folder / INDEX),
    )


def _record_sets(ctx: mlc.Context, folder: Path) -> list[mlc.RecordSet]:
    """Return classes and splits as enumerations, and the images with the fields of the index."""
    import mlcroissant as mlc

    schema = pq.read_schema(folder / INDEX)
    types = {
        name: _value_type(schema.field(name).type)
        for name in schema.names
        if not name.startswith("__")  # the row numbers of pandas
    }
    counts = read_json(folder / AUDIT)["counts"]
    return [
        _enumeration(ctx, CLASSES, [{"name": name} for name in counts]),
        _enumeration(
            ctx,
            SPLIT_NAMES,
            [{"name": name, "url": TERMS + term} for name, term in SPLIT_TERMS.items()],
        ),
        mlc.RecordSet(
            ctx=ctx,
            id=IMAGES,
            name=IMAGES,
            description="The images of the study, one record for each image.",
            key=[f"{IMAGES}/id"],
            fields=[
                _field(ctx, name, identifier, types[name])
                for name, identifier in _identifiers(types).items()
            ],
        ),
    ]


def _enumeration(ctx: mlc.Context, name: str, rows: list[dict[str, str]]) -> mlc.RecordSet:
    """Return a record set whose records are part of the metadata."""
    import mlcroissant as mlc

    kinds = {"name": mlc.DataType.TEXT, "url": mlc.DataType.URL}
    term = mlc.DataType.SPLIT if name == SPLIT_NAMES else "https://schema.org/Enumeration"
    return mlc.RecordSet(
        ctx=ctx,
        id=name,
        name=name,
        data_types=[term],
        key=[f"{name}/name"],
        fields=[
            mlc.Field(ctx=ctx, id=f"{name}/{key}", name=f"{name}/{key}", data_types=[kinds[key]])
            for key in rows[0]
        ],
        data=[{f"{name}/{key}": value for key, value in row.items()} for row in rows],
    )


def _identifiers(columns: Iterable[str]) -> dict[str, str]:
    """Return a distinct identifier for each column, with valid characters for Croissant."""
    identifiers: dict[str, str] = {}
    for name in columns:
        plain = candidate = INVALID_CHARACTERS.sub("_", name) or "_"
        number = 1
        while candidate in identifiers.values():
            number += 1
            candidate = f"{plain}_{number}"
        identifiers[name] = candidate
    return identifiers


def _field(ctx: mlc.Context, name: str, identifier: str, kind: str) -> mlc.Field:
    """Return the field of a column of the index."""
    import mlcroissant as mlc

    meaning = MEANINGS.get(name, f"column {name} of the dataset")
    references = {"label": f"{CLASSES}/name", "split": f"{SPLIT_NAMES}/name"}
    if name.startswith(folds.PREFIX):
        fold = name.removeprefix(folds.PREFIX)
        meaning = f"part of fold {fold} of the cross-validation that uses the image"
        references[name] = references["split"]
    boxes = {"is_array": True, "array_shape": f"-1,{SIDES}"} if name == "boxes" else {}
    reference = {"references": mlc.Source(field=references[name])} if name in references else {}
    return mlc.Field(
        ctx=ctx,
        id=f"{IMAGES}/{identifier}",
        name=f"{IMAGES}/{identifier}",
        description=meaning,
        data_types=[getattr(mlc.DataType, kind)],
        source=mlc.Source(file_object=INDEX, extract=mlc.Extract(column=name)),
        **reference,
        **boxes,
    )


def _value_type(kind: pa.DataType) -> str:
    """Return the name of the data type in mlcroissant for a column's type."""
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _value_type(kind.value_type)
    if pa.types.is_boolean(kind):
        return "BOOL"
    if pa.types.is_integer(kind):
        return "INTEGER"
    if pa.types.is_floating(kind):
        return "FLOAT"
    return "TEXT"


def _sentences(settings: Study, answers: Datasheet) -> str:
    """Return the description of the images, with the command of their download."""
    facts = [answers.name, answers.purpose, answers.instances]
    download = load_kind(settings.source.kind).download
    synthetic = (
        "All images are synthetic, drawn by a program in the layout of the dataset named below; "
        "origin, people and licence are those of the real dataset."
    )
    parts = [
        *([synthetic] if settings.source.synthetic else []),
        f"Images of the study {settings.title!r}.",
        *(f"{text.rstrip('.')}." for text in facts if text),
        *([f"Obtained by: {command_line(download)}."] if download else []),
    ]
    return " ".join(parts)


def _responsible(settings: Study, answers: Datasheet, folder: Path) -> dict[str, Any]:
    """Return the fields of Croissant RAI 1.0 that the datasheet, the audit and the index answer."""
    audit, columns = read_json(folder / AUDIT), pq.read_schema(folder / INDEX).names
    personal = [f"column {name}: {MEANINGS[name]}" for name in PERSONAL if name in columns]
    people = [f"Consent and ethics review: {answers.people}"] if answers.people else []
    reasons = ", ".join(f"{reason} {count}" for reason, count in audit["by_reason"].items())
    return {
        "data_collection": answers.origin,
        "data_annotation_protocol": [answers.labels] if answers.labels else None,
        "data_biases": answers.known_problems or None,
        "data_limitations": [sentence(audit["patients"]), *audit["notes"], LIMITS],
        "data_preprocessing_protocol": [
            f"Of {audit['found']} files {audit['used']} are used; left out: {reasons or 'none'}."
        ],
        "data_use_cases": [f"Training and test of networks in the study {settings.title!r}"],
        "personal_sensitive_information": [*personal, *people] or None,
    }


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence warnings about recommended fields that datasheets lack, such as dates."""
    logger = logging.getLogger("absl")
    level = logger.level
    try:
        logger.setLevel(logging.ERROR)
        yield
    finally:
        logger.setLevel(level)
