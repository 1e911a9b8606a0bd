"""Escapes of text: one function for each of LaTeX, Markdown, CSV and terminals; lists, amounts.

Names of classes, titles, file names, metadata and error messages come from users' files. Code that
writes such text to a document must pass it through the function of the document's format. HTML is
written only by the service's page, as text of elements (``serve/http/page/app.js``).
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Sequence

JOINERS = "\u200c\u200d"  # needed to spell Persian and Hindi, and to compose emoji
BLANK = set("\u034f\u115f\u1160\u2800\u3164\uffa0")  # letters and symbols without a visible glyph
# Control, format, surrogate, private and unassigned characters; separators of lines, paragraphs.
UNPRINTABLE = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
LONGEST_WORD = 40  # letters after which LaTeX may break a word
_BREAK = r"\allowbreak{}"
LAYOUT = re.compile(r"[\t\n\r]+")

# A spreadsheet takes a cell that begins with one of these for a formula (OWASP, "CSV Injection").
_FORMULA = re.compile(r"'*[=+\-@\t\r\n＝＋－＠]")
_NUMBER = re.compile(r"[+-]?((\d+\.?\d*|\.\d+)([eE][+-]?\d+)?)?")  # or a sign, which is harmless
# Signs with a meaning, among them ``#`` at the end of a heading, which would not be shown.
_MARKDOWN = re.compile(r"[\\`*\[\]|~$^]|(?<![^\W_])_|_(?![^\W_])|(?<= )#(?=#* *$)")
_HTML = re.compile(r"[<>]|&(?=#?\w+;)")  # HTML, which Markdown would pass through
# Marks at the beginning of a line that start a heading, underline one, or start a list item.
_LINE_START = re.compile(r"[#+\-=:]+(?= |$)|\d+(?=[.)](?: |$))")

_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_\allowbreak{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "[": "{[}",  # at the start of a table's row, LaTeX would read it as an option of "\\"
    "]": "{]}",
    "*": "{*}",
    '"': r"\textquotedbl{}",
    "'": r"\textquotesingle{}",
    "`": r"\textasciigrave{}",
    "\u00a0": "~",
    "–": "--",
    "—": "---",
    "−": r"\ensuremath{-}",
    "×": r"\ensuremath{\times}",
    "±": r"\ensuremath{\pm}",
    "≤": r"\ensuremath{\leq}",
    "≥": r"\ensuremath{\geq}",
    "µ": r"\textmu{}",
    "…": r"\ldots{}",
    "†": r"\textdagger{}",
}
_FROM_LATEX = {code: letter for letter, code in _LATEX.items() if code[0] in "\\{"} | {_BREAK: ""}
_LATEX_CODE = re.compile("|".join(map(re.escape, sorted(_FROM_LATEX, key=len, reverse=True))))
# Greek letters that look like Latin ones and have no command.
_LATIN = dict(zip("ΑΒΕΖΗΙΚΜΝΟΡΤΧο", "ABEZHIKMNOPTXo", strict=True))
# Letters beyond ASCII that the paper's fonts (encoding T1) have.
_T1 = set(
    "¡¿ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÐÑÒÓÔÕÖØÙÚÛÜÝÞßàáâãäåæçèéêëìíîïðñòóôõöøùúûüýþÿ«»"
    "ĂăĄąĆćČčĎďĐđĘęĚěĞğİıĹĺĽľŁłŃńŇňŊŋŐőŒœŔŕŘřŚśŞşŠšŢţŤťŮůŰűŸŹźŻżŽž"
)


def visible(text: str, keep: str = "") -> str:
    """Return text with visible letters only: invisible ones become their code, such as [U+001B].

    Invisible are control characters, changes of the writing direction, zero-width and unassigned
    characters, and lone surrogates. Blanks become codes only if the text consists of blanks.

    Args:
        text: any string.
        keep: characters that stay, such as line breaks.
    """
    is_blank = not text.strip()
    if text.isascii() and text.isprintable() and not is_blank:
        return text
    return "".join(
        letter if letter in keep or (_printable(letter) and not is_blank) else _code(letter)
        for letter in text
    )


def terminal(text: str, *, lines: bool = False) -> str:
    """Return text without control characters, which is safe on a terminal and in a log.

    Args:
        text: any string.
        lines: whether line breaks and tabs stay, as in a message; a name could forge lines with
            them.
    """
    return visible(text, "\n\t" if lines else "")


def latex(text: str) -> str:
    """Return LaTeX that prints ``text`` in one paragraph; very long words are broken.

    A letter that the paper's fonts lack is printed without its accents, or as its code, such as
    [U+80BA]. Lines can end after a code, so that a name of codes stays in its column.
    """
    parts = []
    word = 0  # letters since the last blank
    for letter in unicodedata.normalize("NFC", _line(text)):
        word = 0 if letter == " " else word + 1
        if word and word % LONGEST_WORD == 0:
            parts.append(_BREAK)
        parts.append(_LATEX.get(letter) or _latex_letter(letter))
    return "".join(parts)


def from_latex(text: str) -> str:
    """Return the plain text of LaTeX code that ``latex`` returned.

    Letters that ``latex`` replaced by a similar letter or a code stay replaced.
    """
    return _LATEX_CODE.sub(lambda code: _FROM_LATEX[code[0]], text)


def has_codes(text: str) -> bool:
    """Whether ``latex`` prints letters of ``text`` as codes."""
    return latex(text).count("{[}U+") > text.count("[U+")


def markdown(text: str) -> str:
    """Return Markdown (CommonMark, and the tables of GitHub) that shows ``text`` in one line."""
    escaped = _MARKDOWN.sub(r"\\\g<0>", _line(text).lstrip(" "))
    escaped = _HTML.sub(lambda match: html.escape(match[0]), escaped)
    start = _LINE_START.match(escaped)
    if start is None:
        return escaped
    position = len(start[0]) if start[0].isdigit() else 0  # of a number, the point is escaped
    return f"{escaped[:position]}\\{escaped[position:]}"


def markdown_code(text: str) -> str:
    """Return a code span of Markdown that shows ``text`` in one line, outside of tables."""
    line = _line(text)
    fence = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    blank = " " if "`" in (line[:1], line[-1:]) else ""
    return f"{fence}{blank}{line}{blank}{fence}"


def csv_cell(text: str) -> str:
    """Return the cell of a CSV file for ``text``, which no spreadsheet computes.

    A text that a spreadsheet would take for a formula gets an apostrophe at its beginning, as OWASP
    advises; ``csv_text`` removes it. Numbers do not change. A lone surrogate, which UTF-8 cannot
    encode, becomes its code.
    """
    encodable = "".join(
        _code(letter) if "\ud800" <= letter <= "\udfff" else letter for letter in text
    )
    formula = _FORMULA.match(encodable) and not _NUMBER.fullmatch(encodable)
    return f"'{encodable}" if formula else encodable


def csv_text(cell: str) -> str:
    """Return the text that ``csv_cell`` wrote as ``cell``."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def truncate(text: str, length: int) -> str:
    """Return text of at most ``length`` letters; an ellipsis replaces the rest."""
    return text if len(text) <= length else text[: length - 1] + "…"


