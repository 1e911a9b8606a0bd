"""The text in a file of any kind, as far as it can be read: lines, cells, headers, PDF text.

Pixels are not read, so that text burned into images is missed; nor are numbers in Parquet files,
in arrays of NumPy and in weights: some of their bytes look like an address. Words in arrays are.
"""

from __future__ import annotations

import bz2
import gzip
import html
import io
import logging
import lzma
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from medscale.base.errors import MedscaleError
from medscale.base.text import from_latex

# Keys and subtypes of a PDF's streams of pixels and of programs of fonts (ISO 32000-1, 9.9).
NO_WORDS = {"/Image", "/Length1", "/Type1C", "/CIDFontType0C", "/OpenType"}
LARGEST_HEADER = 2**20  # bytes of a safetensors or npy file that are read to find its numbers
PRINTABLE = re.compile(rb"[\x20-\x7e]{4,}")
WIDE = re.compile(r"(?:[\x20-\x7e]\0?){4,}")  # in UTF-16; in UTF-32 with zeros in between
LETTERS = re.compile(r"[^\x00-\x1f\x7f-\x9f\ufffd]{4,}")
# Escapes of JSON and Markdown, such as \u00fc and \_.
ESCAPE = re.compile(r"\\(?:u([\da-fA-F]{4})|(_|[^\w\s]))")
PNG, ZIP, NPY = b"\x89PNG\r\n\x1a\n", b"PK\3\4", b"\x93NUMPY"
PIXELS = {b"IDAT", b"fdAT"}  # types of the chunks of a PNG with deflated pixels
DECOMPRESSORS: dict[bytes, Callable[[bytes], bytes]] = {  # by the first bytes of a file
    b"\x1f\x8b": gzip.decompress,
    b"BZh": bz2.decompress,
    b"\xfd7zXZ\0": lzma.decompress,
}
DAMAGED = (OSError, EOFError, ValueError, SyntaxError, zlib.error, lzma.LZMAError, RuntimeError)
DAMAGED_ARCHIVE = (*DAMAGED, zipfile.BadZipFile)
# pypdf takes the objects of a damaged PDF for others, such as a number for a dictionary.
DAMAGED_PDF = (*DAMAGED, AttributeError, LookupError, TypeError)


