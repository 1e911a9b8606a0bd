"""Versions of the code and libraries that determine the bytes of a preprocessed image."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import cv2
import numpy as np

from medscale.base.code import module_digest, sources
from medscale.base.files import digest
from medscale.base.provenance import package_version

# The modules of this folder that decode, preprocess and store images.
MODULES = ("images.py", "preprocess.py", "shards.py", "decoding/*.py")
LIBRARIES = (  # that decode images, besides OpenCV
    "imagecodecs",
    "kornia-rs",
    "pillow",
    "pydicom",
    "pylibjpeg-openjpeg",
    "simplejpeg",
    "tifffile",
)


@cache
def versions() -> dict[str, str]:
    """Return the versions of the libraries, and a digest of the package's code, by name.

    The digest does not cover comments and docstrings, so that their changes process no image again.
    """
    folder = Path(__file__).parent
    files = [file for pattern in MODULES for file in sources(folder, pattern)]
    code = digest([module_digest(file) for file in files])
    libraries = {name: package_version(name) or "none" for name in LIBRARIES}
    return {"opencv": cv2.__version__, "numpy": np.__version__, **libraries, "code": code}
