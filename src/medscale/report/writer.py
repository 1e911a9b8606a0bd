"""The writer of all chapters: figures with marks, tables as TeX and CSV, facts as JSON."""

import importlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from medscale.base.errors import MedscaleError
from medscale.base.files import write_csv, write_json, write_text
from medscale.evaluate.summary import plain
from medscale.report import style
from medscale.report.chapter import Chapter
from medscale.report.marks import Marks, formats, mark
from medscale.report.names import class_titles


@dataclass
class Pages:
    """The content of a chapter, by the names that its declaration has."""

    # of the results that the figures show (``marks.marks_of``)
    marks: Iterable[Marks] = ()
    # each alone, or with its marks
    figures: Mapping[str, Figure | tuple[Figure, Iterable[Marks]]] = field(default_factory=dict)
    # each with every digit; before those that the paper prints, their LaTeX
    tables: Mapping[str, pd.DataFrame | tuple[str, pd.DataFrame]] = field(default_factory=dict)
    documents: Mapping[str, str] = field(default_factory=dict)  # text by path pattern
    # facts of the chapter for the paper; of undefined numbers (NaN) the file has null
    facts: dict[str, Any] | None = None


def write_chapter(
    name: str, study: str, arguments: Mapping[str, Any], folder: Path = Path(".")
) -> None:
    """Make a chapter and write all its outputs.

    Raises MedscaleError when an input is missing or damaged, or when the outputs are not those that
    the chapter declares.

    Args:
        study: the study's; empty for a chapter about all studies.
        arguments: of the chapter's ``make``: its inputs and settings; and ``class_titles``, by
            which the chapter prints classes.
        folder: below which the files are written.
    """
    chapter: Chapter = importlib.import_module(f"medscale.report.{name}.chapter").CHAPTER
    make = importlib.import_module(f"medscale.report.{name}.make").make
    settings = dict(arguments)
    with class_titles(settings.pop("class_titles", {})), style.house():
        pages = make(study, **settings)
        _check(chapter, pages)
        write(chapter, pages, study, folder)


def write(chapter: Chapter, pages: Pages, study: str, folder: Path) -> None:
    """Write the content of a chapter below ``folder``."""

    def path(pattern: str) -> Path:
        return folder / pattern.format(study=study)

    usual = list(pages.marks)
    for name, content in pages.figures.items():
        figure, marks = content if isinstance(content, tuple) else (content, usual)
        marks = list(marks)
        style.save(figure, path(chapter.figure_path(name)), mark(marks), formats(marks))
    for name, entry in pages.tables.items():
        text, table = entry if isinstance(entry, tuple) else (None, entry)
        if text is not None:
            write_text(path(chapter.table_path(name, "tex")), text)
        write_csv(path(chapter.table_path(name, "csv")), table)
    for pattern, text in pages.documents.items():
        write_text(path(pattern), text)
    if pages.facts is not None:
        write_json(path(chapter.table_path(chapter.facts, "json")), plain(pages.facts))


def _check(chapter: Chapter, pages: Pages) -> None:
    place = f"medscale/report/{chapter.name}"
    for kind, declared, actual in (
        ("figure", chapter.figures, pages.figures),
        ("table", chapter.tables, pages.tables),
        ("LaTeX of", chapter.printed, [n for n, c in pages.tables.items() if isinstance(c, tuple)]),
        ("document", chapter.documents, pages.documents),
        ("facts", {chapter.facts} - {""}, [] if pages.facts is None else [chapter.facts]),
    ):
        for name in actual:
            if name not in declared:
                raise MedscaleError(f"{place}/make.py makes the {kind} {name!r}: declare it")
        for name in declared:
            if name not in actual:
                raise MedscaleError(f"{place}/chapter.py declares the {kind} {name!r}: make it")
