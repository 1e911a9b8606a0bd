"""Checks of a study's raw images for `medscale check`: classes, split, patients, metadata."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from medscale.base.errors import MedscaleError
from medscale.base.suggest import suggestion
from medscale.base.text import has_codes
from medscale.config.sections import Evaluate, Study
from medscale.data import split
from medscale.data.audit import HEADER_TYPES
from medscale.data.audit_notes import FEW_IMAGES
from medscale.data.check import left_out_sentences
from medscale.data.demo.generate import parse_options
from medscale.data.external import external_inventory
from medscale.data.inventory import COLUMNS, Inventory, is_dicom
from medscale.data.kind import scan
from medscale.data.leaks import shared_with_training
from medscale.data.patients import KNOWN, state
from medscale.data.settings import SPLITS, Source, Split
from medscale.evaluate.bootstrap import smallest_share
from medscale.workflow.finding import Finding
from medscale.workflow.graph import Graph

# Settings of a study that decide what is found in its raw folder.
CHECKED = ("source", "classes", "split", "model", "models", "evaluate", "class_titles")
# A test split is small if the 95 % interval of a perfect accuracy is wider than this.
UNCERTAIN = 0.1


@dataclass(frozen=True)
class RawData:
    """What `medscale check` finds in the raw folder of a study or of an external set."""

    images: int  # listed, and not yet decoded; the number that is generated of synthetic images
    findings: list[Finding]
    inventory: Inventory | None = None  # None: the images are synthetic, or cannot be listed


def examine_data(graph: Graph, name: str, owner: Inventory | None = None) -> RawData:
    """List a raw folder and return what was found in it.

    Args:
        graph: the checked configuration.
        name: a study, or an external set.
        owner: the images of the study that an external set belongs to; None if they are not listed.
    """
    settings, raw = graph.config.study(name), graph.config.raw(name)
    subject, source = f"data of {name}", settings.source
    try:
        if source.synthetic:
            return _synthetic(settings, name, raw)
        folder = source.model_copy(update={"path": raw})
        if settings.external_of is None:
            inventory = scan(folder, settings.classes)
        else:
            classes = graph.config.study(settings.external_of).classes
            inventory = _external(folder, owner.classes if owner is not None else classes)
    except MedscaleError as error:
        return RawData(0, [Finding("error", subject, str(error))])
    rows = inventory.rows
    counts = rows["label"].value_counts()
    listing = ", ".join(f"{label} {count}" for label, count in counts.items())
    findings = [Finding("ok", subject, f"{len(rows)} images in {raw}: {listing}")]
    if settings.external_of is not None:
        findings += [Finding("note", subject, text) for text in inventory.notes]
        if owner is not None:
            findings.append(_shared_patients(inventory, owner, settings.external_of, name))
        return RawData(len(rows), findings, inventory)
    findings += _metadata(settings, inventory, name)
    findings += _class_names(settings, inventory.classes, name)
    findings += _unprintable(settings, [str(label) for label in counts.index], name)
    findings += [Finding("note", subject, text) for text in left_out_sentences(inventory.excluded)]
    findings += [*_split(inventory, settings.split, name), *_patients(inventory, name)]
    return RawData(len(rows), findings, inventory)


def _synthetic(settings: Study, name: str, raw: Path) -> RawData:
    """Return what is known of images that are generated later: number and classes."""
    options = parse_options(settings.source.kind, settings.source.options)
    text = f"synthetic: about {options.images} images are generated in {raw}"
    findings = [Finding("note", f"data of {name}", text)]
    if settings.external_of is not None:  # external images may lack classes of the study
        return RawData(options.images, findings)
    stated = [" ".join(label.split()) for label in settings.classes or []]
    for unknown in [label for label in stated if label not in options.labels]:
        text = f"classes names {unknown!r}; {suggestion(unknown, options.labels)}"
        text += f"the synthetic images have: {', '.join(options.labels)}"
        findings.append(Finding("error", f"classes of {name}", text))
    return RawData(options.images, [*findings, *_class_names(settings, options.labels, name)])


def examine_variant(graph: Graph, name: str, data: RawData) -> list[Finding]:
    """Return the errors of a variant that its study does not have.

    Args:
        graph: the checked configuration.
        name: the variant.
        data: what was found of its study, whose raw folder it uses.
    """
    settings = graph.config.study(name)
    study = graph.config.study(settings.variant_of or name)
    if data.inventory is None or all(getattr(settings, n) == getattr(study, n) for n in CHECKED):
        return []
    study_texts = {finding.text for finding in data.findings}
    findings = examine_data(graph, name).findings
    return [line for line in findings if line.level == "error" and line.text not in study_texts]


def _external(source: Source, classes: list[str] | None) -> Inventory:
    """List external images by the classes of their study, as the index does.

    ``classes``: None if the study cannot be listed; the findings on it name the mistake.
    """
    return scan(source, None, fewest=1) if classes is None else external_inventory(source, classes)


def _shared_patients(inventory: Inventory, owner: Inventory, study: str, name: str) -> Finding:
    """Return whether patients of an external set have names of patients of its study."""
    subject, names = f"patients of {name}", inventory.patient_names
    study_patients = set(owner.patient_names.dropna())
    if names.isna().all() or not study_patients:
        unnamed = name if study_patients else study
        text = (
            f"whether the set shares patients with {study} is not known: neither a table nor an "
            f"expression names the patients of {unnamed}"
        )
        return Finding("note", subject, text)
    shared = names[names.isin(study_patients)]
    if shared.empty:
        return Finding("ok", subject, f"{names.nunique()}, none with a name that {study} has too")
    text = (
        f"{len(shared)} of its {len(names)} images are of {shared.nunique()} patients whose names "
        f"{study} has too: if these are the same people, the set is not independent of the study, "
        "so leave these images out"
    )
    return Finding("note", subject, text)


def _metadata(settings: Study, inventory: Inventory, name: str) -> Iterator[Finding]:
    """Yield the columns that a network or subgroups need and that the images do not have."""
    columns = _columns(inventory)
    for model in (settings.model, *settings.models.values()):
        for missing in [column for column in model.metadata if column not in columns]:
            text = f"model.metadata names {missing!r}; {suggestion(missing, columns)}"
            text += f"the images have: {', '.join(columns) or 'none'}"
            yield Finding("error", f"metadata of {name}", text)
    usual = Evaluate.of_defaults().subgroups
    for missing in [n for n in settings.evaluate.subgroups if n not in (*usual, *columns)]:
        text = f"evaluate.subgroups names {missing!r}, which is left out; "
        text += f"{suggestion(missing, columns)}the images have: {', '.join(columns) or 'none'}"
        yield Finding("note", f"subgroups of {name}", text)


def _columns(inventory: Inventory) -> list[str]:
    """Return the columns with metadata that the images' tables, or their headers, can have."""
    columns = [str(column) for column in inventory.rows if column not in COLUMNS]
    if inventory.rows["path"].map(is_dicom).any():
        columns += HEADER_TYPES
    return columns


