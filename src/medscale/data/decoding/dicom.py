"""DICOM images: a frame as displayed, in uint8 RGB, and the patient's facts in the headers."""

from __future__ import annotations

import io
import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from pydicom import dcmread
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileDataset
from pydicom.encaps import get_frame
from pydicom.filereader import read_dataset
from pydicom.pixels import apply_windowing, pixel_array
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
)

from medscale.data.decoding import bounds, codecs, jpeg, luts
from medscale.data.decoding.formats import (
    NOT_AN_IMAGE,
    PREAMBLE,
    TOO_LARGE,
    TRUNCATED,
    UNREADABLE,
    Unreadable,
    check_frames,
    check_size,
)
from medscale.data.decoding.silence import silence

OLDEST = 110  # years; a higher age is taken as a typing error
PER_YEAR = {"Y": 1, "M": 12, "W": 365.25 / 7, "D": 365.25}  # units of an age string (PS3.5, 6.2)
GREY, PALETTE = ("MONOCHROME1", "MONOCHROME2"), "PALETTE COLOR"
COLOUR = (  # pydicom converts all of these to RGB
    "RGB",
    "YBR_FULL",
    "YBR_FULL_422",
    "YBR_ICT",
    "YBR_RCT",
)
SEXES = {"M": "male", "F": "female", "O": "other"}
HEADERS = ["PatientAge", "PatientSex", "ViewPosition", "PatientID"]
SIZE = ("Columns", "Rows", "SamplesPerPixel")  # pydicom reports missing attributes
PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
PADDING = ("", "Float", "DoubleFloat")  # prefixes of PixelPaddingValue for each of `PIXELS`
DISPLAY_GROUPS = ("PixelValueTransformationSequence", "FrameVOILUTSequence")
UNDEFINED_LENGTH = 0xFFFFFFFF

codecs.register()


def decode(data: bytes, frame: int = 0) -> np.ndarray:
    """Decode a frame of a DICOM file's bytes to uint8 RGB of shape H,W,3, as it is displayed.

    Grey values pass through the rescale or the modality table, and then through the first VOI table
    or window (DICOM PS3.3, C.11.1 and C.11.2); enhanced multi-frame objects have these for each
    frame. Without a VOI table or window, unsigned values of up to 8 bits do not change, and the
    range of other values is scaled to 0 to 255. MONOCHROME1 is inverted, so that air is dark.
    Padding (C.7.5.1.1.2) does not count in the range and becomes black. Palettes are applied, and
    YCbCr is converted.

    Args:
        data: bytes of the file.
        frame: number of the frame, from 0.

    Raises:
        Unreadable: when the file is truncated, is not an image (a DICOM object without pixels), or
            cannot be decoded, with pydicom's message.
    """
    dataset = _read(data)
    with _unreadable("the pixels", dataset):
        _check_pixels(dataset, len(data))
        width, height, samples = (int(dataset.get(name) or 1) for name in SIZE)
        check_size(width, height, samples)
        stored = _frame(dataset, frame)
        _apply_functional_groups(dataset, frame)
        return _to_rgb(stored, dataset)


def frame_count(data: bytes) -> int:
    """Return the number of frames in the headers.

    Raises:
        Unreadable: see ``decode``.
    """
    dataset = _read(data, stop_before_pixels=True, specific_tags=["NumberOfFrames"])
    with _unreadable("the headers"):
        return check_frames(_number_of_frames(dataset))


def dicom_facts(data: bytes) -> dict[str, Any]:
    """Return the facts of patient and exposure in a DICOM file's headers; no pixels are read.

    Args:
        data: the file's bytes.

    Returns:
        ``age`` in years (float), ``sex`` (male, female or other), ``view`` (such as PA or AP) and
        ``patient`` (the recorded number), each None if it is not recorded; and ``remark``, the
        reason for ignoring a recorded age, or None. Ages have the form ``051Y`` of the standard, or
        are plain numbers such as ``51``.

    Raises:
        Unreadable: see ``decode``.
    """
    dataset = _read(data, stop_before_pixels=True, specific_tags=HEADERS)
    with _unreadable("the headers"):
        age, sex, view, patient = (str(dataset.get(name) or "").strip() for name in HEADERS)
    years, remark = _years(age.upper())
    facts = {"age": years, "sex": SEXES.get(sex.upper()), "view": view.upper() or None}
    return facts | {"patient": patient or None, "remark": remark}


