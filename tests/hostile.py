"""Hostile uploads: decompression bombs, damaged and mislabelled files, names and forms."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image

from medscale.data.demo.xray import dicom_file
from served import picture

BOUNDARY = "x-boundary"
RLE, DEFLATED, EXPLICIT = "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.1"


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, data: bytes, *between: bytes) -> bytes:
    """A grey PNG of one bit a pixel whose chunks are right, whatever they promise."""
    start = b"\x89PNG\r\n\x1a\n" + chunk(
        b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    )
    return start + b"".join(between) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def zeros(count: int) -> bytes:
    return zlib.compress(bytes(count), 9)


def tiff(width: int, height: int) -> bytes:
    """A TIFF of 8 x 8 pixels whose header says otherwise."""
    file = io.BytesIO()
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(file, "TIFF", compression="tiff_deflate")
    data = bytearray(file.getvalue())
    first = struct.unpack_from("<I", data, 4)[0]
    for entry in range(struct.unpack_from("<H", data, first)[0]):
        at = first + 2 + 12 * entry
        tag = struct.unpack_from("<H", data, at)[0]
        if tag in (256, 257, 278):  # width, height, rows a strip
            struct.pack_into(
                "<HII", data, at + 2, 4, 1, {256: width, 257: height, 278: height}[tag]
            )
    return bytes(data)


def jpeg(width: int, height: int) -> bytes:
    """A JPEG of 8 x 8 pixels whose header says otherwise."""
    data = bytearray(picture((8, 8)))
    at = data.index(b"\xff\xc0") + 5
    struct.pack_into(">HH", data, at, height, width)
    return bytes(data)


def bmp(width: int, height: int) -> bytes:
    return (
        b"BM"
        + struct.pack("<IHHI", 200, 0, 0, 54)
        + struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, *[0] * 6)
    )


def gif(width: int, height: int) -> bytes:
    return (
        b"GIF89a"
        + struct.pack("<HHBBB", width, height, 0, 0, 0)
        + b",\0\0\0\0"
        + struct.pack("<HHB", width, height, 0)
    )


def webp(width: int, height: int) -> bytes:
    sides = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body = b"WEBPVP8X" + struct.pack("<I", 10) + bytes(4) + sides
    return b"RIFF" + struct.pack("<I", len(body)) + body


def dicom(rows: int, columns: int, pixels: bytes, syntax: str = EXPLICIT, **more: object) -> bytes:
    about = {
        "SOPInstanceUID": "1.2.3",
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
    }
    about |= {"Rows": rows, "Columns": columns, "BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}
    return dicom_file(about | {"PixelRepresentation": 0} | more, pixels, syntax)


def deflated_dicom() -> bytes:
    """A DICOM file whose data set, all zeros when inflated, is far larger than the file."""
    plain = dicom(8, 8, bytes(64))
    start = plain.index(b"1.2.840.10008.1.2.1")
    meta = plain[: start - 8] + struct.pack("<HH2sH", 2, 0x10, b"UI", 22) + DEFLATED.encode()
    return meta + zeros(60_000_000)[2:-4]


def bombs() -> dict[str, bytes]:
    """Small files that would be large, by what they are."""
    profile = chunk(b"iCCP", b"bomb\0\0" + zeros(100_000_000))
    text = chunk(b"zTXt", b"bomb\0\0" + zeros(100_000_000))
    row = bytes(1 + 20_000 // 8)
    return {
        "png of 400 megapixels": png(20_000, 20_000, zlib.compress(row * 20_000, 1)),
        "png that says 4 gigapixels": png(65_535, 65_535, zeros(100)),
        "png with a profile of 100 MB": png(8, 8, zeros(16), profile),
        "png with a text of 100 MB": png(8, 8, zeros(16), text),
        "png with more data than pixels": png(8, 8, zeros(60_000_000)),
        "jpeg that says 4 gigapixels": jpeg(65_500, 65_500),
        "tiff that says 3 gigapixels": tiff(60_000, 60_000),
        "tiff that is one long row": tiff(40_000_000, 1),
        "bmp that says 2 gigapixels": bmp(50_000, 50_000),
        "gif that says 4 gigapixels": gif(65_535, 65_535),
        "webp that says 268 megapixels": webp(16_384, 16_384),
        "dicom that says 4 gigapixels": dicom(65_535, 65_535, bytes(64)),
        "dicom of a million frames": dicom(64, 64, bytes(64), NumberOfFrames="1000000"),
        "dicom deflated": deflated_dicom(),
    }


def damaged() -> dict[str, bytes]:
    """Files that are no images, or no whole ones."""
    photo, drawing = picture((200, 150)), picture((200, 150), kind="PNG")
    return {
        "nothing": b"",
        "text": b"root:x:0:0:root",
        "page": b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
        "archive": b"PK\3\4" + bytes(100),
        "program": b"\x7fELF" + bytes(100),
        "only a beginning": b"\x89PNG\r\n\x1a\n",
        "jpeg cut short": photo[: len(photo) // 3],
        "png cut short": drawing[: len(drawing) // 2],
        "png with a wrong checksum": drawing[:40] + bytes([drawing[40] ^ 1]) + drawing[41:],
        "dicom without pixels": dicom(8, 8, bytes(64))[:-40],
        "dicom header alone": bytes(128) + b"DICM",
        "dicom of noise": bytes(128) + b"DICM" + np.random.default_rng(0).bytes(2000),
    }


def fuzzed(count: int) -> list[bytes]:
    """Images of all kinds with some bytes changed."""
    rng = np.random.default_rng(1)
    made = [picture((60, 40), kind=kind) for kind in ("JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP")]
    made.append(dicom(8, 8, bytes(64)))
    files = []
    for number in range(count):
        data = bytearray(made[number % len(made)])
        for at in rng.integers(10 if data[128:132] != b"DICM" else 132, len(data), 8):
            data[at] = rng.integers(256)
        files.append(bytes(data))
    return files


def part(name: bytes, data: bytes = b"x", field: bytes = b"images") -> bytes:
    """A part of a form, with a file's name as it is written."""
    head = (
        b'Content-Disposition: form-data; name="' + field + b'"; filename="' + name + b'"\r\n\r\n'
    )
    return b"--" + BOUNDARY.encode() + b"\r\n" + head + data + b"\r\n"


