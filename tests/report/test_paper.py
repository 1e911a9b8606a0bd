"""The paper stops at an undefined fact, figure or reference, and is built with any class names."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from medscale.base.errors import MedscaleError
from medscale.base.files import read_json
from medscale.data.inventory import NO_FILE
from medscale.report.paper.build import build, fill
from medscale.report.paper.facts import read_facts
from medscale.report.paper.filters import FILTERS, listed, listed_titles, printed, spelled
from medscale.report.units import unit_of_files
from medscale.report.writer import write_chapter
from medscale.workflow.pictures import Figure, are_possible, pictures
from paper_pages import pages_of_sections, wide_lines
from synthetic_profiles import make_profile
from synthetic_runs import ROOT, configuration, make_chapter, make_study, report, report_shared

RUNS = ["serial_1cpu", "serial_1gpu", "ddp_amp_2gpu"]
FACTS = ("facts", "quality", "scaling")
MOST_PAGES, MOST_WORDS = 4, 200  # of a study in the appendix, of the abstract
SOURCES = sorted((ROOT / "paper").rglob("*.tex.j2"))
needs_latex = pytest.mark.skipif(shutil.which("latexmk") is None, reason="latexmk is not installed")


def facts_of(folder: Path, study: str, results: list[Path]) -> list[Path]:
    """Write a study's figures and tables; its files of facts."""
    tables = report(folder, study, results).parent
    return [tables / f"{name}.json" for name in FACTS]


@pytest.fixture(scope="module")
def two_studies(tmp_path_factory) -> SimpleNamespace:
    """Two studies, one with names that LaTeX would stumble over."""
    folder = tmp_path_factory.mktemp("paper")
    facts, results = [], []
    odd = ["a_b & 50 %", "mélanome", "#x {y}~", "\\end{document}", "肺炎 β"]
    settings = {
        "title": "Skin & more: 100 % of_it é",
        "baseline": "serial_1cpu",
        "profile": {"runs": RUNS},
    }
    for study, classes, more in (
        ("glaucoma", ["normal", "glaucoma"], {}),
        ("user_s", odd, settings),
    ):
        results += make_study(folder, study, classes, RUNS, **more)
        facts += facts_of(folder, study, results[-len(RUNS) :])
    config = configuration("user_s", RUNS, **settings)
    profiles = [make_profile(folder, config, "user_s", run) for run in RUNS]
    write_chapter("profiling", "user_s", {"folders": list(map(str, profiles))}, folder)
    facts.append(folder / "tables" / "user_s" / "profile.json")
    sweep = {"runs": ["serial_1cpu"], "lr": [1e-3]}  # the configured one, which is trained
    config = configuration("glaucoma", RUNS, sweep=sweep)
    for chapter in ("convergence", "sweep"):
        make_chapter(folder, config, "glaucoma", chapter)
        facts.append(folder / "tables" / "glaucoma" / f"{chapter}.json")
    return SimpleNamespace(folder=folder, facts=facts, made=report_shared(folder, results))


@pytest.mark.skipif(not are_possible(), reason="poppler is not installed")
def test_pictures_of_the_web_report_are_small(two_studies):
    """111 figures of the demo, tables and Snakemake's scripts have to fit into 8 MB."""
    folder = two_studies.folder
    files = sorted(path.relative_to(folder) for path in folder.glob("figures/**/*.pdf"))[::3]
    drawn = [Figure("", "", str(path), vector=len(path.parts) == 2) for path in files]
    sizes = [len(picture.address) for picture in pictures(drawn, folder)]
    assert len(sizes) == len(files) > 10
    assert min(sizes) > 0
    assert sum(sizes) / len(sizes) < 40_000


@pytest.fixture
def text(tmp_path) -> Path:
    """A copy of the paper's text that a test may change."""
    shutil.copytree(
        ROOT / "paper", tmp_path / "text", ignore=shutil.ignore_patterns("build", "*.pdf")
    )
    return tmp_path / "text"


