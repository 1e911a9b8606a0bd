"""The state of a raw folder, which decides whether its index, and all trainings, are made again.

Names, sizes and times of the files show a change at once, but times also change where the content
does not: in a copy, or by a touch. When an index is made, ``keep_record`` therefore records a
digest of all files. Where only times differ later, ``state`` reads the files again. The time at
which the system last changed a file's entry (ctime) counts there as well: files of equal size and
time, such as those of an archive, may have been exchanged.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple

from medscale.base.errors import MedscaleError
from medscale.base.files import digest, read_json, sha256, write_json
from medscale.data.listing import is_folder, is_hidden

LISTED = 5000  # entries of a raw folder that each call of Snakemake looks at; it takes 30 ms
MOST_BYTES = 5 * 10**9  # of files that are read for a record; it takes 5 s and more
DEEPEST = 12  # levels of a raw folder; a link to a folder above it would have no end
RECORDS = Path(".snakemake", "raw")  # below the workdir: a file for each study


class Entry(NamedTuple):
    """A file of a raw folder, or a folder in it if there are too many files."""

    path: str  # relative to the raw folder
    time: int  # of the last change, in nanoseconds; 0 for tables, whose content is compared
    size: int  # in bytes; 0 for folders
    change: int = 0  # of the entry (ctime), in nanoseconds; 0 for folders and tables


def state(root: Path, tables: Iterable[Path], record: Path) -> str:
    """Return a digest that changes when files are added to the raw folder, removed or edited.

    It covers the content of tables, and the names, sizes and times of all other files except those
    that an operating system makes (``.DS_Store``). Where there is a record, files with new times or
    changed entries are compared by their content, unless they have more than ``MOST_BYTES``. Of a
    folder with more than ``LISTED`` files it covers only the times of the folders in its first two
    levels: listing millions of files in each call of Snakemake would take minutes.

    Args:
        root: the raw folder.
        tables: its files of tables.
        record: the file that ``keep_record`` writes.
    """
    folders, files = _listing(root, tables)
    current = _digest(folders, files, tables)
    if files is None or _size(files) > MOST_BYTES or not record.is_file():
        return current
    try:
        previous, times = read_json(record), _times(files, current)
        if previous["times"] != times:
            content = _content(root, files)
            if previous["content"] != content:
                is_other = current not in (previous["state"], previous["entries"])
                return current if is_other else digest([current, content])
            with suppress(MedscaleError):  # without rights to write, files are read each time
                write_json(record, previous | {"entries": current, "times": times})
        return str(previous["state"])
    except (MedscaleError, OSError, KeyError, TypeError):  # of another version, or damaged
        return current


def keep_record(root: Path, tables: Iterable[Path], record: Path) -> None:
    """Record the content of the raw folder whose index is about to be made.

    The state stays that of an earlier record with equal content, since Snakemake has planned the
    index with it. There is no record of more than ``LISTED`` files or ``MOST_BYTES``.
    """
    folders, files = _listing(root, tables)
    planned = state(root, tables, record)
    record.unlink(missing_ok=True)
    if files is not None and _size(files) <= MOST_BYTES:
        current, content = _digest(folders, files, tables), _content(root, files)
        times = _times(files, current)
        states = {"state": planned, "entries": current, "times": times, "content": content}
        write_json(record, states)


def _size(files: list[Entry]) -> int:
    return sum(file.size for file in files)


def _digest(folders: list[Entry], files: list[Entry] | None, tables: Iterable[Path]) -> str:
    entries = sorted(folders if files is None else files)
    names = [(entry.path, entry.time, entry.size) for entry in entries]
    return digest([*names, *map(sha256, sorted(tables))])


def _times(files: list[Entry], current: str) -> str:
    """Return a digest of the state by names, sizes and times, and of the times of entries."""
    return digest([current, *(file.change for file in sorted(files))])


def _content(root: Path, files: list[Entry]) -> str:
    """Return a digest of names and content of files; OSError for one that cannot be read."""
    return digest(
        [(file.path, _sha256(root / file.path, file.time, file.change)) for file in sorted(files)]
    )


@cache  # variants of a study have the same files
def _sha256(file: Path, _time: int, _change: int) -> str:
    return sha256(file)


def _listing(root: Path, tables: Iterable[Path]) -> tuple[list[Entry], list[Entry] | None]:
    """Return the folders of a raw folder, and its files; None for more files than ``LISTED``.

    Args:
        root: the raw folder.
        tables: files whose time is left out, since their content is compared.
    """
    without_time = set(map(str, tables))
    folders, start = [Entry(".", root.stat().st_mtime_ns, 0)], len(str(root)) + 1
    level, present, count, depth = [str(root)], list[os.DirEntry[str]](), 0, 0
    while level and (depth < 2 or count <= LISTED) and depth < DEEPEST:
        entries = [entry for folder in level for entry in _entries(folder)]
        below = [entry for entry in entries if is_folder(entry)]
        present += [entry for entry in entries if not is_folder(entry)]
        folders += [Entry(e.path[start:], e.stat().st_mtime_ns, 0) for e in below]
        level, count, depth = [entry.path for entry in below], count + len(entries), depth + 1
    if count > LISTED:
        return folders, None
    files = []
    for entry in present:
        with suppress(OSError):  # a broken link
            status = entry.stat()
            is_table = entry.path in without_time
            times = (0, 0) if is_table else (status.st_mtime_ns, status.st_ctime_ns)
            files.append(Entry(entry.path[start:], times[0], status.st_size, times[1]))
    return folders, files


def _entries(folder: str) -> list[os.DirEntry[str]]:
    """Return the entries of a folder, without those that an operating system makes.

    A folder that cannot be read has none here; the index reports it.
    """
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not is_hidden(entry.name)]
    except OSError:
        return []
