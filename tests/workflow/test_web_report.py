"""The first page and the headings of Snakemake's report."""

from __future__ import annotations

import base64
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from docutils.core import publish_parts
from jinja2 import Environment, StrictUndefined

from medscale.config.configuration import load
from medscale.report import style
from medscale.report.chapters import CHAPTERS
from medscale.workflow.chapters import Report
from medscale.workflow.graph import Graph
from medscale.workflow.headings import ALL_STUDIES, Headings, safe
from medscale.workflow.pictures import Figure, Picture, are_possible, pictures
from synthetic_runs import ROOT

HOSTILE = "</script> <b>|</b> `x`__ :y: {z} ${a} 'q' \"p\" _u_ v_ \\ *w* \x1b[0m"
poppler = pytest.mark.skipif(not are_possible(), reason="poppler is not installed")


def bytes_of(picture: Picture) -> tuple[str, bytes]:
    """Return the type and the bytes of a picture's data URL."""
    kind, text = "".join(picture.address.split()).removeprefix("data:image/").split(";base64,")
    return kind, base64.b64decode(text)


def line(path: Path) -> None:
    """Write a figure of two lines."""
    figure = style.new(2.5)
    figure.subplots().plot([1, 2, 4], [1.23456, 1.9, 3.1])
    style.save(figure, path)