def say(text: Path, sentence: str) -> int:
    """Append a sentence to the introduction; its line."""
    file = text / "sections" / "introduction.tex.j2"
    body = file.read_text(encoding="utf-8")
    file.write_text(body + sentence + "\n", encoding="utf-8")
    return len(body.splitlines()) + 1


def shorten(text: Path) -> None:
    """Leave all sections but the introduction out of a text, since LaTeX takes long for them."""
    file = text / "paper.tex.j2"
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [x for x in lines if not x.startswith(r"\input{") or "introduction" in x]
    assert len(lines) - len(kept) > 10
    file.write_text("".join(kept), encoding="utf-8")


def words(pdf: Path) -> str:
    process = subprocess.run(
        ["pdftotext", "-layout", str(pdf), "-"], capture_output=True, text=True, check=True
    )
    return process.stdout


@pytest.mark.parametrize(
    ("sentence", "message"),
    [
        ("It took << studies[0].no_such_fact|milliseconds >> ms.", "no attribute 'no_such_fact'"),
        ("See << studies[0].runs[7].label >>.", "no element 7"),
        ("<< studies[0].baseline.scores.accuracy.mean >> of all.", "needs a filter"),
        ("<< studies[0].classes >>", "needs a filter"),
        ("<< studies[0].title|percent >>", "str"),
        ("<% if demo %>never closed", "endif"),
    ],
)
def test_an_undefined_or_unformatted_fact_stops_the_build(two_studies, text, sentence, message):
    line = say(text, sentence)
    out = two_studies.folder / "paper" / "a.pdf"
    with pytest.raises(MedscaleError, match=message) as error:
        build(text, two_studies.facts, two_studies.made, two_studies.folder, out)
    assert re.search(rf"introduction\.tex\.j2:{line}: ", str(error.value))
    assert not out.exists()


@pytest.mark.parametrize("sentence", ["<< s.no_such_fact >>", "<% if s %>never closed"])
def test_a_mistake_in_a_part_of_a_study_is_located_in_its_file(two_studies, text, sentence):
    file = text / "study" / "data.tex.j2"
    body = file.read_text(encoding="utf-8")
    file.write_text(body + sentence + "\n", encoding="utf-8")
    with pytest.raises(MedscaleError) as error:
        build(text, two_studies.facts, two_studies.made, two_studies.folder, text / "a.pdf")
    assert str(error.value).startswith(f"{file}:{len(body.splitlines()) + 1}: ")


def test_every_fact_of_a_study_is_read_under_the_name_of_its_file(two_studies):
    variables = read_facts(two_studies.facts, two_studies.made)
    assert [study["name"] for study in variables["studies"]] == ["glaucoma", "user_s"]
    assert variables["studies"][1]["scaling"] == read_json(two_studies.facts[5])
    assert "profile" not in variables["studies"][0]
    assert variables["studies"][1]["profile"]["runs"]
    assert variables["demo"]
    assert variables["mark"] == "demo: synthetic images; CPU processes in place of GPUs"


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("<< 0.8712|percent >>", "87.1"),
        ("<< none|percent >>", "--"),
        ("<< 0.05|percent(0) >>", "5"),
        ("<< 0.125|share >> << 0.7|share >>", "12.5 70"),
        ("<< 0.9794|score >> << 1.046|ratio >>", "0.979 1.05"),
        ("<< 0.00123456|milliseconds >> << 2.345|significant(2) >>", "1.23 2.3"),
        ("<< 0.0001|setting >> << 8|setting >> << 2.0|setting >>", "0.0001 8 2"),
        ('<< {"low": 0.84, "high": 0.902}|interval("percent") >>', "84.0--90.2"),
        ('<< {"low": -1, "high": 2}|interval("ratio") >>', r"\ensuremath{-}1.00 to 2.00"),
        ('<< {"low": none, "high": none}|interval("ratio") >>', "no interval"),
        ('<< {"low": -0.456, "high": -0.023}|magnitudes >>', "2.3 to 45.6"),
        ('<< {"low": 0.0841, "high": 0.0842}|extent("percent") >>', "8.4"),
        ('<< {"low": 0.0841, "high": 0.1}|extent("percent") >>', "8.4--10.0"),
        ('<< "50 %" >> << "a_b"|latex >> << 3 >>', r"50\,\% a_b 3"),
    ],
)
def test_filters_format_raw_values(tmp_path, template, expected):
    (tmp_path / "a.tex.j2").write_text(template)
    assert fill(tmp_path, Path("a.tex.j2"), {}) == expected


