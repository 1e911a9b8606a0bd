"""The checksums of a crate: ``manifest-sha256.txt``, in the form of BagIt (RFC 8493, 2.1.3)."""

from __future__ import annotations

import re
from pathlib import Path

from medscale.base.errors import MedscaleError
from medscale.base.files import sha256, write_text

MANIFEST, METADATA = "manifest-sha256.txt", "ro-crate-metadata.json"
LINE = re.compile(r"([0-9a-f]{64})  (.+)")
ESCAPED = {"%": "%25", "\n": "%0A", "\r": "%0D"}  # as RFC 8493 demands of names


def write(folder: Path) -> None:
    """Write the digests of all files of a folder into it; ``sha256sum -c`` checks them."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    lines = [f"{sha256(file)}  {_escaped(file.relative_to(folder).as_posix())}" for file in files]
    write_text(folder / MANIFEST, "\n".join(lines) + "\n")


def parse(text: str, source: str) -> dict[str, str]:
    """Return the digest of each file that a manifest lists.

    Raises MedscaleError for a line of another form, or a file that is listed twice.
    """
    digests: dict[str, str] = {}
    for line in text.splitlines():
        match = LINE.fullmatch(line)
        if match is None or (name := _unescaped(match[2])) in digests:
            raise MedscaleError(
                f"{source}: {MANIFEST} has a line that is no checksum of another file: "
                f"{line[:80]!r}; pack the study again"
            )
        digests[name] = match[1]
    return digests


def _escaped(name: str) -> str:
    return "".join(ESCAPED.get(letter, letter) for letter in name)


def _unescaped(name: str) -> str:
    for letter, code in reversed(ESCAPED.items()):
        name = name.replace(code, letter)
    return name
