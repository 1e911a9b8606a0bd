"""The papers of small studies of a person's own images: each sentence is about that study."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

import figure_texts
from medscale.evaluate.replicates import Gallery
from medscale.report import style
from medscale.report.overview.figures import confusion
from medscale.report.paper.build import build, fill
from medscale.report.paper.facts import read_facts
from medscale.report.quality.assessment import confusion_panel
from medscale.report.reported import read_reported
from medscale.report.result.gallery import some_cases
from medscale.report.sources import REPORTED, reported
from paper_pages import pages_of_sections
from synthetic_runs import ROOT, configuration, make_study, report, report_shared

TEMPLATES = [
    Path("paper.tex.j2"),
    *(Path("sections") / p.name for p in (ROOT / "paper" / "sections").iterdir()),
]
LESIONS = [
    "actinic keratosis", "basal cell carcinoma", "dermatofibroma", "melanoma", "nevus",
    "pigmented benign keratosis", "seborrheic keratosis", "squamous cell carcinoma",
    "vascular lesion",
]  # fmt: skip
ONE: dict[str, Any] = {
    "classes": ["benign", "malignant"],
    "runs": ["serial_1cpu"],
    "baseline": "serial_1cpu",
    "title": "Lesions of the skin",
    "scale": "full",
    "seeds": [1],
    "images": 4000,
}
NINE: dict[str, Any] = {
    "classes": LESIONS,
    "runs": ["serial_1cpu", "ddp_2cpu"],
    "title": "Nine kinds of lesions",
    "class_titles": {"nevus": "nevus (mole)"},
    "split": {"mode": "published"},
    "datasheet": {"name": "Our clinic's lesions"},
    "seeds": [1],
    "images": 900,
}
SEVEN: dict[str, Any] = {
    "classes": ["akiec", "bcc", "bkl", "df", "mel", "nv", "vasc"],
    "runs": ["serial_1cpu", "ddp_2cpu", "serial_1gpu", "ddp_amp_2gpu"],
    "title": "Seven kinds of moles",
    "images": 700,
    "metadata": {"age": [30.0, 50.0, 70.0], "sex": ["female", "male"]},
}
STUDIES = {"one": ONE, "nine": NINE, "seven": SEVEN}
needs_latex = pytest.mark.skipif(shutil.which("latexmk") is None, reason="latexmk is not installed")

NEVER = (  # sentences about the project's own five studies
    "course project", "earlier project", "repeat these experiments", "datasets used here",
    "published figures", "No figures were published", "The split is the published one",
    r"\texttt{make study}", "ours and published", "published speedup", "synthetic",
)  # fmt: skip
ABSENT = {
    "one": (
        "mixed precision.", "on several, in", "At what cost", "Why", "beside the published",
        "on CPUs and GPUs", "speedup is", "How much faster",
        "distributed data parallel (DDP)", "Speedups of mixed-precision", "of the baseline",
        "small (", "lowest sensitivity",
        "Does another configuration", "Scaling analysis", "Amdahl's", "of many runs",
        "no other is both faster and cheaper", "demonstration", "variants", "localization",
        "McNemar", "earlier", "from the baseline", "The baseline", "Data-parallel training",
        "communication, checkpoints",
    ),
    "nine": (
        "on CPUs and GPUs", "mixed precision.", "AMP is",
        "AMP gain", "mixed precision contain", "run with several replicates",
        "fully sharded data parallel (FSDP)", "replicates (seeds",
    ),
    "seven": ("No age, sex, view", "trained once", "fully sharded data parallel (FSDP)"),
}  # fmt: skip
PRESENT = {
    "one": (
        "We train one network to classify medical images in one configuration: serial, 1 CPU",
        "in full precision", "Where the time goes", "nothing is compared",
        "the run (serial, 1 CPU, fp32) reaches",
        "The only strategy of this document is serial training in one process",
        "No run uses several devices: this study says nothing about scaling.",
        "no runs are compared", r"make study CONFIG=\textless file\textgreater",
        "The images are a folder that the user gave.", "A classifier of medical images",
    ),
    "nine": (
        "on one device and on several: one study, 2 runs on CPUs. Each run has one seed.",
        "The split is that of the folder.",
        "The images are a folder that the user gave: Our clinic", "The test set is small",
        "those of each class", "the 5 classes of the lowest sensitivity",
        "How much faster is it than one device", r"make study CONFIG=\textless file\textgreater",
    ),
    "seven": (
        "one study, 4 runs, all on CPUs; those named after GPUs were CPU processes. Each run has "
        "two seeds.",
        "divides the test images by",
        "AMP is automatic mixed precision", "The largest loss, and its causes",
    ),
}  # fmt: skip


@pytest.fixture(scope="module", params=list(STUDIES))
def study(request, tmp_path_factory) -> SimpleNamespace:
    """Figures, tables and facts of a user's study with made results."""
    folder = tmp_path_factory.mktemp("user")
    settings = dict(STUDIES[request.param])
    classes, runs = settings.pop("classes"), settings.pop("runs")
    results = make_study(folder, request.param, classes, runs, **settings)
    faults: dict[str, list[str]] = {}
    save = style.save

    def check_paper(figure: Figure, path: str | Path, mark: str = "", formats: str = "") -> None:
        save(figure, path, mark, formats)  # lays the figure out
        if descriptions := figure_texts.faults(figure):
            faults[str(path)] = descriptions

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(style, "save", check_paper)
        tables = report(folder, request.param, results).parent
        shared = report_shared(folder, results)
    facts = [tables / f"{name}.json" for name in ("facts", "quality", "scaling")]
    return SimpleNamespace(
        name=request.param, folder=folder, facts=facts, shared=shared, faults=faults
    )


def test_no_text_of_a_figure_is_cut_or_overlaps_another(study):
    assert study.faults == {}


