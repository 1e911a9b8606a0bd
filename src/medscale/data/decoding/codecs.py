"""JPEG-LS, lossless and 12-bit JPEG in DICOM files: a plugin of pydicom that uses imagecodecs.

pydicom's own plugins for these transfer syntaxes need libraries under the GPL, or several
libraries. imagecodecs (BSD) contains CharLS and libjpeg-turbo, and also decodes TIFF here.
"""

from __future__ import annotations

import re
import struct

import imagecodecs
from pydicom.pixels import get_decoder
from pydicom.pixels.decoders.base import DecodeRunner
from pydicom.uid import (
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
)

from medscale.data.decoding import jpeg

PLUGIN = "imagecodecs"
JPEG_LS = (JPEGLSLossless, JPEGLSNearLossless)
JPEG = (JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1)
# SOC, SIZ, its length and capabilities, then sizes of the reference grid (ISO/IEC 15444-1, A.5.1);
# a JP2 file has boxes before it.
JPEG_2000 = re.compile(rb"(?:\0\0\0\x0cjP  .*?)?\xff\x4f\xff\x51.{4}(?P<size>.{16})", re.DOTALL)
DECODER_DEPENDENCIES = dict.fromkeys((*JPEG_LS, *JPEG), (PLUGIN,))  # pydicom asks for it


def is_available(syntax: str) -> bool:
    """Return whether a transfer syntax is decoded here; pydicom calls this to add the plugin."""
    return syntax in DECODER_DEPENDENCIES


def decode_frame(stream: bytes, runner: DecodeRunner) -> bytes:
    """Decode one frame's stream to the bytes of its samples, channels interleaved.

    The colour space stays as stored: pydicom converts it by the headers.
    """
    if runner.transfer_syntax in JPEG_LS:
        samples = imagecodecs.jpegls_decode(stream)
    else:
        # Equal input and output colour spaces turn the conversion off.
        space = None if runner.samples_per_pixel == 1 else "RGB"
        samples = imagecodecs.jpeg8_decode(stream, colorspace=space, outcolorspace=space)
    runner.set_option("bits_allocated", 8 * samples.dtype.itemsize)
    if samples.ndim == 3:
        runner.set_option("planar_configuration", 0)
    return bytes(samples.tobytes())


def stream_size(stream: bytes) -> tuple[int, int] | None:
    """Return width and height in the header of a JPEG, JPEG-LS or JPEG 2000 stream.

    Decoders allocate memory by this size, and not by that of the DICOM headers. None for other
    streams (RLE).
    """
    if start := JPEG_2000.match(stream):
        right, bottom, left, top = struct.unpack(">4I", start["size"])
        return right - left, bottom - top
    if (header := jpeg.frame_header(stream)) is None:
        return None
    height, width = struct.unpack_from(">HH", stream, header + 5)
    return width, height


def register() -> None:
    """Add the plugin to pydicom's decoders, once in a process."""
    for syntax in DECODER_DEPENDENCIES:
        decoder = get_decoder(syntax)
        if PLUGIN not in decoder.available_plugins:
            decoder.add_plugin(PLUGIN, (__name__, decode_frame.__name__))
