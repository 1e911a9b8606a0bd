"""Hostile names, from a raw folder to CSV files, tables, figures, cards, terminal and paper."""

from __future__ import annotations

import csv
import html.parser
import random
import re
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from unicodedata import normalize

import pytest
from markdown_it import MarkdownIt

from data_trees import write
from medscale.base import console
from medscale.base.errors import MedscaleError
from medscale.base.files import read_table
from medscale.base.text import LAYOUT, latex, truncate, visible
from medscale.config.configuration import load
from medscale.data.index import AUDIT_CSV, build_index
from medscale.data.settings import Dask, Source, Split
from medscale.report.chapters import CHAPTERS
from medscale.report.paper.build import build, fill
from medscale.report.paper.facts import read_facts
from medscale.report.result.reading import read_result
from medscale.report.show import show
from medscale.report.tables import LONGEST_NAME
from medscale.workflow.chapters import Report
from medscale.workflow.graph import Graph
from synthetic_runs import ROOT, make_study, report, report_shared

IMAGES = 8  # of each class
STUDY = "hostile"
HOSTILE = [
    "<script>alert(1)", "a|b & c", "\\end{document}", "$x^2$ 50 % #", "=1+1", "@SUM(A1)",
    "'=1", "\x1b[31mred\x07", "new\r\nline", "\u202egnp.exe", "😀👨‍👩‍👧", "_a_ *b* `c` [d](e)",
    "{word} {{x}}", "[bold]x[red] :smile:", "w" * 250, "\"q\" 'r'; s,t",
]  # fmt: skip
ALPHABET = "\\`*_{}[]()#+-.!|~$&<>=@%^'\";:,\t\r\n \x01\x1b\x7f\u0085\u202e\u200b\u2028😀肺é09ab"
TITLE = "\\input{x} <b>|</b> $\\alpha$ 100 % #1 & \x1b[2J\x07 \u202e😀 {word} " + "y" * 300
COLUMN, VALUES = "=cmd|' /C x'!A0 <i>", ["-1+1|2", "<img src=x>", "\\x \x1b[0m $", "z" * 400]
TAGS = {"h1", "h2", "h3", "p", "ul", "li", "table", "thead", "tbody", "tr", "th", "td"}
TAGS |= {"code", "strong", "em", "blockquote"}
FORMULA = tuple("=+-@\t\r\n")
FILE = "\x1b]0;x\x07 =1|<b>$.png"


def names() -> list[str]:
    """HOSTILE, and names of random letters; index.csv names no path that begins with a blank."""
    rng = random.Random(18)
    hostile_names = [
        "".join(rng.choices(ALPHABET, k=rng.randint(1, 12))).strip(" .\t\r\n\x85\u2028")
        for _ in range(8)
    ]
    return [*HOSTILE, *(f"{name}{number}" for number, name in enumerate(hostile_names))]


