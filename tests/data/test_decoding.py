"""PNG, JPEG, WebP and animations have the pixels that were written, or are refused."""

from __future__ import annotations

import io
from contextlib import suppress
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from data_trees import image_bytes
from known_pixels import check, in_8_bits, many, rotate, smooth
from medscale.data.decoding.formats import TRUNCATED, Unreadable
from medscale.data.images import decode, frame_count


@many
@given(
    bits=st.sampled_from([8, 16]),
    channels=st.sampled_from([1, 3, 4]),
    seed=st.integers(0, 99),
    orientation=st.integers(1, 8),
)
def test_a_png_of_any_depth(bits: int, channels: int, seed: int, orientation: int) -> None:
    values = smooth(seed, 21, 17, channels, bits)
    data = cv2.imencode(".png", values)[1].tobytes()
    colour = values[..., 2::-1] if channels > 1 else np.repeat(values, 3, axis=2)
    check(data, in_8_bits(colour, bits))
    if bits == 8:  # Pillow writes orientation, but no colour of 16 bits
        exif = Image.Exif()
        exif[0x0112] = orientation
        image = Image.fromarray(np.ascontiguousarray(colour))
        check(image_bytes(image, "PNG", exif=exif), rotate(colour, orientation))


@many
@given(
    kind=st.sampled_from(["PNG", "BMP", "GIF", "WEBP"]),
    mode=st.sampled_from(["1", "L", "LA", "P", "P transparent", "RGB", "RGBA"]),
    colours=st.sampled_from([2, 4, 16, 200]),
    seed=st.integers(0, 99),
)
def test_every_mode_of_pillow(kind: str, mode: str, colours: int, seed: int) -> None:
    assume(kind != "BMP" or mode not in ("LA", "P transparent"))
    assume(kind != "WEBP" or mode in ("L", "RGB", "RGBA"))
    assume(kind != "GIF" or mode in ("1", "L", "P", "RGB"))
    image = Image.fromarray(smooth(seed, 21, 17, 4, 8))
    options: dict[str, Any] = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    if mode.startswith("P"):
        image = image.convert("RGB").quantize(colours)
        options |= {"transparency": 1} if "transparent" in mode else {}
    else:
        image = image.convert(mode)
    data = image_bytes(image, kind, **options)
    with Image.open(io.BytesIO(data)) as image_file:
        expected = np.asarray(image_file.convert("RGBA"))[..., :3]
    check(data, expected)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_frames_of_animations_and_pages(kind: str) -> None:
    images = [Image.fromarray(smooth(seed, 30, 40, 3, 8)) for seed in range(3)]
    options: dict[str, Any] = {}
    if kind == "WEBP":  # a colour profile stands before the chunk of the animation
        options = {"lossless": True, "icc_profile": bytes(128)}
    data = image_bytes(images[0], kind, save_all=True, append_images=images[1:], **options)
    assert frame_count(data) == 3
    for number, image in enumerate(images):
        expected = np.asarray(image)
        if kind == "GIF":
            with Image.open(io.BytesIO(data)) as image_file:
                image_file.seek(number)
                expected = np.asarray(image_file.convert("RGB"))
        check(data, expected, frame=number)


def test_an_animation_that_ends_early_is_counted_or_unreadable() -> None:
    images = [Image.fromarray(smooth(seed, 30, 40, 3, 8)) for seed in range(2)]
    data = image_bytes(images[0], "GIF", save_all=True, append_images=images[1:])
    for end in range(13, len(data), 7):
        assert frame_count(data[:end]) in (1, 2)
        with suppress(Unreadable):
            decode(data[:end], frame=1)


