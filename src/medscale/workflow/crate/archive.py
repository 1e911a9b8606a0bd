"""Reading of a crate that a stranger may have made, as a ZIP archive or a folder, within limits.

Files are read one by one by the names that pass ``_check_name``; no library unpacks the archive.
"""

from __future__ import annotations

import hashlib
import lzma
import os
import shutil
import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from medscale.base.errors import MedscaleError
from medscale.base.files import MAX_JSON_BYTES
from medscale.workflow.crate.manifest import MANIFEST, METADATA, parse

MOST_FILES = 200_000
MOST_MANIFEST_BYTES = 64 * 2**20
LONGEST_NAME = 500  # bytes of a path
# Unpacked bytes for each packed byte of the whole archive. A crate of the demo has 2; a stream of
# zeros has 1000.
MOST_RATIO = 100
SMALL = 2**20  # unpacked bytes below which the ratio does not matter
BLOCK = 2**20
UNREADABLE = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError)
ENCRYPTED = 0x1  # of a ZIP entry's flags (APPNOTE 4.4.4)


@dataclass(frozen=True)
class Entry:
    """A file of a crate."""

    name: str  # path in the crate
    size: int  # bytes


class Crate:
    """A crate whose names and sizes are checked; its files are read with their digests."""

    def __init__(self, path: Path, archive: zipfile.ZipFile | None, entries: list[Entry]) -> None:
        """Check the names and read the manifest.

        Raises MedscaleError for a hostile name, or a crate without a manifest.
        """
        self.path, self._archive = path, archive
        self.entries = {entry.name: entry for entry in entries}
        for entry in entries:
            _check_name(path, entry.name)
        if len(self.entries) < len(entries):
            raise MedscaleError(f"{path} holds a file twice under one name; it is not unpacked")
        for name, most in ((METADATA, MAX_JSON_BYTES), (MANIFEST, MOST_MANIFEST_BYTES)):
            if name not in self.entries:
                raise MedscaleError(
                    f"{path} is no crate that can be restored: it has no {name}; pack the study "
                    "with this version: medscale crate"
                )
            if self.entries[name].size > most:
                raise MedscaleError(f"{path}: {name} has more than {most:,} bytes")
        self.digests: dict[str, str] = {}
        self.digests = parse(self.text(MANIFEST), str(path))
        listed, present = set(self.digests), set(self.entries) - {METADATA, MANIFEST}
        if listed != present:
            name = min(listed ^ present)
            fault = "is missing" if name in listed else "has no checksum"
            raise MedscaleError(f"{path}: {name} {fault}; the crate is not as it was packed")

    @property
    def digest(self) -> str:
        """The SHA-256 of the crate's manifest, which stands for all other files."""
        return self.read(MANIFEST, None)

    def read(self, name: str, to: Path | None) -> str:
        """Return the SHA-256 of a file; with ``to`` also write the file there.

        Raises MedscaleError when the file is damaged, or is not the one of the manifest.
        """
        digest = hashlib.sha256()
        try:
            if to is not None:
                to.parent.mkdir(parents=True, exist_ok=True)
            with self._open(name) as file, open(to or os.devnull, "wb") as target:
                while block := file.read(BLOCK):
                    digest.update(block)
                    target.write(block)
        except (*UNREADABLE, OSError, ValueError) as error:
            raise MedscaleError(f"{self.path}: {name} cannot be read or written: {error}") from None
        if self.digests.get(name, digest.hexdigest()) != digest.hexdigest():
            raise MedscaleError(
                f"{self.path}: {name} is not the file that was packed (SHA-256 differs); get the "
                "crate again"
            )
        return digest.hexdigest()

    def text(self, name: str) -> str:
        """Return the text of a small file."""
        try:
            with self._open(name) as file:
                return file.read(MOST_MANIFEST_BYTES).decode("utf-8", errors="replace")
        except (*UNREADABLE, OSError) as error:
            raise MedscaleError(f"{self.path}: {name} cannot be read: {error}") from None

    def _open(self, name: str) -> IO[bytes]:
        return open(self.path / name, "rb") if self._archive is None else self._archive.open(name)


@contextmanager
def opened(path: Path) -> Iterator[Crate]:
    """Yield the crate in a ZIP archive or folder.

    Raises MedscaleError when it is none, or exceeds a limit.
    """
    if path.is_dir():
        yield Crate(path, None, list(_of_folder(path)))
        return
    try:
        archive = zipfile.ZipFile(path)
    except (*UNREADABLE, OSError, ValueError) as error:
        raise MedscaleError(
            f"{path} is neither a crate's folder nor a ZIP archive ({error})"
        ) from None
    with archive:
        yield Crate(path, archive, _of_archive(path, archive))


def check_space(crate: Crate, folder: Path) -> None:
    """Raise MedscaleError unless the unpacked crate fits on the disk of a folder."""
    while not folder.exists():
        folder = folder.parent
    need, free = sum(e.size for e in crate.entries.values()), shutil.disk_usage(folder).free
    if need > free:
        raise MedscaleError(
            f"{crate.path} has {need / 2**30:.1f} GiB unpacked, but {folder} has only "
            f"{free / 2**30:.1f} GiB left"
        )


def _of_archive(path: Path, archive: zipfile.ZipFile) -> list[Entry]:
    # ZipInfo.is_dir raises an IndexError for an entry without a name.
    infos = [info for info in archive.infolist() if not info.filename.endswith("/")]
    _check_number(path, len(infos))
    for info in infos:
        mode = info.external_attr >> 16  # of Unix; 0 for archives of other systems
        if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
            raise MedscaleError(f"{path}: {info.filename!r} is a link or a device, not a file")
        if info.flag_bits & ENCRYPTED:
            raise MedscaleError(f"{path}: {info.filename!r} is encrypted; unpack it yourself")
    size = sum(info.file_size for info in infos)
    packed = max(path.stat().st_size, 1)
    if size > SMALL and size / packed > MOST_RATIO:
        raise MedscaleError(
            f"{path} has {packed:,} bytes and would unpack to {size:,}: no crate of a study does"
        )
    return [Entry(info.filename, info.file_size) for info in infos]


def _of_folder(path: Path) -> Iterator[Entry]:
    number = 0
    for folder, folders, files in os.walk(path):
        for name in (*folders, *files):
            file = Path(folder) / name
            if file.is_symlink() or not (file.is_dir() or file.is_file()):
                raise MedscaleError(f"{file} is a link or a device, not a file")
        number += len(files)
        _check_number(path, number)
        for name in files:
            file = Path(folder) / name
            yield Entry(file.relative_to(path).as_posix(), file.stat().st_size)


def _check_number(path: Path, files: int) -> None:
    if files > MOST_FILES:
        raise MedscaleError(f"{path} has more than {MOST_FILES:,} files")


def _check_name(path: Path, name: str) -> None:
    """Raise MedscaleError for a name that could lead out of a folder on any system."""
    parts = PurePosixPath(name).parts
    is_plain = (
        0 < len(name.encode("utf-8", errors="replace")) <= LONGEST_NAME
        and not set(name) & {"\\", "\0", ":"}
        and name.isprintable()
        and not {".", "..", "/"} & set(name.split("/"))
        and "" not in name.split("/")
        and not PurePosixPath(name).is_absolute()
        and parts
    )
    if not is_plain:
        raise MedscaleError(
            f"{path} holds a file {name[:80]!r}, whose name could lead out of the folder; it is "
            "not unpacked"
        )
