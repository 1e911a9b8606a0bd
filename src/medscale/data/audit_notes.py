"""Notes of the audit: sentences on the used and the left-out images, for readers of the paper."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pandas as pd

from medscale.base.text import subject
from medscale.data import audit, folds, patients, split
from medscale.data.audit import EXCLUDED, KEPT
from medscale.data.decoding.formats import TOO_LARGE, UNDECODABLE
from medscale.data.frames import SEVERAL
from medscale.data.inventory import CONFLICT, Inventory
from medscale.data.leaks import shared_with_training
from medscale.data.prepare import NO_CONTRAST
from medscale.data.settings import SPLITS, Split

ONE_IMAGE_EACH = (
    "No patient has two images. If this is wrong, the patients' names ({}) are those of exams or "
    "images, and images of one patient can stand on both sides of the split."
)
TOLERATED = 0.1  # difference of a split's share from the configured one that needs no note
FEW_IMAGES = 10  # a class with fewer images gets a note: the test split can have none of them


def notes(
    index: pd.DataFrame,
    left_out: pd.DataFrame,
    inventory: Inventory,
    division: Split,
    patient_counts: dict[str, Any],
    look_alikes: dict[str, int],
    counts: dict[str, dict[str, int]],
) -> list[str]:
    """Return the notes of audit.json.

    Args:
        index: the used images.
        left_out: rows of audit.csv.
        inventory: the listed images, with the notes of their dataset kind.
        division: settings of the split.
        patient_counts: counts of images and patients, see ``patients.summary``.
        look_alikes: counts of clusters of similar images.
        counts: images by class and split.
    """
    file_notes = [
        *_note_on_headers(patient_counts),
        *_note_on_frames(left_out[left_out["action"] == KEPT]),
        *_note_on_contrast(left_out[left_out["action"] == KEPT]),
        *_note_on_plain_images(left_out[left_out["action"] == KEPT]),
        *_note_on_limits(left_out[left_out["action"] == EXCLUDED]),
        *_note_on_look_alikes(look_alikes),
    ]
    if division.mode == "external":  # external images are not divided
        return [*inventory.notes, *file_notes]
    return [
        *inventory.notes,
        *_notes_on_patients(index, inventory, patient_counts),
        *file_notes,
        *_notes_on_published_split(index, left_out, division),
        *_note_on_folds(index, division),
        *_note_on_unknown_sources(index, division),
        *_note_on_shares(index, division),
        *_notes_on_leaks(index, division),
        *_notes_on_conflicts(left_out),
        *_notes_on_small_classes(counts, inventory, left_out),
    ]


def _notes_on_patients(
    index: pd.DataFrame, inventory: Inventory, counts: dict[str, Any]
) -> list[str]:
    """Return notes on unknown patients, and on file names that may contain patients."""
    is_known = counts["state"] == patients.KNOWN
    is_of_one_image = is_known and counts["patients"] == len(index)
    return [
        *([] if is_known else [patients.sentence(counts)]),
        *([ONE_IMAGE_EACH.format(counts["from"])] if is_of_one_image else []),
        *(inventory.patient_notes if index["patient"].isna().all() else []),
    ]


def _notes_on_conflicts(left_out: pd.DataFrame) -> list[str]:
    """Return a note on images with conflicting labels that leak between published splits."""
    conflicts = left_out.loc[left_out["reason"] == CONFLICT, "detail"]
    across = int(conflicts.str.contains(audit.LEAK_PUBLISHED, regex=False).sum())
    if not across:
        return []
    return [
        f"{across} of the {len(conflicts)} images with conflicting labels, which are left out, "
        "are or look like an image in another published split."
    ]


def _notes_on_small_classes(
    counts: dict[str, dict[str, int]], inventory: Inventory, left_out: pd.DataFrame
) -> list[str]:
    """Return notes on classes with few images after the audit, or without images in a split."""
    sentences = []
    labels = inventory.rows.set_index("path")["label"]
    excluded = left_out[(left_out["action"] == EXCLUDED) & left_out["path"].isin(labels.index)]
    label_of = excluded["path"].map(labels)
    for name, row in counts.items():
        reasons = excluded.loc[label_of == name, "reason"]
        if sum(row.values()) < FEW_IMAGES and len(reasons):
            reason_text = ", ".join(
                f"{reason} {count}" for reason, count in count_values(reasons).items()
            )
            sentences.append(
                f"Class {name} has only {sum(row.values())} images left (left out: {reason_text})."
            )
        sentences += [
            f"Class {name} has no images in {part}, so that nothing can be estimated for it there."
            for part, count in row.items()
            if not count
        ]
    return sentences


def _note_on_headers(counts: dict[str, Any]) -> list[str]:
    """Return a note on patients that the headers of DICOM files name."""
    if counts["from"] != patients.HEADERS:
        return []
    return [
        f"The patients are those of PatientID in the headers of {counts['images_of_patients']} "
        "DICOM images; source.patient sets others."
    ]


def _note_on_frames(kept_rows: pd.DataFrame) -> list[str]:
    """Return a note on files with several frames or pages, if there are any."""
    several = kept_rows.loc[kept_rows["reason"] == SEVERAL, "detail"]
    if several.empty:
        return []
    count_all = int(several.str.startswith("all").sum())
    statement = "all are used as images of one patient" if count_all else "one of each is used"
    files = subject(len(several), "file", "have")
    return [f"{files} several frames or pages: {statement} (source.frames)."]


def _note_on_contrast(kept_rows: pd.DataFrame) -> list[str]:
    """Return a note on blank images and on samples that use a small part of their range."""
    flat = kept_rows[kept_rows["reason"] == NO_CONTRAST]
    if flat.empty:
        return []
    return [
        f"{subject(len(flat), 'image', 'have')} hardly any contrast, such as "
        f"{flat['path'].iloc[0]}: blank, or with values that fill a small part of the range (12 "
        "bits in a file of 16 bits)."
    ]


def _note_on_plain_images(kept_rows: pd.DataFrame) -> list[str]:
    """Return a note on images that were not compared with others, if there are any."""
    plain = kept_rows.loc[kept_rows["reason"] == audit.NOT_COMPARED, "path"]
    if plain.empty:
        return []
    return [
        f"Images that are blank or have stripes alone: {len(plain)}, such as {plain.iloc[0]}. They "
        "may be damaged, and of their copies only exact ones are found."
    ]


def _note_on_limits(excluded: pd.DataFrame) -> list[str]:
    """Return a note on files that exceed the limits, if there are any."""
    count = int(excluded["reason"].isin((TOO_LARGE, UNDECODABLE)).sum())
    if not count:
        return []
    verb = "file takes" if count == 1 else "files take"
    return [
        f"{count} {verb} more pixels, memory or time than is allowed (source.limits), or end the "
        "process that decodes them."
    ]


def _notes_on_published_split(
    index: pd.DataFrame, left_out: pd.DataFrame, division: Split
) -> list[str]:
    """Return notes on images and patients in several published splits."""
    sentences = []
    if division.mode == "published" and split.lacks_validation(index):
        sentences.append(
            f"The published split has no validation images: {int((index['split'] == 'val').sum())} "
            f"of its training images are taken, in whole groups (seed {division.seed})."
        )
    copies = left_out[left_out["reason"] == audit.DUPLICATE]
    across = int(copies["detail"].str.contains(audit.LEAK_PUBLISHED, regex=False).sum())
    if across and division.mode != "published":
        sentences.append(
            f"{across} images stand in two published splits: the published split would have "
            "leaked them."
        )
    splits = index.groupby("alike")["split_published"].transform("nunique")
    similar = index.loc[splits > 1, "path"]
    if len(similar):
        sentences.append(
            f"{subject(len(similar), 'image', 'look')} like one in another published split."
        )
    leaked = left_out.loc[left_out["reason"] == audit.LEAK_PUBLISHED, "path"]
    if patient_leaks := int((~leaked.isin(similar)).sum()):
        sentences.append(f"{patient_leaks} images are of patients in two published splits.")
    return sentences


def _note_on_folds(index: pd.DataFrame, division: Split) -> list[str]:
    """Return a note on the folds, if there are any."""
    if division.folds is None:
        return []
    sizes = index[folds.FOLD].value_counts()
    return [
        f"{division.folds} folds of whole groups, stratified by class (seed {division.seed}): each "
        f"image is a test image in one of them ({sizes.min()} to {sizes.max()} images a fold); "
        "counts by split are those of the first fold."
    ]


def _note_on_unknown_sources(index: pd.DataFrame, division: Split) -> list[str]:
    """Return a note on images that may be of the held-out source, but are not tested."""
    if division.mode != "source":
        return []
    count = int((index[division.column].isna() & (index["split"] != "test")).sum())
    if not count:
        return []
    return [
        f"Images of the training and validation splits without a known {division.column}: {count}. "
        f"Some may be of {division.held_out!r}, which is held out."
    ]


def _note_on_shares(index: pd.DataFrame, division: Split) -> list[str]:
    """Return a note on splits of another size than configured, which large groups cause."""
    if division.mode != "grouped" or division.folds is not None:
        return []
    shares = index["split"].value_counts(normalize=True)
    texts = [
        f"{name} has {shares.get(name, 0):.0%} of the images instead of {share:.0%}"
        for name in SPLITS
        if abs(shares.get(name, 0) - (share := getattr(division, name))) > TOLERATED
    ]
    if not texts:
        return []
    largest = index["group"].value_counts().iloc[0]
    return [
        f"Groups (patients and near-duplicates) are kept whole, so that {', '.join(texts)}; the "
        f"largest group has {largest} of {len(index)} images."
    ]


def _notes_on_leaks(index: pd.DataFrame, division: Split) -> list[str]:
    """Return notes on validation and test images of a group that is in the training split."""
    sentences = []
    for name in ("val", "test"):
        if leaked := shared_with_training(index, "group", name):
            images = int((index["split"] == name).sum())
            similar = ", or look like one in it," if division.near_duplicates else ""
            sentences.append(
                f"{leaked} of the {images} {name} images are in the training split too"
                f"{similar} or are of a patient who is: with the {division.mode} split their "
                "accuracy says little about new patients."
            )
    return sentences


def _note_on_look_alikes(counts: dict[str, int]) -> list[str]:
    """Return a note on clusters of similar images, if there are any."""
    if not counts["clusters"]:
        return []
    details = [f"clusters: {counts['clusters']}, the largest of {counts['largest']}"]
    details += [
        f"of several {name}: {counts[f'of_several_{name}']}"
        for name in ("labels", "patients")
        if counts[f"of_several_{name}"]
    ]
    return [f"{subject(counts['images'], 'image', 'look')} like another ({'; '.join(details)})."]


def count_values(values: pd.Series) -> dict[str, int]:
    """Return the number of each value, the most frequent first."""
    return dict(sorted(Counter(values.astype(str)).items(), key=lambda item: (-item[1], item[0])))
