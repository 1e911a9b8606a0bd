"""DICOM images: the first frame as uint8 RGB, as it is to be shown, and what the headers tell of the patient."""

from __future__ import annotations

import io
import logging
import re
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import dcmread
from pydicom.dataelem import RawDataElement
from pydicom.dataset import FileDataset
from pydicom.pixels import (
    apply_color_lut,
    apply_modality_lut,
    apply_voi,
    apply_windowing,
    pixel_array,
)

from medscale.data.images import NOT_AN_IMAGE, TRUNCATED, UNREADABLE, Unreadable

OLDEST = 110  # years; an older patient is a mistyped one
PER_YEAR = {"Y": 1, "M": 12, "W": 365.25 / 7, "D": 365.25}  # units of an age string (PS3.5, 6.2)
COLOUR = (
    "RGB",
    "YBR_FULL",
    "YBR_FULL_422",
    "YBR_ICT",
    "YBR_RCT",
)  # pydicom gives all of these as RGB
SEXES = {"M": "male", "F": "female", "O": "other"}
HEADERS = ["PatientAge", "PatientSex", "ViewPosition"]
UNDEFINED_LENGTH = 0xFFFFFFFF

logging.getLogger("pydicom").setLevel(
    logging.CRITICAL
)  # what is wrong with an image is told in the audit


def decode(data: bytes) -> np.ndarray:
    """Decode the first frame of a DICOM file's bytes to uint8 RGB of shape H,W,3, as it is to be shown.

    Grey of up to 8 bits is taken as stored. Of more bits, the rescale or modality table, then the first VOI table or
    window are applied (DICOM PS3.3, C.11.1 and C.11.2); without either the image's own range becomes 0 to 255.
    MONOCHROME1 is inverted, so that air is dark. A palette is applied, YCbCr converted.

    Raises:
        Unreadable: truncated; not an image (a DICOM object without pixels); unreadable, with what pydicom said.
    """
    dataset = _read(data)
    with _unreadable("the pixels"):
        _check_pixels(dataset, len(data))
        return _shown(pixel_array(dataset, index=0), dataset)


def dicom_facts(source: bytes | str | Path) -> dict[str, Any]:
    """What a DICOM file's headers tell of patient and exposure; its pixels are not read.

    Args:
        source: a file's bytes or path.

    Returns:
        ``age`` in years (float), ``sex`` (male, female or other) and ``view`` (such as PA or AP), each None where it is
        not told, and ``remark``: why a recorded age was not taken, or None. Ages come as the standard's ``051Y`` or
        as a bare ``51``.

    Raises:
        Unreadable: as for ``decode``.
    """
    dataset = _read(source, stop_before_pixels=True, specific_tags=HEADERS)
    with _unreadable("the headers"):
        age, sex, view = (str(dataset.get(name) or "").strip().upper() for name in HEADERS)
    years, remark = _years(age)
    return {"age": years, "sex": SEXES.get(sex), "view": view or None, "remark": remark}


def _years(age: str) -> tuple[float | None, str | None]:
    """An age in years, or why there is none."""
    if not age:
        return None, None
    match = re.fullmatch(r"(\d{1,4})\s?([YMWD]?)", age)
    if match is None:
        return None, f"PatientAge {age!r} is no age"
    years = int(match[1]) / PER_YEAR[match[2] or "Y"]
    return (years, None) if years <= OLDEST else (None, f"PatientAge {age} is over {OLDEST} years")


def _read(source: bytes | str | Path, **options: Any) -> FileDataset:
    with _unreadable("the headers"):
        return dcmread(io.BytesIO(source) if isinstance(source, bytes) else source, **options)


@contextmanager
def _unreadable(what: str) -> Iterator[None]:
    """Turn what pydicom raises on damaged data, which is of many types, into Unreadable; its warnings are dropped."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except Unreadable:
            raise
        except (EOFError, struct.error) as error:
            raise Unreadable(TRUNCATED, f"the DICOM file ends within {what} ({error})") from None
        except Exception as error:
            said = " ".join(str(error).split()) or type(error).__name__
            raise Unreadable(UNREADABLE, f"{what} of the DICOM file: {said}") from None


def _check_pixels(dataset: FileDataset, size: int) -> None:
    """Raise Unreadable where there are no pixels, or fewer bytes of them than their element says."""
    if "PixelData" not in dataset:  # pydicom leaves out an element that the file's end cuts
        kind = dataset.file_meta.get("MediaStorageSOPClassUID")
        if kind is None or "Image Storage" in kind.name:
            raise Unreadable(
                TRUNCATED, f"the DICOM file ends after {size} bytes without all of its pixels"
            )
        raise Unreadable(NOT_AN_IMAGE, f"a DICOM object without pixels ({kind.name})")
    pixels = dataset.get_item("PixelData")
    if isinstance(pixels, RawDataElement) and pixels.length != UNDEFINED_LENGTH:
        there = len(pixels.value or b"")
        if there < pixels.length:
            raise Unreadable(
                TRUNCATED, f"the DICOM file has {there} of {pixels.length} bytes of pixels"
            )


def _shown(frame: np.ndarray, dataset: FileDataset) -> np.ndarray:
    """A decoded frame, shape H,W or H,W,3, as uint8 RGB."""
    kind = str(dataset.PhotometricInterpretation)
    if kind in ("MONOCHROME1", "MONOCHROME2"):
        grey = _grey(frame, dataset)
        return np.repeat((255 - grey if kind == "MONOCHROME1" else grey)[..., None], 3, axis=2)
    if kind == "PALETTE COLOR":
        colours = apply_color_lut(frame, dataset)[..., :3]
        return _scaled(colours, 0, np.iinfo(colours.dtype).max)
    if kind in COLOUR:
        return _scaled(frame, 0, 2 ** int(dataset.BitsStored) - 1)
    raise Unreadable(
        UNREADABLE, f"a DICOM image of photometric interpretation {kind}, which is not read"
    )


def _grey(frame: np.ndarray, dataset: FileDataset) -> np.ndarray:
    """Grey values, uint8, larger where the values of the modality are."""
    bits = int(dataset.BitsStored)
    if bits <= 8 and frame.dtype == np.uint8:
        return _scaled(frame, 0, 2**bits - 1)
    values = apply_modality_lut(frame, dataset)
    if tables := dataset.get("VOILUTSequence"):
        return _scaled(apply_voi(values, dataset), 0, 2 ** int(tables[0].LUTDescriptor[2]) - 1)
    if dataset.get("WindowCenter") is not None and dataset.get("WindowWidth") is not None:
        low, high = apply_windowing(
            np.array([-np.inf, np.inf]), dataset
        )  # what black and white become
        return _scaled(apply_windowing(values, dataset), low, high)
    return _scaled(values, values.min(), values.max())


def _scaled(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Bring low to 0 and high to 255, rounded; uint8. A flat image becomes black."""
    if values.dtype == np.uint8 and (low, high) == (0, 255):
        return values
    if low == high:
        return np.zeros(values.shape, np.uint8)
    return np.clip(
        np.rint((values.astype(np.float64) - low) * (255 / (high - low))), 0, 255
    ).astype(np.uint8)
