"""Masks among images: drawings of a lesion or an organ, which datasets keep beside the images."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PurePosixPath

from medscale.data.inventory import MASK, Excluded, Row

_WORDS = r"(?:masks?|segmentations?|superpixels|annotations?|contours?|ground[ _-]?truths?)"
# Folders such as `masks` of the COVID-19 Radiography Database.
FOLDER = re.compile(rf"(?:.*[ _-])?{_WORDS}", re.IGNORECASE)
# Names such as `benign (1)_mask.png` and `benign (1)_mask_1.png` of the set BUSI of ultrasound.
NAME = re.compile(rf"(?P<image>.+?)[ _-]{_WORDS}(?:[ _-]?\d+)?", re.IGNORECASE)


def without_masks(rows: Iterable[Row]) -> tuple[list[Row], list[Excluded]]:
    """Return the rows of images, and the masks as left out.

    An image is a mask if it stands in a folder of masks that is not the class, or if its name is
    that of another image in its folder and a word for masks. If all images of a class are masks,
    the study classifies masks, and they stay.
    """
    rows = list(rows)
    stems = {(path.parent, path.stem) for row in rows if (path := PurePosixPath(row["path"]))}
    details = [_detail(row, stems) for row in rows]
    with_images = {
        row["label"] for row, detail in zip(rows, details, strict=True) if detail is None
    }
    image_rows, left_out = [], []
    for row, detail in zip(rows, details, strict=True):
        if detail is None or row["label"] not in with_images:
            image_rows.append(row)
        else:
            left_out.append((str(row["path"]), MASK, detail))
    return image_rows, left_out


def _detail(row: Row, stems: set[tuple[PurePosixPath, str]]) -> str | None:
    """Return the reason for which a row is a mask; None for an image."""
    path = PurePosixPath(row["path"])
    for folder in path.parent.parts:
        if folder != row["label"] and FOLDER.fullmatch(folder):
            return f"in the folder {folder}"
    match = NAME.fullmatch(path.stem)
    if match and (path.parent, match["image"]) in stems:
        return f"of the image {match['image']}"
    return None
