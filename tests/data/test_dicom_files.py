"""pydicom's own test files, shown as pydicom's functions show them."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import data_store
import numpy as np
import pydicom.data
import pytest
from pydicom import dcmread
from pydicom.errors import InvalidDicomError
from pydicom.pixels import pixel_array

from dicom_images import as_pydicom_shows
from medscale.data.images import Unreadable, decode, frame_count, kind_of, read_rgb

FOLDERS = [Path(pydicom.data.__file__).parent / "test_files", Path(next(iter(data_store.__path__)))]
# Files that pydicom's tests damage on purpose, and why each is refused.
REFUSED_FILES = {
    "JPEG2000-embedded-sequence-delimiter.dcm": "3722445056 x 1024 pixels",
    "MR_truncated.dcm": "8130 of 8192 bytes",
    "badVR.dcm": "1A",
    "meta_missing_tsyntax.dcm": "Transfer Syntax",
    "nested_priv_SQ.dcm": "Bits Allocated",
}
# Big-endian files with palettes, whose bytes pydicom does not swap, and the little-endian originals
BIG_ENDIAN = {
    "OBXXXX1A_expb.dcm": "OBXXXX1A.dcm",
    "OBXXXX1A_expb_2frame.dcm": "OBXXXX1A_2frame.dcm",
}
# Files whose compression is lossless, and the file that was compressed
ORIGINALS = BIG_ENDIAN | {
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
    if path.name in BIG_ENDIAN:
        assert dataset.PhotometricInterpretation == "PALETTE COLOR"
        return
    last = frame_count(data) - 1
    assert last + 1 == int(dataset.get("NumberOfFrames") or 1)
    for frame in {0, last}:
        expected = as_pydicom_shows(dataset, pixel_array(dataset, index=frame))
        assert np.abs(decode(data, frame=frame) - expected).max() <= 0.51


@pytest.mark.parametrize("name", [*ORIGINALS, *LOSSY])
def test_another_transfer_syntax_of_a_file_has_its_pixels(name: str) -> None:
    by_name = {path.name: path for path in FILES.values()}
    original = read_rgb(by_name[ORIGINALS.get(name) or LOSSY[name]]).astype(int)
    assert np.abs(read_rgb(by_name[name]) - original).max() <= (2 if name in LOSSY else 0)
