"""Reading of image files in the forms that downloads hold, and of files that are no images."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import cv2
import imagecodecs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from data_trees import image_bytes, picture
from medscale.data.decoding.formats import EMPTY, NOT_AN_IMAGE, TRUNCATED, UNREADABLE, Unreadable
from medscale.data.decoding.png import chunk_names, plain_size
from medscale.data.images import decode, jpeg_size, read_bytes, read_rgb
from medscale.data.inspection import FACTS, inspect
from medscale.data.preprocess import preprocess, reduction, resize
from medscale.data.settings import Clahe, Preprocess
from medscale.data.signature import signature, unpacked

RGB = picture(1)
PIXELS = np.asarray(RGB)


def rotated_photo() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90 degrees
    return image_bytes(RGB, "JPEG", quality=95, subsampling=0, exif=exif)


@pytest.mark.parametrize(
    ("data", "expected", "tolerance"),
    [
        pytest.param(image_bytes(RGB), PIXELS, 0, id="png"),
        pytest.param(image_bytes(RGB, "JPEG", quality=95, subsampling=0), PIXELS, 8, id="jpeg"),
        pytest.param(
            image_bytes(RGB, "JPEG", quality=95, subsampling=0, progressive=True),
            PIXELS,
            8,
            id="progressive jpeg",
        ),
        pytest.param(
            image_bytes(RGB.convert("CMYK"), "JPEG", quality=98), PIXELS, 8, id="cmyk jpeg"
        ),
        pytest.param(image_bytes(RGB.convert("CMYK"), "TIFF"), PIXELS, 2, id="cmyk tiff"),
        pytest.param(image_bytes(RGB.convert("RGBA")), PIXELS, 0, id="rgba"),
        pytest.param(
            image_bytes(RGB.quantize(32)),
            np.asarray(RGB.quantize(32).convert("RGB")),
            0,
            id="palette",
        ),
        pytest.param(
            image_bytes(RGB.convert("L")), np.asarray(RGB.convert("L").convert("RGB")), 0, id="grey"
        ),
        pytest.param(image_bytes(RGB, "WEBP", lossless=True), PIXELS, 0, id="webp"),
        pytest.param(image_bytes(RGB, "BMP"), PIXELS, 0, id="bmp"),
        pytest.param(image_bytes(RGB, "TIFF"), PIXELS, 0, id="tiff"),
        pytest.param(rotated_photo(), np.rot90(PIXELS, -1), 8, id="exif-rotated"),
        pytest.param(image_bytes(RGB) + b"trailing bytes", PIXELS, 0, id="trailing bytes"),
    ],
)
def test_every_form_becomes_rgb(data: bytes, expected: np.ndarray, tolerance: int) -> None:
    actual = decode(data)
    assert actual.dtype == np.uint8
    assert actual.shape == expected.shape
    assert np.abs(actual.astype(int) - expected).max() <= tolerance


def test_exif_may_follow_large_segments() -> None:
    profile = b"\xff\xe2" + (65_000).to_bytes(2) + bytes(64_998)
    photo = rotated_photo()
    late = photo[:2] + 3 * profile + photo[2:]
    assert np.array_equal(decode(late), decode(photo))
    assert decode(photo).shape == (40, 30, 3)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (
            imagecodecs.jpeg8_encode(np.zeros((9, 9), np.uint16), bitspersample=12),
            "JPEG of 12 bits",
        ),
        (imagecodecs.ljpeg_encode(np.zeros((9, 9), np.uint8)), "lossless JPEG of 8 bits"),
        (imagecodecs.jpegls_encode(np.zeros((9, 9), np.uint8)), "JPEG-LS of 8 bits"),
    ],
)
def test_a_jpeg_of_another_kind_is_refused_by_its_name(data: bytes, words: str) -> None:
    with pytest.raises(Unreadable, match=f"{words}, which is not read"):
        decode(data)


@settings(deadline=None, max_examples=40)
@given(
    width=st.integers(1, 70),
    height=st.integers(1, 70),
    seed=st.integers(0, 9),
    level=st.integers(0, 9),
)
def test_a_plain_png_has_the_pixels_that_opencv_gives(
    width: int, height: int, seed: int, level: int
) -> None:
    rng = np.random.default_rng(seed)
    image = cv2.blur(rng.integers(0, 256, (height, width, 3), dtype=np.uint8), (1 + seed, 1 + seed))
    data = cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, level])[1].tobytes()
    assert plain_size(data, chunk_names(data)) == (height, width)
    assert np.array_equal(decode(data), cv2.cvtColor(image, cv2.COLOR_BGR2RGB))


def test_a_damaged_plain_png_is_reported() -> None:
    data = bytearray(cv2.imencode(".png", np.zeros((9, 9, 3), np.uint8))[1].tobytes())
    at = data.index(b"IDAT")
    length = int.from_bytes(data[at - 4 : at], "big")
    data[at + 6] ^= 0xFF  # the deflate stream, under a checksum that fits
    data[at + 4 + length : at + 8 + length] = zlib.crc32(data[at : at + 4 + length]).to_bytes(
        4, "big"
    )
    with pytest.raises(Unreadable, match="the png decoder"):
        decode(bytes(data))


def with_palette(numbers: np.ndarray, colours: int, kind: str) -> bytes:
    """A PNG or BMP whose palette has so many greys: 0, 10, 20 …"""
    image = Image.fromarray(numbers.astype(np.uint8)).convert("L").convert("P")
    image.putdata(numbers.ravel().tolist())
    image.putpalette([10 * colour for colour in range(256 // 10) for _ in range(3)])
    file = io.BytesIO()
    if kind == "bmp":
        image.save(file, "BMP")  # with 256 colours
        data = bytearray(file.getvalue())
        struct.pack_into("<I", data, 46, colours)
        (pixels,) = struct.unpack_from("<I", data, 10)
        struct.pack_into("<I", data, 10, 54 + 4 * colours)
        return bytes(data[: 54 + 4 * colours] + data[pixels:])
    image.putpalette([10 * colour for colour in range(colours) for _ in range(3)])
    image.save(file, "PNG", bits=8)
    data = bytearray(file.getvalue())
    start = data.index(b"PLTE") - 4
    (length,) = struct.unpack_from(">I", data, start)
    chunk = b"PLTE" + bytes(data[start + 8 : start + 8 + 3 * colours])
    checked = struct.pack(">I", 3 * colours) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return bytes(data[:start] + checked + data[start + 12 + length :])


def test_the_transparent_surroundings_of_a_gif_need_no_colour() -> None:
    image, buffer = Image.new("P", (2, 2), 1), io.BytesIO()
    image.putpalette([10 * colour for colour in (1, 8, 3, 20) for _ in range(3)])
    image.save(buffer, "GIF", optimize=False)
    data = bytearray(buffer.getvalue())
    data[6:10] = bytes([4, 0, 4, 0])  # the canvas is larger than the frame
    frame = data.index(bytes([0x2C, 0, 0, 0, 0, 2, 0, 2, 0]))
    data[frame:frame] = b"\x21\xf9\x04\x01\0\0\xff\0"  # transparent: number 255
    assert (decode(bytes(data))[:2, :2] == 80).all()


@pytest.mark.parametrize("kind", ["png", "bmp"])
def test_a_pixel_without_a_colour_in_the_palette_is_refused(kind: str) -> None:
    numbers = np.array([[0, 1, 2, 3], [3, 2, 1, 0]])
    whole = decode(with_palette(numbers, 4, kind))
    assert np.array_equal(whole[..., 0], 10 * numbers)
    with pytest.raises(Unreadable, match=r"a pixel of colour 3, whose palette ends at 2: the file"):
        decode(with_palette(numbers, 3, kind))


def test_16_bit_is_scaled_by_its_full_range() -> None:
    ramp = np.linspace(0, 65535, 30 * 40).round().astype(np.uint16).reshape(30, 40)
    actual = decode(image_bytes(Image.fromarray(ramp)))
    assert np.abs(actual.astype(float) - ramp[..., None] / 257).max() <= 0.5
    colour = decode(cv2.imencode(".png", (PIXELS.astype(np.uint16) * 257)[..., ::-1])[1].tobytes())
    assert np.array_equal(colour, PIXELS)


def test_transparent_pixels_keep_their_recorded_colour() -> None:
    image = RGB.convert("RGBA")
    image.putalpha(0)
    assert np.array_equal(decode(image_bytes(image)), PIXELS)


def truncated_image(kind: str, share: float, **options: object) -> bytes:
    data = image_bytes(RGB, kind, **options)
    return data[: int(len(data) * share)]


def damaged() -> bytes:
    data = bytearray(image_bytes(RGB))
    data[len(data) // 2] ^= 255
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(b"", EMPTY, id="zero bytes"),
        pytest.param(b"hello, I am text\n", NOT_AN_IMAGE, id="text"),
        pytest.param(truncated_image("PNG", 0.5), TRUNCATED, id="png cut"),
        pytest.param(image_bytes(RGB)[:-1], TRUNCATED, id="png without its last byte"),
        pytest.param(truncated_image("JPEG", 0.3), TRUNCATED, id="jpeg cut"),
        pytest.param(image_bytes(RGB, "JPEG")[:-2], TRUNCATED, id="jpeg without its end mark"),
        pytest.param(
            truncated_image("JPEG", 0.7, progressive=True), TRUNCATED, id="progressive jpeg cut"
        ),
        pytest.param(b"\xff\xd8\xff", TRUNCATED, id="jpeg of three bytes"),
        pytest.param(truncated_image("TIFF", 0.5), TRUNCATED, id="tiff cut"),
        pytest.param(truncated_image("WEBP", 0.5), UNREADABLE, id="webp cut"),
        pytest.param(damaged(), UNREADABLE, id="png with a wrong byte"),
    ],
)
def test_a_fault_has_a_reason(data: bytes, reason: str) -> None:
    with pytest.raises(Unreadable) as caught:
        decode(data)
    assert caught.value.reason == reason
    assert caught.value.detail


def test_a_missing_file_has_a_reason(tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match="No such file"):
        read_bytes(tmp_path / "gone.png")


def test_a_file_is_read_by_its_path(tmp_path: Path) -> None:
    file = tmp_path / "photo.png"
    RGB.save(file)
    assert np.array_equal(read_rgb(str(file)), PIXELS)
    with pytest.raises(Unreadable, match="No such file"):
        read_rgb(tmp_path / "gone.png")


@pytest.mark.parametrize(("margin", "factor", "mean", "largest"), [(1, 8, 1, 16), (2, 4, 0.5, 8)])
def test_reduced_decoding_is_close_to_the_whole(
    margin: float, factor: int, mean: float, largest: int
) -> None:
    data = image_bytes(picture(3, (800, 600)), "JPEG", quality=95, subsampling=0)
    settings = Preprocess(size=64, margin=margin)
    assert reduction(800, 600, settings.size, settings.margin) == factor
    whole, reduced = (preprocess(decode(data, by), settings).astype(int) for by in (1, factor))
    assert np.abs(whole - reduced).mean() < mean
    assert np.abs(whole - reduced).max() < largest


def test_reduced_decoding_applies_exif() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode(image_bytes(picture(3, (160, 80)), "JPEG", exif=exif), 2).shape == (80, 40, 3)


def large(**options: object) -> bytes:
    return image_bytes(picture(3, (1003, 517)), "JPEG", quality=95, **options)


def test_the_audit_sees_a_large_jpeg_as_if_it_were_decoded_whole(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for name, data, size in (
        ("plain", large(), (1003, 517)),
        ("turned", large(exif=exif), (517, 1003)),
        ("progressive", large(progressive=True), (1003, 517)),
        ("grey", image_bytes(picture(3, (1003, 517)).convert("L"), "JPEG"), (1003, 517)),
        ("cmyk", image_bytes(picture(3, (1003, 517)).convert("CMYK"), "JPEG"), (1003, 517)),
    ):
        assert jpeg_size(data) == size, name
        (tmp_path / name).write_bytes(data)
        fact = dict(zip(FACTS, inspect(str(tmp_path), name)[0], strict=True))
        assert (fact["width"], fact["height"], fact["_reason"]) == (*size, None), name
        signatures = b"".join([signature(decode(data)), fact["_signature"]])
        details = unpacked(np.frombuffer(signatures, np.uint8).reshape(2, -1))[0].reshape(2, -1)
        assert np.corrcoef(details)[0, 1] > 0.98, name
        assert decode(data, 4).shape[:2] == (-(-size[1] // 4), -(-size[0] // 4)), name


@pytest.mark.parametrize("kept_share", [0.3, 0.9, 0.999])
def test_the_audit_sees_that_a_large_jpeg_ends_early(tmp_path: Path, kept_share: float) -> None:
    data = large()
    (tmp_path / "cut.jpg").write_bytes(data[: int(kept_share * len(data))])
    assert inspect(str(tmp_path), "cut.jpg")[0][4] == TRUNCATED


@pytest.mark.parametrize("data", [image_bytes(RGB), b"\xff\xd8\xff", b"", large()[:100]])
def test_no_size_is_reported_where_there_is_none(data: bytes) -> None:
    assert jpeg_size(data) is None


@pytest.mark.parametrize(
    ("side", "factor"), [(127, 1), (255, 1), (256, 2), (512, 4), (1024, 8), (9000, 8)]
)
def test_reduction_leaves_the_margin(side: int, factor: int) -> None:
    assert reduction(side, 9000, 64, 2) == factor
    assert reduction(side // 2, 9000, 64) == factor


@pytest.mark.parametrize(
    ("size", "mean", "largest"), [((512, 512), 0.6, 14), ((300, 200), 0.6, 14), ((2000, 130), 0, 0)]
)
def test_resizing_is_close_to_averaging_over_areas(
    size: tuple[int, int], mean: float, largest: int
) -> None:
    image = np.asarray(picture(4, size))
    whole = cv2.resize(image, (112, 112), interpolation=cv2.INTER_AREA).astype(int)
    difference = np.abs(resize(image, 112) - whole)
    assert difference.mean() <= mean
    assert difference.max() <= largest


def test_preprocessing_follows_the_specified_steps() -> None:
    image = np.asarray(picture(5, (300, 200)))
    settings = Preprocess(size=48, clahe=Clahe(clip_limit=2.0, tiles=4), gamma=1.2, median=3)
    quarter = cv2.resize(image, (75, 50), interpolation=cv2.INTER_AREA)
    small = cv2.resize(quarter, (48, 48), interpolation=cv2.INTER_LINEAR)
    lab = cv2.cvtColor(small, cv2.COLOR_RGB2LAB)
    light = cv2.createCLAHE(2.0, (4, 4)).apply(np.ascontiguousarray(lab[..., 0]))
    even = cv2.cvtColor(np.dstack([light, lab[..., 1:]]), cv2.COLOR_LAB2RGB)
    bright = np.rint(255 * (even / 255) ** (1 / 1.2)).astype(np.uint8)
    padded = np.pad(bright, ((1, 1), (1, 1), (0, 0)), mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(0, 1))
    assert np.array_equal(
        preprocess(image, settings), np.median(windows, axis=(-2, -1)).astype(np.uint8)
    )
    assert np.array_equal(preprocess(image, Preprocess(size=48)), small)
