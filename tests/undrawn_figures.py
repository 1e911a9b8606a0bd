"""Figures that are not drawn, for tests that are not about them: drawing takes most of the time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

from matplotlib.figure import Figure

from medscale.report import style


@contextmanager
def undrawn() -> Iterator[None]:
    """Let ``style.save`` write a page with a text in place of each figure."""
    page = _page()

    def save(_figure: Figure, path: str | Path, _mark: str = "", _formats: str = "") -> None:
        Path(path).write_bytes(page)

    with patch.object(style, "save", save):
        yield


@cache
def _page() -> bytes:
    """The PDF file of a figure with a text."""
    with TemporaryDirectory() as folder, style.house():
        style.save(style.only_text("not drawn"), Path(folder, "page.pdf"))
        return Path(folder, "page.pdf").read_bytes()
