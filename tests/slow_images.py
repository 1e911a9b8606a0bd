"""Small image files that take long to decode: many scans, parts, pages or elements."""

from __future__ import annotations

import struct
import zlib

from hostile import chunk, dicom, png
from service_process import picture

COEFFICIENTS = 63  # of a JPEG's block, without the first
LONGEST_RUN = 2**15 - 1  # blocks that one code of a progressive scan passes over
JPEG_IN_DICOM = "1.2.840.10008.1.2.4.50"


def progressive(side: int, scans: int) -> bytes:
    """A valid progressive grey JPEG without contrast: a DC scan and ``scans - 1`` empty AC scans.

    Each AC scan is of one coefficient, whose bits follow from the highest down (ITU T.81, G.1.1).
    """
    blocks = (-(-side // 8)) ** 2
    one_code = bytes([1] + [0] * 15)  # a Huffman table of one code, the bit 0
    file = [
        b"\xff\xd8",
        segment(0xDB, b"\0" + bytes([1] * 64)),
        segment(0xC2, struct.pack(">BHHB", 8, side, side, 1) + b"\1\x11\0"),
        segment(0xC4, b"\0" + one_code + b"\0"),
        segment(0xC4, b"\x10" + one_code + b"\xe0"),
        _scan(0, 0, 0),
        _padded("0" * blocks),
    ]
    passes = [(k, 0, 13) for k in range(1, COEFFICIENTS + 1)]
    passes += [(k, low + 1, low) for low in range(12, -1, -1) for k in range(1, COEFFICIENTS + 1)]
    empty = _padded(_runs(blocks))
    for coefficient, high, low in passes[: scans - 1]:
        file += [_scan(coefficient, high, low), empty]
    return b"".join(file) + b"\xff\xd9"


def segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def _scan(coefficient: int, high: int, low: int) -> bytes:
    return segment(0xDA, bytes([1, 1, 0, coefficient, coefficient, high << 4 | low]))


def _runs(blocks: int) -> str:
    """The bits of a scan without coefficients."""
    bits = ""
    while blocks > 0:
        run = min(blocks, LONGEST_RUN)
        bits += "0" + format(max(run - 2**14, 0), "014b")
        blocks -= LONGEST_RUN
    return bits


def _padded(bits: str) -> bytes:
    """Bits as bytes, filled up by ones, with a zero after each byte of ones."""
    bits += "1" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")


def in_dicom(jpeg: bytes, side: int) -> bytes:
    from pydicom.encaps import encapsulate

    return dicom(side, side, encapsulate([jpeg]), JPEG_IN_DICOM)


def in_tiff(jpeg: bytes, side: int) -> bytes:
    """A TIFF whose only strip is a JPEG."""
    tags = {256: side, 257: side, 258: 8, 259: 7, 262: 1, 273: 0, 277: 1, 278: side, 279: len(jpeg)}
    tags[273] = 8 + 2 + 12 * len(tags) + 4
    return b"II*\0" + struct.pack("<I", 8) + _directory(tags, 0) + jpeg


def _directory(tags: dict[int, int], following: int) -> bytes:
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return struct.pack("<H", len(tags)) + entries + struct.pack("<I", following)


def many_pages(count: int) -> bytes:
    """A TIFF of many pages, which all have the same 8 x 8 pixels."""
    tags = {256: 8, 257: 8, 258: 8, 259: 1, 262: 1, 273: 8, 278: 8, 279: 64}
    size, start = 2 + 12 * len(tags) + 4, 8 + 64
    pages = (_directory(tags, start + (n + 1) * size if n + 1 < count else 0) for n in range(count))
    return b"II*\0" + struct.pack("<I", start) + bytes(64) + b"".join(pages)


def many_parts(count: int) -> dict[str, bytes]:
    """Files of many parts by their kind; each is a whole image, however many there are."""
    photo, plain = picture((64, 64)), dicom(8, 8, bytes(64))
    small = picture((8, 8), kind="GIF")
    image_at = 13 + 3 * 2 ** ((small[10] & 7) + 1)  # after the table of colours
    pixels = plain.index(struct.pack("<HH", 0x7FE0, 0x10))
    private = b"".join(
        struct.pack("<HH2sH", 0x0011 + 2 * (n // 0xE000), 0x1000 + n % 0xE000, b"LO", 2) + b"a "
        for n in range(count)
    )
    return {
        "jpeg of many comments": photo[:2] + segment(0xFE, b"a") * count + photo[2:],
        "jpeg of many tables": photo[:2]
        + segment(0xDB, b"\0" + bytes([1] * 64)) * count
        + photo[2:],
        "jpeg of many filling bytes": photo[:2] + b"\xff" * count + photo[2:],
        "png of many chunks": png(8, 8, zlib.compress(bytes(16)), *[chunk(b"abCd", b"")] * count),
        "gif of many comments": small[:image_at] + b"!\xfe\1a\0" * count + small[image_at:],
        "tiff of many pages": many_pages(count),
        "dicom of many elements": plain[:pixels] + private + plain[pixels:],
    }
