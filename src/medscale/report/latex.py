"""Text and tables as LaTeX: any title, class name or note is printed as it is written."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

SPECIAL = {
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
    "[": "{[}",  # at the start of a table's row it would be read as an option of the row before
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
EMPTY = ("", "--")  # cells that say nothing
GREEK = dict(
    zip(
        "αβγδεζηθικλμνξοπρςστυφχψω",
        [
            "alpha",
            "beta",
            "gamma",
            "delta",
            "epsilon",
            "zeta",
            "eta",
            "theta",
            "iota",
            "kappa",
            "lambda",
            "mu",
            "nu",
            "xi",
            "o",
            "pi",
            "rho",
            "varsigma",
            "sigma",
            "tau",
            "upsilon",
            "phi",
            "chi",
            "psi",
            "omega",
        ],
        strict=True,
    )
)
# Capital letters that look like Latin ones have no command of their own.
LATIN = dict(zip("αβεζηικμνορτχ", "ABEZHIKMNOPTX", strict=True))


def escape(text: str) -> str:
    """LaTeX that prints ``text``.

    Letters that the paper's fonts (T1) lack are printed without their accents, or else by their code, as [U+80BA]; none
    vanishes.
    """
    return "".join(
        SPECIAL.get(letter) or _letter(letter) for letter in unicodedata.normalize("NFC", str(text))
    )


def tabular(
    columns: Sequence[tuple[str, str]],
    rows: Sequence[Sequence[str]],
    rules_after: Sequence[int] = (),
) -> str:
    """A booktabs table that is scaled down only where it is wider than the text; columns without a value are left out.

    Args:
        columns: alignment (l, r, c or p{…}) and heading of each; headings and cells are LaTeX already.
        rows: cells.
        rules_after: numbers of rows after which a thin rule stands.
    """
    kept = [
        place
        for place in range(len(columns))
        if not rows or any(row[place] not in EMPTY for row in rows)
    ]
    columns, rows = (
        [columns[place] for place in kept],
        [[row[place] for place in kept] for row in rows],
    )
    head = " & ".join(heading for _, heading in columns)
    lines = [
        r"\begin{adjustbox}{max width=\linewidth}",
        rf"\begin{{tabular}}{{{''.join(a for a, _ in columns)}}}",
    ]
    lines += [r"\toprule", head + r" \\", r"\midrule"]
    for number, row in enumerate(rows):
        lines.append(" & ".join(row) + r" \\")
        lines += [r"\midrule"] if number in rules_after and number != len(rows) - 1 else []
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{adjustbox}", ""])


def longtable(
    columns: Sequence[tuple[str, str]], groups: Sequence[tuple[str, Sequence[Sequence[str]]]]
) -> str:
    r"""A booktabs table over several pages, which repeats its head; ``\longcaption`` is its caption and label.

    Args:
        columns: alignment and heading of each, as of ``tabular``.
        groups: a heading over the whole width and the rows below it, LaTeX already.
    """
    head = " & ".join(heading for _, heading in columns) + r" \\"
    lines = [
        rf"\begin{{longtable}}{{{''.join(a for a, _ in columns)}}}",
        r"\longcaption\\",
        r"\toprule",
        head,
    ]
    lines += [r"\midrule", r"\endfirsthead", r"\toprule", head, r"\midrule", r"\endhead"]
    for heading, rows in groups:
        lines.append(
            rf"\multicolumn{{{len(columns)}}}{{l}}{{\rule{{0pt}}{{3ex}}\textit{{{heading}}}}} \\*"
        )
        lines += [" & ".join(row) + r" \\" for row in rows]
    return "\n".join([*lines, r"\bottomrule", r"\end{longtable}", ""])


def stacked(heading: str) -> str:
    r"""A table's heading over several lines, cut at each \\\\."""
    return rf"\shortstack[r]{{{heading}}}"


def number(value: float | None, digits: int, scale: float = 1.0) -> str:
    """A number with so many decimals; an en dash where it is undefined."""
    if value is None or value != value:
        return "--"
    rounded = round(scale * value, digits) + 0.0  # no minus before a zero
    return f"{rounded:.{digits}f}".replace("-", r"\ensuremath{-}")


def significant(value: float | None, digits: int = 3) -> str:
    """A number with so many significant digits, below 0.001 by a power of ten; an en dash where it is undefined."""
    if value is None or value != value:
        return "--"
    if value == 0:
        return "0"
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    if int(exponent) < -3:
        return rf"\ensuremath{{{mantissa}\times 10^{{{int(exponent)}}}}}"
    decimals = digits - 1 - int(exponent)
    return f"{round(value, decimals):.{max(0, decimals)}f}".replace("-", r"\ensuremath{-}")


def span(low: float | None, high: float | None, digits: int, scale: float = 1.0) -> str:
    """An interval as "84.0--90.2"; "to" stands between where an end is negative."""
    return between(number(low, digits, scale), number(high, digits, scale))


def between(low: str, high: str) -> str:
    """Join the formatted ends of an interval: by a dash, or by "to" where an end has a minus."""
    return (" to " if "ensuremath" in low + high else "--").join((low, high))


def _letter(letter: str) -> str:
    """A letter as it is where the fonts have it, else the nearest thing that can be printed."""
    code = ord(letter)
    if letter == "\n" or letter == "\t":
        return " "
    if 0x20 <= code < 0x7F or letter in _T1:
        return letter
    if letter.lower() in GREEK:
        return _greek(letter)
    plain = "".join(part for part in unicodedata.normalize("NFKD", letter) if ord(part) < 0x7F)
    return "".join(SPECIAL.get(part, part) for part in plain) or f"{{[}}U+{code:04X}{{]}}"


def _greek(letter: str) -> str:
    small = letter.lower()
    if small == "ο" or (letter != small and small in LATIN):
        return LATIN[small] if letter != small else "o"
    name = GREEK[small]
    return rf"\ensuremath{{\{name if letter == small else name.capitalize()}}}"


_T1 = set(
    "¡¿ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÐÑÒÓÔÕÖØÙÚÛÜÝÞßàáâãäåæçèéêëìíîïðñòóôõöøùúûüýþÿ«»"
    "ĂăĄąĆćČčĎďĐđĘęĚěĞğİıĹĺĽľŁłŃńŇňŊŋŐőŒœŔŕŘřŚśŞşŠšŢţŤťŮůŰűŸŹźŻżŽž"
)
