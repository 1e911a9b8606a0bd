"""Names by which a table refers to images: paths, file names, or names of folders."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from medscale.base.errors import MedscaleError
from medscale.data.listing import Listing, normalized_path


def short_names(path: str) -> set[str]:
    """Return an image's path without its ending, its file name, and that without its ending."""
    pure = PurePosixPath(path)
    return {str(pure.with_suffix("")), pure.name, pure.stem} - {path}


class ImageNames:
    """The images of a raw folder by the names that a table may give them."""

    def __init__(self, listing: Listing, file: Path) -> None:
        self._file = file
        root, folder = listing.root.resolve(), file.parent.resolve()
        inside = folder.is_relative_to(root)
        # A relative path is read from a folder below the raw folder, without a beginning.
        above = "" if inside else f"{os.path.relpath(root, folder)}/"
        self._starts = (
            (folder.relative_to(root) if inside else Path(), above),
            (Path(), f"{listing.root.absolute().name}/"),
        )
        self._start = self._starts[0]  # the one in force, see ``images``
        # beginnings of absolute paths
        self._roots = {listing.root.absolute().as_posix(), root.as_posix()}
        self._paths = {normalized_path(path): path for path in listing.images}
        self._short: dict[str, list[str]] = {}
        self._folders: dict[str, list[str]] = {}
        for name, path in self._paths.items():
            for short in short_names(name):
                self._short.setdefault(short, []).append(path)
            for parent in [*PurePosixPath(name).parents][:-1]:
                self._folders.setdefault(str(parent), []).append(path)
        self._short_folders: dict[str, list[str]] = {}
        for below in self._folders:
            self._short_folders.setdefault(PurePosixPath(below).name, []).append(below)

    def images(self, names: Sequence[str]) -> list[list[str]]:
        """Return the images that each of a column's names stands for; none for an empty name.

        Paths are relative to the table's folder. If none of them leads to an image, they are
        relative to the raw folder or to the folder above it, as in CheXpert. If none is that of an
        image either, they are names of folders, and stand for all images in them. Raises
        MedscaleError where a name is that of several images or folders.
        """
        for start in self._starts:
            self._start = start
            paths = [self.image(name) for name in names]
            if any(paths):
                return [[] if path is None else [path] for path in paths]
        self._start = self._starts[0]
        return [self._in_folder(name) if name else [] for name in names]

    def full(self, name: str) -> str:
        """Return the path below the raw folder that an entry's path stands for."""
        for root in self._roots:
            if name.startswith(f"{root}/"):
                return normalized_path(name.removeprefix(f"{root}/"))
        folder, beginning = self._start
        below = normalized_path(name).removeprefix(beginning)
        return normalized_path(posixpath.normpath(PurePosixPath(folder, below)))

    def image(self, name: str) -> str | None:
        """Return the path of the image that an entry names; None where there is none.

        Raises MedscaleError where the name is that of several images.
        """
        if (path := self._paths.get(self.full(name))) is not None:
            return path
        paths = self._short.get(normalized_path(name), []) or self._short.get(self.full(name), [])
        if len(paths) > 1:
            raise MedscaleError(
                f"{self._file}: {name} is the name of {len(paths)} images ({paths[0]}, {paths[1]});"
                " write their paths"
            )
        return paths[0] if paths else None

    def _in_folder(self, name: str) -> list[str]:
        if (path := self.full(name)) in self._folders:
            return self._folders[path]
        folders = self._short_folders.get(normalized_path(name), [])
        if len(folders) > 1:
            raise MedscaleError(
                f"{self._file}: {name} is the name of {len(folders)} folders ({folders[0]}, "
                f"{folders[1]}); write their paths"
            )
        return self._folders[folders[0]] if folders else []
