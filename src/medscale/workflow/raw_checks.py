"""Checks of a study's raw images for `medscale check`: classes, split, patients, metadata."""

from __future__ import annotations

from collections.abc import Iterator

from medscale.base.errors import MedscaleError
from medscale.base.suggest import suggestion
from medscale.base.text import has_codes
from medscale.config.sections import Study
from medscale.data import split
from medscale.data.audit import HEADER_TYPES
from medscale.data.check import left_out_sentences
from medscale.data.demo.generate import parse_options
from medscale.data.external import external_inventory
from medscale.data.inventory import COLUMNS, Inventory, is_dicom
from medscale.data.kind import scan
from medscale.data.settings import Source, Split
from medscale.workflow.finding import Finding
from medscale.workflow.graph import Graph

PARTS = ("train", "val", "test")  # that each class has images in
FEW_IMAGES = 10  # of a class: below it a split can leave none for the test


def examine_data(graph: Graph, name: str) -> tuple[int, list[Finding]]:
    """Return the number of listed (not yet decoded) images and the findings on the raw folder."""
    settings, raw = graph.config.study(name), graph.raw(name)
    subject, source = f"data of {name}", settings.source
    try:
        if source.synthetic:
            count = parse_options(source.kind, source.options).images
            text = f"synthetic: about {count} images are generated in {raw}"
            return count, [Finding("note", subject, text)]
        folder = source.model_copy(update={"path": raw})
        if settings.external_of is None:
            inventory = scan(folder, settings.classes)
        else:
            inventory = _external(graph, folder, settings.external_of)
    except MedscaleError as error:
        return 0, [Finding("error", subject, str(error))]
    rows = inventory.rows
    counts = rows["label"].value_counts()
    listing = ", ".join(f"{label} {count}" for label, count in counts.items())
    findings = [Finding("ok", subject, f"{len(rows)} images in {raw}: {listing}")]
    if settings.external_of is not None:
        return len(rows), [*findings, *(Finding("note", subject, text) for text in inventory.notes)]
    findings += _metadata(settings, inventory, name)
    findings += _class_names(settings, [str(label) for label in counts.index], name)
    findings += _unprintable(settings, [str(label) for label in counts.index], name)
    findings += [Finding("note", subject, text) for text in left_out_sentences(inventory.excluded)]
    findings += _split(inventory, settings.split, name)
    return len(rows), [*findings, *_patients(inventory, name)]


def _external(graph: Graph, source: Source, owner: str) -> Inventory:
    """List external images by the classes of their study, as the index does."""
    study = graph.config.study(owner)
    classes = study.classes
    if classes is None:
        try:
            classes = scan(study.source.model_copy(update={"path": graph.raw(owner)}), None).classes
        except MedscaleError:  # the findings on that study name the mistake
            return scan(source, None, fewest=1)
    return external_inventory(source, classes)


def _metadata(settings: Study, inventory: Inventory, name: str) -> Iterator[Finding]:
    """Yield the columns that are inputs of a network and that the images do not have."""
    columns = [str(column) for column in inventory.rows if column not in COLUMNS]
    if inventory.rows["path"].map(is_dicom).any():
        columns += HEADER_TYPES
    for model in (settings.model, *settings.models.values()):
        for missing in [column for column in model.metadata if column not in columns]:
            text = f"model.metadata names {missing!r}; {suggestion(missing, columns)}"
            text += f"the images have: {', '.join(columns) or 'none'}"
            yield Finding("error", f"metadata of {name}", text)


def _class_names(settings: Study, labels: list[str], name: str) -> Iterator[Finding]:
    """Yield the settings that name a class which no image of a study has."""
    classes = settings.classes or labels
    for setting, by_class in (
        ("evaluate.prevalence", list(settings.evaluate.prevalence)),
        ("class_titles", list(settings.class_titles)),
    ):
        for unknown in [word for word in by_class if word not in classes]:
            text = f"{setting} names {unknown!r}, which is no class; {suggestion(unknown, classes)}"
            text += f"there are: {', '.join(classes)}"
            yield Finding("error", f"classes of {name}", text)


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
    groups = rows["group"].where(rows["group"].notna(), rows["path"])
    apart = groups.groupby(rows["label"]).nunique()
    if settings.mode in ("grouped", "random") and apart.min() < len(PARTS):
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
        untested = split.check_listed(rows, settings)
    except MedscaleError as error:
        yield Finding("error", subject, str(error))
        return
    if untested:
        text = f"No test image is of class {', '.join(untested)}, so that nothing can be estimated"
        yield Finding("note", subject, f"{text} for it.")


def _patients(inventory: Inventory, name: str) -> Iterator[Finding]:
    """Yield whether the patients are known, and the notes on the raw folder."""
    is_known, (sentence, *notes) = inventory.patient_sentences()
    yield Finding("ok" if is_known else "note", f"patients of {name}", sentence)
    for note in (*notes, *inventory.notes):
        yield Finding("note", f"data of {name}", note)
