"""Damaged and contradictory DICOM files are refused with a reason."""

from __future__ import annotations

import logging
import warnings
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.uid import ExplicitVRLittleEndian, JPEGBaseline8Bit, JPEGLosslessSV1

from data_trees import image_bytes, picture
from dicom_images import COLOUR, DEEP, GREY, dicom, jpeg
from medscale.data.decoding.formats import NOT_AN_IMAGE, TRUNCATED, UNREADABLE, Unreadable
from medscale.data.decoding.silence import silence
from medscale.data.demo.xray import dicom_file
from medscale.data.images import decode

REPORT = {"SOPInstanceUID": "1.2.3", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.11"}


def whole() -> bytes:
    return dicom(GREY, [jpeg(GREY)], JPEGBaseline8Bit)


@pytest.mark.parametrize(
    ("data", "reason", "detail"),
    [
        pytest.param(whole()[:-20], TRUNCATED, "without all of its pixels", id="jpeg cut"),
        pytest.param(whole()[: len(whole()) // 2], TRUNCATED, "ends", id="jpeg cut in half"),
        pytest.param(dicom(GREY)[:-100], TRUNCATED, "1100 of 1200 bytes", id="raw pixels cut"),
        pytest.param(whole()[:300], TRUNCATED, "ends", id="headers cut"),
        pytest.param(whole()[:132], TRUNCATED, "ends", id="nothing after the mark"),
        pytest.param(
            dicom(GREY, Rows=50), UNREADABLE, "pixels", id="fewer pixels than rows and columns say"
        ),
        pytest.param(
            dicom(GREY, [jpeg(GREY)[:200]], JPEGBaseline8Bit),
            UNREADABLE,
            "pixels",
            id="damaged stream",
        ),
        pytest.param(
            dicom(GREY, [b"\0" * 90], JPEGLosslessSV1),
            UNREADABLE,
            "JPEG Lossless, Non-Hierarchical",
            id="not the stream of its transfer syntax",
        ),
        pytest.param(
            dicom(GREY, PhotometricInterpretation="CMYK"),
            UNREADABLE,
            "CMYK",
            id="another colour space",
        ),
        pytest.param(
            dicom(DEEP, WindowCenter="9", WindowWidth="0"),
            UNREADABLE,
            "Width",
            id="window of no width",
        ),
        pytest.param(
            dicom_file(REPORT, None, ExplicitVRLittleEndian),
            NOT_AN_IMAGE,
            "Basic Text SR",
            id="a report",
        ),
    ],
)
def test_a_fault_has_a_reason(data: bytes, reason: str, detail: str) -> None:
    with pytest.raises(Unreadable) as caught:
        decode(data)
    assert (caught.value.reason, detail in caught.value.detail) == (reason, True), caught.value


def test_pixels_that_the_headers_contradict_are_refused() -> None:
    with pytest.raises(Unreadable, match="12 bits stored up to bit 15"):
        decode(dicom(DEEP, BitsStored=12, HighBit=15))
    with pytest.raises(Unreadable, match="JPEG Baseline"):
        decode(dicom(COLOUR, [jpeg(GREY)], JPEGBaseline8Bit))
    for pixels, kind in ((COLOUR, "MONOCHROME2"), (GREY, "RGB"), (COLOUR, "PALETTE COLOR")):
        with pytest.raises(Unreadable, match=f"photometric interpretation {kind}, which contra"):
            decode(dicom(pixels, PhotometricInterpretation=kind))


def test_a_jpeg_within_that_lost_data_is_refused() -> None:
    pixels = np.asarray(picture(3, (400, 300)))
    for values, stream in (
        (pixels, image_bytes(Image.fromarray(pixels), "JPEG")),
        (pixels[..., 0], jpeg(pixels[..., 0])),
    ):
        truncated = stream[: len(stream) * 6 // 10] + b"\xff\xd9"
        with pytest.raises(Unreadable, match="libjpeg") as caught:
            decode(dicom(values, [truncated], JPEGBaseline8Bit))
        assert caught.value.reason == TRUNCATED


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_damage_is_reported_or_unnoticed_but_never_crashes(data: st.DataObject) -> None:
    content = bytearray(data.draw(st.sampled_from([whole(), dicom(DEEP, BitsStored=15)])))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(132, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(132, len(content)))]
    with suppress(Unreadable):
        image = decode(bytes(content))
        assert image.dtype == np.uint8
        assert image.ndim == image.shape[2] == 3


def test_the_callers_warnings_come_back_when_threads_overlap() -> None:
    before, level = list(warnings.filters), logging.getLogger("pydicom").level
    first, second = silence(), silence()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert logging.getLogger("pydicom").level == logging.CRITICAL
    second.__exit__(None, None, None)
    assert (list(warnings.filters), logging.getLogger("pydicom").level) == (before, level)
