"""What a decoding process does: an upload's bytes, which may be hostile, to the pixels that networks take."""

from __future__ import annotations

import io
import os
import resource
import warnings

from medscale.serve.http.messages import Decoded, Encoded, Refused

PREVIEW = 768  # pixels of its longer side
QUALITY = 85
ROOM = 40  # bytes a pixel that decoding may take, with DICOM's tables in 64 bit
SPARE = 512 * 2**20  # bytes besides, for libraries
DEFLATED = b"1.2.840.10008.1.2.1.99"  # a DICOM transfer syntax that is inflated as a whole, however large it becomes

_limit = 0  # most pixels, in a decoding process


def start(most_pixels: int) -> None:
    """Prepare this process: libraries refuse larger images, and memory ends before the machine's does."""
    global _limit
    _limit = most_pixels
    os.environ["OPENCV_IO_MAX_IMAGE_PIXELS"] = str(
        most_pixels
    )  # read when the library is loaded, so here
    os.environ["OPENCV_LOG_LEVEL"] = "SILENT"
    import cv2
    from PIL import Image

    import medscale.data.decoding.dicom
    import medscale.data.decoding.tiff
    import medscale.serve.inputs  # noqa: F401

    cv2.setNumThreads(1)
    Image.MAX_IMAGE_PIXELS = most_pixels
    warnings.simplefilter("ignore")
    room = _data_bytes() + SPARE + ROOM * most_pixels
    resource.setrlimit(resource.RLIMIT_DATA, (room, room))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would keep the image


def decode_all(_: None, uploads: list[Encoded]) -> list[Decoded | Refused]:
    """Decode uploads one by one; see ``decode``."""
    return [decode(upload) for upload in uploads]


def decode(upload: Encoded) -> Decoded | Refused:
    """Check an upload's kind and size by its headers, then decode and preprocess it as training did."""
    from medscale.data.images import NOT_AN_IMAGE, Unreadable, kind_of
    from medscale.serve.inputs import read

    kind = kind_of(upload.data)
    try:
        if refused := _too_large(upload.data, kind):
            return refused
        found = [read(upload.data, settings) for settings in upload.wanted]
        preview = _preview(upload.data) if upload.preview else None
    except Unreadable as error:
        unknown = error.reason == NOT_AN_IMAGE and kind is None
        return Refused(415 if unknown else 422, error.reason, error.detail)
    except MemoryError:
        return Refused(
            413,
            "too large",
            "decoding it takes more memory than an image of the allowed size needs",
        )
    (_, width, height), facts = found[0]
    return Decoded([prepared.pixels for prepared, _ in found], width, height, facts, preview)


def _too_large(data: bytes, kind: str | None) -> Refused | None:
    """Whether an image's headers tell of more pixels than are allowed; nothing is decoded."""
    found = _dicom_size(data) if kind == "dicom" else _size(data)
    if isinstance(found, Refused) or found is None:
        return found
    width, height = found
    return _too_many(f"{width} x {height} pixels") if width * height > _limit else None


def _too_many(said: str) -> Refused:
    return Refused(413, "too large", f"{said}; at most {_limit / 1e6:g} megapixels are taken")


def _size(data: bytes) -> tuple[int, int] | Refused | None:
    """Width and height by the header; None where Pillow does not know, and OpenCV's own limit holds."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as image:
            return image.size
    except Image.DecompressionBombError:
        return _too_many(f"over {2 * _limit / 1e6:g} megapixels")
    except MemoryError:
        raise
    except Exception:  # whatever a damaged header makes Pillow raise; decoding tells what is wrong
        return None


def _dicom_size(data: bytes) -> tuple[int, int] | Refused | None:
    from pydicom import dcmread

    if DEFLATED in data:  # wherever it stands: reading the headers would inflate all of it
        return Refused(
            415, "not taken", "a deflated DICOM file; send it in another transfer syntax"
        )
    try:
        header = dcmread(
            io.BytesIO(data), stop_before_pixels=True, specific_tags=["Rows", "Columns"]
        )
        return int(header.get("Columns") or 0), int(header.get("Rows") or 0)
    except MemoryError:
        raise
    except Exception:  # damaged; decoding tells what is wrong
        return None


def _preview(data: bytes) -> bytes:
    """The image as it is shown, its longer side at most PREVIEW pixels, as a JPEG."""
    import cv2

    from medscale.data.images import decode as whole
    from medscale.data.images import jpeg_size
    from medscale.data.preprocess import reduction

    size = jpeg_size(data)
    image = whole(data, reduction(max(size), max(size), PREVIEW) if size else 1)
    scale = PREVIEW / max(image.shape[:2])
    if scale < 1:
        sides = [max(1, round(side * scale)) for side in image.shape[1::-1]]
        image = cv2.resize(image, sides, interpolation=cv2.INTER_AREA)
    return bytes(
        cv2.imencode(
            ".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, QUALITY]
        )[1]
    )


def _data_bytes() -> int:
    """Bytes of memory that this process holds for data (VmData)."""
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmData"))
