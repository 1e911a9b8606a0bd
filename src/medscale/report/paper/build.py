"""Build the paper: fill the templates with facts, then run latexmk."""

from __future__ import annotations

import os
import shutil
import traceback
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import (
    Environment,
    FileSystemLoader,
    StrictUndefined,
    TemplateError,
    TemplateSyntaxError,
)

from medscale.base.errors import MedscaleError
from medscale.base.files import atomic, write_text
from medscale.report.paper.facts import read_facts
from medscale.report.paper.filters import FILTERS, printed
from medscale.report.paper.latexmk import run_latexmk
from medscale.report.syntax import SYNTAX

MAIN = "paper"


def build(
    sources: Path, facts: Sequence[Path], shared: Sequence[Path], workdir: Path, out: Path
) -> None:
    """Fill the templates, run LaTeX in ``workdir/paper/build`` and put the PDF at ``out``.

    Raises MedscaleError for an undefined fact, a missing figure, table or reference, or an error of
    LaTeX; the message names file and line.

    Args:
        sources: folder of the text: paper.tex.j2, references.bib, sections/, and the parts of
            sections in results/ and study/.
        facts: files of facts of the studies, and ``shared`` ones of all studies (``read_facts``).
        workdir: folder with figures/ and tables/.
    """
    folder = workdir / "paper" / "build"
    variables = read_facts(facts, shared) | {"workdir": os.path.relpath(workdir, folder)}
    for path in [sources / f"{MAIN}.tex.j2", *sorted((sources / "sections").glob("*.tex.j2"))]:
        name = path.relative_to(sources)
        write_text(folder / name.with_suffix(""), fill(sources, name, variables))
    shutil.copyfile(sources / "references.bib", folder / "references.bib")
    run_latexmk(folder, MAIN)
    with atomic(out) as temporary:
        shutil.copyfile(folder / f"{MAIN}.pdf", temporary)


def fill(sources: Path, name: Path, variables: dict[str, Any]) -> str:
    """Return the text of a template, whose syntax is << value >>, <% statement %>, <# comment #>.

    Raises MedscaleError for an undefined fact or a mistake in the template, with file and line.
    """
    try:
        return _environment(sources).get_template(name.as_posix()).render(variables)
    except (TemplateError, LookupError, TypeError, ValueError) as error:
        raise MedscaleError(f"{_place(error, sources, name)}: {error}") from None


@cache
def _environment(sources: Path) -> Environment:
    """Return Jinja's environment for a folder of templates; it compiles each template once."""
    environment = Environment(
        loader=FileSystemLoader(sources),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 (printed escapes, for LaTeX)
        finalize=printed,
        **SYNTAX,
    )
    environment.filters |= FILTERS
    return environment


def _place(error: Exception, sources: Path, name: Path) -> str:
    """Return file and line at which an error arose, in a template or in one that it includes."""
    if isinstance(error, TemplateSyntaxError):
        return f"{error.filename or sources / name}:{error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)  # Jinja gives frames the template's lines
    places = [frame for frame in frames if Path(frame.filename).is_relative_to(sources)]
    return f"{places[-1].filename}:{places[-1].lineno}" if places else f"{sources / name}:?"
