"""Filters of the paper's templates: raw facts become LaTeX, everything else is escaped.

A number with decimals is printed only through a filter, so that its rounding stands in the text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from jinja2 import Undefined

from medscale.base import text
from medscale.report import latex, names

Score = Mapping[str, float | None]
PERCENT = re.compile(r"(?<=\d) (?=\\%)")  # no line ends between a number and its percent sign
NUMERALS = ["no", "one", "two", "three", "four", "five", "six"]
NUMERALS += ["seven", "eight", "nine", "ten", "eleven", "twelve"]


class Latex(str):
    """Text that is LaTeX already and is printed as it is."""


def printed(value: Any) -> str:
    """Return the LaTeX of a value that a template prints.

    Raises:
        TypeError: for a number with decimals, a list or a mapping, which need a filter.
    """
    if isinstance(value, Latex):
        return value
    if isinstance(value, str | int | Undefined) and not isinstance(value, bool):
        return PERCENT.sub(r"\\,", text.latex(str(value)))
    raise TypeError(f"{value!r} needs a filter that formats it ({', '.join(sorted(FILTERS))})")


def percent(value: float | None, digits: int = 1) -> Latex:
    """Format a fraction as a percentage without its sign."""
    return Latex(latex.number(value, digits, 100))


def score(value: float | None) -> Latex:
    """Format an area, a Brier score or a calibration error: three decimals."""
    return Latex(latex.number(value, 3))


def ratio(value: float | None) -> Latex:
    """Format a speedup, an efficiency or another factor: two decimals."""
    return Latex(latex.number(value, 2))


def points(value: float | None) -> Latex:
    """Format a difference in percentage points with its sign: one decimal."""
    text = latex.number(value, 1)
    return Latex(rf"\ensuremath{{+}}{text}" if value is not None and value > 0 else text)


def magnitude(value: float | None) -> Latex:
    """Format percentage points without a sign: one decimal."""
    return Latex(latex.number(None if value is None else abs(value), 1))


def magnitudes(value: Score) -> Latex:
    """Format the ends of an interval of a fraction as points without a sign, the smaller first."""
    low, high = value["low"], value["high"]
    if low is None or high is None:
        return Latex("--")
    ends = (-high, -low) if high < 0 else (low, high)
    return Latex(" to ".join(latex.number(end, 1, 100) for end in ends))


def p_value(value: float | None) -> Latex:
    """Format a p-value with its sign of comparison: three decimals."""
    text = latex.p_value(value)
    sign, bound = r"\ensuremath{<}", text.removeprefix(r"\ensuremath{<}")
    return Latex(f"{sign}~{bound}" if bound != text else f"=~{text}")


def significant(value: float | None, digits: int = 3) -> Latex:
    """Format a measured quantity with a fixed number of significant digits."""
    return Latex(latex.significant(value, digits))


def milliseconds(seconds: float | None) -> Latex:
    """Format a time in seconds as milliseconds with three significant digits."""
    return significant(None if seconds is None else 1e3 * seconds)


def setting(value: Any) -> Latex:
    """Format a configured value with as many digits as it has."""
    return Latex(f"{value:g}" if isinstance(value, float) else text.latex(str(value)))


def share(value: float) -> Latex:
    """Format a configured fraction as a percentage, with at most two decimals."""
    return setting(round(100.0 * value, 2))


def interval(value: Score, form: str) -> Latex:
    """Format the ends of an interval, ``low`` and ``high``, by the filter ``form``.

    An undefined value has no interval, which the text says.
    """
    if value["low"] is None and value["high"] is None:
        return Latex("no interval")
    low, high = (FILTERS[form](value[end]) for end in ("low", "high"))
    return Latex(latex.between(low, high))


def extent(value: Score, form: str) -> Latex:
    """Format a range as ``interval`` does; ends that read the same are printed once."""
    low, high = (FILTERS[form](value[end]) for end in ("low", "high"))
    return Latex(low) if low == high else interval(value, form)


def class_name(value: str, titles: Mapping[str, str]) -> Latex:
    """Format a class name for readers (``names.class_name``) by the titles of its study."""
    return Latex(text.latex(names.class_name(value, titles)))


def listed(values: Iterable[str]) -> str:
    """Join names as a sentence lists them: "a, b and c"; by semicolons if a name has a comma."""
    names_ = [str(value) for value in values]
    comma = "; " if any(", " in name for name in names_) else ", "
    last = "; and " if comma == "; " and len(names_) > 2 else " and "
    return last.join(filter(None, [comma.join(names_[:-1]), *names_[-1:]]))


def listed_titles(values: Iterable[str]) -> Latex:
    """Join titles of studies as ``listed`` does, in italics."""
    return Latex(listed(rf"\emph{{{text.latex(title)}}}" for title in values))


def spelled(count: int) -> str:
    """Return a number of things in words up to twelve: "three"; 0 is "no"."""
    return NUMERALS[count] if count < len(NUMERALS) else str(count)


def sentence(phrase: str, *, after_colon: bool = False) -> Latex:
    """Return LaTeX of a macro as one sentence: a capital letter first, a full stop last.

    Args:
        phrase: the text of the macro; a semicolon at its end goes.
        after_colon: whether the sentence follows a colon and begins with a small letter.
    """
    words = " ".join(phrase.split()).removesuffix(";")
    first = words[:1].lower() if after_colon else words[:1].upper()
    return Latex(f"{first}{words[1:]}.")


FILTERS: dict[str, Callable[..., str]] = {
    "latex": Latex,
    "sentence": sentence,
    "listed": listed,
    "listed_titles": listed_titles,
    "spelled": spelled,
    "class_name": class_name,
    "percent": percent,
    "score": score,
    "ratio": ratio,
    "points": points,
    "magnitude": magnitude,
    "magnitudes": magnitudes,
    "p_value": p_value,
    "significant": significant,
    "milliseconds": milliseconds,
    "setting": setting,
    "share": share,
    "interval": interval,
    "extent": extent,
}