def test_names_of_three_classes_and_long_names_do_not_collide():
    names = ["nevus", "seborrheic keratosis", "melanoma"]
    long = ["Psoriasis Pictures Lichen Planus And Related Diseases", "Acne And Rosacea Photos"]
    rows = [(True, names[0], names[0]), (False, *long), (False, *long[::-1])]
    cases = pd.DataFrame(rows, columns=["right", "true", "predicted"]).assign(probability=0.91)
    images = np.zeros((3, 8, 8, 3), np.uint8)
    with style.house():
        figure = style.new(3.25)
        panel = figure.subplots(2, 3)[0, 0]
        confusion_panel(panel, SimpleNamespace(classes=names, confusion=np.eye(3)))
        gallery = some_cases(Gallery(cases, np.zeros((3, 4, 4)), images, ""))
        assert figure_texts.faults(figure) == []
        assert figure_texts.faults(gallery) == []


def test_cut_and_overlapping_texts_are_noticed():
    figure = style.new(1.0)
    axes = figure.subplots()
    axes.text(0.5, 0.5, "first", transform=axes.transAxes)
    axes.text(0.51, 0.5, "second", transform=axes.transAxes)
    figure.text(0.99, 0.1, "beyond the page")
    assert figure_texts.faults(figure) == [
        "'beyond the page' leaves the page",
        "'first' overlaps 'second'",
    ]


def test_each_sentence_is_about_this_study(study):
    variables = read_facts(study.facts, study.shared) | {"workdir": "."}
    text = "\n".join(fill(ROOT / "paper", name, variables) for name in TEMPLATES)
    text = " ".join(re.sub(r"(?m)^%.*$", "", text).split())
    absent_words = [words for words in (*NEVER, *ABSENT[study.name]) if words in text]
    assert not absent_words
    missing = [words for words in PRESENT[study.name] if words not in text]
    assert not missing


def test_the_datasheet_and_the_cards_are_about_these_images(study):
    sheet = (study.folder / "data" / study.name / "datasheet.md").read_text(encoding="utf-8")
    cards = [path.read_text(encoding="utf-8") for path in study.folder.rglob("card.md")]
    for text in (sheet, *cards):
        assert "what was published" not in text
        assert "published for research by others" not in text
        assert "its publishers'" not in text
    if study.name == "nine":
        assert "Split: that of the folders or of index.csv" in sheet
        assert "| nevus (mole) |" in sheet


def test_classes_are_printed_by_their_titles_and_stored_by_their_names(study):
    if study.name == "nine":
        tables = study.folder / "tables" / "nine"
        for name in ("data", "per_class"):
            text = (tables / f"{name}.tex").read_text(encoding="utf-8")
            assert "nevus (mole)" in text
            assert "nevus (mole)" not in (tables / f"{name}.csv").read_text(encoding="utf-8")


def test_tables_of_a_single_run_have_no_columns_of_comparisons(study):
    tables = {path.stem: path.read_text(encoding="utf-8") for path in study.folder.rglob("*.tex")}
    for heading in ("difference", "baseline"):
        assert (heading in tables["results"]) == (study.name != "one")


def test_the_table_of_classes_has_the_scores_of_each(study):
    path = next(study.folder.rglob("per_class.tex"))
    lines = path.read_text(encoding="utf-8").splitlines()
    rows = [line for name in STUDIES[study.name]["classes"] for line in lines if name in line]
    assert len(rows) == len(STUDIES[study.name]["classes"])
    assert all(line.count("&") == 5 and "(" in line for line in rows)


@needs_latex
@pytest.mark.slow
def test_the_paper_is_built(study):
    build(ROOT / "paper", study.facts, study.shared, study.folder, study.folder / "paper.pdf")
    assert (study.folder / "paper.pdf").stat().st_size > 50_000
    assert pages_of_sections(study.folder)[STUDIES[study.name]["title"]] <= 4


def test_a_folder_has_no_published_figures_whatever_its_study_is_called():
    own_source = {"kind": "folder", "path": "raw", "synthetic": False, "options": {}}
    config = configuration("glaucoma", ["serial_1cpu"], source=own_source, preprocess={"size": 96})
    assert read_reported(reported(config, "glaucoma"), "glaucoma") == {}
    assert reported(configuration("glaucoma", ["serial_1cpu"]), "glaucoma") == REPORTED


@pytest.mark.parametrize("runs", [1, 2, 7])
@pytest.mark.parametrize("classes", [1, 2, 4, 5, 9, 23, 35])
def test_confusion_matrices_name_the_classes_and_fill_the_page(classes, runs):
    names = [f"class {number}" for number in range(classes)]
    results = [
        SimpleNamespace(name=name, classes=names, confusion=np.eye(classes, dtype=int))
        for name in [f"ddp_{number + 1}cpu" for number in range(runs)]
    ]
    with style.house():
        figure = confusion(results)
        figure.draw_without_rendering()
    width, height = figure.get_size_inches() * figure.dpi
    panels = [axes for axes in figure.axes if axes.get_title()]
    assert len(panels) == runs
    boxes = [axes.get_window_extent() for axes in panels]
    for box in boxes:
        assert 0 <= box.x0 < box.x1 <= width
        assert 0 <= box.y0 < box.y1 <= height
        assert box.width > 0.08 * width
    extent = [axes.get_tightbbox() for axes in figure.axes]
    center = (min(box.x0 for box in extent) + max(box.x1 for box in extent)) / 2
    assert abs(center - width / 2) < 0.15 * width
    rows = [label.get_text() for label in panels[0].get_yticklabels()]
    assert [row.rsplit("  ", 1)[0] for row in rows] == names
    assert any(label.get_text() for label in panels[-1].get_xticklabels())