def test_each_filter_is_used_and_no_macro_is_left():
    text = "".join(path.read_text(encoding="utf-8") for path in SOURCES)
    assert r"\val{" not in text
    assert [name for name in FILTERS if not re.search(rf"\|{name}\b", text)] == []
    assert max(len(line) for line in text.splitlines()) <= 100


def test_no_result_is_typed_by_hand():
    allowed = {"95", "1"}
    for path in SOURCES:
        body = re.sub(r"<[%#<].*?[%#>]>", "", path.read_text(encoding="utf-8"))
        for match in re.findall(
            r"(?<![\w.{/\-=:])\d+(?:\.\d+)?(?=\s*\\,\\%|\s*%| s\b| images)", body
        ):
            assert match in allowed, f"{path.name}: {match}"


def test_lists_and_small_numbers_read_as_in_a_sentence():
    assert listed(["a"]) == "a"
    assert listed(["a", "b", "c"]) == "a, b and c"
    assert listed(["DDP, 2 GPU", "serial, 1 CPU"]) == "DDP, 2 GPU and serial, 1 CPU"
    assert listed(["DDP, 2 GPU", "b", "c"]) == "DDP, 2 GPU; b; and c"
    assert listed_titles(["Skin & nails", "Eyes"]) == r"\emph{Skin \& nails} and \emph{Eyes}"
    assert [spelled(count) for count in (0, 5, 13)] == ["no", "five", "13"]
    assert printed("by up to 10 %") == r"by up to 10\,\%"  # no line ends before the sign


@needs_latex
@pytest.mark.slow
def test_the_paper_of_two_studies_is_built_marked_and_the_same_each_time(two_studies):
    pdf = two_studies.folder / "paper" / "paper.pdf"
    build(ROOT / "paper", two_studies.facts, two_studies.made, two_studies.folder, pdf)
    first, pages = pdf.read_bytes(), words(pdf).split("\f")[:-1]
    assert len(pages) > 6
    for number, page in enumerate(pages, start=1):
        assert "demo: synthetic images; CPU processes in place of GPUs" in page, number
    whole = " ".join(" ".join(pages).split())
    for phrase in (
        "a b & 50 %",
        "mélanome",
        "#x {y}~",
        "\\end{document}",
        "[U+80BA]",
        "Skin & more: 100 % of_it é",
    ):
        assert phrase in whole, phrase
    assert whole.count("Comparison with the published figures") == 1  # of glaucoma alone
    assert not wide_lines(two_studies.folder)
    pages_of = pages_of_sections(two_studies.folder)
    studies = [title for title in pages_of if "Glaucoma" in title or "Skin" in title]
    assert len(studies) == 2
    assert max(pages_of[title] for title in studies) <= MOST_PAGES
    abstract = re.search(r"Abstract (.*?) 1 Introduction", whole)
    assert abstract is not None
    assert len(abstract[1].split()) <= MOST_WORDS
    targets = "".join(whole.split())
    assert "figures/at_what_cost.pdf" in targets
    assert "figures/user_s/curves.pdf" in targets
    assert "Where a step’s time goes" in whole
    assert "tables/user_s/roofline.tex" in targets
    accuracy = read_json(two_studies.facts[0])["baseline"]["scores"]["accuracy"]["mean"]
    assert f"{100 * accuracy:.1f} % of the test images correctly" in whole
    build(ROOT / "paper", two_studies.facts, two_studies.made, two_studies.folder, pdf)
    assert pdf.read_bytes() == first
    text = "".join(
        path.read_text()
        for path in (two_studies.folder / "paper" / "build" / "sections").glob("*.tex")
    )
    shown_names = re.findall(r"\\study(figure|table)s?\{([^}]*)\}\{([^}]*)\}", text)
    labels = [f"{kind[:3]}:{study}:{name}" for kind, study, name in shown_names]
    labels += [
        f"{kind[:3]}:{name}" for kind, name in re.findall(r"\\all(figure|table)\{([^}]*)\}", text)
    ]
    assert len(labels) > 15
    uncited = [label for label in labels if f"\\ref{{{label}}}" not in text]
    assert not uncited


