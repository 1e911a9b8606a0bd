"""TIFF files have the pixels that were written, or a refusal names why."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image

from data_trees import image_bytes
from known_pixels import check, in_8_bits, many, rotate, smooth, tiff
from medscale.data.decoding.formats import TRUNCATED, UNREADABLE, Unreadable
from medscale.data.images import decode, frame_count


@many
@given(
    bits=st.sampled_from([1, 2, 4, 8, 8, 10, 12, 16, 16]),
    kind=st.sampled_from(["minisblack", "miniswhite", "rgb", "palette"]),
    planar=st.booleans(),
    extra=st.sampled_from([None, None, "unassalpha", "assocalpha", "unspecified"]),
    orientation=st.integers(1, 8),
    compression=st.sampled_from([None, "lzw", "deflate", "packbits", "zstd", "lzma"]),
    container=st.sampled_from(["<", ">", "<+", ">+"]),
    tiled=st.booleans(),
    pages=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_a_tiff_has_the_pixels_that_were_written(
    bits: int, kind: str, planar: bool, extra: str | None, orientation: int,
    compression: str | None, container: str, tiled: bool, pages: int, seed: int,
) -> None:  # fmt: skip
    assume(bits in (8, 16) or (compression is None and not tiled and not extra and kind != "rgb"))
    assume(kind != "palette" or (bits in (8, 16) and not extra))
    assume(bits in (8, 16) or container[0] == "<")  # tifffile packs the other order wrongly
    height, width = 17 + seed % 9, 8 * (2 + seed % 5)
    colour = smooth(seed, height, width, 3 if kind == "rgb" else 1, bits)
    options: dict[str, Any] = {"photometric": kind, "compression": compression}
    if kind == "palette":
        table = np.random.default_rng(seed).integers(0, 2**16, (3, 2**bits)).astype(np.uint16)
        options["colormap"] = table
        expected = np.rint(table.T[colour[..., 0]] / 257).astype(np.uint8)
    else:
        expected = np.repeat(in_8_bits(colour, bits), 3 // colour.shape[2], axis=2)
        expected = 255 - expected if kind == "miniswhite" else expected
    if extra:
        colour = np.dstack([colour, np.full((height, width), 2 ** (bits - 1), colour.dtype)])
        options["extrasamples"] = [extra]
    if colour.shape[2] == 1:
        colour = colour[..., 0]
    elif planar:
        colour = np.moveaxis(colour, 2, 0)
    if colour.ndim == 3:
        options["planarconfig"] = "separate" if planar else "contig"
    if bits not in (8, 16):
        options["bitspersample"] = bits
    if tiled:
        options["tile"] = (16, 16)
    data = tiff(colour, orientation, pages, container, **options)
    # Palettes have 16 bits, which the decoders round differently.
    check(data, rotate(expected, orientation), kind == "palette", frame=pages - 1)
    assert frame_count(data) == pages


@pytest.mark.parametrize(
    ("samples", "words"),
    [
        (np.zeros((9, 8), np.float32), "32-bit float"),
        (np.zeros((9, 8), np.float16), "16-bit float"),
        (np.zeros((9, 8), np.uint32), "32-bit integer"),
        (np.zeros((9, 8), np.int16), "16-bit signed integer"),
        (np.zeros((9, 8), np.int8), "8-bit signed integer"),
        (np.zeros((9, 8), np.complex64), "64-bit complex float"),
        (np.zeros((9, 8, 3), np.float64), "64-bit float"),
    ],
)
@pytest.mark.parametrize("container", ["<", ">+"])
def test_samples_of_no_known_range_are_refused_by_name(
    samples: np.ndarray, words: str, container: str
) -> None:
    with pytest.raises(Unreadable, match=words) as caught:
        decode(tiff(samples, container=container, photometric="minisblack"))
    assert caught.value.reason == UNREADABLE


def test_a_tiff_of_a_colour_space_that_is_not_read_is_refused_by_name() -> None:
    data = tiff(np.zeros((9, 8, 3), np.uint16), photometric="cielab")
    with pytest.raises(Unreadable, match="16-bit samples of photometric interpretation CIELAB"):
        decode(data)


@pytest.mark.parametrize("container", ["<", "<+"])
def test_colours_of_too_few_samples_are_refused(container: str) -> None:
    data = tiff(np.zeros((9, 8), np.uint8), container=container, photometric="minisblack")
    kind = b"\x06\x01\x03\x00"  # tag and type of PhotometricInterpretation
    place = data.index(kind) + (12 if "+" in container else 8)
    with pytest.raises(Unreadable, match="1 samples a pixel of RGB"):
        decode(data[:place] + b"\2" + data[place + 1 :])


@pytest.mark.parametrize("compression", [None, "lzw", "deflate"])
@pytest.mark.parametrize("orientation", [1, 2, 3, 6])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_tiled_tiff_has_the_pixels_that_were_written(
    compression: str | None, orientation: int, channels: int
) -> None:
    samples = smooth(1, 40, 24, channels, 8)
    kind = "rgb" if channels == 3 else "minisblack"
    pixels = samples if channels == 3 else samples[..., 0]
    data = tiff(pixels, orientation, photometric=kind, compression=compression, tile=(16, 16))
    check(data, rotate(np.repeat(samples, 3 // channels, axis=2), orientation))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_tiles_of_jpeg_are_turned_together(orientation: int) -> None:
    samples = smooth(1, 96, 160, 3, 8)
    options: dict[str, Any] = {"photometric": "rgb", "compression": "jpeg", "tile": (16, 16)}
    pixels, expected = decode(tiff(samples, orientation, **options)), rotate(samples, orientation)
    assert pixels.shape == expected.shape
    assert np.abs(pixels.astype(int) - expected).mean() < 4  # levels, by the compression


def test_packed_bits_may_be_differences_of_neighbours() -> None:
    """OpenCV's libtiff ignores the predictor of this compression."""
    samples = smooth(1, 40, 24, 3, 8)
    check(tiff(samples, photometric="rgb", compression="packbits", predictor=True), samples)


