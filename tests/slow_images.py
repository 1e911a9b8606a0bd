"""Small image files that take long to decode: many scans, chunks, frames, strips or tags."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image

from hostile import chunk, dicom

ZIGZAG = 63  # AC coefficients of a JPEG's block
LONGEST_RUN = 2**15 - 1  # blocks that one code of a progressive scan passes over


def progressive(side: int, scans: int) -> bytes:
    """A valid progressive grey JPEG without contrast: a DC scan and ``scans - 1`` empty AC scans.

    Each AC scan is of one coefficient, whose bits follow from the highest down (ITU T.81, G.1.1).
    """
    blocks = (-(-side // 8)) ** 2
    file = [b"\xff\xd8"]
    file.append(_segment(0xDB, b"\0" + bytes([1] * 64)))
    file.append(_segment(0xC2, struct.pack(">BHHB", 8, side, side, 1) + b"\1\x11\0"))
    one_code = bytes([1] + [0] * 15)  # a Huffman table of one code, the bit 0
    file.append(_segment(0xC4, b"\0" + one_code + b"\0"))
    file.append(_segment(0xC4, b"\x10" + one_code + b"\xe0"))
    file += [_scan(0, 0, 0, 0), _stuffed("0" * blocks)]
    passes = [(k, 0, 13) for k in range(1, ZIGZAG + 1)]
    passes += [(k, low + 1, low) for low in range(12, -1, -1) for k in range(1, ZIGZAG + 1)]
    for coefficient, high, low in passes[: scans - 1]:
        file += [_scan(coefficient, coefficient, high, low), _stuffed(_empty(blocks))]
    return b"".join(file) + b"\xff\xd9"


def _segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def _scan(first: int, last: int, high: int, low: int) -> bytes:
    return _segment(0xDA, bytes([1, 1, 0, first, last, high << 4 | low]))


def _empty(blocks: int) -> str:
    """The bits of a scan without coefficients: runs of the longest kind, then a shorter one."""
    bits = ""
    while blocks > 0:
        run = min(blocks, LONGEST_RUN)
        bits += "0" + format(max(run - 2**14, 0), "014b")
        blocks -= LONGEST_RUN
    return bits


def _stuffed(bits: str) -> bytes:
    """Bits as bytes, filled up by ones, with a zero after each byte of ones."""
    bits += "1" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")