@needs_latex
@pytest.mark.slow
@pytest.mark.parametrize(
    ("sentence", "message"),
    [
        (r"\studyfigure{glaucoma}{nowhere}{None.}", r"introduction\.tex:\d+:.*nowhere\.pdf"),
        (
            r"\studytable{glaucoma}{nowhere}{None.}",
            r"introduction\.tex:\d+: .*table glaucoma/nowhere\.tex is missing",
        ),
        (r"\undefinedthing", r"introduction\.tex:\d+: Undefined control sequence"),
        (r"See Table~\ref{tab:nowhere}.", "Reference `tab:nowhere'"),
        (r"As shown \cite{nobody2020}.", "nobody2020"),
    ],
)
def test_what_is_wrong_in_the_text_is_reported_in_one_message(two_studies, text, sentence, message):
    shorten(text)
    say(text, sentence)
    with pytest.raises(MedscaleError, match=message):
        build(
            text,
            two_studies.facts,
            two_studies.made,
            two_studies.folder,
            two_studies.folder / "paper" / "wrong.pdf",
        )
    assert not (two_studies.folder / "paper" / "wrong.pdf").exists()


@needs_latex
@pytest.mark.slow
def test_a_study_without_stand_ins_has_no_mark(tmp_path):
    settings = {"scale": "full", "baseline": "serial_1cpu"}
    results = make_study(tmp_path, "glaucoma", ["a", "b"], ["serial_1cpu", "ddp_2cpu"], **settings)
    facts = facts_of(tmp_path, "glaucoma", results)
    facts_files = report_shared(tmp_path, results)
    build(ROOT / "paper", facts, facts_files, tmp_path, tmp_path / "paper" / "paper.pdf")
    whole = words(tmp_path / "paper" / "paper.pdf").lower()
    assert not [word for word in ("demo", "stand-in", "synthetic", "in place of") if word in whole]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"same_patients": {"train": 4, "val": 0, "test": 1}},
            r"\(60 images of 30 patients\) is evaluated .* \\textbf\{4 of its images are of "
            r"patients whose names are in the training split\}, and 1 of patients",
        ),
        (
            {"same_patients": {"train": 0, "val": 0, "test": 0}},
            "None of its images is of a patient whose name is in the study.",
        ),
        (
            {"same_patients": None, "patients": "not known"},
            r"\(60 images\) is .* not known, since the patients of the set are not\.",
        ),
        ({"same_patients": None}, r"not known, since the patients of the study are not\."),
    ],
)
def test_an_external_set_is_in_the_paper_with_its_patients_and_a_table(two_studies, changes, words):
    variables = read_facts(two_studies.facts, two_studies.made)
    study = next(s for s in variables["studies"] if s["name"] == "glaucoma")
    ends = {"mean": 0.7, "low": 0.6, "high": 0.8}
    sides = dict.fromkeys(("inside", "outside", "difference"), ends)
    scores = dict.fromkeys(("auroc", "balanced_accuracy"), sides)
    images: dict[str, Any] = {
        "title": "Clinic B", "label": "serial, 1 CPU", "images": 60, "groups": 30, "points": [],
        "patients": "known", "over": "patients", "scores": scores, "missing": [], "copies": None,
    }  # fmt: skip
    study["external"] = {"sets": [images | changes], "sources": [], "worst": None}
    text = " ".join(fill(ROOT / "paper", Path("sections") / "studies.tex.j2", variables).split())
    assert re.search(words, text)
    assert r"Table~\ref{tab:glaucoma:external} compares the scores" in text
    assert text.count(r"\studytable{glaucoma}{external}") == 1