@many
@given(
    mode=st.sampled_from(["L", "RGB", "CMYK"]),
    subsampling=st.integers(0, 2),
    progressive=st.booleans(),
    restart=st.sampled_from([0, 1]),
    orientation=st.integers(1, 8),
    seed=st.integers(0, 99),
)
def test_a_jpeg_has_the_pixels_that_opencv_and_pillow_give(
    mode: str, subsampling: int, progressive: bool, restart: int, orientation: int, seed: int
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = image_bytes(
        Image.fromarray(smooth(seed, 37, 43, 3, 8)).convert(mode),
        "JPEG",
        quality=60 + seed % 40,
        subsampling=subsampling,
        progressive=progressive,
        restart_marker_rows=restart,
        exif=exif,
    )
    bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    check(data, cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB))
    with Image.open(io.BytesIO(data)) as image_file:
        check(data, np.asarray(ImageOps.exif_transpose(image_file).convert("RGB")), 2)
    for reduce, flag in ((2, cv2.IMREAD_REDUCED_COLOR_2), (8, cv2.IMREAD_REDUCED_COLOR_8)):
        bgr = cv2.imdecode(np.frombuffer(data, np.uint8), flag)
        assert np.array_equal(decode(data, reduce), cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB))


def with_exif(webp: bytes, size: tuple[int, int], exif: bytes) -> bytes:
    """An extended WebP (RFC 9649) of a simple one, with these EXIF data."""
    sides = b"".join((side - 1).to_bytes(3, "little") for side in size)
    chunks = [b"VP8X" + (10).to_bytes(4, "little") + bytes([8, 0, 0, 0]) + sides, webp[12:]]
    chunks.append(b"EXIF" + len(exif).to_bytes(4, "little") + exif + bytes(len(exif) % 2))
    body = b"WEBP" + b"".join(chunks)
    return b"RIFF" + len(body).to_bytes(4, "little") + body


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mark", [b"", b"Exif\0\0"], ids=["bare", "marked"])
def test_exif_of_a_webp(orientation: int, mark: bytes) -> None:
    pixels = smooth(1, 21, 17, 3, 8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    plain = image_bytes(Image.fromarray(pixels), "WEBP", lossless=True)
    data = with_exif(plain, (17, 21), mark + exif.tobytes().removeprefix(b"Exif\0\0"))
    check(data, rotate(pixels, orientation))


def lossy(**options: Any) -> bytes:
    texture = np.uint8(np.indices((200, 300)).sum(0) % 7)[..., None]
    pixels = smooth(3, 200, 300, 3, 8) // 2 + texture
    return image_bytes(Image.fromarray(pixels), "JPEG", quality=90, **options)


@settings(deadline=None, max_examples=60, derandomize=True)
@given(
    share=st.floats(0.3, 0.95),
    progressive=st.booleans(),
    mode=st.sampled_from(["L", "RGB", "CMYK"]),
    reduce=st.sampled_from([1, 2, 8]),
)
def test_a_jpeg_that_lost_data_but_not_its_end_is_refused(
    share: float, progressive: bool, mode: str, reduce: int
) -> None:
    data = image_bytes(
        Image.open(io.BytesIO(lossy())).convert(mode), "JPEG", progressive=progressive
    )
    with pytest.raises(Unreadable) as caught:
        decode(data[: int(len(data) * share)] + b"\xff\xd9", reduce)
    # A progressive file may be cut within a table between its scans, which is an error.
    assert caught.value.reason == TRUNCATED or progressive


def test_a_hole_in_a_jpeg_is_heard() -> None:
    data = lossy(restart_marker_rows=1)
    for start in range(3000, len(data) - 3000, 1500):
        with pytest.raises(Unreadable, match="libjpeg"):
            decode(data[:start] + data[start + 1200 :])


def test_a_few_bytes_before_the_end_mark_are_harmless() -> None:
    data = lossy()
    assert np.array_equal(decode(data[:-2] + bytes(12) + data[-2:]), decode(data))
    with pytest.raises(Unreadable, match=r"19\d extraneous bytes"):
        decode(data[:-2] + bytes(200) + data[-2:])
