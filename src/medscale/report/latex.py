"""LaTeX of numbers and tables."""

import math
import re
from collections.abc import Sequence
from itertools import compress

from medscale.base.text import latex

EMPTY = ("", "--")  # cells without a value


def tabular(
    columns: Sequence[tuple[str, str]],
    rows: Sequence[Sequence[str]],
    rules_after: Sequence[int] = (),
) -> str:
    """Return a booktabs table, scaled down if it is wider than the text.

    Columns without a value are left out.

    Args:
        columns: alignment (l, r, c or p{…}) and heading of each column; headings are LaTeX.
        rows: cells as LaTeX; a row of one cell is a heading over all columns.
        rules_after: indices of the rows that a thin rule follows.
    """
    filled = [row for row in rows if len(row) == len(columns)]
    mask = [not filled or any(row[i] not in EMPTY for row in filled) for i in range(len(columns))]
    heading = rf"\multicolumn{{{sum(mask)}}}{{@{{}}l}}{{\emph{{%s}}}}"
    rows = [
        list(compress(row, mask)) if len(row) == len(columns) else [heading % row[0]]
        for row in rows
    ]
    columns = list(compress(columns, mask))
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
    r"""Return a booktabs table over several pages, whose head is repeated on each page.

    The paper defines ``\longcaption``, its caption and label.

    Args:
        columns: alignment and heading of each column, as of ``tabular``.
        groups: a heading over the whole width (none if empty) and the rows below it, as LaTeX.
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
        if heading:
            across = rf"\multicolumn{{{len(columns)}}}{{l}}"
            lines.append(rf"{across}{{\rule{{0pt}}{{3ex}}\textit{{{heading}}}}} \\*")
        lines += [" & ".join(row) + r" \\" for row in rows]
    return "\n".join([*lines, r"\bottomrule", r"\end{longtable}", ""])


def stacked(heading: str) -> str:
    r"""Return a heading of a table over several lines, which ``\\`` separates.

    A tabular gives all lines the same height, so that the lines of neighbouring headings align.
    """
    return rf"\begin{{tabular}}[b]{{@{{}}r@{{}}}}{heading}\end{{tabular}}"


def prose(text: str) -> str:
    r"""Return LaTeX of a text with code words, such as \texttt of `medscale verify`.

    Two hyphens, as of an option, stay two: LaTeX would print them as a dash.
    """
    parts = re.split("`([^`]+)`", text)
    words = ["{}".join(map(latex, re.split("(?<=-)(?=-)", part))) for part in parts]
    words[1::2] = [rf"\texttt{{{word}}}" for word in words[1::2]]
    return "".join(words)


def number(value: float | None, digits: int, scale: float = 1.0) -> str:
    """Format a number with a fixed number of decimals; an undefined one is an en dash."""
    if value is None or value != value:
        return "--"
    if value in (math.inf, -math.inf):
        return r"\ensuremath{\infty}" if value > 0 else r"\ensuremath{-\infty}"
    rounded = round(scale * value, digits) + 0.0  # no minus before a zero
    return f"{rounded:.{digits}f}".replace("-", r"\ensuremath{-}")


def p_value(value: float | None) -> str:
    """Format a p-value with three decimals; a smaller one than these show is "< 0.001"."""
    small = value is not None and value < 0.001
    return r"\ensuremath{<}0.001" if small else number(value, 3)


def significant(value: float | None, digits: int = 3) -> str:
    """Format a number with a fixed number of significant digits; an undefined one is an en dash.

    Numbers below 0.001 are printed with a power of ten.
    """
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
    """Format an interval, as "84.0--90.2"."""
    return between(number(low, digits, scale), number(high, digits, scale))


def between(low: str, high: str) -> str:
    """Join the formatted ends of an interval: by a dash, or by "to" where an end has a minus."""
    return (" to " if "ensuremath" in low + high else "--").join((low, high))
