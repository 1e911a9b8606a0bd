"""The paper stops at a missing number, figure or reference, and is built with any class names."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from made_profiles import make_profiled
from made_runs import ROOT, configuration, make_study, report, report_provenance
from medscale.base.errors import MedscaleError
from medscale.base.files import read_json, write_json
from medscale.report.numbers import missing, write_numbers
from medscale.report.paper import build
from medscale.report.profiling.make import write_profiles

RUNS = ["serial_1cpu", "serial_1gpu", "ddp_amp_2gpu"]
needs_latex = pytest.mark.skipif(shutil.which("latexmk") is None, reason="latexmk is not installed")


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> SimpleNamespace:
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
        path = report(folder, study, results[-len(RUNS) :])
        facts += [path, path.with_name("scaling.json")]
    config = configuration("user_s", RUNS, **settings)
    profiled = [make_profiled(folder, config, "user_s", run) for run in RUNS]
    write_profiles(profiled, folder / "figures" / "user_s", folder / "tables" / "user_s")
    made = report_provenance(folder, results)
    write_numbers(
        [*facts, folder / "tables" / "user_s" / "profile.json", made],
        folder / "paper" / "numbers.tex",
    )
    return SimpleNamespace(
        folder=folder, facts=facts, made=made, numbers=folder / "paper" / "numbers.tex"
    )


@pytest.fixture
def text(tmp_path) -> Path:
    """A copy of the paper's text that a test may change."""
    shutil.copytree(
        ROOT / "paper", tmp_path / "text", ignore=shutil.ignore_patterns("build", "*.pdf")
    )
    return tmp_path / "text"


def say(text: Path, sentence: str) -> None:
    with open(text / "sections" / "introduction.tex", "a", encoding="utf-8") as file:
        file.write(sentence + "\n")


def words(pdf: Path) -> str:
    done = subprocess.run(
        ["pdftotext", "-layout", str(pdf), "-"], capture_output=True, text=True, check=True
    )
    return done.stdout


def test_a_number_that_nothing_measured_stops_the_build(two, text):
    say(text, r"Commented: % \val{not/used}" + "\n" + r"It took \val{glaucoma/no_run/seconds} s.")
    with pytest.raises(
        MedscaleError, match=r"introduction\.tex:\d+: glaucoma/no_run/seconds"
    ) as error:
        build(text, two.facts, two.made, two.numbers, two.folder, two.folder / "paper" / "a.pdf")
    assert "not/used" not in str(error.value)
    assert not (two.folder / "paper" / "a.pdf").exists()


def test_a_key_given_twice_is_refused(two, tmp_path):
    with pytest.raises(MedscaleError, match="given twice"):
        write_numbers([two.facts[0], two.facts[0]], tmp_path / "numbers.tex")
    facts = read_json(two.facts[0])
    write_json(tmp_path / "facts.json", facts | {"values": {"a{b": "1"}})
    with pytest.raises(MedscaleError, match="no key"):
        write_numbers([tmp_path / "facts.json"], tmp_path / "numbers.tex")


def test_no_result_is_typed_by_hand():
    allowed = {"95", "1"}
    for path in (ROOT / "paper" / "sections").iterdir():
        body = re.sub(r"<[%#<].*?[%#>]>", "", path.read_text(encoding="utf-8"))
        for found in re.findall(
            r"(?<![\w.{/\-=:])\d+(?:\.\d+)?(?=\s*\\,\\%|\s*%| s\b| images)", body
        ):
            assert found in allowed, f"{path.name}: {found}"


def test_comments_and_definitions_are_no_uses(tmp_path):
    (tmp_path / "a.tex").write_text(
        "\\val{here} 5\\% \\val{there} % \\val{not}\n\\newcommand{\\x}{\\val{#1}}\n"
    )
    (tmp_path / "n.tex").write_text("\\medscalenumber{here}{1}\n")
    assert missing([tmp_path / "a.tex"], tmp_path / "n.tex") == ["a.tex:1: there"]


@needs_latex
@pytest.mark.slow
def test_the_paper_of_two_studies_is_built_marked_and_the_same_each_time(two):
    pdf = two.folder / "paper" / "paper.pdf"
    build(ROOT / "paper", two.facts, two.made, two.numbers, two.folder, pdf)
    first, pages = pdf.read_bytes(), words(pdf).split("\f")[:-1]
    assert len(pages) > 6
    for number, page in enumerate(pages, start=1):
        assert "demo: synthetic images; CPU processes in place of GPUs" in page, number
    whole = " ".join(" ".join(pages).split())
    for said in (
        "a_b & 50 %",
        "mélanome",
        "#x {y}~",
        "\\end{document}",
        "[U+80BA]",
        "Skin & more: 100 % of_it é",
    ):
        assert said in whole, said
    assert "No figures were published for this study" in whole
    assert "[snakemake figures/user_s/accuracy.pdf]" in whole
    assert (
        "[snakemake figures/user_s/speedup.pdf]" not in whole
    )  # no run on several devices has a counterpart on one
    assert "Where a step’s time goes" in whole
    assert "[snakemake tables/user_s/roofline.tex]" in whole
    accuracy = read_json(two.facts[0])["values"]["glaucoma/serial_1cpu/accuracy"]
    assert f"an accuracy of {accuracy} %" in whole
    build(ROOT / "paper", two.facts, two.made, two.numbers, two.folder, pdf)
    assert pdf.read_bytes() == first
    text = "".join(
        path.read_text() for path in (two.folder / "paper" / "build" / "sections").glob("*.tex")
    )
    shown = re.findall(r"\\study(figure|table)\{([^}]*)\}\{([^}]*)\}", text)
    assert len(shown) > 40
    uncited = [one for one in shown if f"\\ref{{{one[0][:3]}:{one[1]}:{one[2]}}}" not in text]
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
        (r"\expandafter\val\expandafter{\string g}", "numbers.tex has no number `g'"),
    ],
)
def test_what_is_wrong_in_the_text_is_told_in_one_message(two, text, sentence, message):
    say(text, sentence)
    with pytest.raises(MedscaleError, match=message):
        build(
            text, two.facts, two.made, two.numbers, two.folder, two.folder / "paper" / "wrong.pdf"
        )
    assert not (two.folder / "paper" / "wrong.pdf").exists()


@needs_latex
@pytest.mark.slow
def test_a_study_without_stand_ins_has_no_mark(tmp_path):
    settings = {"scale": "full", "baseline": "serial_1cpu"}
    results = make_study(tmp_path, "glaucoma", ["a", "b"], ["serial_1cpu", "ddp_2cpu"], **settings)
    path = report(tmp_path, "glaucoma", results)
    facts = [path, path.with_name("scaling.json")]
    made, numbers = report_provenance(tmp_path, results), tmp_path / "paper" / "numbers.tex"
    write_numbers([*facts, made], numbers)
    build(ROOT / "paper", facts, made, numbers, tmp_path, tmp_path / "paper" / "paper.pdf")
    whole = words(tmp_path / "paper" / "paper.pdf").lower()
    assert not [word for word in ("demo", "stand-in", "synthetic", "in place of") if word in whole]
