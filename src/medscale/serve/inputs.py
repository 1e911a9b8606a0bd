"""What a person may hand to a prediction: paths, folders, bytes, PIL images, arrays; as named images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image, ImageOps

from medscale.base.errors import MedscaleError
from medscale.config.sections import Preprocess
from medscale.data.images import UNREADABLE, Unreadable, header
from medscale.data.frames import read_frame
from medscale.data.metadata import Encoding
from medscale.data.prepare import Prepared, prepare
from medscale.data.preprocess import preprocess
from medscale.data.sources.found import Listing

One = str | Path | bytes | Image.Image | np.ndarray
Images = One | Sequence[One]
Named = tuple[str, One]
Facts = Mapping[str, Any]


def is_one(images: Images) -> bool:
    """Whether a single image is meant, whose fault is an error rather than a row."""
    if isinstance(images, str | Path):
        return not Path(images).is_dir()
    return isinstance(images, bytes | Image.Image | np.ndarray)


def named(images: Images) -> list[Named]:
    """Each image with a name: its path (within a folder relative to it), or its number in a list.

    Of a folder all files below it whose name ends as an image's does, in order; hidden folders are left out.

    Raises:
        MedscaleError: for a folder without images, or something that is no image.
    """
    if isinstance(images, str | Path) and Path(images).is_dir():
        found = Listing(Path(images)).images
        if not found:
            raise MedscaleError(f"{images} has no file with the name of an image")
        return [(path, Path(images) / path) for path in found]
    several = [images] if is_one(images) else images
    if not isinstance(several, Iterable):
        raise MedscaleError(
            f"{type(images).__name__} is no image; give paths, a folder, bytes, PIL images or arrays"
        )
    return [
        (str(one) if isinstance(one, str | Path) else f"image {n}", one)
        for n, one in enumerate(several, start=1)
    ]


def read(image: One, settings: Preprocess) -> tuple[Prepared, Facts]:
    """An image's pixels as the network was trained on them, and what its headers tell (DICOM: age, sex, view).

    A file's bytes are read as the shards were made. PIL images are turned as their EXIF says and taken as RGB; arrays
    are uint8 RGB (H,W,3) or grey (H,W).

    Raises:
        Unreadable: with the audit's reason and what was seen.
        MedscaleError: for an array of another kind.
    """
    frame = 0
    if isinstance(image, str | Path):
        image, frame = read_frame(image)
    if isinstance(image, bytes):
        prepared = prepare(image, settings, frame)
        told = header(image) or {}
        return prepared, {
            key: value for key, value in told.items() if key != "remark" and value is not None
        }
    if isinstance(image, Image.Image):
        try:
            pixels = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
        except (OSError, ValueError) as error:
            raise Unreadable(UNREADABLE, f"the PIL image: {error}") from None
    else:
        pixels = _array(image)
    return Prepared(preprocess(pixels, settings), pixels.shape[1], pixels.shape[0]), {}


def rows(facts: Sequence[Facts], encodings: Sequence[Encoding]) -> pd.DataFrame:
    """What is known of each image as the columns that the network was trained with; unknown is None.

    Raises:
        MedscaleError: for a fact that the network does not know.
    """
    columns = [one.column for one in encodings]
    unknown = sorted({key for known in facts for key in known if key not in columns})
    if unknown:
        takes = (
            f"this network takes {', '.join(columns)}"
            if columns
            else "this network takes images alone"
        )
        raise MedscaleError(f"metadata: {', '.join(unknown)} is not known; {takes}")
    return pd.DataFrame(
        [[known.get(name) for name in columns] for known in facts], columns=columns, dtype=object
    )


def metadata_of(
    names: Sequence[str], metadata: Facts | Sequence[Facts] | pd.DataFrame | None
) -> list[Facts]:
    """What is said of each image: the same of all, of each in order, or a table with a column ``path``.

    Raises:
        MedscaleError: when the numbers differ, or a table has no column ``path`` or a path twice.
    """
    if metadata is None or isinstance(metadata, Mapping):
        return [metadata or {}] * len(names)
    if isinstance(metadata, pd.DataFrame):
        if "path" not in metadata or metadata["path"].duplicated().any():
            raise MedscaleError(
                "a table of metadata has a column `path`, with each image once, and others"
            )
        known = (
            metadata.astype(object).where(metadata.notna(), None).set_index("path").to_dict("index")
        )
        return [{str(key): value for key, value in known.get(name, {}).items()} for name in names]
    if len(metadata) != len(names):
        raise MedscaleError(
            f"metadata of {len(metadata)} images were given with {len(names)} images"
        )
    return list(metadata)


def _array(pixels: np.ndarray) -> np.ndarray:
    if not isinstance(pixels, np.ndarray):
        raise MedscaleError(
            f"{type(pixels).__name__} is no image; give a path, bytes, a PIL image or an array"
        )
    if (
        pixels.dtype != np.uint8
        or pixels.ndim not in (2, 3)
        or (pixels.ndim == 3 and pixels.shape[2] != 3)
    ):
        raise MedscaleError(
            f"an array of {pixels.dtype} and shape {pixels.shape}; an image is uint8, H,W,3 or H,W"
        )
    if not pixels.size:
        raise MedscaleError("an array without pixels")
    return np.repeat(pixels[..., None], 3, axis=2) if pixels.ndim == 2 else pixels
