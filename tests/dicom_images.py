"""DICOM files of given pixels, and the pixels that pydicom shows."""

from __future__ import annotations

from typing import Any

import cv2
import imagecodecs
import numpy as np
from pydicom import Dataset
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut
from pydicom.uid import (
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
)

from data_trees import picture
from medscale.data.demo.xray import dicom_file

COLOUR = np.asarray(picture(1))
GREY = np.asarray(picture(1).convert("L"))
# up to 22,989: 15 bits
DEEP = (GREY.astype(np.uint16) * 90 + np.arange(40, dtype=np.uint16)).astype(np.uint16)


def dicom(
    pixels: np.ndarray,
    content: bytes | list[bytes] | None = None,
    syntax: str = ExplicitVRLittleEndian,
    **headers: Any,
) -> bytes:
    """A DICOM file of these pixels, stored plain or with other content, and further headers."""
    bits = 8 * pixels.dtype.itemsize
    about = {
        "SOPInstanceUID": "1.2.3",
        "SamplesPerPixel": 3 if pixels.ndim == 3 else 1,
        "PhotometricInterpretation": "RGB" if pixels.ndim == 3 else "MONOCHROME2",
        **({"PlanarConfiguration": 0} if pixels.ndim == 3 else {}),
        "Rows": pixels.shape[0],
        "Columns": pixels.shape[1],
        "BitsAllocated": bits,
        "BitsStored": bits,
        "HighBit": headers.get("BitsStored", bits) - 1,
        "PixelRepresentation": int(pixels.dtype.kind == "i"),
    }
    return dicom_file(about | headers, pixels.tobytes() if content is None else content, syntax)


def dicom_frames(values: np.ndarray, syntax: str = ExplicitVRLittleEndian, **headers: Any) -> bytes:
    """A DICOM file of frames, shape F,H,W or F,H,W,3, each coded as the syntax says."""
    bits = headers.get("BitsStored", 8 * values.dtype.itemsize)
    coders = {
        JPEGLSLossless: imagecodecs.jpegls_encode,
        JPEGLosslessSV1: lambda frame: imagecodecs.ljpeg_encode(frame, bitspersample=bits),
        JPEG2000Lossless: lambda frame: imagecodecs.jpeg2k_encode(
            frame, level=0, codecformat="j2k", bitspersample=bits, reversible=True
        ),
    }
    unsigned = values.view(values.dtype.str.replace("i", "u"))
    coder = coders.get(syntax)
    content = (
        values.tobytes() if coder is None else [coder(np.ascontiguousarray(f)) for f in unsigned]
    )
    return dicom(values[0], content, syntax, NumberOfFrames=str(len(values)), **headers)


def jpeg(pixels: np.ndarray) -> bytes:
    """A baseline JPEG of OpenCV."""
    return cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()


def as_pydicom_shows(dataset: Dataset, stored: np.ndarray) -> np.ndarray:
    """Values of 0 to 255 by pydicom's functions and the rules of this package, shape H,W,3."""
    kind, bits = dataset.PhotometricInterpretation, int(dataset.BitsStored)
    if kind == "PALETTE COLOR":
        colours = apply_color_lut(stored, dataset)
        return colours * (255 / np.iinfo(colours.dtype).max)
    if not kind.startswith("MONOCHROME"):
        return stored * (255 / (2**bits - 1))
    for group in dataset.get("SharedFunctionalGroupsSequence", []):  # enhanced objects
        for name in ("PixelValueTransformationSequence", "FrameVOILUTSequence"):
            dataset.update(group.get(name, [{}])[0])
    values = apply_modality_lut(stored, dataset)
    windowed = apply_voi_lut(values, dataset).astype(float)
    padding = np.zeros(stored.shape, bool)
    if (first := dataset.get("PixelPaddingValue")) is not None:
        last = dataset.get("PixelPaddingRangeLimit", first)
        padding = (stored >= min(first, last)) & (stored <= max(first, last))
    signed = bool(dataset.PixelRepresentation)
    ends = np.array([0, 2**bits - 1]) - (2 ** (bits - 1) if signed else 0)
    slope, intercept = (
        float(dataset.get(name, value))
        for name, value in (("RescaleSlope", 1), ("RescaleIntercept", 0))
    )
    if "VOILUTSequence" in dataset:
        low, high = 0.0, 2.0 ** dataset.VOILUTSequence[0].LUTDescriptor[2] - 1
    elif "WindowCenter" in dataset:
        # With a negative slope pydicom gives the window's dark end the larger number.
        low, high = ends * slope + intercept
    elif bits <= 8 and not signed:
        low, high = sorted(ends * slope + intercept)
    else:
        low, high = float(values[~padding].min()), float(values[~padding].max())
    share = np.clip((windowed - low) / ((high - low) or 1), 0, 1)
    grey = np.where(padding, 0, 255 * (1 - share if kind == "MONOCHROME1" else share))
    return np.repeat(grey[..., None], 3, axis=2)