def _class_names(settings: Study, labels: list[str], name: str) -> Iterator[Finding]:
    """Yield settings with a class that no image has, or with a prevalence of the wrong class.

    ``labels``: classes of the listed images in the order of their codes.
    """
    classes = settings.classes or labels
    for setting, by_class in (
        ("evaluate.prevalence", list(settings.evaluate.prevalence)),
        ("class_titles", list(settings.class_titles)),
    ):
        for unknown in [word for word in by_class if word not in classes]:
            text = f"{setting} names {unknown!r}, which is no class; {suggestion(unknown, classes)}"
            text += f"there are: {', '.join(classes)}"
            yield Finding("error", f"classes of {name}", text)
    if mistake := settings.equal_titles(classes):
        yield Finding("error", f"classes of {name}", mistake)
    # A prevalence of a class that does not exist is reported by another check. With two classes,
    # only the last one, the positive class, has a prevalence.
    are_classes = set(settings.evaluate.prevalence) <= set(classes)
    if are_classes and (mistake := settings.evaluate.wrong_prevalence(classes)):
        yield Finding("error", f"classes of {name}", mistake)


def _unprintable(settings: Study, labels: list[str], name: str) -> Iterator[Finding]:
    """Yield a note on names that the paper prints as codes, since its fonts lack their letters."""
    texts = [settings.title, *(settings.class_titles.get(label, label) for label in labels)]
    if names := [text for text in texts if has_codes(text)]:
        text = (
            f"the paper prints letters of {', '.join(map(repr, names))} as codes, such as "
            "[U+80BA], since its fonts lack them; give others by `title` and `class_titles`"
        )
        yield Finding("note", f"classes of {name}", text)


