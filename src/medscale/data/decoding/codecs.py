"""JPEG-LS, lossless and 12-bit JPEG in DICOM files: a plugin of pydicom that asks imagecodecs.

pydicom's own plugins for these transfer syntaxes need libraries under the GPL, or one for each.
imagecodecs (BSD) has CharLS and libjpeg-turbo, and decodes TIFF for this package as well.
"""

from __future__ import annotations

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

PLUGIN = "imagecodecs"
JPEG_LS = (JPEGLSLossless, JPEGLSNearLossless)
JPEG = (JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1)
DECODER_DEPENDENCIES = dict.fromkeys((*JPEG_LS, *JPEG), (PLUGIN,))  # pydicom asks for it


def is_available(syntax: str) -> bool:
    """Whether a transfer syntax is decoded here; pydicom asks when the plugin is added."""
    return syntax in DECODER_DEPENDENCIES


def decode_frame(stream: bytes, runner: DecodeRunner) -> bytes:
    """Decode one frame's stream to the bytes of its samples, channels interleaved.

    The colour space stays as stored: pydicom converts it by the headers.
    """
    if runner.transfer_syntax in JPEG_LS:
        samples = imagecodecs.jpegls_decode(stream)
    else:
        space = None if runner.samples_per_pixel == 1 else "RGB"  # the same twice: not converted
        samples = imagecodecs.jpeg8_decode(stream, colorspace=space, outcolorspace=space)
    runner.set_option("bits_allocated", 8 * samples.dtype.itemsize)
    if samples.ndim == 3:
        runner.set_option("planar_configuration", 0)
    return bytes(samples.tobytes())


def register() -> None:
    """Add the plugin to pydicom's decoders, once in a process."""
    for syntax in DECODER_DEPENDENCIES:
        decoder = get_decoder(syntax)
        if PLUGIN not in decoder.available_plugins:
            decoder.add_plugin(PLUGIN, (__name__, decode_frame.__name__))
