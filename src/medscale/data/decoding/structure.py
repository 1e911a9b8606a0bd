"""Limits on the structure of image files, which are checked before decoding.

The time to decode an image usually depends on its pixels and bytes. A hostile file can make it far
longer: each scan of a progressive JPEG covers all pixels, and parsers take microseconds for each of
millions of empty parts. This module counts scans and parts without decoding.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Callable, Iterator
from itertools import islice
from typing import TYPE_CHECKING

from medscale.data.decoding import bounds
from medscale.data.decoding.formats import UNREADABLE, Unreadable, check_frames
from medscale.data.decoding.jpeg import START_OF_SCAN
from medscale.data.decoding.silence import silence

if TYPE_CHECKING:
    from pydicom.dataset import FileDataset

# libjpeg writes 10 scans of a progressive JPEG; mozjpeg, which optimizes them, about 20.
MAX_SCANS = 50
# A file with more parts than this needs the mean bytes per part of ``PARTS``. Small animations have
# small parts, and large files have many parts, but no regular file has many small parts.
MANY_PARTS = 10_000
MAX_ELEMENTS = 20_000  # elements of a DICOM file outside sequences
SHORTEST_ELEMENT = 8  # bytes
DEFLATED = b"1.2.840.10008.1.2.1.99"  # transfer syntax of a deflated DICOM file
LONGEST_PREFIX = 2**16  # bytes at the start of a DICOM file that contain its transfer syntax

END = b"\xff\xd9"
# In the data of a scan, 0xFF is followed by zero or a restart mark; anything else ends the scan.
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_WITHOUT_LENGTH = re.compile(rb"\xff[\x01\xd0-\xd8]")
_PIXEL_DATA = re.compile(rb"\xe0\x7f\x10\x00|\x7f\xe0\x00\x10")  # tag, in both byte orders


def check(data: bytes, kind: str) -> None:
    """Check that a file's structure cannot make its decoding take unusually long.

    Damage is left to the decoders.

    Args:
        data: bytes of the file.
        kind: format of the file, see ``formats.kind_of``.

    Raises:
        Unreadable: when a number exceeds its limit.
    """
    if kind == "jpeg":
        check_scans(data)
    elif kind == "dicom":
        _check_dicom(data)
    elif kind == "tiff":
        _check_tiff(data)
    if kind not in PARTS or len(data) < MANY_PARTS:  # a part has a byte at least
        return
    parts, smallest = PARTS[kind]
    limit = max(MANY_PARTS, len(data) // smallest)
    if sum(1 for _ in islice(parts(data), limit + 1)) > limit:
        raise _refusal(kind, f"more than {limit:,} parts in {len(data):,} bytes")


def check_scans(jpeg: bytes) -> None:
    """Check that a JPEG has at most ``MAX_SCANS`` scans.

    Raises:
        Unreadable: when it has more.
    """
    if jpeg.count(START_OF_SCAN) <= MAX_SCANS:  # true for almost all files; counts thumbnails, too
        return
    scans = (jpeg[position : position + 2] == START_OF_SCAN for position in _segments(jpeg))
    if sum(islice(filter(None, scans), MAX_SCANS + 1)) > MAX_SCANS:
        raise _refusal("jpeg", f"more than {MAX_SCANS} scans")


def _segments(jpeg: bytes) -> Iterator[int]:
    """Yield the position of each marker of a JPEG (ITU T.81, B.1.1) that libjpeg finds."""
    position = 2
    while (match := _MARKER.search(jpeg, position)) is not None:
        position = match.start()
        if jpeg.startswith(END, position):
            return
        yield position
        position += 2
        if not _WITHOUT_LENGTH.match(jpeg, position - 2):
            position += max(int.from_bytes(jpeg[position : position + 2], "big"), 2)


def _jpeg_parts(data: bytes) -> Iterator[int]:
    """Yield the positions of markers before the first scan, and of fill bytes between them.

    Parsers skip fill bytes one by one.
    """
    end = 2
    for position in _segments(data):
        yield from range(end, position)
        yield position
        if data.startswith(START_OF_SCAN, position):
            return
        end = position + 2
        if not _WITHOUT_LENGTH.match(data, position):
            end += int.from_bytes(data[end : end + 2], "big")


def _png_parts(data: bytes) -> Iterator[int]:
    """Yield the position of each chunk of a PNG."""
    position = 8
    while position + 12 <= len(data):
        yield position
        position += 12 + int.from_bytes(data[position : position + 4], "big")


def _gif_parts(data: bytes) -> Iterator[int]:
    """Yield the position of each block and sub-block of a GIF (GIF89a, 15 to 26)."""
    if len(data) < 13:
        return
    position = 13 + _colours(data[10])
    while position < len(data) and data[position] in b"!,":
        yield position
        if data[position] == ord(","):
            if position + 10 > len(data):
                return
            # the image's descriptor, its colours and its code size
            position += 11 + _colours(data[position + 9])
        else:
            position += 2
        while position < len(data) and data[position]:
            yield position
            position += 1 + data[position]
        position += 1


def _colours(flags: int) -> int:
    """Return the bytes of a GIF's table of colours."""
    return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0


