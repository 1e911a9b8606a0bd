"""Escapes: hostile text is shown as it is, and read back as it was."""

from __future__ import annotations

import html.parser
import io
import unicodedata

import pandas as pd
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from medscale.base import text
from medscale.base.files import read_table, write_csv

HOSTILE = [
    "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "a|b", "\\", "\\|", "a\\", "{{x}}",
    "$x^2$", "50 %", "a & b &amp; &#60;", "# heading", "- item", "1. item", "1) item", "> quote",
    "`code`", "``", "**bold** __init__ a_b _c_", "[link](http://x)", "![x](y)", "~~gone~~",
    "=1+1", "+1", "-1.5e3", "-", "@SUM(A1)", "\t=1", "\r=1", "'=1", "''", "＝1+1", '"', 'a"b,c;d',
    "\x1b[31mred\x1b[0m", "\x07", "\0", "\x9b31m", "line\nbreak", "\u202egnp.exe", "\u2066x\u2069",
    "\ud800", "😀", "👨‍👩‍👧", "می‌خواهم", "\u200b", " ", "   ", "\u3000", "\u2028", "\ufeffx",
    "x" * 5000, "é", "e\u0301", "肺", "[bold]rich[/bold]", "    four blanks", "---", "===",
    "0\n#", "x ##  ",
]  # fmt: skip
LETTERS = st.one_of(
    st.characters(codec=None),
    st.sampled_from(
        "\\`*_{}[]()#+-.!|~$&<>=@%^'\";:,\t\r\n \0\x1b\u202e\u200b\ud800😀0123456789ab"
    ),
)
TEXTS = st.text(LETTERS, max_size=30)


def hostile(function):
    """Run a property test on made-up texts and on each of HOSTILE."""
    for value in HOSTILE:
        function = example(value)(function)
    return settings(max_examples=300, deadline=None, database=None)(given(TEXTS)(function))


def without_spaces(value: str) -> str:
    """The text with runs of blanks of all kinds as one."""
    return " ".join(value.split())


class Words(html.parser.HTMLParser):
    """The text of a page, and its elements."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.text, self.tags = "", []

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_starttag(self, tag, attributes) -> None:
        self.tags.append((tag, attributes))


def words(page: str) -> Words:
    parser = Words()
    parser.feed(page)
    parser.close()
    return parser


@hostile
def test_a_terminal_prints_no_control_characters(value):
    for lines in (False, True):
        output = text.terminal(value, lines=lines)
        output.encode()
        categories = {unicodedata.category(x) for x in output if x not in text.JOINERS}
        assert categories.isdisjoint(text.UNPRINTABLE - {"Cc"})
        assert not any(unicodedata.category(x) == "Cc" and x not in "\n\t" for x in output)
        assert lines or not set(output) & {"\n", "\t"}
        assert output.strip() or lines or not value


@hostile
def test_markdown_shows_the_text_in_heading_list_and_table(value):
    output = text.markdown(value)
    assert "\n" not in output
    source = f"# x {output}\n\n- {output}\n\n| a | b |\n|---|---|\n| {output} | 1 |\n"
    page = words(MarkdownIt("commonmark").enable("table").render(source))
    allowed = ["h1", "ul", "li", "table", "thead", "tbody", "tr", "th", "td"]
    assert all(tag in allowed and not attributes for tag, attributes in page.tags), page.tags
    expected = without_spaces(text.visible(text.LAYOUT.sub(" ", value)))
    counts = [sum(tag == name for tag, _ in page.tags) for name in ("li", "td")]
    assert counts == [1, 2]
    assert without_spaces(page.text) == without_spaces(f"x {expected} {expected} a b {expected} 1")


@hostile
def test_a_code_span_of_markdown_shows_the_text(value):
    page = words(MarkdownIt("commonmark").render(f"x {text.markdown_code(value)} y"))
    assert [tag for tag, _ in page.tags] == (["p", "code"] if value else ["p"])
    expected = without_spaces(text.visible(text.LAYOUT.sub(" ", value)))
    assert not value or without_spaces(page.text) == without_spaces(f"x {expected} y")


@hostile
def test_a_spreadsheet_computes_no_cell_and_reading_gives_the_text(value):
    cell = text.csv_cell(value)
    number = value.strip("+-") == "" or text._NUMBER.fullmatch(value)
    assert number or not cell.startswith(
        ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
    )
    encodable = not any("\ud800" <= letter <= "\udfff" for letter in value)
    assert not encodable or text.csv_text(cell) == value
    cell.encode()


@hostile
def test_latex_is_printable_and_balanced(value):
    output = text.latex(value)
    assert all(" " <= letter <= "~" or letter in text._T1 for letter in output)
    plain = output.replace("\\{", "").replace("\\}", "")
    assert plain.count("{") == plain.count("}")
    assert output.strip() or not value


def test_the_text_of_latex_is_read_back():
    ascii_letters = "".join(map(chr, range(33, 127)))
    for value in (ascii_letters, "Łódź×µ…", "Doe^Jane_" * 20):
        assert text.from_latex(text.latex(value)) == value


def test_a_line_can_end_after_each_code_of_a_letter():
    assert text.latex("肺炎") == r"{[}U+80BA{]}\allowbreak{}{[}U+708E{]}\allowbreak{}"
    assert [text.has_codes(name) for name in ("Melanom (bösartig) [U+1]", "α ﬁne ＿", "肺")] == [
        False,
        False,
        True,
    ]


def test_tables_come_back_as_they_were(tmp_path):
    file = tmp_path / "per_class.csv"
    texts = [value for value in HOSTILE if "\ud800" not in value]
    table = pd.DataFrame({"=class": texts, "plain": range(len(texts)), "-1": -1.5})
    table["kind"] = pd.Categorical(texts)
    write_csv(file, table)
    options = {"dtype": {"=class": str, "kind": str}, "keep_default_na": False}
    restored_table = read_table(file, **options)
    assert list(restored_table["=class"]) == list(restored_table["kind"]) == texts
    assert list(restored_table.columns) == list(table.columns)
    assert list(restored_table["-1"]) == [-1.5] * len(texts)  # numbers are numbers
    raw = io.StringIO(file.read_text(encoding="utf-8"))
    cells = pd.read_csv(raw, dtype=str, keep_default_na=False)["'=class"]
    assert "'=1+1" in set(cells)
    assert "=1+1" not in set(cells)


def test_a_number_has_its_noun_in_the_singular_or_the_plural():
    assert [text.amount(number, "job") for number in (0, 1, 2)] == ["0 jobs", "1 job", "2 jobs"]
    assert [text.amount(number, "process") for number in (1, 2)] == ["1 process", "2 processes"]
