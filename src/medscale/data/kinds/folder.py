"""A person's own images: a folder per class, or train|val|test with a folder per class.

A table (``index.csv``, or ``source.table``) may give labels, patients, splits and metadata.
"""

from __future__ import annotations

from collections.abc import Sequence
from unicodedata import normalize

from medscale.data import patient_hints, patients
from medscale.data.class_folders import (
    check_classes,
    class_folders,
    no_usable_images,
    refuse_spellings,
    rows_by_folder,
    select_classes,
)
from medscale.data.image_table import INDEX, ImageTable, find_types, read_image_table, rows_by_table
from medscale.data.inventory import NO_LABEL, Excluded, Inventory, Row, image_row, make_inventory
from medscale.data.kind import DatasetKind
from medscale.data.layout_hints import doubtful_labels, label_hints, no_label_column, unread_tables
from medscale.data.listing import Listing, list_folder
from medscale.data.masks import without_masks
from medscale.data.settings import Datasheet, Source

EXPECTED = (
    f"Expected: <class>/*.jpg|png|… or train|val|test/<class>/*, optionally {INDEX} "
    "(path,label,patient,split)."
)
NO_DOWNLOAD = "There is no download: set source.path to your own images."


def scan(source: Source, classes: list[str] | None) -> Inventory:
    """List an image folder; labels, patients and splits of a table override folder names.

    Further columns of the table become metadata, each of numbers or of words. Left out are images
    that it does not list, entries without a file, entries whose label is another class than their
    folder, and images whose entries contradict each other. Raises MedscaleError if the folder is
    missing or has no images, the table does not fit, a class has no images, or a column or
    expression of ``source`` is not found or not clear.
    """
    listing = list_folder(source.path, f"{EXPECTED}\n  {NO_DOWNLOAD}")
    by_folder, left_out = rows_by_folder(listing, "folder")
    table, columns = read_image_table(listing, source, classes)
    if isinstance(source.label, str) and source.label not in columns:
        by_folder, left_out = _label_by_pattern(listing, by_folder, source.label, columns)
    notes = list[str]()
    if table is None:
        rows, masks = without_masks(by_folder.values())
        left_out += masks
    else:
        rows, left_out, table_notes = rows_by_table(table, listing, by_folder)
        notes = [*table.notes(), *table_notes]
    tables = unread_tables(listing, by_folder, classes) if table is None else []
    no_labels = list[str]()
    if table is not None and not table.labels():
        no_labels = [no_label_column(table, classes)]
    if not rows:
        hints = [*label_hints(listing, classes), *tables, *no_labels]
        raise no_usable_images(listing, EXPECTED, hints)
    names = classes if classes is not None else sorted({str(row["label"]) for row in rows})
    if classes is None:
        refuse_spellings(listing.root, {*names, *(table.labels() if table is not None else ())})
        notes += doubtful_labels(listing, names, table, has_label=source.label is not None)
    if table is None and source.label is None and classes is None:
        names = sorted({*names, *class_folders(listing)})
    labels = {str(row["label"]) for row in rows}
    rows, other_classes = select_classes(rows, names)
    hints = [*label_hints(listing, names), *tables, *no_labels]
    check_classes(listing, names, rows, EXPECTED, labels, hints)
    origin, patient_notes = _name_patients(rows, table, source.patient, columns)
    notes += tables
    notes += find_types(rows, table) if table is not None else []
    table_file = table.file if table is not None else None
    files = [file for file in listing.excluded if listing.root / file[0] != table_file]
    excluded = [*files, *left_out, *other_classes]
    more = {"reads_headers": True, "patient_notes": patient_notes}
    metadata = table.metadata if table is not None else []
    return make_inventory(rows, excluded, names, notes, metadata, origin, **more)


def _label_by_pattern(
    listing: Listing, by_folder: dict[str, Row], pattern: str, columns: Sequence[str]
) -> tuple[dict[str, Row], list[Excluded]]:
    """Return the rows of all images that an expression labels, and the other images as left out.

    Args:
        listing: the raw folder.
        by_folder: rows of the images in class folders, for their splits.
        pattern: the setting ``source.label``.
        columns: of the table, in which the name may have been meant.
    """
    rows, left_out = {}, []
    labels = patients.by_pattern(listing.images, pattern, "label", columns)
    for path, label in zip(listing.images, labels, strict=True):
        if label is None:
            left_out.append((path, NO_LABEL, f"the expression {pattern} gives it no label"))
        else:
            row = by_folder.get(path) or image_row(path, None, "folder")
            rows[path] = row | {"label": normalize("NFC", label)}
    return rows, left_out


def _name_patients(
    rows: list[Row], table: ImageTable | None, setting: str | None, columns: Sequence[str]
) -> tuple[str | None, list[str]]:
    """Set each row's group by source.patient where it is an expression.

    Returns:
        Where patients' names come from, None without, and notes.
    """
    column = table.patient if table is not None else None
    if table is None or column is None:
        if setting is None:
            return None, patient_hints.note_on_names(rows)
        paths = [str(row["path"]) for row in rows]
        names, spellings = patients.unified(patients.by_pattern(paths, setting, "patient", columns))
        for row, name in zip(rows, names, strict=True):
            row["group"] = name
        unmatched = [path for path, name in zip(paths, names, strict=True) if name is None]
        note = f"source.patient {setting} gives no patient for {len(unmatched):,} paths such as "
        notes = [note + unmatched[0]] if unmatched else []
        return f"the expression {setting}", [*spellings, *notes]
    if setting is None and patients.names_part(column):
        return None, []
    if any(row["group"] is not None for row in rows):
        return f"column {column} of {table.name}", []
    return None, patient_hints.note_on_names(rows)


KIND = DatasetKind(scan=scan, datasheet=Datasheet(), takes_columns=True)
