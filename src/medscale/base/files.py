"""Atomic writing of files (to a temporary name, synced, then renamed), and reading of files."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from medscale.base.errors import MedscaleError, storage_fault
from medscale.base.text import csv_cell, csv_text

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


MAX_JSON_BYTES, MAX_JSON_DEPTH = 16 * 10**6, 32  # limits of JSON files from unknown sources
_JSON_BRACKET = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of ``path``.

    The file is synced and renamed to ``path`` when the block ends, and removed when the block
    fails.

    Raises:
        MedscaleError: when the disk is full or the folder cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "xb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
    except OSError as error:
        raise MedscaleError(f"{path} cannot be written: {error.strerror or error}") from error
    try:
        yield temporary
        os.chmod(temporary, mode)  # safetensors replaces the file by one of mode 0600
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        if error.filename is not None and Path(error.filename) != temporary:
            raise
        cause = error.strerror or storage_fault(error) or error  # NumPy gives only a text
        raise MedscaleError(f"{path} cannot be written: {cause}") from error
    except Exception as error:  # a library's own type, such as safetensors'
        if (fault := storage_fault(error)) is None:
            raise
        raise MedscaleError(f"{path} cannot be written: {fault}") from error
    finally:
        temporary.unlink(missing_ok=True)


def expand_home(path: str | Path) -> Path:
    """Return a path with ``~`` or ``~user`` at its beginning replaced by the home folder.

    Raises:
        MedscaleError: when there is no such user.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise MedscaleError(
            f"{path}: {Path(path).parts[0]} is no user's home folder; write ./{path} if a folder "
            "here has this name"
        ) from None


def sync_folder(folder: Path) -> None:
    """Make a rename in ``folder`` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: str | Path, text: str) -> None:
    """Write ``text`` atomically as UTF-8."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def has_hidden_part(path: PurePath) -> bool:
    """Return whether a relative path is that of a hidden file, or leads through a hidden folder."""
    return any(part.startswith(".") for part in path.parts)


def write_json(path: str | Path, value: Any, *, keep_order: bool = False) -> None:
    """Write ``value`` atomically as indented JSON.

    Keys are sorted unless ``keep_order`` is set, for files in which their order has a meaning.
    """
    text = json.dumps(
        value, indent=2, sort_keys=not keep_order, ensure_ascii=False, allow_nan=False
    )
    write_text(path, f"{text}\n")


def write_csv(path: str | Path, table: pd.DataFrame) -> None:
    """Write a table atomically as CSV.

    Floats keep all digits. Texts are escaped by ``csv_cell``, so that no spreadsheet computes them.
    """
    cells = _map_texts(table, csv_cell)
    text = cells.to_csv(index=False)
    # Python's writer does not quote "\r", at which readers would end the line.
    if "\r" in text:
        text = cells.to_csv(index=False, quoting=csv.QUOTE_NONNUMERIC)
    write_text(path, text)


def write_parquet(path: str | Path, table: pd.DataFrame, schema: pa.Schema | None = None) -> None:
    """Write a table atomically as Parquet; without a ``schema``, the values determine the types."""
    with atomic(path) as temporary:
        table.to_parquet(temporary, index=False, schema=schema)


def read_table(path: str | Path, remedy: str = "delete it and run again", **options: Any) -> Any:
    """Read a CSV or Parquet file; escapes of ``write_csv`` are undone.

    Args:
        path: path of the file; its ending decides the format.
        remedy: advice in the message about a file that cannot be read.
        options: options of pandas' ``read_csv`` or ``read_parquet``.

    Raises:
        MedscaleError: when the table is missing or damaged.
    """
    import pandas as pd  # the import takes a second, and most commands read no tables

    is_csv = Path(path).suffix == ".csv"
    reader: Any = pd.read_csv if is_csv else pd.read_parquet
    try:
        table = reader(path, **options)
        return _map_texts(table, csv_text) if is_csv else table
    except (OSError, ValueError) as error:
        raise MedscaleError(f"{path} cannot be read ({error}); {remedy}") from None


def read_json(path: str | Path) -> Any:
    """Read a JSON file.

    Raises:
        MedscaleError: when the file is missing or not JSON; the message names the file.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MedscaleError(f"{path} does not exist") from None
    except (ValueError, RecursionError) as error:
        raise MedscaleError(
            f"{path} is not valid JSON ({error}); delete it and run again"
        ) from None


def read_foreign_json(path: str | Path) -> Any:
    """Read a JSON file from an unknown source.

    Raises:
        MedscaleError: when the file is missing, is not JSON by RFC 8259 (which has neither NaN nor
            Infinity), is larger than ``MAX_JSON_BYTES``, or is nested deeper than
            ``MAX_JSON_DEPTH``.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_JSON_BYTES + 1)
        if len(data) > MAX_JSON_BYTES:
            raise MedscaleError(f"{path} has more than {MAX_JSON_BYTES:,} bytes")
        text = data.decode("utf-8")
        if _json_depth(text) > MAX_JSON_DEPTH:
            raise MedscaleError(f"{path} is nested more than {MAX_JSON_DEPTH} levels deep")
        value = json.loads(text, parse_constant=_refuse_constant)
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()  # 1e999, lone surrogates
    except OSError as error:
        raise MedscaleError(f"{path} cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise MedscaleError(f"{path} is not valid JSON ({error})") from None
    return value


def _json_depth(text: str) -> int:
    """Return how deep the brackets of a JSON text are nested."""
    depth = deepest = 0
    for match in _JSON_BRACKET.finditer(text):
        if (letter := match[0]) in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif letter in "]}":
            depth -= 1
    return deepest


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number in JSON")


def sha256(path: str | Path) -> str:
    """Return the hexadecimal SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(value: Any) -> str:
    """Return the hexadecimal SHA-256 of a value's JSON in canonical form (sorted, no spaces)."""
    return hashlib.sha256(
        json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
    ).hexdigest()


def _map_texts(table: pd.DataFrame, change: Callable[[str], str]) -> pd.DataFrame:
    """Return a table with ``change`` applied to the texts of its cells and column names."""

    def convert(value: Any) -> Any:
        return change(value) if isinstance(value, str) else value

    columns = [convert(name) for name in table.columns]
    texts = {
        position: table.iloc[:, position].astype(object).map(convert)
        for position, kind in enumerate(table.dtypes)
        if kind.kind == "O"  # objects, texts and categories; not numbers and times
    }
    if not texts and columns == list(table.columns):
        return table
    result = table.copy(deep=False)
    for position, column in texts.items():
        result.isetitem(position, column.to_numpy())
    return result.set_axis(columns, axis="columns")
