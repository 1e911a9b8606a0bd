"""pydicom's own test files, shown as pydicom's functions show them."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import data_store
import numpy as np
import pydicom.data
import pytest
from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut, pixel_array

from medscale.data.images import Unreadable, decode, frame_count, kind_of

FOLDERS = [Path(pydicom.data.__file__).parent / "test_files", Path(next(iter(data_store.__path__)))]
# Files that pydicom's tests damage on purpose, and why each is refused.
REFUSED_FILES = {
    "JPEG2000-embedded-sequence-delimiter.dcm": "3722445056 x 1024 pixels",
    "MR_truncated.dcm": "8130 of 8192 bytes",
    "badVR.dcm": "1A",
    "meta_missing_tsyntax.dcm": "Transfer Syntax",
    "nested_priv_SQ.dcm": "Bits Allocated",
}
# Files whose compression is lossless, and the file that was compressed
ORIGINALS = {
    "emri_small_jpeg_ls_lossless.dcm": "emri_small.dcm",
    "MR_small_jpeg_ls_lossless.dcm": "MR_small.dcm",
    "MR_small_RLE.dcm": "MR_small.dcm",
    "SC_rgb_jpeg_gdcm.dcm": "SC_rgb.dcm",
}
LOSSY = {"SC_rgb_jls_lossy_line.dcm": "SC_rgb.dcm", "SC_rgb_jls_lossy_sample.dcm": "SC_rgb.dcm"}


def images() -> dict[str, Path]:
    """Files with the mark of DICOM and pixels, by name."""
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    paths = [p for folder in FOLDERS for p in sorted(folder.rglob("*")) if p.is_file()]
    files = {}
    for path in paths:
        data = path.read_bytes()
        if kind_of(data) != "dicom":
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                dataset = dcmread(path, stop_before_pixels=False)
            except (InvalidDicomError, EOFError):
                continue
        if "PixelData" in dataset:
            files[f"{path.parent.name}/{path.name}"] = path
    return files


FILES = images()


def as_pydicom_shows(dataset: Dataset, stored: np.ndarray) -> np.ndarray:
    """Values of 0 to 255 by pydicom's functions, shape H,W,3."""
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
    padding = stored == dataset.get("PixelPaddingValue", -(2**40))
    grey = apply_voi_lut(values, dataset).astype(float)
    slope, intercept = dataset.get("RescaleSlope", 1), dataset.get("RescaleIntercept", 0)
    ends = np.array([0, 2**bits - 1]) - (2 ** (bits - 1) if dataset.PixelRepresentation else 0)
    if "VOILUTSequence" in dataset:
        low, high = 0.0, 2.0 ** dataset.VOILUTSequence[0].LUTDescriptor[2] - 1
    elif "WindowCenter" in dataset:
        low, high = (float(end) * float(slope) + float(intercept) for end in ends)
    elif bits <= 8 and not dataset.PixelRepresentation:
        low, high = 0.0, 2.0**bits - 1
    else:
        image = values[~padding]
        low, high = float(image.min()), float(image.max())
    grey = np.clip((grey - low) / (high - low), 0, 1) * 255
    shown = np.where(padding, 0, 255 - grey if kind == "MONOCHROME1" else grey)
    return np.repeat(shown[..., None], 3, axis=2)


def test_there_are_files_of_every_kind() -> None:
    assert len(FILES) > 120
    assert set(REFUSED_FILES) <= {path.name for path in FILES.values()}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", FILES)
def test_a_file_is_shown_as_pydicom_shows_it(name: str) -> None:
    path = FILES[name]
    data = path.read_bytes()
    if words := REFUSED_FILES.get(path.name):
        with pytest.raises(Unreadable, match=words):
            decode(data)
        return
    dataset = dcmread(path)
    last = frame_count(data) - 1
    assert last + 1 == int(dataset.get("NumberOfFrames") or 1)
    for frame in {0, last}:
        expected = as_pydicom_shows(dataset, pixel_array(dataset, index=frame))
        assert np.abs(decode(data, frame=frame) - expected).max() <= 0.51


@pytest.mark.parametrize("name", [*ORIGINALS, *LOSSY])
def test_a_compressed_file_has_its_originals_pixels(name: str) -> None:
    by_name = {path.name: path for path in FILES.values()}
    original = decode(by_name[ORIGINALS.get(name) or LOSSY[name]].read_bytes()).astype(int)
    assert np.abs(decode(by_name[name].read_bytes()) - original).max() <= (
        2 if name in LOSSY else 0
    )