def inflate(data: bytes) -> bytes:
    """Return a DICOM file with its data set inflated, if it is deflated (PS3.5, A.5).

    pydicom would inflate it without a limit, and again at each reading of the headers.

    Raises:
        Unreadable: when it exceeds ``bounds.MAX_INFLATED``, is truncated, or is damaged.
    """
    deflated_uid = str(DeflatedExplicitVRLittleEndian).encode()
    if deflated_uid not in data:
        return data
    file = io.BytesIO(data)
    file.seek(PREAMBLE)
    meta = read_dataset(file, False, True, stop_when=lambda tag, _vr, _length: tag.group != 2)
    if meta.get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
        return data
    start = file.tell()
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        content = stream.decompress(data[start:], bounds.MAX_INFLATED)
    except zlib.error as error:
        raise Unreadable(UNREADABLE, f"the deflated DICOM file: {error}") from None
    if stream.unconsumed_tail:
        limit = f"{bounds.MAX_INFLATED // 2**20} MiB"
        raise Unreadable(TOO_LARGE, f"a deflated DICOM file; at most {limit} of it are inflated")
    if not stream.eof:
        raise Unreadable(TRUNCATED, f"the deflated DICOM file ends after {len(data)} bytes")
    plain = str(ExplicitVRLittleEndian).encode().ljust(len(deflated_uid), b"\0")
    return data[:start].replace(deflated_uid, plain) + content


def _years(age: str) -> tuple[float | None, str | None]:
    """Return an age in years and None, or None and the reason for ignoring it."""
    if not age:
        return None, None
    match = re.fullmatch(r"(\d{1,4})\s?([YMWD]?)", age)
    if match is None:
        return None, f"PatientAge {age!r} is not an age"
    years = int(match[1]) / PER_YEAR[match[2] or "Y"]
    return (years, None) if years <= OLDEST else (None, f"PatientAge {age} is over {OLDEST} years")


def _read(data: bytes, **options: Any) -> FileDataset:
    with _unreadable("the headers"):
        return dcmread(io.BytesIO(inflate(data)), **options)


@contextmanager
def _unreadable(part: str, dataset: FileDataset | None = None) -> Iterator[None]:
    """Turn exceptions of pydicom on damaged data into Unreadable, and silence warnings.

    pydicom raises exceptions of many classes. With a dataset, the message names its transfer
    syntax.
    """
    with silence():
        try:
            yield
        except (Unreadable, MemoryError):
            raise
        except (EOFError, struct.error) as error:
            raise Unreadable(TRUNCATED, f"the DICOM file ends within {part} ({error})") from None
        except Exception as error:
            message = " ".join(str(error).split()) or type(error).__name__
            syntax = None if dataset is None else dataset.file_meta.get("TransferSyntaxUID")
            name = f" ({syntax.name})" if syntax and syntax.name not in message else ""
            raise Unreadable(UNREADABLE, f"{part} of the DICOM file{name}: {message}") from None


def _number_of_frames(dataset: FileDataset) -> int:
    """Return the recorded number of frames; some programs record 0 for one frame."""
    return max(1, int(dataset.get("NumberOfFrames") or 1))


def _check_pixels(dataset: FileDataset, size: int) -> None:
    """Check that there are pixels in the lowest bits of their words, and all bytes of them.

    Raises:
        Unreadable: otherwise.
    """
    stored_bits, high_bit = dataset.get("BitsStored"), dataset.get("HighBit")
    if stored_bits and high_bit is not None and high_bit != stored_bits - 1:
        fault = f"{stored_bits} bits stored up to bit {high_bit}, which is not read"
        raise Unreadable(UNREADABLE, f"a DICOM image of {fault}")
    keyword = next((name for name in PIXELS if name in dataset), None)
    if keyword is None:  # pydicom omits an element that is cut off by the end of the file
        kind = dataset.file_meta.get("MediaStorageSOPClassUID")
        if kind is None or "Image Storage" in kind.name:
            raise Unreadable(
                TRUNCATED, f"the DICOM file ends after {size} bytes without all of its pixels"
            )
        raise Unreadable(NOT_AN_IMAGE, f"a DICOM object without pixels ({kind.name})")
    pixels = dataset.get_item(keyword)
    if isinstance(pixels, RawDataElement) and pixels.length != UNDEFINED_LENGTH:
        present = len(pixels.value or b"")
        if present < pixels.length:
            raise Unreadable(
                TRUNCATED, f"the DICOM file has {present} of {pixels.length} bytes of pixels"
            )


def _frame(dataset: FileDataset, number: int) -> np.ndarray:
    """Return a frame's stored values, shape H,W or H,W,3.

    8-bit JPEG is decoded here, since pydicom uses Pillow, which does not report libjpeg's warnings
    of lost data.
    """
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    if syntax is not None and syntax.is_compressed:
        frames = check_frames(_number_of_frames(dataset))
        stream = get_frame(dataset.PixelData, number, number_of_frames=frames)
        if size := codecs.stream_size(stream):
            check_size(*size)
    if syntax == JPEGBaseline8Bit or (syntax == JPEGExtended12Bit and dataset.BitsStored == 8):
        grey = jpeg.decode_grey(stream)
        form_in_headers = (
            dataset.SamplesPerPixel,
            dataset.Rows,
            dataset.Columns,
            dataset.BitsAllocated,
            dataset.PixelRepresentation,
        )
        if grey is not None and (1, *grey.shape, 8, 0) == form_in_headers:
            return grey
    values = pixel_array(dataset, index=number)
    if syntax is not None and syntax.is_compressed:
        _check_signed(values, int(dataset.BitsStored))
    return values