NAMES = {
    "path": b"../../etc/passwd",
    "whole path": b"/etc/passwd",
    "windows path": b"..\\..\\boot.ini",
    "parent": b"..",
    "zero byte": b"photo.jpg\0.exe",
    "terminal": b"\x1b[2J.jpg",
    "turned": "photo\u202egpj.exe".encode(),
    "long": b"a" * 300 + b".jpg",
    "very long": b"a" * 100_000 + b".jpg",
}
END = f"--{BOUNDARY}--\r\n".encode()
FORMS = {
    "no end": part(b"a.jpg"),
    "no boundary in it": b"nothing",
    "no image": END,
    "another field": part(b"a.jpg", field=b"files") + END,
    "too many files": b"".join(part(b"a.jpg") for _ in range(17)) + END,
    "no name": b"--" + BOUNDARY.encode() + b"\r\nContent-Disposition: form-data\r\n\r\nx\r\n" + END,
    "many headers": b"--" + BOUNDARY.encode() + b"\r\n" + b"A: b\r\n" * 50 + b"\r\nx\r\n" + END,
    "metadata of 1 MB": (
        b"--" + BOUNDARY.encode() + b'\r\nContent-Disposition: form-data; name="metadata"\r\n\r\n'
    )
    + bytes(1_000_000)
    + b"\r\n"
    + END,
    "noise": np.random.default_rng(2).bytes(5000),
}
