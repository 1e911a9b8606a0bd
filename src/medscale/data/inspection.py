"""Inspection of one image file for the audit: digest, size, headers, signature, or a fault."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from medscale.data import frames
from medscale.data.decoding import bounds
from medscale.data.images import Unreadable, frame_count, header, read_bytes
from medscale.data.prepare import decode_reduced, levels
from medscale.data.signature import SIDE, signature

Header = dict[str, Any] | None
Fact = tuple[str, str | None, int, int, str | None, str | None, Header, bytes | None, int, int, int]
# Columns with an underscore are temporary: a dataset's metadata may have columns of the same name.
FACTS = [
    *("path", "sha256", "width", "height"),
    *("_reason", "_detail", "_header", "_signature", "_frame", "_frames", "_levels"),
]


def inspect(
    root: str, path: str, frame_choice: str = frames.FIRST, near_duplicates: bool = True
) -> list[Fact]:
    """Read and decode the selected frames of an image file.

    Args:
        root: the raw folder.
        path: path of the file below it.
        frame_choice: frames to select if the file has several (``source.frames``).
        near_duplicates: whether to compute the signature, which the search for similar images
            needs.

    Returns:
        A ``FACTS`` tuple for each frame: digest (``frames.frame_digest``); width and height in
        pixels as displayed (EXIF applied); reason and detail if the file cannot be decoded; the
        facts in the headers of a DICOM file; the signature, or None; the frame's number; the number
        of the file's frames; and the difference of the brightest and the darkest of 256 levels.
    """
    sha256 = None
    try:
        data = read_bytes(Path(root, path))
        sha256 = hashlib.sha256(data).hexdigest()
        count, facts = frame_count(data), header(data)
        numbers = frames.frame_numbers(frame_choice, count)
        bounds.start_clock(len(numbers))
        frame_facts: list[Fact] = []
        for frame in numbers:
            pixels, width, height = decode_reduced(data, 2 * SIDE, frame=frame)
            size, digest = (width, height), frames.frame_digest(sha256, frame)
            packed_signature = signature(pixels) if near_duplicates else None
            numbers_of_frame = frame, count, levels(pixels)
            frame_facts.append(
                (path, digest, *size, None, None, facts, packed_signature, *numbers_of_frame)
            )
        return frame_facts
    except Unreadable as error:
        return [fault(path, sha256, error)]


def fault(path: str, sha256: str | None, error: Unreadable) -> Fact:
    """Return the ``FACTS`` of a file that cannot be decoded."""
    return (path, sha256, 0, 0, error.reason, error.detail, None, None, 0, 1, 0)
