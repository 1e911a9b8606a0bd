"""The pixels of DICOM files: depth, windows, padding, compression, colour and frames."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image
from pydicom import dcmread
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.pixels import pixel_array
from pydicom.uid import (
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
)

from data_trees import image_bytes, picture
from dicom_images import COLOUR, DEEP, GREY, as_pydicom_shows, dicom, dicom_frames, jpeg
from known_pixels import check, in_8_bits, many, smooth
from medscale.base.files import sha256
from medscale.data.build import make_chunk
from medscale.data.decoding.formats import Unreadable, kind_of
from medscale.data.images import decode, frame_count, read_rgb
from medscale.data.preprocess import preprocess
from medscale.data.settings import Clahe, Preprocess


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
    # The preamble may be that of a TIFF (PS3.10, 7.1).
    assert kind_of(b"II*\0" + data[4:]) == "dicom"
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
    actual = decode(dicom(GREY, [jpeg(GREY)], JPEGBaseline8Bit))
    assert actual.shape == (30, 40, 3)
    assert actual.dtype == np.uint8
    assert np.abs(actual[..., 0].astype(int) - GREY).max() <= 8
    stream = image_bytes(picture(1), "JPEG", quality=95, subsampling=0)
    colour = dicom(COLOUR, [stream], JPEGBaseline8Bit)
    assert np.abs(decode(colour).astype(int) - COLOUR).max() <= 10


def test_monochrome1_is_inverted() -> None:
    pixels = decode(dicom(GREY, PhotometricInterpretation="MONOCHROME1"))
    assert np.array_equal(pixels, 255 - np.dstack([GREY] * 3))


def test_15_bit_monochrome1_jpeg_2000() -> None:
    stream = jpeg2000_of_15_bits(DEEP)
    pixels = decode(
        dicom(
            DEEP, [stream], JPEG2000Lossless, BitsStored=15, PhotometricInterpretation="MONOCHROME1"
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


@pytest.mark.parametrize("masked", [False, True])
def test_signed_jpeg_ls_with_more_bits_than_the_headers_state(masked: bool) -> None:
    values = (np.arange(400).reshape(20, 20) - 200).astype(np.int16)
    unsigned = values.view(np.uint16) & np.uint16(0xFFF if masked else 0xFFFF)
    stream = imagecodecs.jpegls_encode(unsigned)  # of 16 bits
    file = dicom(values, [stream], JPEGLSLossless, BitsStored=12)
    if masked:  # -200 would be read as 3896
        with pytest.raises(Unreadable, match=r"12 signed bits whose stream has values from 0 to 4"):
            decode(file)
    else:
        assert np.array_equal(decode(file), decode(dicom(values, BitsStored=12)))


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
    two_frames = dicom_frames(np.stack([GREY, 255 - GREY]))
    assert np.array_equal(decode(two_frames)[..., 0], GREY)


@many
@given(
    allocated=st.sampled_from([8, 16]),
    unused=st.sampled_from([0, 0, 3, 4, 8]),
    signed=st.booleans(),
    inverted=st.booleans(),
    syntax=st.sampled_from(
        [ExplicitVRLittleEndian, JPEGLSLossless, JPEGLosslessSV1, JPEG2000Lossless]
    ),
    frames=st.integers(1, 3),
    window=st.booleans(),
    rescale=st.sampled_from([None, (1, -1024), (0.5, 3), (-1, 255)]),
    padding=st.sampled_from([None, "value", "range"]),
    seed=st.integers(0, 99),
)
def test_grey_dicom_is_shown_as_pydicom_shows_it(
    allocated: int, unused: int, signed: bool, inverted: bool, syntax: str, frames: int,
    window: bool, rescale: tuple[float, float] | None, padding: str | None, seed: int,
) -> None:  # fmt: skip
    bits = allocated - unused
    assume(bits > 1)
    assume(not (signed and syntax == JPEG2000Lossless))  # the encoder writes unsigned codes alone
    values = np.stack([smooth(seed + n, 21, 18, 1, bits)[..., 0] for n in range(frames)])
    values = values.astype(f"u{allocated // 8}")
    headers: dict[str, Any] = {"BitsStored": bits, "HighBit": bits - 1}
    lowest = 0
    if signed:
        lowest = -(2 ** (bits - 1))
        values = (values.astype(int) + lowest).astype(f"i{allocated // 8}")
    if padding and bits > 8:
        # Image values fill a tenth of the range, padding stands at the far end of it.
        values = (values.astype(int) // 10 + 2 ** (bits - 2) - lowest // 10).astype(values.dtype)
        values[:, :4] = lowest + (1 if padding == "range" else 0)
        values[:, 0] = lowest
        headers["PixelPaddingValue"] = int(lowest)
        if padding == "range":
            headers["PixelPaddingRangeLimit"] = int(lowest) + 1
    if padding == "value" and bits > 8:
        values[:, 1:4] = lowest
    if inverted:
        headers["PhotometricInterpretation"] = "MONOCHROME1"
    if rescale:
        headers |= {"RescaleSlope": str(rescale[0]), "RescaleIntercept": str(rescale[1])}
    if window:
        headers |= {"WindowCenter": str(2 ** (bits - 2)), "WindowWidth": str(2 ** (bits - 1))}
    data = dicom_frames(values, syntax, **headers)
    dataset = dcmread(io.BytesIO(data))
    expected = as_pydicom_shows(dataset, pixel_array(dataset, index=frames - 1))
    pixels = decode(data, frame=frames - 1)
    assert frame_count(data) == frames
    assert np.abs(pixels - expected).max() <= 0.51


@many
@given(
    allocated=st.sampled_from([8, 16]),
    syntax=st.sampled_from([ExplicitVRLittleEndian, JPEGLSLossless]),
    planar=st.booleans(),
    frames=st.integers(1, 2),
    seed=st.integers(0, 99),
)
def test_colour_dicom_has_the_pixels_that_were_written(
    allocated: int, syntax: str, planar: bool, frames: int, seed: int
) -> None:
    values = np.stack([smooth(seed + n, 21, 18, 3, allocated) for n in range(frames)])
    expected = in_8_bits(values[-1], allocated)
    if planar and syntax == ExplicitVRLittleEndian:
        stored = np.ascontiguousarray(np.moveaxis(values, 3, 1)).reshape(values.shape)
        data = dicom_frames(stored, syntax, PlanarConfiguration=1)
    else:
        data = dicom_frames(values, syntax)
    check(data, expected, frame=frames - 1)


def test_shards_are_made_from_dicom(tmp_path: Path) -> None:
    large = np.asarray(picture(3, (400, 300)).convert("L"))
    (tmp_path / "x.dcm").write_bytes(dicom(large, [jpeg(large)], JPEGBaseline8Bit))
    recipe = Preprocess(size=32, clahe=Clahe(tiles=2), chunk=4)
    image = ("x.dcm", sha256(tmp_path / "x.dcm"), 400, 300)
    assert make_chunk(str(tmp_path), 0, "key", str(tmp_path), [image], recipe) == 0
    expected = preprocess(read_rgb(tmp_path / "x.dcm"), recipe)
    assert np.array_equal(np.load(tmp_path / "images-00000.npy")[0], expected)
