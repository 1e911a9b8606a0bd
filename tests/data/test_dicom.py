"""DICOM files in the forms of X-ray sets: depth, windows, compression, colour, damage, headers."""

from __future__ import annotations

import io
import logging
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom import dcmread
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, JPEGBaseline8Bit, JPEGLosslessSV1

from data_trees import image_bytes, index_and_summary, picture
from medscale.base.files import sha256
from medscale.data.build import make_chunk
from medscale.data.decoding.dicom import dicom_facts
from medscale.data.decoding.formats import NOT_AN_IMAGE, TRUNCATED, UNREADABLE, Unreadable, kind_of
from medscale.data.decoding.silence import silence
from medscale.data.demo.xray import dicom_file
from medscale.data.images import decode
from medscale.data.index import make_index
from medscale.data.inspection import FACTS, inspect
from medscale.data.inventory import make_inventory
from medscale.data.kind import scan
from medscale.data.preprocess import preprocess
from medscale.data.settings import Clahe, Preprocess, Source, Split

COLOUR = np.asarray(picture(1))
GREY = np.asarray(picture(1).convert("L"))
DEEP = (GREY.astype(np.uint16) * 90 + np.arange(40, dtype=np.uint16)).astype(
    np.uint16
)  # up to 22,989: 15 bits
REPORT = {"SOPInstanceUID": "1.2.3", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.11"}


def dicom(
    pixels: np.ndarray,
    coded: bytes | None = None,
    syntax: str = ExplicitVRLittleEndian,
    **headers: Any,
) -> bytes:
    """A DICOM file of these pixels, stored plain or as a coded stream, with further headers."""
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
    return dicom_file(about | headers, pixels.tobytes() if coded is None else [coded], syntax)


def jpeg(pixels: np.ndarray) -> bytes:
    return cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()


def jpeg2000_of_15_bits(pixels: np.ndarray) -> bytes:
    """A lossless codestream of 15 bits: Pillow writes 16, so depth and level shift are changed."""
    buffer = io.BytesIO()
    Image.fromarray(pixels + np.uint16(2**14)).save(
        buffer, "JPEG2000", irreversible=False, no_jp2=True
    )
    data = bytearray(buffer.getvalue())
    depth = data.index(b"\xff\x51") + 40  # Ssiz of the first component (ISO/IEC 15444-1, A.5.1)
    assert data[depth] == 15
    data[depth] = 14
    return bytes(data)


def spread(values: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.clip(np.rint((values.astype(float) - low) * 255 / (high - low)), 0, 255).astype(int)


def test_the_kind_is_recognized_by_content() -> None:
    data = dicom(GREY)
    assert kind_of(data) == "dicom"
    assert (
        kind_of(b"II*\0" + data[4:]) == "dicom"
    )  # the preamble may be that of a TIFF (PS3.10, 7.1)
    assert kind_of(image_bytes(picture(1))) == "png"


def test_8_bit_is_taken_as_stored() -> None:
    assert np.array_equal(decode(dicom(GREY)), np.dstack([GREY] * 3))
    wide = np.dstack([GREY] * 3)
    assert np.array_equal(decode(dicom(GREY.astype(np.uint16), BitsStored=8)), wide)
    negative = {"RescaleSlope": "-1", "RescaleIntercept": "255"}
    assert np.array_equal(decode(dicom(GREY, **negative)), 255 - wide)


def test_8_bit_with_a_window_is_windowed() -> None:
    whole = {"WindowCenter": "128", "WindowWidth": "256"}
    assert np.array_equal(decode(dicom(GREY, **whole))[..., 0], GREY)
    window = {"WindowCenter": "100.5", "WindowWidth": "51"}
    pixels = decode(dicom(GREY, **window))[..., 0].astype(int)
    assert np.abs(pixels - spread(GREY, 75, 125)).max() <= 1


def test_jpeg_baseline_as_in_the_challenge() -> None:
    actual = decode(dicom(GREY, jpeg(GREY), JPEGBaseline8Bit))
    assert actual.shape == (30, 40, 3)
    assert actual.dtype == np.uint8
    assert np.abs(actual[..., 0].astype(int) - GREY).max() <= 8
    colour = dicom(
        COLOUR, image_bytes(picture(1), "JPEG", quality=95, subsampling=0), JPEGBaseline8Bit
    )
    assert np.abs(decode(colour).astype(int) - COLOUR).max() <= 10


def test_monochrome1_is_inverted() -> None:
    pixels = decode(dicom(GREY, PhotometricInterpretation="MONOCHROME1"))
    assert np.array_equal(pixels, 255 - np.dstack([GREY] * 3))


def test_15_bit_monochrome1_jpeg_2000() -> None:
    stream = jpeg2000_of_15_bits(DEEP)
    pixels = decode(
        dicom(
            DEEP, stream, JPEG2000Lossless, BitsStored=15, PhotometricInterpretation="MONOCHROME1"
        )
    )
    assert np.array_equal(pixels[..., 0], 255 - spread(DEEP, DEEP.min(), DEEP.max()))


def test_deep_grey_takes_its_own_range_without_a_window() -> None:
    assert np.array_equal(decode(dicom(DEEP))[..., 1], spread(DEEP, DEEP.min(), DEEP.max()))
    signed = (DEEP.astype(int) - 9000).astype(np.int16)
    assert np.array_equal(decode(dicom(signed)), decode(dicom(DEEP)))
    assert decode(dicom(np.full((4, 6), 700, np.uint16))).max() == 0


def test_signed_values_do_not_overflow() -> None:
    ramp = np.linspace(-32768, 32767, 1200).round().astype(np.int16).reshape(30, 40)
    assert np.array_equal(decode(dicom(ramp))[..., 0], spread(ramp, -32768, 32767))
    few = (GREY.astype(int) - 128).astype(np.int8)
    assert np.array_equal(decode(dicom(few))[..., 0], spread(few, int(few.min()), int(few.max())))


@pytest.mark.parametrize("kind", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize(
    ("dtype", "filled", "headers"),
    [
        (np.int16, [-2000], {"PixelPaddingValue": -2000}),
        (np.uint16, [65535], {"PixelPaddingValue": 65535}),
        (np.uint16, [0, 3, 9], {"PixelPaddingValue": 9, "PixelPaddingRangeLimit": 0}),
        (np.int16, [-900, -2000], {"PixelPaddingValue": -2000, "PixelPaddingRangeLimit": -900}),
    ],
)
def test_padding_is_black_and_no_part_of_the_range(
    dtype: type, filled: list[int], headers: dict[str, int], kind: str
) -> None:
    values = (DEEP // 100 + 900).astype(dtype)
    inside = spread(values[5:], values[5:].min(), values[5:].max())
    for row in range(5):
        values[row] = filled[row % len(filled)]
    data = dicom(values, PhotometricInterpretation=kind, **headers)
    pixels = decode(data)[..., 0]
    # Some writers record a negative value as the unsigned one of the same 16 bits.
    assert np.array_equal(decode(data.replace(b"\x20\x01SS", b"\x20\x01US"))[..., 0], pixels)
    assert np.array_equal(pixels[5:], 255 - inside if kind == "MONOCHROME1" else inside)
    assert not pixels[:5].any()


@pytest.mark.parametrize("kind", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_is_black_with_a_window(kind: str) -> None:
    values = np.where(GREY > 100, GREY, 255 if kind == "MONOCHROME2" else 0).astype(np.uint16)
    padding = {"PixelPaddingValue": int(values.max() if kind == "MONOCHROME2" else values.min())}
    window = {"WindowCenter": "150", "WindowWidth": "100", "PhotometricInterpretation": kind}
    pixels = decode(dicom(values, **window, **padding))[..., 0]
    is_image = values != padding["PixelPaddingValue"]
    assert not pixels[~is_image].any()
    assert np.array_equal(pixels[is_image], decode(dicom(values, **window))[..., 0][is_image])


def enhanced(values: np.ndarray, shared: dict[str, Any], *of_frames: dict[str, Any]) -> bytes:
    """A multi-frame object whose frames have rescale and window in functional groups."""

    def group(headers: dict[str, Any]) -> Dataset:
        item = Dataset()
        for name, start in (
            ("PixelValueTransformationSequence", "Rescale"),
            ("FrameVOILUTSequence", "Window"),
        ):
            inner = Dataset()
            for keyword, value in headers.items():
                if keyword.startswith(start):
                    setattr(inner, keyword, value)
            if len(inner):
                setattr(item, name, [inner])
        return item

    dataset = dcmread(io.BytesIO(dicom(values[0])))
    dataset.NumberOfFrames, dataset.PixelData = len(values), values.tobytes()
    dataset.SharedFunctionalGroupsSequence = [group(shared)]
    dataset.PerFrameFunctionalGroupsSequence = [group(headers) for headers in of_frames]
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    return buffer.getvalue()


def test_each_frame_of_an_enhanced_object_has_its_rescale_and_window() -> None:
    """The groups are shared by all frames, or those of each frame (PS3.3, C.7.6.16)."""
    frames = np.stack([DEEP, DEEP])
    rescale = {"RescaleSlope": "1", "RescaleIntercept": "-1024"}
    window = {"WindowCenter": "4000", "WindowWidth": "8000"}
    hounsfield = DEEP.astype(float) - 1024
    data = enhanced(frames, rescale | window, {}, {})
    assert np.abs(decode(data, frame=1)[..., 0] - spread(hounsfield, 0, 8000)).max() <= 1
    negative = {"RescaleSlope": "-1", "RescaleIntercept": "0", "WindowCenter": "-5000"}
    data = enhanced(frames, {}, rescale | window, negative | {"WindowWidth": "8000"})
    assert np.abs(decode(data)[..., 0] - spread(hounsfield, 0, 8000)).max() <= 1
    shown = decode(data, frame=1)[..., 0]
    assert np.abs(shown - spread(-DEEP.astype(float), -9000, -1000)).max() <= 1


def test_pixels_that_the_headers_contradict_are_refused() -> None:
    with pytest.raises(Unreadable, match="12 bits stored up to bit 15"):
        decode(dicom(DEEP, BitsStored=12, HighBit=15))
    with pytest.raises(Unreadable, match="JPEG Baseline"):
        decode(dicom(COLOUR, jpeg(GREY), JPEGBaseline8Bit))
    for pixels, kind in ((COLOUR, "MONOCHROME2"), (GREY, "RGB"), (COLOUR, "PALETTE COLOR")):
        with pytest.raises(Unreadable, match=f"photometric interpretation {kind}, which contra"):
            decode(dicom(pixels, PhotometricInterpretation=kind))


def test_a_number_of_frames_below_1_is_1(tmp_path: Path) -> None:
    for number in ("0", "-1"):
        (tmp_path / "x.dcm").write_bytes(dicom(GREY, NumberOfFrames=number))
        (fact,) = inspect(str(tmp_path), "x.dcm", "all")
        assert (fact[1] is None) or fact[-2] == 1


def test_unused_bits_play_no_part() -> None:
    overlay = DEEP.astype(np.uint16) & 0xFFF
    pixels = decode(dicom(overlay | 0x8000, BitsStored=12))[..., 0]
    assert np.array_equal(pixels, spread(overlay, overlay.min(), overlay.max()))


def test_floating_point_pixels() -> None:
    data = dcmread(io.BytesIO(dicom(DEEP)))
    del data.PixelData, data.BitsStored, data.HighBit, data.PixelRepresentation
    values = DEEP.astype(np.float32) / 7 - 500
    values[0, :3] = [np.nan, np.inf, -np.inf]
    data.BitsAllocated, data.FloatPixelData = 32, values.tobytes()
    file = io.BytesIO()
    data.save_as(file)
    pixels = decode(file.getvalue())[..., 0]
    finite = values[np.isfinite(values)]
    expected = spread(values[1:], float(finite.min()), float(finite.max()))
    assert np.abs(pixels[1:] - expected).max() <= 1
    assert pixels[0, :3].tolist() == [0, 255, 0]
    values[0] = -9999
    data.FloatPixelData, data.FloatPixelPaddingValue = values.tobytes(), -9999.0
    file = io.BytesIO()
    data.save_as(file)
    padded = decode(file.getvalue())[..., 0]
    assert not padded[0].any()
    low, high = float(values[1:].min()), float(values[1:].max())
    assert np.abs(padded[1:] - spread(values[1:], low, high)).max() <= 1


def test_a_jpeg_within_that_lost_data_is_refused() -> None:
    pixels = np.asarray(picture(3, (400, 300)))
    for values, stream in (
        (pixels, image_bytes(Image.fromarray(pixels), "JPEG")),
        (pixels[..., 0], jpeg(pixels[..., 0])),
    ):
        truncated = stream[: len(stream) * 6 // 10] + b"\xff\xd9"
        with pytest.raises(Unreadable, match="libjpeg") as caught:
            decode(dicom(values, truncated, JPEGBaseline8Bit))
        assert caught.value.reason == TRUNCATED


def test_the_window_applies_after_the_rescale() -> None:
    rescale = {"RescaleSlope": "2", "RescaleIntercept": "-1000"}
    window = {"WindowCenter": ["24000", "1"], "WindowWidth": ["8000", "1"]}
    pixels = decode(dicom(DEEP, **rescale, **window))[..., 0].astype(int)
    assert np.abs(pixels - spread(DEEP.astype(float) * 2 - 1000, 20_000, 28_000)).max() <= 1
    assert (pixels.min(), pixels.max()) == (0, 255)
    assert 10 < np.median(pixels) < 245


def test_a_voi_table_goes_before_the_window() -> None:
    item = Dataset()
    item.add(DataElement("LUTDescriptor", "US", [8192, 8000, 12]))
    item.add(DataElement("LUTData", "US", [number // 2 for number in range(8192)]))
    pixels = decode(dicom(DEEP, VOILUTSequence=[item], WindowCenter="1", WindowWidth="2"))[..., 0]
    values = np.clip(DEEP.astype(int) - 8000, 0, 8191) // 2
    assert len(np.unique(values)) > 300
    assert np.array_equal(pixels, spread(values, 0, 4095))


def test_few_bits_fill_the_range() -> None:
    assert np.array_equal(decode(dicom(GREY >> 4, BitsStored=4))[..., 0], (GREY >> 4) * 17)


def test_colour_and_palette() -> None:
    assert np.array_equal(decode(dicom(COLOUR)), COLOUR)
    codes = (GREY // 64).astype(np.uint8)
    tables = np.array([[0, 65535, 0, 32896], [0, 0, 65535, 32896], [65535, 0, 0, 32896]], np.uint16)
    about: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for name, table in zip(("Red", "Green", "Blue"), tables, strict=True):
        about[f"{name}PaletteColorLookupTableDescriptor"] = [4, 0, 16]
        about[f"{name}PaletteColorLookupTableData"] = table.tobytes()
    assert np.array_equal(decode(dicom(codes, **about)), np.rint(tables.T[codes] / 257))


def test_the_first_of_several_frames() -> None:
    frames = np.stack([GREY, 255 - GREY])
    data = dicom(GREY, NumberOfFrames="2")
    two_frames = data.replace(GREY.tobytes(), frames.tobytes())
    length = data.index(GREY.tobytes()) - 4
    two_frames = (
        two_frames[:length] + (2 * GREY.size).to_bytes(4, "little") + two_frames[length + 4 :]
    )
    assert np.array_equal(decode(two_frames)[..., 0], GREY)


def whole() -> bytes:
    return dicom(GREY, jpeg(GREY), JPEGBaseline8Bit)


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
            dicom(GREY, jpeg(GREY)[:200], JPEGBaseline8Bit),
            UNREADABLE,
            "pixels",
            id="damaged stream",
        ),
        pytest.param(
            dicom(GREY, b"\0" * 90, JPEGLosslessSV1),
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


@pytest.mark.parametrize(
    ("age", "years", "remark"),
    [
        ("51", 51, None),
        ("051Y", 51, None),
        ("018M", 1.5, None),
        ("000Y", 0, None),
        ("148", None, "PatientAge 148 is over 110 years"),
        ("ABC", None, "PatientAge 'ABC' is not an age"),
        ("", None, None),
    ],
)
def test_ages(age: str, years: float | None, remark: str | None) -> None:
    facts = dicom_facts(dicom(GREY, PatientAge=age, PatientSex="F", ViewPosition="PA"))
    expected = {"age": years, "sex": "female", "view": "PA", "patient": None, "remark": remark}
    assert facts == expected


def test_headers_are_read_without_pixels() -> None:
    headers = {"PatientAge": "051Y", "PatientSex": "M", "PatientID": " MRN 7 "}
    data = dicom(GREY, **headers)[:-1000]
    facts = {"age": 51, "sex": "male", "view": None, "patient": "MRN 7", "remark": None}
    assert dicom_facts(data) == facts
    with pytest.raises(Unreadable):
        dicom_facts(b"\0" * 200)


def dicom_tree(root: Path) -> pd.DataFrame:
    """List twenty DICOM files and a PNG; every fourth has no headers, one an implausible age."""
    rows = []
    for number in range(21):
        name = f"{number:02d}.{'png' if number == 20 else 'dcm'}"
        pixels = np.asarray(picture(number).convert("L"))
        header_fields = {
            "PatientAge": "148" if number == 1 else str(40 + number),
            "PatientSex": "MF"[number % 2],
            "ViewPosition": "AP",
        }
        data = (
            image_bytes(picture(20))
            if number == 20
            else dicom(pixels, **(header_fields if number % 4 else {}))
        )
        (root / name).write_bytes(data)
        rows.append({"path": name, "label": "ab"[number % 2], "source": "x"})
    return make_inventory(rows, [], ["a", "b"], []).rows


def test_headers_become_columns_of_the_index(tmp_path: Path) -> None:
    rows = dicom_tree(tmp_path)
    inventory = make_inventory(rows.to_dict("records"), [], ["a", "b"], [])
    facts = pd.DataFrame([inspect(str(tmp_path), path)[0] for path in rows["path"]], columns=FACTS)
    index, left_out = make_index(inventory, facts, Split())
    index = index.set_index("path")
    assert list(index.columns[-3:]) == ["age", "sex", "view"]
    assert index["age"].dtype == np.float64
    assert index.loc["02.dcm", ["age", "sex", "view"]].tolist() == [42, "male", "AP"]
    assert index.loc[["00.dcm", "04.dcm", "20.png"], ["age", "sex", "view"]].isna().all(axis=None)
    assert np.isnan(index["age"]["01.dcm"])
    assert index["sex"]["01.dcm"] == "female"
    assert set(zip(index["width"], index["height"], strict=True)) == {(40, 30)}
    kept_rows = left_out[left_out["action"] == "kept"]
    assert kept_rows[["path", "reason", "detail"]].to_numpy().tolist() == [
        ["01.dcm", "odd header", "PatientAge 148 is over 110 years; taken as not known"]
    ]
    inventory_with_age = make_inventory(
        rows.assign(age=7.0).to_dict("records"), [], ["a", "b"], [], ["age"]
    )
    assert set(make_index(inventory_with_age, facts, Split())[0]["age"]) == {
        7.0
    }  # the tables' own column stays


def study_of(root: Path, numbers: list[str | None], column: str = "", values: str = "") -> Path:
    """Write a DICOM file for each PatientID, of the classes a and b in turn, and index.csv."""
    root.mkdir()
    lines = [f"path,label{',' if column else ''}{column}"]
    for place, number in enumerate(numbers):
        pixels = np.asarray(picture(place).convert("L"))
        headers = {} if number is None else {"PatientID": number}
        (root / f"{place:02d}.dcm").write_bytes(dicom(pixels, **headers))
        value = f",{values[place]}" if column else ""
        lines.append(f"{place:02d}.dcm,{'ab'[place % 2]}{value}")
    (root / "index.csv").write_text("\n".join(lines) + "\n")
    return root


def index_of(root: Path, patient: str | None = None) -> tuple[pd.DataFrame, dict[str, Any]]:
    inventory = scan(Source(kind="folder", path=root, patient=patient), None)
    return index_and_summary(
        root, inventory, Split(near_duplicates=False, train=0.5, val=0.25, test=0.25)
    )


def test_patients_of_the_headers_are_not_divided(tmp_path: Path) -> None:
    root = study_of(tmp_path / "raw", [f"MRN{n // 3}" for n in range(24)])
    index, summary = index_of(root)
    assert index["patient"].nunique() == index["group"].nunique() == 8
    assert index.groupby("patient")["split"].nunique().max() == 1
    assert not index["patient"].str.contains("MRN").any()  # hospitals' numbers stay in the files
    assert "patient" not in index.columns[11:]
    assert summary["patients"] == {
        "state": "known",
        "patients": 8,
        "images_of_patients": 24,
        "images_without": 0,
        "from": "a digest of PatientID in the DICOM headers",
    }
    assert any("PatientID in the headers of 24" in note for note in summary["notes"])
    patients_known, sentences = scan(Source(kind="folder", path=root), None).patient_sentences()
    assert not patients_known
    assert len(sentences) == 1
    assert sentences[0].startswith("The patients are read from PatientID in the headers")


def test_a_column_and_an_expression_come_before_the_headers(tmp_path: Path) -> None:
    numbers = [f"MRN{n // 3}" for n in range(24)]
    root = study_of(tmp_path / "raw", numbers, "patient", "ABCDEFGHIJKLMNOPQRSTUVWX")
    assert index_of(root)[0]["patient"].tolist() == list("ABCDEFGHIJKLMNOPQRSTUVWX")
    (root / "index.csv").write_text((root / "index.csv").read_text().replace("patient", "extra"))
    index, summary = index_of(root, r"^\d")
    assert set(index["patient"]) == {"0", "1", "2"}
    assert summary["patients"]["from"] == r"the expression ^\d"


@pytest.mark.parametrize(
    "number", [None, "", "Anonymous", "ANONYMIZED", "00000", "xxx", "REMOVED", "NA", "CONSTANT17"]
)
def test_an_empty_or_constant_number_is_not_known(tmp_path: Path, number: str | None) -> None:
    index, summary = index_of(study_of(tmp_path / "raw", [number] * 12))
    assert index["patient"].isna().all()
    assert index["group"].nunique() == 12
    assert summary["patients"]["state"] == "not known"


def test_some_numbers_are_partly_known(tmp_path: Path) -> None:
    numbers = [f"MRN{n // 2}" if n < 12 else "ANON" for n in range(24)]
    index, summary = index_of(study_of(tmp_path / "raw", numbers))
    assert summary["patients"]["state"] == "partly"
    assert index["patient"].isna().sum() == 12
    assert index["group"].nunique() == 6 + 12


def test_lesions_are_joined_with_the_patients_of_the_headers(tmp_path: Path) -> None:
    numbers = ["P1", "P2", "P2", "P3", "", "P4", "P4", "P5", "P6", "P7", "P8", "P9"]
    root = study_of(tmp_path / "raw", numbers, "lesion_id", "AABBBCDEFGHI")
    index, _ = index_of(root)
    assert index["group"].nunique() == 7  # P1, P2, P3 and lesion B are one group
    assert index["group"][:5].nunique() == 1
    assert index["patient"].isna().sum() == 1


def test_shards_are_made_from_dicom(tmp_path: Path) -> None:
    large = np.asarray(picture(3, (400, 300)).convert("L"))
    (tmp_path / "x.dcm").write_bytes(dicom(large, jpeg(large), JPEGBaseline8Bit))
    recipe = Preprocess(size=32, clahe=Clahe(tiles=2), chunk=4)
    image = ("x.dcm", sha256(tmp_path / "x.dcm"), 400, 300)
    assert make_chunk(str(tmp_path), 0, "key", str(tmp_path), [image], recipe) == 0
    expected = preprocess(decode((tmp_path / "x.dcm").read_bytes()), recipe)
    assert np.array_equal(np.load(tmp_path / "images-00000.npy")[0], expected)


def test_the_callers_warnings_come_back_when_threads_overlap() -> None:
    before, level = list(warnings.filters), logging.getLogger("pydicom").level
    first, second = silence(), silence()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert logging.getLogger("pydicom").level == logging.CRITICAL
    second.__exit__(None, None, None)
    assert (list(warnings.filters), logging.getLogger("pydicom").level) == (before, level)
