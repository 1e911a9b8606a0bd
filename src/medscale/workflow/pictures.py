"""Figures as pictures for the first page of Snakemake's report.

The report embeds what it shows. A PDF holds its fonts, needs a viewer and is not shown on phones,
so figures are embedded as pictures: those over all studies as SVG, the others as PNG or JPEG.
"""

from __future__ import annotations

import base64
import io
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

from PIL import Image

# of poppler, which LaTeX's packages bring
SVG, PNG, INFO = "pdftocairo", "pdftoppm", "pdfinfo"
DPI = 110  # of a figure of 6.5 inches on the page's column
COLOURS = 64  # of a PNG: enough for lines, letters and their smoothed edges
LARGEST_BYTES = 400_000  # of a picture; a figure with a larger one is named without it
LINE = 5000  # characters; docutils takes at most 10,000, and joins the lines of an address
NUMBER = re.compile(r"-?\d+\.\d{3,}")


class Picture(NamedTuple):
    """A figure on the first page of the report."""

    title: str
    caption: str  # reStructuredText
    file: str  # the PDF, from the folder of the report
    address: str  # the picture itself, as a data URL; empty if it is too large
    reason: str = ""  # why nothing is drawn (``style.only_text``)


class Figure(NamedTuple):
    """A figure that exists as a PDF."""

    title: str
    caption: str
    file: str
    vector: bool  # whether its picture is SVG


def are_possible() -> bool:
    """Return whether the programs that make pictures are installed."""
    return all(shutil.which(program) for program in (SVG, PNG, INFO))


def pictures(figures: Iterable[Figure], workdir: Path) -> list[Picture]:
    """Return the pictures of those figures that exist below ``workdir``, in their order."""
    existing = [figure for figure in figures if (workdir / figure.file).is_file()]
    with ThreadPoolExecutor() as pool:  # each waits for a program
        addresses = pool.map(partial(_address, workdir), existing)
        reasons = pool.map(lambda figure: _subject(workdir / figure.file), existing)
        return [
            Picture(figure.title, figure.caption, figure.file, address, reason)
            for figure, address, reason in zip(existing, addresses, reasons, strict=True)
        ]


def _address(workdir: Path, figure: Figure) -> str:
    """Return the picture of a figure as a data URL in lines; empty if there is none."""
    file = workdir / figure.file
    kind, content = ("svg+xml", _svg(file)) if figure.vector else _raster(file)
    if not 0 < len(content) <= LARGEST_BYTES:
        return ""
    text = f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
    return "\n   ".join(text[at : at + LINE] for at in range(0, len(text), LINE))


def _subject(file: Path) -> str:
    """Return the subject of a PDF, which is the reason of a figure without a drawing."""
    process = subprocess.run(
        [INFO, "-enc", "UTF-8", str(file.resolve())], capture_output=True, text=True, check=False
    )
    match = re.search(r"^Subject: +(.+)$", process.stdout, re.M)
    return match[1].strip() if match else ""


def _svg(file: Path) -> bytes:
    """Return the first page of a PDF as SVG, numbers rounded to what is visible."""
    command = [SVG, "-svg", "-f", "1", "-l", "1", str(file.resolve()), "-"]
    process = subprocess.run(command, capture_output=True, check=False)
    if process.returncode:
        return b""
    return NUMBER.sub(_rounded, process.stdout.decode()).encode()


def _rounded(number: re.Match[str]) -> str:
    """Return a number of an SVG to a hundredth of a point, or to three digits if it is below 1."""
    value = float(number.group())
    return f"{value:.2f}" if abs(value) >= 1 else f"{value:.3g}"


def _raster(file: Path) -> tuple[str, bytes]:
    """Return the kind and the bytes of a PDF's first page: PNG, or JPEG where that is smaller."""
    with tempfile.TemporaryDirectory(prefix="picture-") as folder:
        page = Path(folder) / "page"
        command = [PNG, "-png", "-singlefile", "-r", str(DPI), str(file.resolve()), str(page)]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            return "", b""
        with Image.open(f"{page}.png") as image:
            picture = image.convert("RGB")
    forms = {"png": io.BytesIO(), "jpeg": io.BytesIO()}
    picture.quantize(COLOURS).save(forms["png"], "PNG", optimize=True)
    picture.save(forms["jpeg"], "JPEG", quality=80, optimize=True)
    return min(((kind, form.getvalue()) for kind, form in forms.items()), key=lambda x: len(x[1]))
