"""Commands, code and links of the documents (``PAGES``), and the files that the commands need."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import yaml
from pydicom.data import get_testdata_file

from data_trees import class_tree, write
from medscale.base.code import ROOT
from medscale.config.configuration import load
from medscale.data.build import build_shards
from medscale.data.index import build_index
from medscale.data.settings import Dask, Preprocess, Source, Split
from medscale.data.shards import Shards
from medscale.evaluate.evaluation import evaluate
from medscale.evaluate.replicates import read
from medscale.exchange import croissant
from medscale.report.result.folder import write_result
from medscale.serve import bundle
from service_process import AGE_AND_SEX, make_result
from training_runs import TINY, Training, fork_ranks

SITE_PAGES = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [
    *(ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md")),
    ROOT / "config" / "README.md",
    *SITE_PAGES,
]
RECIPES = set((ROOT / "docs" / "recipes").glob("[a-z]*.md"))  # carried out by test_recipes.py
PROGRAMS = ("make", "medscale", "snakemake")  # whose commands count within a sentence too
FENCE = re.compile(r"^( *)(`{3,})([^\n`]*)\n(.*?)^\1\2 *$", re.M | re.S)
# The results that the documents name; each is a copy of the one that is trained.
RESULTS = [
    "results/skin/ddp_amp_4gpu",
    "results/pneumonia/ddp_4gpu_yolov8n",
    "results/glaucoma/serial_1cpu",
    "work/demo/results/glaucoma/ddp_2gpu",
    "work/xrays/results/xrays/serial_1cpu",
    "work/gpu/results/glaucoma/serial_1gpu",
]


class Fence(NamedTuple):
    """A fenced block of a page."""

    page: Path
    language: str
    text: str


def fences(page: Path) -> Iterator[Fence]:
    """Yield the fenced blocks of a page."""
    for indent, _, language, text in FENCE.findall(page.read_text(encoding="utf-8")):
        lines = [line.removeprefix(indent) for line in text.splitlines()]
        yield Fence(page, language.strip(), "\n".join(lines))


def prose(page: Path) -> str:
    """Return the text of a page without its fenced blocks."""
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def commands() -> dict[str, Path]:
    """Return every command of the documents, with the first page that has it."""
    commands_by_page: dict[str, Path] = {}
    for page in PAGES:
        for fence in fences(page):
            if fence.language == "sh" and page not in RECIPES:
                for command in _split(fence.text):
                    commands_by_page.setdefault(command, page)
        for span in re.findall(r"`([^`]+)`", prose(page)):
            text = " ".join(span.split())
            if text.startswith(tuple(f"{program} " for program in PROGRAMS)):
                commands_by_page.setdefault(text, page)
    return commands_by_page


def _split(text: str) -> Iterator[str]:
    """Yield the commands of a block, without comments, continued lines joined."""
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        for part in re.sub(r"\s#\s.*", "", line).split(" && "):
            if part.strip():
                yield part.strip()


def words(command: str) -> list[str]:
    """Return the words of a command."""
    return shlex.split(command)


def links(page: Path) -> Iterator[str]:
    """Yield the targets of the links and pictures of a page that lead to files."""
    text = re.sub(r"`[^`]*`", "", prose(page))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not re.match(r"[a-z]+:", target):
            yield target


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub and the site make them."""
    titles = re.findall(r"^#+ (.+)$", prose(page), re.M)
    plain = [re.sub(r"[^\w\- ]", "", title.lower()) for title in titles]
    return {title.strip().replace(" ", "-") for title in plain}


def make_workspace(folder: Path) -> None:
    """Write the files that commands of the documents name: results, images, a configuration."""
    class_tree(folder / "images", {"normal": 16, "glaucoma": 16})
    classes, dask = ["normal", "glaucoma"], Dask(workers=1)
    division = Split(train=0.5, val=0.25, test=0.25)
    data = folder / "data" / "glaucoma"
    build_index(Source(kind="folder", path=folder / "images"), division, classes, dask, data)
    index, steps = data / "index.parquet", Preprocess(size=16, chunk=16)
    build_shards(index, folder / "images", steps, dask, data / "shards")
    scratch = folder / "scratch"
    scratch.mkdir()
    spec, shards, _, log = Training(scratch, data / "shards", TINY).paths("serial_1cpu")
    replicate = folder / "runs" / "glaucoma" / "serial_1cpu" / "seed1"
    replicate.mkdir(parents=True)
    shutil.copy2(spec, replicate / "spec.json")
    fork_ranks([str(replicate / "spec.json"), shards, str(replicate), log], 1)
    training_folder, images = folder / "made", Shards.open(data / "shards")
    write_result(
        evaluate([replicate], index, resamples=20),
        training_folder,
        further=lambda *arguments: bundle.put([read(replicate)], images, *arguments),
    )
    for name in RESULTS:
        shutil.copytree(training_folder, folder / name)
    metadata = folder / "results" / "melanoma_metadata" / "serial_1gpu"
    make_result(metadata, "serial_1gpu", ["benign", "melanoma"], 1, AGE_AND_SEX, 1.5)
    shutil.copytree(data, folder / "data" / "skin")
    settings = load(ROOT / "config.yaml").study("skin")
    croissant.write("skin", settings, folder / "data" / "skin")
    _write_images(folder)
    _write_configuration(folder)


def _write_images(folder: Path) -> None:
    write(folder / "photo.jpg", 900)
    write(folder / "new.png", 901)
    shutil.copy2(get_testdata_file("CT_small.dcm"), folder / "scan.dcm")
    class_tree(folder / "chest-xrays", {"normal": 12, "pneumonia": 12}, seed=100)
    for copy in ("xrays", "work/demo/data/raw/glaucoma/test/1"):
        shutil.copytree(folder / "images" / "normal", folder / copy)
    class_tree(folder / "clinic", {"normal": 6, "healthy": 2, "glaucoma": 6}, seed=200)
    class_tree(folder / "data" / "raw" / "melanoma", {"ISIC-2017_Test_v2_Data": 1}, seed=300)


def _write_configuration(folder: Path) -> None:
    """Write mine.yaml as the tutorial asks for it: the example with another path."""
    changes = yaml.safe_load((ROOT / "examples" / "xrays.yaml").read_text(encoding="utf-8"))
    changes["workdir"] = str(folder / "work" / "xrays")
    changes["studies"]["xrays"]["source"]["path"] = str(folder / "chest-xrays")
    (folder / "mine.yaml").write_text(yaml.safe_dump(changes), encoding="utf-8")
