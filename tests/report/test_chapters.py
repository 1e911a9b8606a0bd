"""Chapters: each declares once what it reads and shows, and the writer holds it to that."""

from __future__ import annotations

import importlib
import inspect
import re
import subprocess
import sys
from types import SimpleNamespace

import pandas as pd
import pytest
from matplotlib.figure import Figure

from medscale.base.errors import MedscaleError
from medscale.config.benchmarks import Benchmarks
from medscale.config.configuration import load
from medscale.report import writer
from medscale.report.chapter import Chapter
from medscale.report.chapters import CHAPTERS, chapters_of, refuse_absent, settings_of
from medscale.report.writer import Pages
from medscale.workflow.chapters import Report
from medscale.workflow.graph import Graph, check_target
from synthetic_runs import ROOT


def no_inputs(config, study):
    return {}


TOY = Chapter(
    "toy",
    no_inputs,
    figures={"dots": "Dots of *{study}*."},
    tables={"rows": "", "raw": ""},
    unprinted=("raw",),
    facts="toy",
)
RAW = pd.DataFrame({"a": [1.5]})
TABLES = {"rows": ("a & b", RAW), "raw": RAW}
MARKS = [{"synthetic": True, "stand_in": False, "scale": "demo"}]
WHOLE = {"marks": MARKS, "figures": {"dots": Figure()}, "tables": TABLES, "facts": {}}


def write_toy(monkeypatch, folder, **content):
    module = SimpleNamespace(CHAPTER=TOY, make=lambda study, **arguments: Pages(**content))
    for name in ("chapter", "make"):
        monkeypatch.setitem(sys.modules, f"medscale.report.toy.{name}", module)
    writer.write_chapter("toy", "s", {}, folder)


def test_the_writer_writes_all_that_is_declared(monkeypatch, tmp_path):
    write_toy(monkeypatch, tmp_path, **WHOLE | {"facts": {"one": 1}})
    written_files = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}
    tables = {f"tables/s/{name}" for name in ("rows.tex", "rows.csv", "raw.csv", "toy.json")}
    assert written_files == {"figures/s/dots.pdf"} | tables


def test_the_caption_of_a_table_says_whether_the_paper_prints_it():
    captions = {
        path: caption for chapter in CHAPTERS for path, _, _, caption in chapter.report_files()
    }
    assert captions["tables/{study}/results.csv"].endswith("the paper prints it rounded.")
    assert captions["tables/{study}/timing.csv"].endswith("the paper does not print it.")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"figures": {"dots": Figure(), "more": Figure()}}, "'more': declare it"),
        ({"figures": {}}, "'dots': make it"),
        ({"tables": {}}, "'rows': make it"),
        ({"tables": TABLES | {"rows": RAW}}, "LaTeX of 'rows': make it"),
        ({"tables": TABLES | {"raw": ("a & b", RAW)}}, "LaTeX of 'raw': declare it"),
        ({"documents": {"data/{study}/x.md": ""}}, "document .*: declare it"),
        ({"facts": None}, "facts 'toy': make it"),
    ],
)
def test_the_writer_refuses_what_differs_from_the_declaration(
    monkeypatch, tmp_path, change, message
):
    with pytest.raises(MedscaleError, match=message):
        write_toy(monkeypatch, tmp_path, **WHOLE | change)
    assert not list(tmp_path.rglob("*.*"))


@pytest.mark.parametrize("scale", ["demo", "full"])
def test_a_chapter_gets_the_arguments_that_it_declares(scale):
    config = load(ROOT / "config.yaml", {"scale": scale})
    for chapter in CHAPTERS:
        make = importlib.import_module(f"medscale.report.{chapter.name}.make").make
        expected = {
            name
            for name, parameter in inspect.signature(make).parameters.items()
            if parameter.kind is parameter.KEYWORD_ONLY
        }
        for study in [""] if chapter.spans_studies else config.active:
            if not chapter.spans_studies and not chapter.present(config, study):
                continue
            arguments = {**chapter.inputs(config, study), **settings_of(chapter, config, study)}
            arguments.pop("class_titles", None)  # taken out by write_chapter
            assert set(arguments) == expected, chapter.name