class Elements(html.parser.HTMLParser):
    """The elements of a page with their attributes, its text, and the cells of each row."""

    def __init__(self, markdown: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements, self.text, self.rows = set(), "", []
        self.feed(MarkdownIt("commonmark").enable("table").render(markdown))
        self.close()

    def handle_starttag(self, tag, attributes) -> None:
        self.elements.add((tag, *attributes))
        if tag in ("table", "tr"):
            self.rows.append((tag, 0))
        elif tag in ("td", "th"):
            self.rows[-1] = (tag, self.rows[-1][1] + 1)

    def handle_data(self, data) -> None:
        self.text += data


def without_spaces(text: str) -> str:
    return " ".join(text.split())


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> SimpleNamespace:
    folder = tmp_path_factory.mktemp("hostile")
    raw, lines, seed = folder / "raw", [["path", "patient", COLUMN, "sex"]], 0
    for number, name in enumerate(names()):
        for image in range(IMAGES):
            path = Path(name, FILE if image == 0 else f"{image}.png")
            write(raw / path, seed := seed + 1)
            value = VALUES[image % len(VALUES)]
            lines.append([path.as_posix(), f"{number} {image}", value, value])
    with open(raw / "index.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows(lines)
    (raw / HOSTILE[0] / "=empty.png").write_bytes(b"")
    source, data = Source(kind="folder", path=raw), folder / "data" / STUDY
    index = build_index(source, Split(), None, Dask(), data)
    classes = list(index["label"].cat.categories)
    settings = {"title": TITLE, "baseline": "serial_1cpu", "seeds": [1], "scale": "full"}
    settings["datasheet"] = {"name": TITLE, "known_problems": [TITLE, *HOSTILE]}
    results = make_study(
        folder, STUDY, classes, ["serial_1cpu"], index=index, drawn=True, **settings
    )
    tables = report(folder, STUDY, results).parent
    hostile_names = SimpleNamespace(
        folder=folder, data=data, results=results, tables=tables, index=index
    )
    hostile_names.classes, hostile_names.shared = classes, report_shared(folder, results)
    hostile_names.facts = [tables / f"{name}.json" for name in ("facts", "quality", "scaling")]
    return hostile_names


def test_classes_files_and_metadata_are_those_of_the_raw_folder(study):
    assert study.classes == sorted(normalize("NFC", name) for name in names())
    assert len(study.index) == IMAGES * len(study.classes)
    assert set(study.index[COLUMN]) == set(VALUES)
    assert sum(path.endswith(FILE) for path in study.index["path"]) == len(study.classes)


def test_no_cell_of_a_csv_file_is_a_formula(study):
    files = list(study.folder.rglob("*.csv"))
    files.remove(study.folder / "raw" / "index.csv")
    assert len(files) > 20
    for path in files:
        with open(path, encoding="utf-8", newline="") as file:
            rows = list(csv.reader(file, strict=True))
        assert {len(row) for row in rows} == {len(rows[0])}, path
        for cell in (cell for row in rows for cell in row if cell.startswith(FORMULA)):
            float(cell)  # a number
    left_out = read_table(study.data / AUDIT_CSV, keep_default_na=False)
    assert f"{HOSTILE[0]}/=empty.png" in set(left_out["path"])
    result = read_result(study.results[0])
    assert list(dict.fromkeys(result.per_class["class"])) == study.classes
    assert set(result.subgroups["part"]) >= set(VALUES)


def test_tables_and_text_of_the_paper_print_the_names(study):
    variables = read_facts(study.facts, study.shared) | {"workdir": "."}
    sections = [Path("sections") / p.name for p in (ROOT / "paper" / "sections").iterdir()]
    texts = [fill(ROOT / "paper", name, variables) for name in (Path("paper.tex.j2"), *sections)]
    tables = {path.name: path.read_text("utf-8") for path in study.tables.parent.rglob("*.tex")}
    for text in (*texts, *tables.values()):
        assert not re.search("[^\n -~¡-ž–—]", text)
        assert "\\input{x}" not in text
        assert text.count("\\end{document}") == text.count("\\begin{document}")
    for name in study.classes:
        cell = f"{latex(truncate(visible(name), LONGEST_NAME))} & "
        assert cell in tables["data.tex"]
        assert cell in tables["per_class.tex"]


def test_model_card_and_datasheet_show_the_names(study):
    card = Elements((study.results[0] / "model_card.md").read_text(encoding="utf-8"))
    sheet = Elements((study.data / "datasheet.md").read_text(encoding="utf-8"))
    for page in (card, sheet):
        assert page.elements <= {(tag,) for tag in TAGS}
        widths = [count for tag, count in page.rows if tag != "table"]
        assert set(widths) <= {2, 4, 5, 6, 7, 10}
        for name in study.classes:
            assert without_spaces(visible(LAYOUT.sub(" ", name))) in without_spaces(page.text), name
    for text in (COLUMN, *(value for value in VALUES if len(value) < 50)):
        assert without_spaces(visible(text)) in without_spaces(sheet.text)


def test_the_terminal_shows_the_names(study, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "3000")
    for part in show(study.results[0]):
        console.Terminal().print(part)
    output = capsys.readouterr().out
    assert all(letter == "\n" or visible(f"a{letter}") == f"a{letter}" for letter in output)
    for name in study.classes:
        assert visible(name) in output


@pytest.mark.parametrize("key", ["title", "classes"])
def test_a_lone_surrogate_in_the_configuration_is_refused(key):
    value = {"title": "\ud800", "classes": ["a", "\ud800"]}[key]
    with pytest.raises(MedscaleError, match="has a surrogate"):
        load(ROOT / "config.yaml", {"studies": {"glaucoma": {key: value}}})


@pytest.mark.skipif(shutil.which("latexmk") is None, reason="latexmk is not installed")
@pytest.mark.slow
def test_the_paper_is_built(study):
    build(ROOT / "paper", study.facts, study.shared, study.folder, study.folder / "paper.pdf")
    assert (study.folder / "paper.pdf").stat().st_size > 50_000


def test_the_web_report_has_no_text_of_users_but_names_of_studies(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["snakemake", "--report", "report.html"])
    study = {"title": TITLE, "datasheet": {"name": TITLE}}
    hostile_names = Report(Graph({"scale": "demo", "studies": {"glaucoma": study}}))
    flags = [
        path.flags["report"]
        for chapter in CHAPTERS
        for path in hostile_names.outputs(chapter)
        if "report" in getattr(path, "flags", {})
    ]
    captions = "".join(Path(flag.caption).read_text(encoding="utf-8") for flag in flags)
    assert len(flags) > 20
    assert "<b>" not in captions + repr(flags)
    with pytest.raises(MedscaleError, match="studies"):
        load(ROOT / "config.yaml", {"studies": {"<b>": {"like": "glaucoma"}}})


def test_the_service_page_writes_no_html():
    """The page in Chromium: tests/serve/test_service_page.py."""
    page = ROOT / "src" / "medscale" / "serve" / "http" / "page"
    scripts = "".join(path.read_text(encoding="utf-8") for path in page.glob("*.js"))
    assert "textContent" in scripts
    assert not re.search(
        r"\b(innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval)\b", scripts
    )
