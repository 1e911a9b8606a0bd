"""Store the layers of an archive of `docker save` as gzip without compression, stdin to stdout.

Apptainer compresses plain layers of a docker-archive when it reads them and decompresses them at
once, which takes minutes for a large image.
"""

import struct
import sys
import tarfile
import zlib
from collections.abc import Iterator
from typing import IO

BLOCK = 65535  # bytes of a stored block at most (RFC 1951)
HEAD = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"  # gzip (RFC 1952): deflate, no name, no time


class Stored:
    """The gzip of a file of ``size`` bytes as stored blocks; its length is ``length`` bytes."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self.length = len(HEAD) + size + 5 * max(1, -(-size // BLOCK)) + 8
        self._parts, self._rest = self._blocks(file, size), b""

    def _blocks(self, file: IO[bytes], size: int) -> Iterator[bytes]:
        yield HEAD
        left, check = size, 0
        while True:
            data = file.read(min(BLOCK, left))
            left -= len(data)
            check = zlib.crc32(data, check)
            yield struct.pack("<BHH", left == 0, len(data), len(data) ^ 0xFFFF) + data
            if left == 0:
                break
            if not data:
                raise EOFError("the archive ends within a layer")
        yield struct.pack("<II", check, size & 0xFFFFFFFF)

    def read(self, count: int) -> bytes:
        """The next ``count`` bytes, or all that is left."""
        parts = [self._rest]
        have = len(self._rest)
        while have < count and (part := next(self._parts, b"")):
            parts.append(part)
            have += len(part)
        whole = b"".join(parts)
        self._rest = whole[count:]
        return whole[:count]


def main() -> None:
    """Copy the archive, layers stored."""
    with (
        tarfile.open(fileobj=sys.stdin.buffer, mode="r|") as old,
        tarfile.open(fileobj=sys.stdout.buffer, mode="w|", bufsize=1 << 20) as new,
    ):
        for member in old:
            content = old.extractfile(member) if member.isfile() else None
            if content is not None and member.name.endswith("layer.tar"):
                stored = Stored(content, member.size)
                member.size = stored.length
                member.pax_headers = {}
                new.addfile(member, stored)  # type: ignore[arg-type]
            else:
                new.addfile(member, content)


if __name__ == "__main__":
    main()
