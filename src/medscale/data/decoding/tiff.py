"""TIFF files: tifffile decodes most, OpenCV those that need libtiff; others are refused."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from tifffile import COMPRESSION, PHOTOMETRIC, SAMPLEFORMAT, TiffFile, TiffPage

from medscale.data.decoding import bounds, jpeg, raster
from medscale.data.decoding.formats import (
    TRUNCATED,
    UNREADABLE,
    Unreadable,
    check_frames,
    check_size,
    to_uint8,
)
from medscale.data.decoding.orientation import ORIENTATION, upright
from medscale.data.decoding.silence import silence

GREY = (PHOTOMETRIC.MINISWHITE, PHOTOMETRIC.MINISBLACK)
BY_TIFFFILE = (*GREY, PHOTOMETRIC.RGB, PHOTOMETRIC.PALETTE)  # by tifffile
CONVERTED_BY_OPENCV = (PHOTOMETRIC.SEPARATED, PHOTOMETRIC.YCBCR)  # by OpenCV, of 8 bits alone
JPEG = (COMPRESSION.OJPEG, COMPRESSION.JPEG)
# Compressions that only OpenCV's libtiff reads as it should (TIFF 6.0, sections 10, 11 and 22).
BY_LIBTIFF = (*JPEG, COMPRESSION.CCITTRLE, COMPRESSION.CCITT_T4, COMPRESSION.CCITT_T6)
PREDICTED_BY_OPENCV = (COMPRESSION.LZW, COMPRESSION.ADOBE_DEFLATE, COMPRESSION.DEFLATE)
# Compressions of libtiff for the colour spaces that OpenCV converts.
BY_OPENCV = (*BY_LIBTIFF, COMPRESSION.NONE, COMPRESSION.PACKBITS, *PREDICTED_BY_OPENCV)
UNSIGNED = (SAMPLEFORMAT.UINT, SAMPLEFORMAT.VOID)
FORMATS: dict[int, str] = {
    SAMPLEFORMAT.INT: "signed integer",
    SAMPLEFORMAT.IEEEFP: "float",
    SAMPLEFORMAT.COMPLEXINT: "complex integer",
    SAMPLEFORMAT.COMPLEXIEEEFP: "complex float",
}
REDUCED_OR_MASK = 0b101  # bits of NewSubfileType: a smaller copy, a transparency mask


def decode(data: bytes, frame: int = 0) -> np.ndarray:
    """Decode a page of a TIFF to uint8 RGB of shape H,W,3.

    Samples must be unsigned, of 1 to 16 bits; they are scaled by their full range. Alpha and other
    extra samples are dropped without a change of the colour. WhiteIsZero, palette and orientation
    are applied.

    Args:
        data: bytes of the file.
        frame: number of the page, from 0; smaller copies and masks do not count.

    Raises:
        Unreadable: when the file is truncated or damaged, or has an unsupported feature.
    """
    with _open_pages(data) as pages:
        page = pages[frame]
        check_size(page.imagewidth, page.imagelength, page.samplesperpixel)
        if page.photometric == PHOTOMETRIC.PALETTE and page.colormap is None:
            raise Unreadable(TRUNCATED, "the TIFF lacks its palette")
        if page.compression == COMPRESSION.JPEG:
            _check_parts(page, len(data))
            _check_streams(page, data)
        by_opencv = page.index == 0 and not page.parent.is_bigtiff and _is_opencvs(page)
        if not by_opencv:
            _check(page)
        if not by_opencv or page.compression not in BY_LIBTIFF:
            # OpenCV does not report damaged strips and missing planes, which tifffile does.
            _check_parts(page, len(data))
            samples = page.asarray(squeeze=False, maxworkers=1)
        if not by_opencv:
            return _to_rgb(samples, page)
    return raster.decode(data, "tiff")


def frame_count(data: bytes) -> int:
    """Return the number of pages; smaller copies and masks do not count.

    Raises:
        Unreadable: when the directory of pages is damaged.
    """
    with _open_pages(data) as pages:
        return len(pages)


@contextmanager
def _open_pages(data: bytes) -> Iterator[list[TiffPage]]:
    """Yield a file's pages that are images; errors within become Unreadable."""
    try:
        with silence(), TiffFile(io.BytesIO(data)) as file:
            first = itertools.islice(file.pages, bounds.MAX_FRAMES + 1)
            pages = [page.aspage() for page in first]
            check_frames(len(pages))
            images = [page for page in pages if not page.subfiletype & REDUCED_OR_MASK]
            if not pages:
                raise Unreadable(TRUNCATED, "the TIFF has no page")
            yield images or pages[:1]
    except (Unreadable, MemoryError):
        raise
    except Exception as error:  # damage makes tifffile raise almost any class
        words = " ".join(str(error).split()) or type(error).__name__
        raise Unreadable(UNREADABLE, f"the tiff data end early or are damaged ({words})") from None


def _bits(page: TiffPage) -> tuple[int, ...]:
    """Return the distinct numbers of bits of the samples, ascending."""
    recorded = page.tags.get("BitsPerSample")
    value = 1 if recorded is None else recorded.value
    return tuple(sorted(set(value))) if isinstance(value, tuple) else (int(value),)