def rendered(page: dict[str, Any], scale: str) -> str:
    """Return the first page as Snakemake renders it."""
    text = (ROOT / "report" / "workflow.rst").read_text("utf-8")
    environment = Environment(trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    config = {"scale": scale, "first_page": page}
    source = environment.from_string(text).render(snakemake=SimpleNamespace(config=config))
    return publish_parts(source, writer="html", settings_overrides={"halt_level": 2})["html_body"]


@poppler
@pytest.mark.parametrize(("vector", "kind"), [(True, "svg+xml"), (False, "png")])
def test_a_figure_is_a_small_picture(tmp_path, vector, kind):
    line(tmp_path / "line.pdf")
    figures = [Figure("Line", "", name, vector) for name in ("line.pdf", "missing.pdf")]
    (picture,) = pictures(figures, tmp_path)
    actual, content = bytes_of(picture)
    assert actual == kind
    assert 1_000 < len(content) < 30_000
    assert all(len(part) < 10_000 for part in picture.address.splitlines())  # docutils' limit


@poppler
def test_a_photograph_is_a_jpeg_and_what_is_no_figure_has_no_picture(tmp_path):
    figure = style.new(2.5)
    smooth = np.random.default_rng(0).random((40, 40, 3))
    figure.subplots().imshow(smooth, interpolation="bicubic")
    style.save(figure, tmp_path / "photograph.pdf")
    (tmp_path / "broken.pdf").write_bytes(b"%PDF-1.5")
    names = ("photograph.pdf", "broken.pdf")
    photograph, broken = pictures([Figure("A", "", name, False) for name in names], tmp_path)
    assert bytes_of(photograph)[0] == "jpeg"
    assert broken.address == ""


@poppler
def test_a_report_of_one_run_has_a_title_of_its_own_and_no_empty_figures(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["snakemake", "--report", "report.html"])
    source = {"kind": "folder", "path": str(tmp_path)}
    mine = {"title": "X-rays", "source": source, "classes": ["normal", "pneumonia"]}
    settings = {"workdir": str(tmp_path), "only": ["mine"], "studies": {"mine": mine}}
    (tmp_path / "figures" / "mine").mkdir(parents=True)
    style.save(style.only_text("no run on several devices"), tmp_path / "figures" / "how_far.pdf")
    line(tmp_path / "figures" / "mine" / "roc.pdf")
    page = Report(Graph(settings)).first_page()
    assert [picture.reason for picture in page["sections"][0]["pictures"]] == [
        "no run on several devices"
    ]
    html = rendered(page, "full")
    assert "A classifier of medical images" in html
    assert html.count("<img alt=") == 1
    assert "Not drawn: How far: speedup against devices (no run on several devices)." in html
    assert "<details open><summary>1 figures" in html


def test_a_table_with_a_header_alone_is_not_listed(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["snakemake", "--report", "report.html"])
    (tmp_path / "tables" / "glaucoma").mkdir(parents=True)
    for name, text in (("claims", "name,value\n"), ("runs", "run\nddp_2cpu\n")):
        (tmp_path / "tables" / f"{name}.csv").write_text(text)
    (tmp_path / "tables" / "glaucoma" / "reported.csv").write_text("run,value\n")
    report = Report(Graph({"workdir": str(tmp_path), "only": ["glaucoma"]}))
    outputs = [file for chapter in CHAPTERS for file in report.outputs(chapter)]
    listed = {str(file) for file in outputs if getattr(file, "flags", {}).get("report")}
    assert "tables/runs.csv" in listed
    assert not {"tables/claims.csv", "tables/{study}/reported.csv"} & listed
    assert {"tables/claims.csv", "tables/{study}/reported.csv"} <= {str(file) for file in outputs}


def test_headings_are_titles_in_the_order_of_the_configuration():
    config = load(ROOT / "config.yaml", {"only": ["skin", "glaucoma"]})
    headings = Headings(config)
    names = [SimpleNamespace(), *(SimpleNamespace(study=n) for n in ("skin", "glaucoma"))]
    categories = [headings.category(wildcards) for wildcards in names]
    assert categories == sorted(categories)
    assert categories[0] == f"0 {ALL_STUDIES}"
    assert categories[1] == "1 Skin diseases in clinical photographs"
    variant = SimpleNamespace(study="skin_random", run="ddp_amp_2gpu")
    assert headings.category(variant) == categories[1]
    assert headings.subcategory("Tables", variant) == "Variant, random split, as published"
    assert headings.subcategory("Tables", names[1]) == "Tables"
    assert headings.run_labels(variant)["run"] == "DDP + AMP, 2 GPU"


def test_a_study_of_anothers_images_is_a_study():
    headings = Headings(load(ROOT / "config.yaml"))
    wildcards = SimpleNamespace(study="dermatology")
    assert "DenseNet" in headings.category(wildcards)
    assert headings.subcategory("Tables", wildcards) == "Tables"


def test_titles_of_users_are_no_html_and_no_syntax():
    assert not set(safe(HOSTILE)) & set("<>`{}$'\"\\*|:\x1b/")
    assert safe("a" * 300).endswith("…")
    assert safe("Glaucoma, fundus (2 clinics)") == "Glaucoma, fundus (2 clinics)"


@poppler
def test_the_first_page_shows_each_study_by_its_title(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["snakemake", "--report", "report.html"])
    settings = {"scale": "demo", "workdir": str(tmp_path)}
    report = Report(Graph({**settings, "studies": {"glaucoma": {"title": HOSTILE}}}))
    for path in ("figures/how_far.pdf", "figures/glaucoma/roc.pdf", "figures/skin/audit.pdf"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        line(tmp_path / "line.pdf")
        shutil.copy(tmp_path / "line.pdf", tmp_path / path)
    html = rendered(report.first_page(), "demo")
    assert "How far does parallel training" in html
    assert html.count("<img alt=") == 3
    assert html.index("svg+xml") < html.index("Skin diseases in clinical photographs</h1>")
    assert safe(HOSTILE) in html
    assert "<b>|" not in html
    assert "of <em>glaucoma</em>" not in html
    assert "data/skin/audit.csv" in html.replace('</span><span class="pre">', "")


def test_the_report_lists_tables_and_documents_and_no_figure():
    report = Report(Graph({"scale": "demo"}))
    outputs = [path for chapter in CHAPTERS for path in report.outputs(chapter)]
    listed = [str(path) for path in outputs if "report" in getattr(path, "flags", {})]
    assert listed
    assert {Path(path).suffix for path in listed} == {".csv", ".md"}
