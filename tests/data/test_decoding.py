"""Generated files of all formats: the pixels are those that were written, or a refusal names why.

Each file's content is known, so that decoders are held to the values written, to Pillow or pydicom.
"""

from __future__ import annotations

import io
from contextlib import suppress
from typing import Any

import cv2
import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from pydicom import dcmread
from pydicom.pixels import apply_modality_lut, apply_voi_lut, pixel_array
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, JPEGLosslessSV1, JPEGLSLossless

from data_trees import image_bytes
from medscale.data.decoding.formats import TRUNCATED, UNREADABLE, Unreadable
from medscale.data.demo.xray import dicom_file
from medscale.data.images import decode, frame_count

many = settings(deadline=None, max_examples=120, derandomize=True)


def smooth(seed: int, height: int, width: int, channels: int, bits: int) -> np.ndarray:
    """Values of 0 to 2**bits - 1 with both ends, shape H,W,channels."""
    rng = np.random.default_rng(seed)
    values = cv2.resize(rng.random((3, 4, channels)), (width, height)).reshape(height, width, -1)
    values = (values - values.min()) / max(np.ptp(values), 1e-9)
    return np.rint(values * (2**bits - 1)).astype(np.uint8 if bits <= 8 else np.uint16)


def rotate(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Pixels turned by Pillow, whose EXIF orientation is the reference."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(pixels)
    image.getexif()[0x0112] = orientation
    return np.asarray(ImageOps.exif_transpose(image))


def in_8_bits(values: np.ndarray, bits: int) -> np.ndarray:
    return np.rint(values * (255 / (2**bits - 1))).astype(np.uint8)


def check(data: bytes, expected: np.ndarray, tolerance: int = 0, frame: int = 0) -> None:
    pixels = decode(data, frame=frame)
    assert (pixels.dtype, pixels.shape) == (np.uint8, expected.shape)
    assert np.abs(pixels.astype(int) - expected).max() <= tolerance


def tiff(
    samples: np.ndarray, orientation: int = 1, pages: int = 1, container: str = "<", **options: Any
) -> bytes:
    file = io.BytesIO()
    with tifffile.TiffWriter(file, bigtiff="+" in container, byteorder=container[0]) as writer:
        for _ in range(pages):
            tags = [(274, "H", 1, orientation, True)]
            writer.write(samples, extratags=tags, metadata=None, contiguous=False, **options)
    return file.getvalue()


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


@pytest.mark.parametrize("factor", [256, 257])
def test_8_bit_colours_of_a_palette_are_exact(factor: int) -> None:
    """Programs write them times one of two factors."""
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


def dicom(values: np.ndarray, syntax: str = ExplicitVRLittleEndian, **headers: Any) -> bytes:
    """A DICOM file of frames, shape F,H,W or F,H,W,3, each coded as the syntax says."""
    coders = {
        JPEGLSLossless: imagecodecs.jpegls_encode,
        JPEGLosslessSV1: lambda frame: imagecodecs.ljpeg_encode(frame, bitspersample=bits),
        JPEG2000Lossless: lambda frame: imagecodecs.jpeg2k_encode(
            frame, level=0, codecformat="j2k", bitspersample=bits, reversible=True
        ),
    }
    allocated = 8 * values.dtype.itemsize
    bits = headers.get("BitsStored", allocated)
    colour = values.ndim == 4
    about = {
        "SOPInstanceUID": "1.2.3",
        "SamplesPerPixel": 3 if colour else 1,
        "PhotometricInterpretation": "RGB" if colour else "MONOCHROME2",
        **({"PlanarConfiguration": 0} if colour else {}),
        "NumberOfFrames": str(len(values)),
        "Rows": values.shape[1],
        "Columns": values.shape[2],
        "BitsAllocated": allocated,
        "BitsStored": bits,
        "HighBit": bits - 1,
        "PixelRepresentation": int(values.dtype.kind == "i"),
    }
    coder = coders.get(syntax)
    unsigned = values.view(values.dtype.str.replace("i", "u"))
    pixels = (
        values.tobytes() if coder is None else [coder(np.ascontiguousarray(f)) for f in unsigned]
    )
    return dicom_file(about | headers, pixels, syntax)


def as_pydicom_shows(data: bytes, frame: int) -> np.ndarray:
    """Grey values as floats of 0 to 255 by pydicom's functions and the rules of this package."""
    dataset = dcmread(io.BytesIO(data))
    stored = pixel_array(dataset, index=frame)
    values = apply_modality_lut(stored, dataset)
    windowed = apply_voi_lut(values, dataset).astype(float)
    bits, signed = int(dataset.BitsStored), bool(dataset.PixelRepresentation)
    padding = np.zeros(stored.shape, bool)
    if (first := dataset.get("PixelPaddingValue")) is not None:
        last = dataset.get("PixelPaddingRangeLimit", first)
        padding = (stored >= min(first, last)) & (stored <= max(first, last))
    if "WindowCenter" in dataset:
        ends = np.array([-(2 ** (bits - 1)), 2 ** (bits - 1) - 1] if signed else [0, 2**bits - 1])
        low, high = ends * float(dataset.get("RescaleSlope", 1)) + float(
            dataset.get("RescaleIntercept", 0)
        )
    elif bits <= 8 and not signed:
        low, high = sorted(apply_modality_lut(np.array([0, 2**bits - 1], stored.dtype), dataset))
    else:
        low, high = values[~padding].min(), values[~padding].max()
    # With a negative slope pydicom gives the window's dark end the larger number.
    share = np.clip((windowed - float(low)) / ((float(high) - float(low)) or 1), 0, 1)
    inverted = dataset.PhotometricInterpretation == "MONOCHROME1"
    return np.where(padding, 0, 255 * (1 - share if inverted else share))


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
    data = dicom(values, syntax, **headers)
    expected = as_pydicom_shows(data, frames - 1)
    pixels = decode(data, frame=frames - 1)
    assert frame_count(data) == frames
    assert np.abs(pixels - expected[..., None]).max() <= 0.51


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
        data = dicom(stored, syntax, PlanarConfiguration=1)
    else:
        data = dicom(values, syntax)
    check(data, expected, frame=frames - 1)
