"""The paper: templates filled with the studies' structure, numbers as macros, built by latexmk."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, TemplateError

from medscale.base.errors import MedscaleError
from medscale.base.files import atomic, read_json, write_text
from medscale.report.latex import escape
from medscale.report.marks import mark
from medscale.report.numbers import missing

MAIN = "paper"
TIMEOUT_S = 300
SOURCE_DATE = "1767225600"  # 2026-01-01, so that the same inputs give the same PDF


def build(
    sources: Path, facts: Sequence[Path], provenance: Path, numbers: Path, workdir: Path, out: Path
) -> None:
    """Fill the templates, run LaTeX in ``workdir/paper/build`` and put the PDF at ``out``.

    Args:
        sources: folder of the text: paper.tex, references.bib, sections/ (``*.tex.j2`` are templates).
        facts: facts.json of each study, in the order of the paper, and of its parts (``part_of`` names the study).
        provenance: provenance.json, what made the results.
        numbers: numbers.tex.
        workdir: folder with figures/ and tables/.
        out: the PDF.

    Raises:
        MedscaleError: for a number, figure, table or reference that is missing, or what LaTeX says, with file and line.
    """
    folder = workdir / "paper" / "build"
    folder.mkdir(parents=True, exist_ok=True)
    studies = _studies([read_json(path)["structure"] for path in facts])
    texts = _fill(sources, studies, read_json(provenance)["structure"], folder)
    if absent := missing(texts, numbers):
        raise MedscaleError(
            "the paper uses numbers that nothing measured:\n  " + "\n  ".join(absent)
        )
    shutil.copyfile(numbers, folder / "numbers.tex")
    shutil.copyfile(sources / "references.bib", folder / "references.bib")
    write_text(
        folder / "places.tex",
        rf"\newcommand{{\workdir}}{{{os.path.relpath(workdir, folder)}}}" + "\n",
    )
    _forget(folder)
    _latexmk(folder)
    with atomic(out) as temporary:
        shutil.copyfile(folder / f"{MAIN}.pdf", temporary)


def _studies(structures: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Structures of the studies in order, each with its parts below their names."""
    whole = {one["name"]: dict(one) for one in structures if "part_of" not in one}
    for one in structures:
        if "part_of" in one:
            whole[one["part_of"]][one["part"]] = one
    return list(whole.values())


def _fill(
    sources: Path, studies: list[dict[str, Any]], made: dict[str, Any], folder: Path
) -> list[Path]:
    """Write the text below ``folder``; templates have << values >>, <% statements %> and <# remarks #>."""
    environment = Environment(
        loader=FileSystemLoader(sources),
        undefined=StrictUndefined,
        block_start_string="<%",
        block_end_string="%>",
        variable_start_string="<<",
        variable_end_string=">>",
        comment_start_string="<#",
        comment_end_string="#>",
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
        finalize=lambda value: value if isinstance(value, _Latex) else escape(value),
    )
    environment.filters["key"] = _Latex
    every_mark = [one for study in studies for one in study["marks"]]
    written = []
    for path in [sources / f"{MAIN}.tex", *sorted((sources / "sections").glob("*.tex*"))]:
        text = path.read_text(encoding="utf-8")
        name = path.relative_to(sources)
        if path.suffix == ".j2":
            name = name.with_suffix("")
            try:
                text = environment.get_template(str(path.relative_to(sources))).render(
                    studies=studies,
                    made=made,
                    demo=any(m["scale"] == "demo" for m in every_mark),
                    mark=mark(every_mark),
                )
            except TemplateError as error:
                raise MedscaleError(
                    f"{path}, line {getattr(error, 'lineno', '?')}: {error.message}"
                ) from None
        write_text(folder / name, text)
        written.append(folder / name)
    return written


class _Latex(str):
    """Text that is LaTeX already: file names and keys."""


def _latexmk(folder: Path) -> None:
    command = [
        "latexmk",
        "-pdf",
        "-interaction=nonstopmode",
        "-halt-on-error",
        "-file-line-error",
        f"{MAIN}.tex",
    ]
    environment = os.environ | {
        "SOURCE_DATE_EPOCH": SOURCE_DATE,
        "FORCE_SOURCE_DATE": "1",
        "max_print_line": "1000",
    }
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT_S,
        )
    except FileNotFoundError:
        raise MedscaleError("latexmk is not installed; `make setup-latex` installs LaTeX") from None
    except subprocess.TimeoutExpired:
        raise MedscaleError(
            f"LaTeX took longer than {TIMEOUT_S} s; see {folder / f'{MAIN}.log'}"
        ) from None
    log = folder / f"{MAIN}.log"
    text = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
    problems = _errors(text, folder) if done.returncode else _undefined(text)
    if done.returncode and not problems:
        problems = done.stdout.strip().splitlines()[-5:]
    if problems:
        raise MedscaleError(f"the paper cannot be built ({log}):\n  " + "\n  ".join(problems))


def _forget(folder: Path) -> None:
    """Remove what LaTeX left, so that a build depends on its inputs alone (a failed one leads the next astray)."""
    for left in folder.glob(f"{MAIN}.*"):
        if left.suffix != ".tex":
            left.unlink()


def _errors(log: str, folder: Path) -> list[str]:
    """What LaTeX or biber complained of, with file and line."""
    complaint = re.compile(
        r"^((?:\./)?[^\s:]+:\d+: (?! ==>).*)$(?:(?s:.{0,600}?)^(l\.\d+ .*)$)?", flags=re.M
    )
    found = [" … ".join(filter(None, match.groups())) for match in complaint.finditer(log)]
    biber = folder / f"{MAIN}.blg"
    if not found and biber.is_file():
        found = [
            line for line in biber.read_text(errors="replace").splitlines() if " ERROR " in line
        ]
    return found[:5]


def _undefined(log: str) -> list[str]:
    """References, citations and letters that LaTeX only warns of."""
    pattern = r"^(?:LaTeX|Package biblatex) Warning: (?:Reference|Citation|The following entry).*$|^Missing character.*$"
    return [match[0] for match in re.finditer(pattern, log, flags=re.M)][:5]
