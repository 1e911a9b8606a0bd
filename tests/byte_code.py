"""Byte code and digests of the checkout's code, for a copy of the checkout.

Python and ``medscale.base.code`` compile and parse only the files that differ from these, or none
of which there are any.
"""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

from medscale.base.code import ROOT


def copy_byte_code(folder: Path) -> None:
    """Give the copy of the checkout in a folder what was compiled of the package.

    The copy's files need the times of the originals (``shutil.copy2``), as Python compiles a file
    of another time again.
    """
    for pattern in ("src/**/__pycache__/*.pyc", "src/**/__pycache__/*.json"):
        for file in ROOT.glob(pattern):
            place = folder / file.relative_to(ROOT)
            if place.parents[1].is_dir():
                place.parent.mkdir(exist_ok=True)
                with suppress(FileNotFoundError):  # another process has just replaced it
                    shutil.copy2(file, place)
