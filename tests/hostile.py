"""Hostile uploads: decompression bombs, damaged and mislabelled files, names and forms."""

from __future__ import annotations

import io
import struct
import zlib

import imagecodecs
import numpy as np
from PIL import Image

from medscale.data.demo.xray import dicom_file
from service_process import picture

BOUNDARY = "x-boundary"
JPEG, JPEG_LS, JPEG_2000 = (f"1.2.840.10008.1.2.4.{number}" for number in (50, 80, 90))
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


def with_entries(plain: bytes, values: dict[int, int]) -> bytes:
    """A TIFF with other values of tags."""
    data = bytearray(plain)
    first = struct.unpack_from("<I", data, 4)[0]
    for entry in range(struct.unpack_from("<H", data, first)[0]):
        at = first + 2 + 12 * entry
        tag = struct.unpack_from("<H", data, at)[0]
        if tag in values:
            struct.pack_into("<HII", data, at + 2, 4, 1, values[tag])
    return bytes(data)


def tiff(width: int, height: int) -> bytes:
    """A TIFF of 8 x 8 pixels whose header says otherwise."""
    file = io.BytesIO()
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(file, "TIFF", compression="tiff_deflate")
    return with_entries(file.getvalue(), {256: width, 257: height, 278: height})  # rows a strip


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


def dicom(
    rows: int, columns: int, pixels: bytes | list[bytes], syntax: str = EXPLICIT, **more: object
) -> bytes:
    about = {
        "SOPInstanceUID": "1.2.3",
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
    }
    about |= {"Rows": rows, "Columns": columns, "BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}
    return dicom_file(about | {"PixelRepresentation": 0} | more, pixels, syntax)


def deflated(plain: bytes, *content: bytes) -> bytes:
    """A DICOM file with its data set deflated, or with other content, deflated, in its place."""
    uid = plain.index(EXPLICIT.encode())
    length = struct.unpack_from("<I", plain, 140)[0]  # of the file's meta information after it
    end = 144 + length
    meta = bytearray(plain[: uid - 8] + struct.pack("<HH2sH", 2, 0x10, b"UI", 22))
    meta += DEFLATED.encode() + plain[uid + len(EXPLICIT) + 1 : end]
    struct.pack_into("<I", meta, 140, len(meta) - 144)
    stream = zlib.compressobj(9, zlib.DEFLATED, -15)
    parts = [stream.compress(part) for part in content or (plain[end:],)]
    return bytes(meta) + b"".join(parts) + stream.flush()


def deflated_dicom(size: int = 60_000_000) -> bytes:
    """A DICOM file whose data set, all zeros when inflated, is far larger than the file."""
    return deflated(dicom(8, 8, bytes(64)), *[bytes(10_000_000)] * (size // 10_000_000))


def compressed_dicom(syntax: str, stream: bytes) -> bytes:
    """A DICOM file that says 8 x 8 pixels, with the stream of a larger image."""
    return dicom(8, 8, [stream], syntax)


def with_size(stream: bytes, marker: bytes, offset: int, form: str) -> bytes:
    """A stream whose own header says 60,000 x 60,000 pixels."""
    data = bytearray(stream)
    struct.pack_into(form, data, data.index(marker) + offset, 60_000, 60_000)
    return bytes(data)


def strips_tiff(size: int) -> bytes:
    """A TIFF of 64 x 64 pixels with extra samples, whose strip holds ``size`` zeros."""
    image = Image.fromarray(np.zeros((64, 64, 4), np.uint8))
    file = io.BytesIO()
    image.save(file, "TIFF", compression="tiff_adobe_deflate")
    data, strip = file.getvalue(), zeros(size)
    return with_entries(data, {273: len(data), 279: len(strip)}) + strip  # its offset and bytes


def pages_tiff(count: int) -> bytes:
    """A TIFF of very many pages."""
    pages = [
        struct.pack("<HHHIII", 1, 256, 4, 1, 8, 8 + 18 * (number + 1)) for number in range(count)
    ]
    return b"II*\0" + struct.pack("<I", 8) + b"".join(pages)[:-4] + bytes(4)


def frames_gif(count: int) -> bytes:
    """A GIF of very many frames of one pixel."""
    frame = b",\0\0\0\0\1\0\1\0\0\2\2D\1\0"
    return b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0x80, 0, 0) + bytes(6) + frame * count + b";"


def bombs() -> dict[str, bytes]:
    """Small files that would be large, by what they are."""
    profile = chunk(b"iCCP", b"bomb\0\0" + zeros(100_000_000))
    text = chunk(b"zTXt", b"bomb\0\0" + zeros(100_000_000))
    row = bytes(1 + 20_000 // 8)
    small = np.zeros((8, 8), np.uint8)
    jpeg_ls, jpeg_2000 = imagecodecs.jpegls_encode(small), imagecodecs.jpeg2k_encode(small)
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
        "dicom of JPEG, 4 gigapixels": compressed_dicom(JPEG, jpeg(65_500, 65_500)),
        "dicom of JPEG-LS, 4 gigapixels": compressed_dicom(
            JPEG_LS, with_size(jpeg_ls, b"\xff\xf7", 5, ">HH")
        ),
        "dicom of JPEG 2000, 4 gigapixels": compressed_dicom(
            JPEG_2000, with_size(jpeg_2000, b"\xff\x51", 6, ">II")
        ),
        "tiff with a strip of 400 MB": strips_tiff(400_000_000),
        "tiff of 20,000 pages": pages_tiff(20_000),
        "gif of 20,000 frames": frames_gif(20_000),
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


def random_files(count: int) -> list[bytes]:
    """Images of all kinds with some bytes changed."""
    rng = np.random.default_rng(1)
    originals = [
        picture((60, 40), kind=kind) for kind in ("JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP")
    ]
    originals.append(dicom(8, 8, bytes(64)))
    files = []
    for number in range(count):
        data = bytearray(originals[number % len(originals)])
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