# For each format, a function that yields its parts, and the smallest mean bytes of many parts.
PARTS: dict[str, tuple[Callable[[bytes], Iterator[int]], int]] = {
    "jpeg": (_jpeg_parts, 2**16),  # as large as a segment can be; scans are not counted
    "png": (_png_parts, 64),
    "gif": (_gif_parts, 64),
}


def _check_tiff(data: bytes) -> None:
    """Check the number of pages of a TIFF, and of scans of its embedded JPEGs."""
    # The decoder also counts pages, but needs a second to find so many.
    check_frames(sum(1 for _ in islice(_pages(data), bounds.MAX_FRAMES + 1)))
    if data.count(START_OF_SCAN) <= MAX_SCANS:
        return
    from tifffile import COMPRESSION, TiffFile

    try:
        with silence(), TiffFile(io.BytesIO(data)) as file:
            parts = [
                data[start : start + length]
                for page in (page.aspage() for page in file.pages)
                if page.compression in (COMPRESSION.OJPEG, COMPRESSION.JPEG)
                for start, length in zip(page.dataoffsets, page.databytecounts, strict=False)
            ]
    except Exception:  # damage makes tifffile raise almost any class; the decoder reports it
        return
    for part in parts:
        check_scans(part)


def _pages(data: bytes) -> Iterator[int]:
    """Yield the position of each directory of a TIFF (TIFF 6.0, section 2; BigTIFF)."""
    order = "<" if data[:1] == b"I" else ">"
    large = data[2:3] == b"+" or data[3:4] == b"+"
    count, entry, offset = ("Q", 20, "Q") if large else ("H", 12, "I")
    position = 8 if large else 4
    try:
        while position := struct.unpack_from(order + offset, data, position)[0]:
            yield position
            entries = struct.unpack_from(order + count, data, position)[0]
            position += struct.calcsize(count) + entry * entries
    except struct.error:  # the file ends; the decoder reports it
        return


def _check_dicom(data: bytes) -> None:
    """Check the number of elements of a DICOM file, and of scans of its embedded JPEGs."""
    from pydicom.filereader import read_partial

    pixels = _PIXEL_DATA.search(data)
    headers = pixels.start() if pixels else len(data)
    many_scans = data.count(START_OF_SCAN) > MAX_SCANS
    has_few = headers <= MAX_ELEMENTS * SHORTEST_ELEMENT
    # A deflated file is inflated as a whole before it is parsed, within bounds of its decoder.
    if (has_few and not many_scans) or DEFLATED in data[:LONGEST_PREFIX]:
        return
    elements = 0

    def stop(*_: object) -> bool:
        nonlocal elements
        elements += 1
        return elements > MAX_ELEMENTS

    try:
        with silence():
            dataset = read_partial(io.BytesIO(data), stop_when=stop)
            if elements > MAX_ELEMENTS:
                raise _refusal("dicom", f"more than {MAX_ELEMENTS:,} elements")
            if many_scans:
                _check_frames(dataset)
    except (Unreadable, MemoryError):
        raise
    except Exception:  # pydicom raises many classes on damaged data; the decoder reports it
        return


def _check_frames(dataset: FileDataset) -> None:
    """Check the number of scans of each JPEG among the frames of a DICOM file."""
    from pydicom.encaps import generate_frames
    from pydicom.uid import JPEGTransferSyntaxes

    if dataset.file_meta.get("TransferSyntaxUID") not in JPEGTransferSyntaxes:
        return
    count = int(dataset.get("NumberOfFrames") or 1)
    for frame in generate_frames(dataset.PixelData, number_of_frames=count):
        check_scans(frame)


def _refusal(kind: str, fault: str) -> Unreadable:
    return Unreadable(UNREADABLE, f"the {kind} has {fault}, which no program writes")
