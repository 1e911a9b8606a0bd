"""Images and metadata that a caller gives to a prediction: paths, folders, bytes, PIL, arrays."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from pandas.api.types import is_scalar
from PIL import Image, ImageOps

from medscale.base.errors import MedscaleError
from medscale.base.files import expand_home
from medscale.base.log import log
from medscale.base.text import listed
from medscale.data.decoding.formats import to_uint8
from medscale.data.frames import read_frame
from medscale.data.images import UNREADABLE, Unreadable, decode, header
from medscale.data.inventory import Excluded
from medscale.data.listing import Listing, normalized_path, read_table, separator_of
from medscale.data.metadata import Encoding, apply, word
from medscale.data.patients import is_missing
from medscale.data.prepare import PreparedImage, prepare
from medscale.data.preprocess import preprocess
from medscale.data.settings import Preprocess

ImageInput = str | Path | bytes | Image.Image | np.ndarray
Images = ImageInput | Sequence[ImageInput]
NamedImage = tuple[str, ImageInput]
Facts = Mapping[str, Any]  # a patient's metadata by column; a missing column is unknown
NAMED = 20  # files left out that a warning names
DECIMAL_COMMA = r"^(-?\d+),(\d+)$"  # a number in tables whose values a comma does not separate
Metadata = Facts | Sequence[Facts] | pd.DataFrame | None
T = TypeVar("T")


def is_single(images: Images) -> bool:
    """Return whether the caller means a single image, whose fault is an error, not a row."""
    if isinstance(images, str | Path):
        return not expand_home(images).is_dir()
    return isinstance(images, bytes | Image.Image | np.ndarray)


def name_images(images: Images) -> list[NamedImage]:
    """Return each image with a name: its path (relative to a given folder) or its number in a list.

    A folder stands for all files below it with the suffix of an image, in order, without hidden
    folders. Files that are left out are named in a warning. Raises MedscaleError for a folder
    without images, or an object that is no image.
    """
    if isinstance(images, str | Path) and (folder := expand_home(images)).is_dir():
        listing = Listing(folder)
        if listing.excluded:
            log.warning("%s", _left_out(folder, listing.excluded))
        if not listing.images:
            raise MedscaleError(f"{images} has no file with the name of an image")
        return [(path, folder / path) for path in listing.images]
    several = [images] if is_single(images) else images
    if not isinstance(several, Iterable):
        raise MedscaleError(
            f"{type(images).__name__} is no image; give paths, a folder, bytes, PIL images or"
            " arrays"
        )
    return [
        (str(image), expand_home(image))
        if isinstance(image, str | Path)
        else (f"image {number}", image)
        for number, image in enumerate(several, start=1)
    ]


def _left_out(folder: Path, files: Sequence[Excluded]) -> str:
    """Return a sentence on the files of a folder that are not predicted."""
    names = listed([f"{path} ({reason})" for path, reason, _ in files], NAMED)
    verb = "file was" if len(files) == 1 else "files were"
    return f"{len(files)} {verb} left out by name in {folder}: {names}"


def read(image: ImageInput, settings: Preprocess) -> tuple[PreparedImage, Facts]:
    """Return an image preprocessed as for training, and the facts in its headers.

    The bytes of a file are read as the shards were made; headers of DICOM files give age, sex and
    view. PIL images are turned by their EXIF orientation and converted to RGB of 8 bits; arrays are
    uint8, RGB (H,W,3) or grey (H,W).

    Raises:
        Unreadable: with the audit's reason and a detail.
        MedscaleError: for an array of another type or shape, or a PIL image of mode I or F.
    """
    frame = 0
    if isinstance(image, str | Path):
        image, frame = read_frame(image)
    if isinstance(image, bytes):
        prepared = prepare(image, settings, frame)
        facts = header(image) or {}
        return prepared, {
            key: value
            for key, value in facts.items()
            if key not in ("patient", "remark") and value is not None
        }
    pixels = pixels_of(image)
    return PreparedImage(preprocess(pixels, settings), pixels.shape[1], pixels.shape[0]), {}


def pixels_of(image: ImageInput) -> np.ndarray:
    """Return an image's decoded pixels, uint8 RGB, shape H,W,3; a JPEG is decoded whole.

    Raises as ``read``.
    """
    frame = 0
    if isinstance(image, str | Path):
        image, frame = read_frame(image)
    if isinstance(image, bytes):
        return decode(image, frame=frame)
    return _of_pil(image) if isinstance(image, Image.Image) else _rgb(image)


def mapping(option: str, pairs: Iterable[tuple[str, T]]) -> dict[str, T]:
    """Return pairs of name and value as a dict; MedscaleError for a name with two values."""
    pairs = list(pairs)
    counts = Counter(name for name, _ in pairs)
    if repeated := [name for name, count in counts.items() if count > 1]:
        raise MedscaleError(f"{option} gives {repeated[0]} more than once; give one value")
    return dict(pairs)


def parse_metadata(text: str | None) -> Facts | pd.DataFrame | None:
    """Read the option ``--metadata``: ``age=61,sex=female``, or a CSV file with a column ``path``.

    The table is read as tables of images are: cells are text, since the network's encodings know
    which columns are numbers. Raises MedscaleError when it is neither, and for a repeated column.
    """
    if text is None:
        return None
    if "=" not in text:
        file = expand_home(text)
        table = read_table(file, ["path"]).map(lambda cell: None if is_missing(cell) else cell)
        decimal_comma = separator_of(file) != ","
        return table.replace(DECIMAL_COMMA, r"\1.\2", regex=True) if decimal_comma else table
    pairs = [part.split("=", 1) for part in text.split(",")]
    if any(len(pair) != 2 for pair in pairs):
        raise MedscaleError(
            f"--metadata {text!r}: write it as age=61,sex=female, or name a CSV file"
        )
    cells = [(name.strip(), None if is_missing(value) else value.strip()) for name, value in pairs]
    return mapping("--metadata", cells)


def metadata_rows(facts: Sequence[Facts], encodings: Sequence[Encoding]) -> pd.DataFrame:
    """Return the facts on each image as the columns that the network was trained with.

    Raises MedscaleError for a column that the network does not take.
    """
    columns = [encoding.column for encoding in encodings]
    unknown = sorted(
        {column for image_facts in facts for column in image_facts if column not in columns}
    )
    if unknown:
        expected = ", ".join(columns) if columns else "images alone"
        raise MedscaleError(
            f"metadata: {', '.join(unknown)} is not known; this network takes {expected}"
        )
    return pd.DataFrame(
        [[image_facts.get(column) for column in columns] for image_facts in facts],
        columns=columns,
        dtype=object,
    )


def metadata_by_image(names: Sequence[str], metadata: Metadata) -> list[Facts]:
    """Return the facts on each named image.

    Raises MedscaleError when the list has another length, or the table has no column ``path``, has
    a path twice, or names none of the images. A table that names some of them alone, or names other
    images, gives a warning.

    Args:
        names: the images' names.
        metadata: the same facts for all images, a list with the facts on each, or a table with a
            column ``path``, which holds the names.
    """
    if metadata is None or isinstance(metadata, Mapping):
        return [present(metadata or {})] * len(names)
    if isinstance(metadata, pd.DataFrame):
        paths = metadata.get("path", pd.Series([None]))
        keyed = [normalized_path(str(path)) for path in paths]
        if paths.isna().any() or len(set(keyed)) < len(keyed):
            raise MedscaleError(
                "a table of metadata needs a column `path`, with each image once, and a column for "
                "each fact"
            )
        by_path = metadata.drop(columns="path").set_axis(keyed).to_dict("index")
        keys = [key if (key := normalized_path(name)) in by_path else "" for name in names]
        _check_matches(names, keys, metadata)
        return [present(by_path.get(key, {})) for key in keys]
    if len(metadata) != len(names):
        raise MedscaleError(
            f"metadata of {len(metadata)} images were given with {len(names)} images"
        )
    return [present(facts) for facts in metadata]


def present(facts: Mapping[Any, Any]) -> Facts:
    """Return facts in which each missing value, such as NaN of pandas, is None."""
    return {
        str(column): None if is_scalar(value) and pd.isna(value) else value
        for column, value in facts.items()
    }


def check_words(facts: Sequence[Facts], encodings: Sequence[Encoding]) -> None:
    """Refuse words that no training image has, which would count as unknown without a sign.

    Raises MedscaleError with the words of the training images.

    Args:
        facts: as the caller gave them; headers of images are not among them.
        encodings: of the columns that the network takes.
    """
    for encoding in encodings:
        values = [image_facts.get(encoding.column) for image_facts in facts]
        words = {word(value) for value in values if value is not None}
        if encoding.words is None or not (foreign := sorted(words - set(encoding.words))):
            continue
        raise MedscaleError(
            f"metadata: {encoding.column} is {', '.join(map(repr, foreign))}; the training images "
            f"have {', '.join(encoding.words)}. Leave out a value that is none of these: it is "
            "unknown to the network"
        )


def check_facts(facts: Facts, encodings: Sequence[Encoding]) -> None:
    """Refuse facts on one patient that a network does not take, before the network is loaded.

    Raises MedscaleError for a column or a word that is not known, or text for a number.
    """
    check_words([facts], encodings)
    apply(encodings, metadata_rows([facts], encodings))


def unknown(facts: Facts, encodings: Sequence[Encoding]) -> list[str]:
    """Return the columns that a network takes and that are unknown of a patient."""
    return [
        encoding.column
        for encoding in encodings
        if (value := facts.get(encoding.column)) is None
        or (encoding.words is not None and word(value) not in encoding.words)
    ]


def unknown_sentence(columns: Sequence[Sequence[str]]) -> str:
    """Return a sentence that counts the images with unknown metadata; empty if all are known.

    Args:
        columns: the unknown columns of each image, as ``unknown`` returns them.
    """
    counts = Counter(column for unknown_columns in columns for column in unknown_columns)
    parts = [f"{column} (of {count} of {len(columns)} images)" for column, count in counts.items()]
    sentence = f"metadata that the network takes and that are unknown: {', '.join(parts)}"
    return sentence if parts else ""


def _check_matches(names: Sequence[str], keys: Sequence[str], metadata: pd.DataFrame) -> None:
    """Refuse a table that names no image; warn of one that does not name them all."""
    matched = sum(bool(key) for key in keys)
    if names and not matched:
        first = metadata["path"].iloc[0] if len(metadata) else "none"
        raise MedscaleError(
            f"the table of metadata names none of the {len(names)} images (its first path: "
            f"{first}; the first image: {names[0]}); paths are those of the images as they are "
            "given, or relative to the given folder"
        )
    if matched < len(names) or matched < len(metadata):
        log.warning(
            "the table of metadata names %d of the %d images; %d of its %d paths are of no image",
            matched,
            len(names),
            len(metadata) - len(set(keys) - {""}),
            len(metadata),
        )


def _of_pil(image: Image.Image) -> np.ndarray:
    """Return a PIL image as uint8 RGB; samples of 16 bits are scaled by their full range, as files.

    PIL itself cuts off values above 255. Raises MedscaleError for samples without a known range.
    """
    if image.mode in ("I", "F"):
        raise MedscaleError(
            f"a PIL image of mode {image.mode}, whose values have no known range; give its file, or"
            " an image of 8 or 16 bits"
        )
    try:
        upright = ImageOps.exif_transpose(image)
        if upright.mode.startswith("I;16"):
            return _rgb(to_uint8(np.asarray(upright), 16))
        return np.asarray(upright.convert("RGB"))
    except (OSError, ValueError) as error:
        raise Unreadable(UNREADABLE, f"the PIL image: {error}") from None


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