def _is_opencvs(page: TiffPage) -> bool:
    """Return whether OpenCV decodes a page correctly; tests compare it with tifffile and Pillow."""
    if page.compression not in BY_OPENCV or page.extrasamples or page.sampleformat not in UNSIGNED:
        return False
    if page.photometric in BY_TIFFFILE and page.compression not in BY_LIBTIFF:
        return False
    if _lacks_samples(page):
        return False
    if page.predictor != 1 and page.compression not in PREDICTED_BY_OPENCV:
        return False
    is_turned = "Orientation" in page.tags and page.tags["Orientation"].value != 1
    if page.is_tiled and (is_turned or page.compression == COMPRESSION.NONE):
        return False  # OpenCV 5.0 turns each tile where it stands, and refuses plain tiles
    bits, kind = _bits(page), page.photometric
    if bits == (1,):
        return kind in GREY
    return bits == (8,) and kind in (*BY_TIFFFILE, *CONVERTED_BY_OPENCV)


def _lacks_samples(page: TiffPage) -> bool:
    """Return whether a page of colours has fewer than three samples a pixel."""
    return page.samplesperpixel < 3 and page.photometric not in (*GREY, PHOTOMETRIC.PALETTE)


def _check(page: TiffPage) -> None:
    """Raise Unreadable for a feature that ``_to_rgb`` does not support."""
    bits, kind = _bits(page), page.photometric
    size_words, name = " and ".join(map(str, bits)), getattr(kind, "name", kind)
    if page.sampleformat not in UNSIGNED:
        form = FORMATS.get(page.sampleformat, f"format {page.sampleformat}")
        raise _unsupported(f"{size_words}-bit {form} samples")
    if len(bits) > 1 or not 1 <= bits[0] <= 16:
        raise _unsupported(f"{size_words}-bit integer samples")
    if kind not in BY_TIFFFILE and not (kind == PHOTOMETRIC.YCBCR and page.compression in JPEG):
        raise _unsupported(f"{size_words}-bit samples of photometric interpretation {name}")
    if _lacks_samples(page):
        raise _unsupported(f"{page.samplesperpixel} samples a pixel of {name}")
    if page.imagedepth > 1:
        raise _unsupported(f"a depth of {page.imagedepth}")
    if not isinstance(page.compression, COMPRESSION):
        raise _unsupported(f"compression {page.compression}")


def _check_parts(page: TiffPage, size: int) -> None:
    """Raise Unreadable if a strip or tile is missing, or ends after the file's ``size`` bytes."""
    ends = zip(page.dataoffsets, page.databytecounts, strict=False)
    parts = page.chunked if isinstance(page.chunked, tuple) else (page.chunked,)
    missing = len(page.databytecounts) < int(np.prod(parts)) or 0 in page.databytecounts
    if missing or any(start + length > size for start, length in ends):
        raise Unreadable(TRUNCATED, "the TIFF lacks some of its strips or tiles")


def _check_streams(page: TiffPage, data: bytes) -> None:
    """Raise Unreadable if libjpeg warns of a strip or tile, which OpenCV and tifffile ignore.

    The streams lack the tables, which the page stores once (TIFF Technical Note 2).
    """
    tables = page.jpegtables or b""
    for start, length in zip(page.dataoffsets, page.databytecounts, strict=True):
        stream = data[start : start + length]
        if stream:
            jpeg.decode_grey(tables[:-2] + stream[2:] if tables else stream)


def _unsupported(content: str) -> Unreadable:
    return Unreadable(
        UNREADABLE,
        f"a TIFF with {content}, which is not read; grey, RGB and palette of 1 to 16 bits are",
    )


def _to_rgb(samples: np.ndarray, page: TiffPage) -> np.ndarray:
    """Turn decoded samples, shape planes,1,H,W,channels, into uint8 RGB."""
    pixels = np.moveaxis(samples[:, 0], 0, 2).reshape(*samples.shape[2:4], -1)
    bits = _bits(page)[0]
    if page.photometric == PHOTOMETRIC.PALETTE:
        colours = np.asarray(page.colormap)  # 3 x 2**bits, of 16 bits
        # Programs write 8-bit colours times 256 or times 257; the upper byte is the colour of both.
        # Old ones write them as they are, which libtiff, too, takes as colours of 8 bits.
        shift = 8 if colours.max() > 255 else 0
        rgb = (colours.T >> shift).astype(np.uint8)[pixels[..., 0].astype(np.intp)]
    else:
        channels = to_uint8(pixels.astype(np.uint8) if bits == 1 else pixels, bits)
        grey = page.photometric in GREY
        rgb = np.repeat(channels[..., :1], 3, axis=2) if grey else channels[..., :3]
    if page.photometric == PHOTOMETRIC.MINISWHITE:
        rgb = 255 - rgb
    orientation = page.tags.valueof(ORIENTATION, default=1)
    return upright(rgb, orientation if orientation in range(1, 9) else 1)