def test_cmyk_may_be_differences_of_neighbours() -> None:
    samples = smooth(1, 40, 24, 4, 8)
    options: dict[str, Any] = {"photometric": "separated", "compression": "lzw", "predictor": True}
    expected = np.asarray(Image.fromarray(samples, "CMYK").convert("RGB"))
    assert np.abs(decode(tiff(samples, **options)).astype(int) - expected).max() <= 1


@pytest.mark.parametrize("bits", [8, 16])
def test_a_tiff_that_lost_a_strip_is_truncated(bits: int) -> None:
    samples = smooth(1, 40, 40, 3, bits)
    data = tiff(np.moveaxis(samples, 2, 0), photometric="rgb", planarconfig="separate")
    at = data.index(samples[..., 2].tobytes())
    with pytest.raises(Unreadable, match="strips") as caught:
        decode(data[: at + 100])
    assert caught.value.reason == TRUNCATED


@pytest.mark.parametrize("compression", ["lzw", "zlib", "packbits"])
def test_damage_within_compressed_samples_is_found(compression: str) -> None:
    data = bytearray(tiff(smooth(1, 60, 60, 3, 8), photometric="rgb", compression=compression))
    middle = len(data) // 2
    data[middle : middle + 200] = bytes(200)
    with pytest.raises(Unreadable, match="damaged"):
        decode(bytes(data))


def test_a_tiff_that_lost_its_palette_is_refused() -> None:
    samples, palette = smooth(1, 40, 40, 1, 8)[..., 0], np.zeros((3, 256), np.uint16)
    data = tiff(samples, photometric="palette", colormap=palette)
    tag = (320).to_bytes(2, "little") + (3).to_bytes(2, "little")  # ColorMap of 16-bit numbers
    assert data.count(tag) == 1
    with pytest.raises(Unreadable, match="lacks its palette"):
        decode(data.replace(tag, (65000).to_bytes(2, "little") + tag[2:]))


@pytest.mark.parametrize("factor", [1, 256, 257])
def test_8_bit_colours_of_a_palette_are_exact(factor: int) -> None:
    """Programs write them times one of two factors, old ones as they are."""
    samples, colours = smooth(1, 40, 40, 1, 8)[..., 0], np.arange(256, dtype=np.uint16)
    data = tiff(samples, photometric="palette", colormap=np.stack([colours * factor] * 3))
    assert (decode(data) == samples[..., None]).all()


def test_a_bilevel_bigtiff_is_black_and_white() -> None:
    samples = smooth(1, 40, 40, 1, 8)[..., 0] > 127
    data = tiff(samples, container="<+", photometric="minisblack")
    check(data, np.repeat(samples[..., None] * np.uint8(255), 3, axis=2))


def jpeg_tiff(pixels: np.ndarray, writer: str) -> bytes:
    """Return a TIFF of JPEG strips or tiles; libtiff keeps their tables once for all of them."""
    if writer == "libtiff":
        return image_bytes(Image.fromarray(pixels), "TIFF", compression="jpeg")
    kind = "rgb" if pixels.ndim == 3 else "minisblack"
    container = ">+" if writer == "bigtiff" else "<"
    return tiff(pixels, container=container, tile=(80, 80), compression="jpeg", photometric=kind)


@pytest.mark.parametrize("writer", ["tifffile", "bigtiff", "libtiff"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_jpeg_within_a_tiff_that_lost_data_is_refused(writer: str, channels: int) -> None:
    pixels = smooth(1, 160, 160, channels, 8).squeeze()
    data = jpeg_tiff(pixels, writer)
    assert decode(data).shape == (160, 160, 3)
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page = file.pages[0]
        place = len(page.dataoffsets) // 2
        start, length = page.dataoffsets[place], page.databytecounts[place]
        assert bool(page.jpegtables) == (writer == "libtiff")
    hole = slice(start + length * 6 // 10, start + length - 2)  # the end mark stays
    truncated = bytearray(data)
    truncated[hole] = bytes(hole.stop - hole.start)
    with pytest.raises(Unreadable, match="libjpeg"):
        decode(bytes(truncated))


def test_a_smaller_copy_is_no_page() -> None:
    file = io.BytesIO()
    large, small = smooth(1, 40, 40, 3, 8), smooth(2, 10, 10, 3, 8)
    with tifffile.TiffWriter(file) as writer:
        writer.write(small, photometric="rgb", subfiletype=1, metadata=None)
        writer.write(large, photometric="rgb", metadata=None)
    assert frame_count(file.getvalue()) == 1
    check(file.getvalue(), large)
