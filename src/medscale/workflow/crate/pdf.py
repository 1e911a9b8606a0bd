"""The text in a PDF of Matplotlib or TeX, as far as it can be read without its fonts.

References to sections are to ISO 32000-1.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from contextlib import suppress

MAX_INFLATED = 2**26  # bytes of a stream
STREAM = re.compile(rb"stream\r?\n(.*?)\r?\n?endstream", re.DOTALL)
BLOCK = re.compile(rb"\bBT\b(.*?)\bET\b", re.DOTALL)
LITERAL = rb"\((?:[^()\\]|\\.)*\)"
# An array of strings, a string, or the step upwards to the beginning of the next text.
OPERATION = re.compile(
    rb"\[((?:" + LITERAL + rb"|[^\[\]()])*)\]\s*TJ|(" + LITERAL + rb")\s*Tj"
    rb"|[-\d.]+\s+([-\d.]+)\s+T[dD]\b",
    re.DOTALL,
)
STRING = re.compile(rb"\(((?:[^()\\]|\\.)*)\)|(-?\d+(?:\.\d+)?)", re.DOTALL)
ESCAPE = re.compile(rb"\\(?:([0-7]{1,3})|(\r\n|.))", re.DOTALL)
CONTROLS = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"b": b"\b", b"f": b"\f"}
CONTROLS |= dict.fromkeys((b"\n", b"\r", b"\r\n"), b"")  # a line that goes on
WORD_SPACE = -200  # thousandths of the font's size: a larger step is a space
MAPS = re.compile(rb"beginbf(?:char|range)(.*?)endbf", re.DOTALL)  # from codes to texts (9.10.3)
CODES = re.compile(rb"<([\da-fA-F]+)>\s*(?:<[\da-fA-F]+>\s*\[(.*?)\]|<((?:[\da-fA-F]{4})+)>)", re.S)
TEXT = re.compile(rb"<((?:[\da-fA-F]{4})+)>")
SPACE = 32
# Ligatures of TeX's fonts in the encodings T1 and OT1.
LIGATURES = {
    first + number: letters
    for first in (27, 11)
    for number, letters in enumerate(("ff", "fi", "fl", "ffi", "ffl"))
}


def outside_of_streams(data: bytes) -> bytes:
    """Return a PDF without its streams: the dictionaries."""
    return STREAM.sub(b"", data)


def streams(data: bytes) -> Iterator[tuple[bytes, list[str]]]:
    """Yield the content of each stream of a PDF (7.3.8), and its lines of text (9.4.3)."""
    contents = [_inflated(match[1]) for match in STREAM.finditer(data)]
    fonts = [{}, *filter(None, map(_replaced_codes, contents))]
    for content in contents:
        blocks = [match[1] for match in BLOCK.finditer(content)]
        yield content, [line for block in blocks for line in _lines(block, fonts)]


def _inflated(stream: bytes) -> bytes:
    with suppress(zlib.error):  # a stream that is not deflated
        return zlib.decompressobj().decompress(stream, MAX_INFLATED)
    return stream


def _replaced_codes(stream: bytes) -> dict[int, str]:
    """Return the texts of the codes below that of the space, by the map of a font.

    Matplotlib numbers the glyphs that have no code in Unicode's first plane or stand for several
    letters, such as ligatures. All other codes of its fonts are those of Unicode.
    """
    texts: dict[int, str] = {}
    for section in MAPS.findall(stream):
        for start, array, single in CODES.findall(section):
            for code, text in enumerate(TEXT.findall(array) or [single], start=int(start, 16)):
                if code < SPACE:
                    letters = bytes.fromhex(text.decode("ascii"))
                    texts[code] = letters.decode("utf-16-be", errors="replace")
    return texts


def _lines(block: bytes, fonts: list[dict[int, str]]) -> Iterator[str]:
    """Yield the lines of a block of text: by one byte for a letter, with a zero also by two.

    With two bytes, a word with a ligature is in two fonts, and thus in several operations, so that
    those of a line are joined. The font of an operation is not known: each is tried.
    """
    lines: list[list[bytes]] = [[]]
    for array, string, step in OPERATION.findall(block):
        if not step:
            yield _bytes(array or string, b" ").decode("latin-1").translate(LIGATURES)
            lines[-1].append(_bytes(array or string, b"\0 "))
        elif float(step) != 0:
            lines.append([])
    for line in map(b"".join, lines):
        if b"\0" in line:
            letters = line.decode("utf-16-be", errors="replace")
            yield from sorted({letters.translate(font) for font in fonts})


def _bytes(operand: bytes, space: bytes) -> bytes:
    """Return the bytes of an operation's strings; its numbers move the following text."""
    parts = []
    for string, step in STRING.findall(operand):
        if step:
            parts.append(space if float(step) < WORD_SPACE else b"")
        else:
            parts.append(ESCAPE.sub(_unescaped, string))
    return b"".join(parts)


def _unescaped(escape: re.Match[bytes]) -> bytes:
    """Return the byte that an escape in a string stands for (7.3.4.2)."""
    if escape[1]:
        return bytes([int(escape[1], 8) & 0xFF])
    return CONTROLS.get(escape[2], escape[2])