def test_the_section_of_a_study_says_what_its_facts_support(two_studies):
    variables = read_facts(two_studies.facts, two_studies.made)
    study = next(s for s in variables["studies"] if s["name"] == "glaucoma")
    ends = {"lowest": 0.02, "highest": 0.98}
    useful = {"ranges": [{"low": 0.02, "high": 0.02}, {"low": 0.14, "high": 0.9}], "count": 40}
    rate = {"by": "view", "part": "AP", "class": "glaucoma", "wanted": 0.9, "rate": "sensitivity"}
    gap = rate | {"other": "PA", "mean": 0.247, "low": 0.023, "high": 0.456}
    study["quality"] |= {
        "useful": useful | {"all": 49} | ends,
        "subgroups": ["view"],
        "undefined_subgroups": True,
        "apart_subgroups": [gap, gap | {"other": None, "mean": -0.1, "low": -0.2, "high": -0.01}],
    }
    audit = {"found": 1010, "used": 500, "missing": 1}
    study["files"] = audit | {"unit": unit_of_files({"by_reason": {NO_FILE: 1}})}
    study |= {"groups": "patients", "groups_in_two_splits": True, "repeated": True}
    study["coinciding"] = [{"visible": "DDP, 2 CPU", "hidden": ["DDP, 2 GPU"]}]
    study["recipe"] |= {"label_smoothing": 0.1, "ema": 0.99}
    study["preprocess"] |= {"clahe": {"clip_limit": 2.0, "tiles": 4}, "gamma": 1.2, "median": None}
    study["formats"] = "fp32"
    text = fill(ROOT / "paper", Path("sections") / "studies.tex.j2", variables)
    section = " ".join(text.split())
    for sentence in (
        "at 40 of the 49 threshold probabilities examined (0.02 to 0.98): 0.02 and 0.14 to 0.90.",
        r"at the threshold for 90\,\% specificity, the sensitivity of view \emph{AP} is "
        r"24.7 points higher (2.3 to 45.6) than that of \emph{PA};",
        "is 10.0 points lower (1.0 to 20.0) than that of all other images.",
        "files and entries of a table, ",
        "510 are left out, 1 of them listed but missing (Table",
        "patients with images in two splits count once under ``all''.",
        "DDP, 2 GPU lies on DDP, 2 CPU.",
        "dashed: all images. Undefined: the subgroup has one class only.}",
        "thresholds are means over replicates, each of which has its own, and rates are means over "
        "seeds.",
        "until the target (mean over the replicates that reach it)",
        r"pixels, their local contrast is equalized (limit 2, 4$\times$4 tiles), and gamma is set",
        r"Labels are smoothed by 0.1 \cite{szegedy2016}.",
        "use a moving average of the weights, with decay 0.99",
        "The number format is fp32.",
    ):
        assert sentence in section, sentence
    for low, high, words in (
        (9.7, 9.7, "(lower is better). Matthews"),  # hardly any resample has a slope
        (9.1, 9.9, "9.10--9.90): the probabilities are not extreme enough."),
        (0.2, 1.1, "0.20--1.10). Matthews"),
        (0.2, 0.9, "0.20--0.90): the probabilities are too extreme."),
        (-0.2, 0.9, "too extreme, and are not shown to agree with the labels at all."),
        (-0.9, -0.2, "run against the labels (the higher the probability of a class, the rarer it"),
    ):
        slope = {"mean": (low + high) / 2, "low": low, "high": high}
        study["quality"] |= {"slope": slope, "subgroups": []}
        text = fill(ROOT / "paper", Path("sections") / "studies.tex.j2", variables)
        section = " ".join(text.split())
        assert words in section, section
        assert "divides the test images into large enough parts" in section