def files_in(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the names and contents of the files in an archive; of another file, "" and itself.

    Raises MedscaleError for an archive that cannot be read.
    """
    with open(path, "rb") as file:
        data = _read(file, path.name)
    yield from _unpacked(path, "", data)


def _read(file: IO[bytes], name: str) -> bytes:
    """Return the content of a file; of weights and arrays of numbers, the beginning alone."""
    if not name.endswith((".safetensors", ".npy")):
        return file.read()
    data = file.read(LARGEST_HEADER)
    has_numbers = len(_without_numbers(data)) < len(data)
    return data if has_numbers else data + file.read()


def _unpacked(path: Path, name: str, data: bytes) -> Iterator[tuple[str, bytes]]:
    try:
        for magic, decompress in DECOMPRESSORS.items():
            if data.startswith(magic):
                data = decompress(data)
        if not data.startswith(ZIP):
            yield name, data
            return
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for inner in archive.namelist():
                with archive.open(inner) as file:
                    content = _read(file, inner)
                yield from _unpacked(path, f"{name}/{inner}".strip("/"), content)
    except DAMAGED_ARCHIVE as error:
        raise _unreadable(path, error) from None


def texts(path: Path, data: bytes) -> Iterator[tuple[str, str]]:
    """Yield the place and the text of each part of a file: a line, a column, a page's stream.

    Raises MedscaleError for a damaged file of which text would be missed.

    Args:
        path: the file, for messages.
        data: its content, or that of a file in it.
    """
    if data.startswith(b"PAR1"):
        yield from _cells(path, data)
    elif data.startswith(b"%PDF"):
        yield from _of_pdf(path, data)
    elif (text := _decoded(data)) is None:
        yield "bytes", _printable(_without_numbers(data))
        if data.startswith(PNG):
            yield from _of_png(path, data)
        elif data.startswith(NPY):
            yield from _of_array(path, data)
    else:
        for number, line in enumerate(text.splitlines(), start=1):
            yield f"line {number}", "\n".join(dict.fromkeys([line, _without_escapes(line)]))


def _decoded(data: bytes) -> str | None:
    """Return the text of a text file; None for another."""
    encodings = ["utf-16"] if data.startswith((b"\xff\xfe", b"\xfe\xff")) else []
    encodings += ["utf-8", "latin-1"] if b"\0" not in data else []
    for encoding in encodings:
        with suppress(UnicodeDecodeError):
            return data.decode(encoding)
    return None


def _without_escapes(line: str) -> str:
    text = from_latex(line)
    text = ESCAPE.sub(lambda match: chr(int(match[1], 16)) if match[1] else match[2], text)
    return html.unescape(text)


def _cells(path: Path, data: bytes) -> Iterator[tuple[str, str]]:
    """Yield each column of words of a Parquet file, and the file's own metadata."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(pa.BufferReader(data))
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(path, error) from None
    yield "metadata", str(table.schema.metadata or "")
    for name, column in zip(table.column_names, table.columns, strict=True):
        words = set() if _is_of_numbers(column.type) else set(map(str, column.to_pylist()))
        yield f"column {name}", "\n".join([name, *sorted(words)])


def _is_of_numbers(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _of_pdf(path: Path, data: bytes) -> Iterator[tuple[str, str]]:
    """Yield the text of each page of a PDF, and its objects: dictionaries and streams."""
    from pypdf import PdfReader
    from pypdf.errors import PyPdfError
    from pypdf.generic import IndirectObject, StreamObject

    logging.getLogger("pypdf").setLevel(logging.ERROR)  # it repairs what it warns of
    try:
        reader = PdfReader(io.BytesIO(data))
        for number, page in enumerate(reader.pages, start=1):
            yield f"page {number}", page.extract_text()
        # Generation and number of each object; a stream of objects contains those of generation 0.
        keys = {
            (generation, number) for generation in reader.xref for number in reader.xref[generation]
        }
        for generation, number in sorted(keys | {(0, number) for number in reader.xref_objStm}):
            part = reader.get_object(IndirectObject(number, generation, reader))
            words = b""
            if isinstance(part, StreamObject):
                kinds = {*part, part.get("/Subtype")}
                words = part.get_data() if kinds.isdisjoint(NO_WORDS) else b""
            yield f"object {number}", f"{part}\n{_printable(words)}"
    except (PyPdfError, *DAMAGED_PDF) as error:
        raise _unreadable(path, error) from None


def _of_png(path: Path, data: bytes) -> Iterator[tuple[str, str]]:
    """Yield the texts of a PNG file, which can be deflated."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as image:
            found_texts = getattr(image, "text", {})
    except DAMAGED as error:
        raise _unreadable(path, error) from None
    for name, text in found_texts.items():
        yield f"text {name}", f"{name}\n{text}"


def _of_array(path: Path, data: bytes) -> Iterator[tuple[str, str]]:
    """Yield the words of an npy file, which are in UTF-32, whatever their letters are.

    Python objects are not unpickled, which could run code: their texts are found as bytes.
    """
    header = _header_of_array(data)
    if header is None or header.kind.hasobject or header.kind.kind not in "UV":
        return
    try:
        array = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
    except DAMAGED as error:
        raise _unreadable(path, error) from None
    yield "words", "\n".join(dict.fromkeys(map(str, array.ravel().tolist())))


def _without_numbers(data: bytes) -> bytes:
    """Return a binary file without the pixels of a PNG and the numbers of an array or of weights.

    A file whose header is damaged is returned as it is.
    """
    length = int.from_bytes(data[:8], "little")
    if data[8:9] == b"{" and 8 + length <= len(data):  # safetensors: JSON, then numbers
        return data[: 8 + length]
    if data.startswith(NPY):
        return _without_array(data)
    return b"".join(_chunks(data)) if data.startswith(PNG) else data


def _without_array(data: bytes) -> bytes:
    """Return the header of an npy file of numbers; of another, as one of words, the whole file."""
    header = _header_of_array(data)
    return data[: header.length] if header and header.kind.kind in "biufc" else data


class ArrayHeader(NamedTuple):
    """The header of an npy file."""

    length: int  # bytes
    kind: np.dtype[Any]  # of the elements


def _header_of_array(data: bytes) -> ArrayHeader | None:
    """Return the header of an npy file; None if it is damaged."""
    file = io.BytesIO(data)
    with suppress(ValueError, SyntaxError):
        old = np.lib.format.read_magic(file) == (1, 0)
        read = np.lib.format.read_array_header_1_0 if old else np.lib.format.read_array_header_2_0
        kind = read(file)[2]
        return ArrayHeader(file.tell(), kind)
    return None


def _chunks(data: bytes) -> Iterator[bytes]:
    """Yield the chunks of a PNG file but for its pixels, and the bytes after the last one."""
    start = len(PNG)
    while (kind := data[start + 4 : start + 8]) and kind != b"IEND":
        end = start + 12 + int.from_bytes(data[start : start + 4], "big")  # length, type, checksum
        if kind not in PIXELS:
            yield data[start:end]
        start = end
    yield data[start:]


def _printable(data: bytes) -> str:
    """Return the texts in other bytes, one below the other."""
    runs = [run.decode("ascii") for run in PRINTABLE.findall(data)]
    for start in (0, 1):
        text = data[start:].decode("utf-16-le", errors="replace")
        runs += [run.replace("\0", "") for run in WIDE.findall(text)]
    text = data.decode("utf-8", errors="replace")
    runs += [run for run in LETTERS.findall(text) if not run.isascii()]
    return "\n".join(runs)


def _unreadable(path: Path, error: Exception) -> MedscaleError:
    return MedscaleError(f"{path} cannot be searched: {error}; leave it out, or make it again")
