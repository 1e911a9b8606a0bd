"""The tables of docs/files.md, and a comparison of them with the files of a finished study."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from medscale.base.code import ROOT

DOCUMENT = ROOT / "docs" / "files.md"
FOLDERS = ("data", "runs", "results", "measured", "profiled")  # whose tables are all documented
UNLISTED = ("data/raw/*", "*/checkpoints/*", "*/tensorboard/*", "*.json.gz")
ANY = "…"  # a row of this name allows further columns


@dataclass(frozen=True)
class Entry:
    """A column or key: its name, in which ``<k>`` stands for any number, type and meaning."""

    name: str
    type: str
    meaning: str

    @property
    def optional(self) -> bool:
        return self.meaning.startswith("optional:")

    @property
    def nullable(self) -> bool:
        return bool(re.search(r"\b(nullable|null|empty)\b", self.meaning))

    def fits(self, name: str) -> bool:
        parts = re.split(r"<\w+>", self.name)
        return re.fullmatch(r"\d+".join(map(re.escape, parts)), name) is not None


@dataclass(frozen=True)
class Described:
    """A section of the document: the pattern of a path and, unless it is prose, its entries."""

    pattern: str
    entries: tuple[Entry, ...]

    @property
    def glob(self) -> str:
        return re.sub(r"<[^>]+>", "*", self.pattern)


def read_tables(document: Path = DOCUMENT) -> list[Described]:
    """The sections of the document that describe a file."""
    sections = re.split(r"^### ", document.read_text(encoding="utf-8"), flags=re.M)[1:]
    described = []
    for section in sections:
        heading, _, body = section.partition("\n")
        rows = [line for line in body.splitlines() if line.startswith("| `")]
        cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
        entries = tuple(Entry(name.strip("`"), kind, text) for name, kind, _, text in cells)
        paths = re.findall(r"`([^`]+)`", heading) if heading.startswith("`") else []
        described += [Described(path, entries) for path in paths]
    return described


def differences(workdir: Path) -> tuple[list[str], set[str]]:
    """Compare the files of a study with the document.

    Returns:
        What differs, and the patterns of which the study has a file.
    """
    described = read_tables()
    faults, present = [], set()
    for file in sorted(_files(workdir)):
        path = file.relative_to(workdir)
        tables = [table for table in described if _matches(path, table.glob)]
        if not tables:
            if file.suffix in (".csv", ".json", ".parquet"):
                faults.append(f"{path} has no section")
            continue
        attempts = {table.pattern: _compare(file, table.entries) for table in tables}
        best = min(attempts, key=lambda pattern: len(attempts[pattern]))
        present.add(best)
        faults += [f"{path}: {difference}" for difference in attempts[best]]
    return faults, present


def _files(workdir: Path) -> Iterator[Path]:
    for folder in FOLDERS:
        for file in (workdir / folder).rglob("*"):
            path = str(file.relative_to(workdir))
            if file.is_file() and not any(fnmatch(path, pattern) for pattern in UNLISTED):
                yield file


def _matches(path: Path, glob: str) -> bool:
    pattern = re.escape(glob).replace(r"\*", "[^/]*")
    return re.fullmatch(pattern, str(path)) is not None


def _compare(file: Path, entries: tuple[Entry, ...]) -> list[str]:
    """Return what differs between a file and the entries of its table."""
    if not entries:
        return []
    if file.suffix == ".json":
        content = json.loads(file.read_text(encoding="utf-8"))
        fields = {name: _json_fault(value) for name, value in content.items()}
    elif file.suffix == ".csv":
        table = pd.read_csv(file, keep_default_na=False, na_values=[""])
        fields = {str(name): _csv_fault(table[name]) for name in table}
    else:
        columns = pq.read_table(file)
        fields = {name: _parquet_fault(columns[name]) for name in columns.column_names}
    faults = []
    for name, fault in fields.items():
        entry = next((e for e in entries if e.fits(name)), None)
        if entry is None:
            if not any(e.name == ANY for e in entries):
                faults.append(f"{name} is not in the table")
        elif text := fault(entry):
            faults.append(f"{name} {text}")
    for entry in entries:
        if entry.name != ANY and not entry.optional and not any(map(entry.fits, fields)):
            faults.append(f"{entry.name} is missing")
    return faults


def _json_fault(value: Any) -> Any:
    types = {
        "string": str,
        "int": int,
        "float": (int, float),
        "bool": bool,
        "list": list,
        "dict": dict,
    }

    def fault(entry: Entry) -> str:
        if value is None:
            return "" if entry.nullable else "is null"
        number_is_flag = isinstance(value, bool) and entry.type != "bool"
        fits = isinstance(value, types[entry.type]) and not number_is_flag
        return "" if fits else f"is no {entry.type}: {value!r:.60}"

    return fault


def _csv_fault(column: pd.Series) -> Any:
    api = pd.api.types

    def fault(entry: Entry) -> str:
        if column.isna().any() and not entry.nullable:
            return "has empty cells"
        if column.isna().all():
            return ""
        fits = {
            "int64": api.is_integer_dtype(column),
            "float64": api.is_numeric_dtype(column) and not api.is_bool_dtype(column),
            "bool": api.is_bool_dtype(column),
            "string": True,
        }[entry.type]
        return "" if fits else f"is no {entry.type}: {column.dtype}"

    return fault


def _parquet_fault(column: pa.ChunkedArray) -> Any:
    column_type = column.type
    names = {
        "category": pa.types.is_dictionary(column_type),
        "string": pa.types.is_string(column_type) or pa.types.is_large_string(column_type),
        "list": pa.types.is_list(column_type) or pa.types.is_large_list(column_type),
        "any": True,
    }

    def fault(entry: Entry) -> str:
        if column.null_count and not entry.nullable:
            return "has null values"
        if pa.types.is_null(column_type) and entry.nullable:
            return ""
        exact = {"float64": "double", "float32": "float"}.get(entry.type, entry.type)
        fits = names.get(entry.type, str(column_type) == exact)
        return "" if fits else f"is {column_type}, not {entry.type}"

    return fault
