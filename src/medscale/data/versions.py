"""Versions of the code and libraries that determine the bytes of a preprocessed image."""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import cv2
import numpy as np

from medscale.base.code import module_digest
from medscale.base.files import digest

# The modules of this folder that decode, preprocess and store images.
MODULES = ("images.py", "preprocess.py", "shards.py", "dicom.py")
LIBRARIES = ("pydicom", "pillow", "pylibjpeg-openjpeg", "kornia-rs")


@cache
def versions() -> dict[str, str]:
    """Return the versions of the libraries, and a digest of the package's code, by name.

    Comments and docstrings are no part of the digest: editing them makes no image again.
    """
    code = digest([module_digest(Path(__file__).with_name(name)) for name in MODULES])
    libraries = {name: _version(name) for name in LIBRARIES}
    return {"opencv": cv2.__version__, "numpy": np.__version__, **libraries, "code": code}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"
