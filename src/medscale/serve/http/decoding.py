"""The decoding process: from an upload's bytes, which may be hostile, to preprocessed pixels."""

from __future__ import annotations

import io
import os
import warnings

from medscale.data.decoding import bounds
from medscale.serve.http.messages import DecodedImage, EncodedImage, RefusedImage

PREVIEW = 768  # pixels of a preview's longer side
QUALITY = 85  # of a preview's JPEG
STDERR = 2  # file descriptor
DEFLATED = b"1.2.840.10008.1.2.1.99"  # DICOM transfer syntax that is inflated as a whole


def start(max_pixels: int) -> None:
    """Prepare this process: load the decoders and limit it; see ``bounds.limit_process``."""
    bounds.limit_process(max_pixels)
    import medscale.data.decoding.dicom
    import medscale.data.decoding.tiff
    import medscale.serve.inputs  # noqa: F401

    warnings.simplefilter("ignore")
    # Libraries in C print a line for each damaged image, which would fill the service's log.
    os.dup2(os.open(os.devnull, os.O_WRONLY), STDERR)


def decode_all(_: None, uploads: list[EncodedImage]) -> list[DecodedImage | RefusedImage]:
    """Decode the uploads of a batch; see ``decode``."""
    return [decode(upload) for upload in uploads]


def decode(upload: EncodedImage) -> DecodedImage | RefusedImage:
    """Check an upload's format and size by its headers, then decode and preprocess it."""
    from medscale.data.decoding import structure
    from medscale.data.images import NOT_AN_IMAGE, TOO_LARGE, Unreadable, kind_of
    from medscale.serve.inputs import read

    kind = kind_of(upload.data)
    try:
        if kind is not None:
            structure.check(upload.data, kind)  # before libraries parse the headers
        if refusal := _too_large(upload.data, kind):
            return refusal
        images = [read(upload.data, settings) for settings in upload.preprocessings]
        preview = _preview(upload.data) if upload.preview else None
    except Unreadable as error:
        if error.reason == TOO_LARGE:
            return RefusedImage(413, error.reason, error.detail)
        unknown = error.reason == NOT_AN_IMAGE and kind is None
        return RefusedImage(415 if unknown else 422, error.reason, error.detail)
    except MemoryError:
        return RefusedImage(413, TOO_LARGE, bounds.NO_MEMORY)
    first, facts = images[0]
    pixels = [image.pixels for image, _ in images]
    return DecodedImage(pixels, first.width, first.height, facts, preview, first.note)


def _too_large(data: bytes, kind: str | None) -> RefusedImage | None:
    """Refuse an image whose headers give more pixels than are allowed; nothing is decoded."""
    size = _dicom_size(data) if kind == "dicom" else _size(data)
    if isinstance(size, RefusedImage) or size is None:
        return size
    width, height = size
    if width * height <= bounds.max_pixels:
        return None
    return _too_many(f"{width} x {height} pixels")


def _too_many(pixels: str) -> RefusedImage:
    from medscale.data.images import TOO_LARGE

    return RefusedImage(
        413, TOO_LARGE, f"{pixels}; at most {bounds.max_pixels / 1e6:g} megapixels are taken"
    )


def _size(data: bytes) -> tuple[int, int] | RefusedImage | None:
    """Return width and height by the header, or None where Pillow cannot read it.

    OpenCV's own limit, set by ``start``, holds for images of unknown size.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as image:
            return image.size
    except Image.DecompressionBombError:
        return _too_many(f"over {2 * bounds.max_pixels / 1e6:g} megapixels")
    except MemoryError:
        raise
    except Exception:  # Pillow raises many kinds for damaged headers; decoding finds the fault
        return None


def _dicom_size(data: bytes) -> tuple[int, int] | RefusedImage | None:
    from pydicom import dcmread

    # Searched in the whole file, since reading the headers would inflate it without a limit.
    if DEFLATED in data:
        return RefusedImage(
            415, "not taken", "a deflated DICOM file; send it in another transfer syntax"
        )
    try:
        header = dcmread(
            io.BytesIO(data), stop_before_pixels=True, specific_tags=["Rows", "Columns"]
        )
        return int(header.get("Columns") or 0), int(header.get("Rows") or 0)
    except MemoryError:
        raise
    except Exception:  # a damaged header; decoding finds the fault
        return None


def _preview(data: bytes) -> bytes:
    """Return the displayed image as a JPEG whose longer side has at most ``PREVIEW`` pixels."""
    import cv2

    from medscale.data.images import decode as decode_pixels
    from medscale.data.images import jpeg_size
    from medscale.data.preprocess import reduction

    size = jpeg_size(data)
    image = decode_pixels(data, reduction(max(size), max(size), PREVIEW) if size else 1)
    scale = PREVIEW / max(image.shape[:2])
    if scale < 1:
        sides = [max(1, round(side * scale)) for side in image.shape[1::-1]]
        image = cv2.resize(image, sides, interpolation=cv2.INTER_AREA)
    colours = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    return bytes(cv2.imencode(".jpg", colours, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1])