def listed(names: Sequence[str], most: int = 5) -> str:
    """Return the first names and the number of the others, for a message."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def amount(number: int, noun: str) -> str:
    """Return a number and its noun, in the plural (s or es) unless it is 1: "1 job", "2 jobs"."""
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{number} {noun if number == 1 else plural}"


def subject(number: int, noun: str, verb: str) -> str:
    """Return the beginning of a sentence about a number of things, such as "1 image has".

    Args:
        number: how many things.
        noun: its plural ends in s.
        verb: in the plural; in the singular it ends in s, except "have".
    """
    singular = "has" if verb == "have" else f"{verb}s"
    return f"{amount(number, noun)} {singular if number == 1 else verb}"


def _line(text: str) -> str:
    """Return text in one line with visible letters only."""
    return visible(LAYOUT.sub(" ", str(text)))


def _printable(letter: str) -> bool:
    if letter in JOINERS:
        return True
    return letter not in BLANK and unicodedata.category(letter) not in UNPRINTABLE


def _code(letter: str) -> str:
    return f"[U+{ord(letter):04X}]"


def _latex_letter(letter: str) -> str:
    """Return LaTeX for a letter that is not special: itself, or the nearest printable text."""
    if " " <= letter <= "~" or letter in _T1:
        return letter
    if letter.isalpha() and ("Α" <= letter <= "Ω" or "α" <= letter <= "ω"):
        return _greek(letter)
    if unicodedata.category(letter) == "Zs":
        return " "
    plain = "".join(part for part in unicodedata.normalize("NFKD", letter) if " " <= part <= "~")
    if not plain.strip():
        return "".join(_LATEX.get(part, part) for part in _code(letter)) + _BREAK
    return "".join(_LATEX.get(part, part) for part in plain.strip())


def _greek(letter: str) -> str:
    """Return the command of a Greek letter, or the Latin letter that it looks like."""
    if letter in _LATIN:
        return _LATIN[letter]
    name = unicodedata.name(letter).split()[-1].lower().replace("lamda", "lambda")
    if letter == "ς":
        name = "varsigma"
    return rf"\ensuremath{{\{name if letter.islower() else name.capitalize()}}}"