def test_a_report_shows_titles_instead_of_names_of_files():
    titles = {title for chapter in CHAPTERS for _, title, _, _ in chapter.report_files()}
    assert {"How far: speedup against devices", "ROC curves"} <= titles
    assert all(title[0].isupper() and "_" not in title for title in titles)


def test_no_file_is_written_by_two_chapters():
    paths = [path for chapter in CHAPTERS for path, *_ in chapter.report_files()]
    paths += [path for chapter in CHAPTERS for path in chapter.paper_files()]
    assert len(paths) == len(set(paths))
    assert all(chapter.remedy for chapter in CHAPTERS if not chapter.present(BARE, "glaucoma"))


BARE = load(
    ROOT / "config.yaml",
    {
        "only": ["glaucoma"],
        "studies": {
            "glaucoma": {
                "evaluate": {"gradcam": "none"},
                "benchmarks": dict.fromkeys(Benchmarks.model_fields),
                "profile": {"runs": []},
                "convergence": {"runs": None},
                "sweep": None,
                "runs": ["serial_1cpu"],
                "baseline": "serial_1cpu",
            },
            "glaucoma_published": None,
        },
    },
)


def test_a_study_has_the_chapters_that_its_section_asks_for():
    names = [chapter.name for chapter in chapters_of(BARE, "glaucoma")]
    assert names == ["overview", "samples", "datasheet", "quality", "scaling"]
    for kind, name, remedy in (
        ("figures", "gradcam", "evaluate.gradcam"),
        ("tables", "loading", "benchmarks.loading"),
        ("figures", "variants", "variant_of"),
        ("tables", "detection", "a detector"),
    ):
        with pytest.raises(MedscaleError, match=remedy):
            refuse_absent(BARE, "glaucoma", kind, name)
        with pytest.raises(MedscaleError, match=remedy):
            check_target(BARE, f"{kind}/glaucoma/{name}.pdf")
    refuse_absent(BARE, "glaucoma", "figures", "accuracy")


def test_the_paper_prints_the_tables_that_have_latex_and_no_others():
    text = "".join(path.read_text() for path in (ROOT / "paper").rglob("*.tex.j2"))
    macros = r"\\(?:study|long(?:study)?|all)tables?(?:\{<< n >>\})?\{(\w+)\}"
    printed = set(re.findall(macros, text)) | set(re.findall(r"\\tablefile\{#1/(\w+)\}", text))
    printed |= {name for pair in re.findall(PAIR, text) for name in pair} - {"checklist_"}
    names = {name for chapter in CHAPTERS for name in chapter.printed}
    assert printed == {name for name in names if not name.startswith("checklist_")}


PAIR = r"\\studytables\{<< n >>\}\{(\w+)\}\{[^}]*\}\{(\w+)\}"


def test_declarations_import_nothing_heavy():
    code = "import sys, medscale.workflow.chapters as c; "
    code += "sys.exit(sorted({'pandas', 'matplotlib', 'numpy', 'torch'} & set(sys.modules)) or 0)"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert not process.returncode, process.stderr


def test_a_chapter_depends_on_its_own_code_and_settings_alone():
    report = Report(Graph({"scale": "demo"}))
    codes = {chapter.name: report.code(chapter) for chapter in CHAPTERS}
    assert len(set(codes.values())) == len(codes)
    other_report = Report(Graph({"scale": "demo", "dask": {"workers": 1}}))
    glaucoma = SimpleNamespace(study="glaucoma")
    for chapter in CHAPTERS:
        wildcards = SimpleNamespace() if chapter.spans_studies else glaucoma
        if chapter.spans_studies or chapter.present(report.config, "glaucoma"):
            assert report.arguments(chapter, wildcards) == other_report.arguments(
                chapter, wildcards
            )


def test_captions_are_files_where_a_report_is_made(monkeypatch):
    report = Report(Graph({"scale": "demo"}))
    assert report._caption("figures/{study}/a.pdf", "Of *{study}*.") is None
    monkeypatch.setattr(sys, "argv", ["snakemake", "--report", "report.zip"])
    report = Report(Graph({"scale": "demo"}))
    path = report._caption("figures/{study}/a.pdf", "Of *{study}*.")
    with open(path, encoding="utf-8") as file:
        assert file.read() == "Of *{{ snakemake.wildcards.study }}*."
