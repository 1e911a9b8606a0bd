"""Images and metadata that a caller gives to a prediction: paths, folders, bytes, PIL, arrays."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image, ImageOps

from medscale.base.errors import MedscaleError
from medscale.data.frames import read_frame
from medscale.data.images import UNREADABLE, Unreadable, header
from medscale.data.listing import Listing
from medscale.data.metadata import Encoding
from medscale.data.prepare import Prepared, prepare
from medscale.data.preprocess import preprocess
from medscale.data.settings import Preprocess

ImageInput = str | Path | bytes | Image.Image | np.ndarray
Images = ImageInput | Sequence[ImageInput]
NamedImage = tuple[str, ImageInput]
Facts = Mapping[str, Any]  # a patient's metadata by column; a missing column is unknown
Metadata = Facts | Sequence[Facts] | pd.DataFrame | None


def is_single(images: Images) -> bool:
    """Return whether the caller means a single image, whose fault is an error, not a row."""
    if isinstance(images, str | Path):
        return not Path(images).is_dir()
    return isinstance(images, bytes | Image.Image | np.ndarray)


def name_images(images: Images) -> list[NamedImage]:
    """Return each image with a name: its path (relative to a given folder) or its number in a list.

    A folder stands for all files below it with the suffix of an image, in order, without hidden
    folders.

    Raises:
        MedscaleError: for a folder without images, or an object that is no image.
    """
    if isinstance(images, str | Path) and Path(images).is_dir():
        paths = Listing(Path(images)).images
        if not paths:
            raise MedscaleError(f"{images} has no file with the name of an image")
        return [(path, Path(images) / path) for path in paths]
    several = [images] if is_single(images) else images
    if not isinstance(several, Iterable):
        raise MedscaleError(
            f"{type(images).__name__} is no image; give paths, a folder, bytes, PIL images or"
            " arrays"
        )
    return [
        (str(image) if isinstance(image, str | Path) else f"image {number}", image)
        for number, image in enumerate(several, start=1)
    ]


def read(image: ImageInput, settings: Preprocess) -> tuple[Prepared, Facts]:
    """Return an image preprocessed as for training, and the facts in its headers.

    The bytes of a file are read as the shards were made; headers of DICOM files give age, sex and
    view. PIL images are turned by their EXIF orientation and converted to RGB; arrays are uint8,
    RGB (H,W,3) or grey (H,W).

    Raises:
        Unreadable: with the audit's reason and a detail.
        MedscaleError: for an array of another type or shape.
    """
    frame = 0
    if isinstance(image, str | Path):
        image, frame = read_frame(image)
    if isinstance(image, bytes):
        prepared = prepare(image, settings, frame)
        facts = header(image) or {}
        return prepared, {
            key: value for key, value in facts.items() if key != "remark" and value is not None
        }
    if isinstance(image, Image.Image):
        try:
            pixels = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
        except (OSError, ValueError) as error:
            raise Unreadable(UNREADABLE, f"the PIL image: {error}") from None
    else:
        pixels = _rgb(image)
    return Prepared(preprocess(pixels, settings), pixels.shape[1], pixels.shape[0]), {}


def metadata_rows(facts: Sequence[Facts], encodings: Sequence[Encoding]) -> pd.DataFrame:
    """Return the facts on each image as the columns that the network was trained with.

    Raises:
        MedscaleError: for a column that the network does not take.
    """
    columns = [encoding.column for encoding in encodings]
    unknown = sorted({column for of_image in facts for column in of_image if column not in columns})
    if unknown:
        takes = ", ".join(columns) if columns else "images alone"
        raise MedscaleError(
            f"metadata: {', '.join(unknown)} is not known; this network takes {takes}"
        )
    return pd.DataFrame(
        [[of_image.get(column) for column in columns] for of_image in facts],
        columns=columns,
        dtype=object,
    )


def metadata_by_image(names: Sequence[str], metadata: Metadata) -> list[Facts]:
    """Return the facts on each named image.

    Args:
        names: the images' names.
        metadata: the same facts for all images, a list with the facts on each, or a table with a
            column ``path``, which holds the names.

    Raises:
        MedscaleError: when the list has another length, or the table has no column ``path`` or a
            path twice.
    """
    if metadata is None or isinstance(metadata, Mapping):
        return [metadata or {}] * len(names)
    if isinstance(metadata, pd.DataFrame):
        if "path" not in metadata or metadata["path"].duplicated().any():
            raise MedscaleError(
                "a table of metadata has a column `path`, with each image once, and others"
            )
        table = metadata.astype(object).where(metadata.notna(), None).set_index("path")
        by_path = table.to_dict("index")
        return [{str(key): value for key, value in by_path.get(name, {}).items()} for name in names]
    if len(metadata) != len(names):
        raise MedscaleError(
            f"metadata of {len(metadata)} images were given with {len(names)} images"
        )
    return list(metadata)


def _rgb(pixels: np.ndarray) -> np.ndarray:
    """Check an array and return it as RGB."""
    if not isinstance(pixels, np.ndarray):
        raise MedscaleError(
            f"{type(pixels).__name__} is no image; give a path, bytes, a PIL image or an array"
        )
    right_shape = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3)
    if pixels.dtype != np.uint8 or not right_shape:
        raise MedscaleError(
            f"an array of {pixels.dtype} and shape {pixels.shape}; an image is uint8, H,W,3 or H,W"
        )
    if not pixels.size:
        raise MedscaleError("an array without pixels")
    return np.repeat(pixels[..., None], 3, axis=2) if pixels.ndim == 2 else pixels
