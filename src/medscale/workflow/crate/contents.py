"""The text in a file of any kind, as far as it can be read: lines, cells, headers, PDF text."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

LARGEST_HEADER = 2**20  # bytes of a safetensors or npy file that are read as text
MAX_INFLATED = 2**26  # bytes of a PDF's stream
PRINTABLE = re.compile(rb"[\x20-\x7e]{4,}")
PDF_STREAM = re.compile(rb"stream\r?\n(.*?)\r?\n?endstream", re.DOTALL)
PDF_TEXT = re.compile(rb"\[((?:[^\[\]\\]|\\.)*)\]\s*TJ|(\((?:[^()\\]|\\.)*\))\s*Tj", re.DOTALL)
PDF_STRING = re.compile(rb"\(((?:[^()\\]|\\.)*)\)|(-?\d+(?:\.\d+)?)", re.DOTALL)
WORD_SPACE = -200  # thousandths of the font's size: a larger step is a space


def texts(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the place and the text of each part of a file: a line, a column, a page's stream.

    Pixels are not read, so that text burned into images is missed.
    """
    if path.suffix == ".parquet":
        yield from _cells(path)
        return
    if path.suffix in (".safetensors", ".npy"):
        with open(path, "rb") as file:
            yield "header", _printable(file.read(LARGEST_HEADER))
        return
    data = path.read_bytes()
    if data.startswith(b"%PDF"):
        yield from _of_pdf(data)
        return
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        yield "bytes", _printable(data)
        return
    for number, line in enumerate(text.splitlines(), start=1):
        yield f"line {number}", line


def _cells(path: Path) -> Iterator[tuple[str, str]]:
    """Yield each column of words of a Parquet file, and the file's own metadata."""
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    yield "metadata", str(table.schema.metadata or "")
    for name, column in zip(table.column_names, table.columns, strict=True):
        values = {value for value in column.to_pylist() if not isinstance(value, int | float)}
        words = [str(value) for value in values if value is not None]
        yield f"column {name}", "\n".join([name, *sorted(words)])


def _of_pdf(data: bytes) -> Iterator[tuple[str, str]]:
    """Yield the dictionaries of a PDF and the text of each stream (ISO 32000-1, 7.3.8, 9.4.3)."""
    yield "document", _printable(PDF_STREAM.sub(b"", data))
    for number, match in enumerate(PDF_STREAM.finditer(data), start=1):
        content = match[1]
        with suppress(zlib.error):  # a stream that is not deflated
            content = zlib.decompressobj().decompress(content, MAX_INFLATED)
        lines = [_text(text[0] or text[1]) for text in PDF_TEXT.findall(content)]
        yield f"stream {number}", "\n".join(lines) if lines else _printable(content)


def _text(operand: bytes) -> str:
    """Return the text of an operator's strings; its numbers move the following text."""
    parts = []
    for string, step in PDF_STRING.findall(operand):
        if step:
            parts.append(b" " if float(step) < WORD_SPACE else b"")
        else:
            parts.append(re.sub(rb"\\([()\\])", rb"\1", string))
    return b"".join(parts).decode("latin-1")


def _printable(data: bytes) -> str:
    return "\n".join(run.decode("ascii") for run in PRINTABLE.findall(data))
