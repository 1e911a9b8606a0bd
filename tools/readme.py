"""Write the demo's table, minutes and pictures into README.md and docs/, from its outputs.

``python tools/readme.py [WORKDIR]`` reads the folder that `make study` filled (default: work/demo)
and writes

- docs/demo.csv, from tables/verdicts.csv, and the table between the markers in README.md;
- the minutes of `make study` on two cores, wherever these documents name them;
- docs/demo.png, from figures/at_what_cost.pdf (needs pdftoppm);
- docs/page.png, the web page that predicts a synthetic image (needs Chromium).
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from math import ceil
from pathlib import Path
from typing import Any

import pandas as pd

from medscale.base.errors import MedscaleError, tell_user
from medscale.base.files import read_table, write_csv
from medscale.base.timing import stage_times
from medscale.report.names import label
from medscale.report.synthesis.runs import BASELINE, NETWORK
from medscale.workflow.progress.state import read as read_progress

ROOT = Path(__file__).parent.parent
# The documents with the minutes of `make study`, and the words around the number.
TIMED = ("README.md", "docs/tutorial/demo.md")
MINUTES = re.compile(r"\b\d+(?=\s+minutes\s+on\s+(?:2|two)\s+cores)")
TABLE = ROOT / "docs" / "demo.csv"
BEGIN = "<!-- demo table: `make readme` writes these lines from the tables of the demo -->"
END = "<!-- end of the demo table -->"
COLUMNS = ["study", "title", "run", "devices", "stand_in", "verdict"]
COLUMNS += [f"{name}{end}" for name in ("speedup", "change") for end in ("", "_low", "_high")]
# The first test image of a class, and a network of two classes, which draws a heat map.
STUDY, CLASS, RESULT = "glaucoma", "glaucoma", "results/glaucoma/serial_1gpu"
WIDTH, HEIGHT = 900, 760  # of the browser's window, pixels
RESOLUTION = "250"  # of a figure, dots an inch; browsers lose thin lines of smaller pictures
SHARPNESS = 1.5  # pixels of the picture for a pixel of the window
NO_BREAK = "\N{NO-BREAK SPACE}"
EDGE = 16  # pixels around the prediction
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
LARGEST = 300_000  # bytes of a picture


def fastest(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the parallel run of each study that has the largest speedup."""
    compared = runs[(runs["devices"] > 1) & ~runs["verdict"].isin([BASELINE, NETWORK])]
    compared = compared[compared["speedup"].notna()]
    return compared.loc[compared.groupby("study", sort=False)["speedup"].idxmax()]


def table(runs: pd.DataFrame) -> str:
    """Return the Markdown table of the fastest parallel run of each study."""
    heads = ["study (demo)", "fastest parallel run", "speedup"]
    heads += ["Δ accuracy, points", "verdict on accuracy"]
    lines = [f"| {' | '.join(heads)} |", "|---|---|---|---|---|"]
    for _, row in fastest(runs).iterrows():
        name = label(str(row["run"])) + (f"{NO_BREAK}†" if row["stand_in"] else "")
        cells = [str(row["title"]), name, _interval(row, "speedup", ".2f")]
        lines.append(
            f"| {' | '.join([*cells, _interval(row, 'change', '+.1f'), row['verdict']])} |"
        )
    return "\n".join(lines)


def _interval(row: pd.Series, column: str, form: str) -> str:
    """Return a value and its interval, which stays in one line (no-break spaces)."""
    value, low, high = (row[f"{column}{end}"] for end in ("", "_low", "_high"))
    interval = "one seed" if pd.isna(low) else f"{low:{form}} to {high:{form}}"
    return f"{value:{form}} ({interval.replace(' ', NO_BREAK)})".replace("-", "\N{MINUS SIGN}")


def filled(readme: str, runs: pd.DataFrame) -> str:
    """Return the text of README.md with the table of these runs between its markers."""
    before, rest = readme.split(BEGIN)
    after = rest.split(END)[1]
    return f"{before}{BEGIN}\n\n{table(runs)}\n\n{END}{after}"


def minutes(workdir: Path) -> int | None:
    """Return the minutes, rounded up, of the call that made all; None if it made less."""
    recorded = read_progress(workdir)
    if recorded is None or recorded.state.ended is None or recorded.state.failed():
        return None
    if len(recorded.state.finished()) < stage_times(workdir)["jobs"].sum():
        return None
    return ceil((recorded.state.ended - recorded.state.start_time) / 60)