def _split(inventory: Inventory, settings: Split, name: str) -> Iterator[Finding]:
    """Yield findings on the split of the listed images of a study."""
    subject, rows = f"split of {name}", inventory.rows
    counts, is_published = rows["label"].value_counts(), settings.mode == "published"
    # A random split divides single images, also those of one patient.
    is_grouped = rows["group"].notna() & (settings.mode != "random")
    apart = rows["group"].where(is_grouped, rows["path"]).groupby(rows["label"]).nunique()
    if settings.mode in ("grouped", "random") and apart.min() < len(SPLITS):
        label = str(apart.idxmin())
        text = (
            f"class {label} has {counts[label]} images of {apart.min()} patients "
            "or groups, so that it cannot be in training, validation and test: add images, or "
            "leave it out of `classes`"
        )
        yield Finding("error", subject, text)
    elif not is_published and counts.min() < FEW_IMAGES:
        text = f"class {counts.idxmin()} has only {counts.min()} images; its scores will say little"
        yield Finding("note", subject, text)
    if settings.mode in ("grouped", "random") and rows["split_published"].notna().any():
        text = (
            "the images come divided into train, val or test, and are divided anew; keep their "
            "division by split: {mode: published}"
        )
        yield Finding("note", subject, text)
    try:
        divided = split.check_listed(rows, settings)
    except MedscaleError as error:
        yield Finding("error", subject, str(error))
        return
    if divided is None:
        columns = ["source", *_columns(inventory)]
        if settings.column not in columns:
            text = f"split.column is {settings.column!r}; {suggestion(settings.column, columns)}"
            text += f"the images have: {', '.join(columns)}"
            yield Finding("error", subject, text)
        return
    tested = divided[divided["split"] == "test"]
    if untested := sorted(set(rows["label"]) - set(tested["label"])):
        text = f"No test image is of class {', '.join(untested)}, so that nothing can be estimated"
        yield Finding("note", subject, f"{text} for it.")
    if shared := shared_with_training(divided, "group"):
        text = (
            f"{shared} of the {len(tested)} test images are of patients or groups that are in the "
            f"training split too: with the {settings.mode} split the accuracy says little about "
            "new patients; without `split.mode` the images are divided by patient"
        )
        yield Finding("note", subject, text)
    yield from _test_size(tested, state(inventory.patient_names) == KNOWN, settings, name)


def _test_size(
    tested: pd.DataFrame, is_known: bool, settings: Split, name: str
) -> Iterator[Finding]:
    """Yield a note if the test split has too few patients for a precise score.

    Args:
        tested: rows of the test images.
        is_known: whether their groups are patients.
        settings: settings of the division.
        name: the study.
    """
    groups = tested["group"].nunique()
    unseen = smallest_share(groups)
    if unseen <= UNCERTAIN:
        return
    unit = "patients" if is_known else "images or groups of images"
    by_class = tested.groupby("label")["group"].nunique()
    can_fold = settings.mode == "grouped" and settings.folds is None
    remedy = ", or test each image once by cross-validation (split.folds)" if can_fold else ""
    text = (
        f"there are only about {groups} {unit} to test on ({by_class.min()} of class "
        f"{by_class.idxmin()}): even if all answers are right, the 95 % interval of the accuracy "
        f"reaches down to {100 * (1 - unseen):.0f} %; add images{remedy}"
    )
    yield Finding("note", f"test split of {name}", text)


def _patients(inventory: Inventory, name: str) -> Iterator[Finding]:
    """Yield whether the patients are known, and the notes on the raw folder."""
    is_known, (sentence, *notes) = inventory.patient_sentences()
    yield Finding("ok" if is_known else "note", f"patients of {name}", sentence)
    for note in (*notes, *inventory.notes):
        yield Finding("note", f"data of {name}", note)