def _check_signed(values: np.ndarray, bits: int) -> None:
    """Check that signed values of a compressed frame have the stated number of bits.

    A stream does not say that its values are signed. If it has more bits than the headers state,
    its encoder may have cut off the signs, and negative values are read as large ones.

    Raises:
        Unreadable: when a value needs more bits, so that it cannot be right.
    """
    if values.dtype.kind != "i" or not values.size:
        return
    low, high = int(values.min()), int(values.max())
    if low < -(2 ** (bits - 1)) or high >= 2 ** (bits - 1):
        raise Unreadable(
            UNREADABLE,
            f"a DICOM image of {bits} signed bits whose stream has values from {low} to {high}: "
            "headers and stream contradict each other",
        )


def _apply_functional_groups(dataset: FileDataset, number: int) -> None:
    """Copy a frame's rescale and window to the top level, where those of other objects are.

    Each of these functional groups is either shared by all frames or given for each frame (PS3.3,
    C.7.6.16). The groups of the frames, which take long to parse, are read only if needed.
    """
    shared = (dataset.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    for name in DISPLAY_GROUPS:
        settings = shared.get(name)
        if not settings:
            of_frames = dataset.get("PerFrameFunctionalGroupsSequence") or []
            settings = of_frames[number].get(name) if number < len(of_frames) else None
        if settings:
            dataset.update(settings[0])


def _to_rgb(frame: np.ndarray, dataset: FileDataset) -> np.ndarray:
    """Turn a frame's values, shape H,W or H,W,3, into uint8 RGB."""
    kind = str(dataset.PhotometricInterpretation)
    if kind not in (*GREY, PALETTE, *COLOUR):
        raise Unreadable(
            UNREADABLE, f"a DICOM image of photometric interpretation {kind}, which is not read"
        )
    if frame.ndim != (3 if kind in COLOUR else 2):
        fault = f"{dataset.SamplesPerPixel} samples a pixel and photometric interpretation {kind}"
        raise Unreadable(UNREADABLE, f"a DICOM image of {fault}, which contradict each other")
    if kind in GREY:
        return np.repeat(_grey(frame, dataset, kind == "MONOCHROME1")[..., None], 3, axis=2)
    if kind == PALETTE:
        colours, high = luts.palette(frame, dataset)
        return _scale(colours, 0, high)
    return _scale(frame, 0, 2 ** int(dataset.BitsStored) - 1)


def _grey(frame: np.ndarray, dataset: FileDataset, is_inverted: bool) -> np.ndarray:
    """Return grey values as displayed, uint8; ``is_inverted``: whether the lowest is white."""
    padding = _padding(frame, dataset)
    values = luts.modality(frame, dataset)
    if tables := dataset.get("VOILUTSequence"):
        entries, high = luts.by_table(values, tables[0], dataset)
        grey = _scale(entries, 0, high)
    elif dataset.get("WindowCenter") is not None and dataset.get("WindowWidth") is not None:
        black, white = apply_windowing(np.array([-np.inf, np.inf]), dataset)
        grey = _scale(apply_windowing(values, dataset), black, white)
    elif _has_full_range(frame, dataset):
        grey = _scale(frame, 0, 2 ** int(dataset.BitsStored) - 1)
        is_inverted ^= float(dataset.get("RescaleSlope") or 1) < 0
    else:
        image = values[np.isfinite(values) & ~padding]
        grey = _scale(values, *(image.min(), image.max()) if image.size else (0, 0))
    grey = 255 - grey if is_inverted else grey
    return np.where(padding, np.uint8(0), grey) if padding.any() else grey


def _has_full_range(frame: np.ndarray, dataset: FileDataset) -> bool:
    """Return whether the stored values have a range of up to 8 bits, which is not scaled."""
    has_8_bits = frame.dtype.kind == "u" and int(dataset.BitsStored) <= 8
    return has_8_bits and not dataset.get("ModalityLUTSequence")


def _padding(frame: np.ndarray, dataset: FileDataset) -> np.ndarray:
    """Mark the padding among the stored values (PixelPaddingValue, PixelPaddingRangeLimit)."""
    for prefix in PADDING:
        first = dataset.get(f"{prefix}PixelPaddingValue")
        if first is None:
            continue
        last = dataset.get(f"{prefix}PixelPaddingRangeLimit")
        low, high = sorted(
            _to_dtype(v, frame.dtype) for v in (first, first if last is None else last)
        )
        return (frame >= low) & (frame <= high)
    return np.zeros(frame.shape, bool)


def _to_dtype(value: float, dtype: np.dtype) -> float:
    """Convert a header's value to the pixels' type; many writers give it with the other sign."""
    if dtype.kind == "f":
        return float(value)
    return int(np.array([int(value)], np.int64).astype(dtype)[0])


def _scale(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Scale ``low`` to 0 and ``high`` to 255, rounded, uint8; a constant image becomes black."""
    low, high = float(low), float(high)  # the difference of small integers would overflow
    if values.dtype == np.uint8 and (low, high) == (0, 255):
        return values
    if low == high:
        return np.zeros(values.shape, np.uint8)
    scaled = np.nan_to_num((values.astype(np.float64) - low) * (255 / (high - low)))
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