def write_minutes(number: int) -> None:
    """Replace the minutes of `make study` in the documents that name them."""
    for name in TIMED:
        file = ROOT / name
        text, count = MINUTES.subn(str(number), file.read_text(encoding="utf-8"))
        if not count:
            raise MedscaleError(f"{name} does not name the minutes of `make study` on two cores")
        file.write_text(text, encoding="utf-8")


def picture_of_figure(figure: Path, path: Path) -> None:
    """Write a figure's PDF as a PNG for screens."""
    command = [
        "pdftoppm",
        "-png",
        "-singlefile",
        "-r",
        RESOLUTION,
        str(figure),
        str(path.with_suffix("")),
    ]
    subprocess.run(command, check=True)


def picture_of_page(workdir: Path, path: Path) -> None:
    """Serve a result of the demo, predict a synthetic image in Chromium, and write a picture.

    Raises MedscaleError without a browser, or when the service does not start.
    """
    from playwright.sync_api import sync_playwright

    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise MedscaleError("Chromium is missing: `make setup-test` installs it")
    index = pd.read_parquet(workdir / "data" / STUDY / "index.parquet")
    chosen = index[(index["split"] == "test") & (index["label"] == CLASS)]
    image = workdir / "data" / "raw" / STUDY / chosen["path"].iloc[0]
    command = [sys.executable, "-u", "-m", "medscale.cli", "serve", str(workdir / RESULT)]
    service = subprocess.Popen([*command, "--port", "0"], stdout=subprocess.PIPE, text=True)
    try:
        assert service.stdout is not None
        address = next(
            filter(None, (re.search(r"http://[\d.:]+", line) for line in service.stdout)), None
        )
        if address is None:
            raise MedscaleError(f"medscale serve {RESULT} did not start")
        with sync_playwright() as playwright:
            arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
            opened = playwright.chromium.launch(executable_path=browser, args=arguments)
            page = opened.new_page(
                viewport={"width": WIDTH, "height": HEIGHT},
                color_scheme="light",
                device_scale_factor=SHARPNESS,
            )
            page.goto(address[0])
            page.wait_for_selector("#ask:not([hidden])")
            page.set_input_files("#files", image)
            page.wait_for_selector("#results:not([hidden])")
            page.wait_for_timeout(500)  # fading in
            results = page.locator("#results").bounding_box()
            pictures = page.locator(".pictures").bounding_box()
            assert results is not None
            assert pictures is not None
            top, bottom = results["y"], pictures["y"] + pictures["height"]
            clip = {"x": 0, "y": top - EDGE, "width": WIDTH, "height": bottom - top + 2 * EDGE}
            page.screenshot(path=path, full_page=True, clip=clip)
            opened.close()
    finally:
        service.send_signal(signal.SIGTERM)
        service.wait()


def compressed(path: Path, to: Path) -> None:
    """Write a picture with 256 colours; MedscaleError if it is still too large for a README."""
    from PIL import Image

    with Image.open(path) as image:
        image.convert("RGB").quantize(256).save(to, optimize=True)
    if to.stat().st_size > LARGEST:
        raise MedscaleError(f"{to} has {to.stat().st_size} bytes, more than {LARGEST}")


def main(workdir: Path) -> None:
    """Write the table and the pictures from the outputs of the demo."""
    verdicts = workdir / "tables" / "verdicts.csv"
    if not verdicts.exists():
        raise MedscaleError(f"{verdicts} does not exist: run `make study` first")
    runs = read_table(verdicts)[COLUMNS]
    write_csv(TABLE, runs.round(4))
    readme = ROOT / "README.md"
    readme.write_text(filled(readme.read_text(encoding="utf-8"), read_table(TABLE)), "utf-8")
    if (number := minutes(workdir)) is None:
        print(f"readme: the last call did not make all of {workdir}: the minutes stay as they are")
    else:
        write_minutes(number)
    with tempfile.TemporaryDirectory() as scratch:
        pictures = Path(scratch)
        picture_of_figure(workdir / "figures" / "at_what_cost.pdf", pictures / "demo.png")
        picture_of_page(workdir, pictures / "page.png")
        for name in ("demo.png", "page.png"):
            compressed(pictures / name, ROOT / "docs" / name)


if __name__ == "__main__":
    arguments: list[Any] = sys.argv[1:]
    tell_user(main)(Path(arguments[0]) if arguments else ROOT / "work" / "demo")
