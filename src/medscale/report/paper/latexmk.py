"""Run latexmk and report the errors of its log."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from medscale.base.errors import MedscaleError

TIMEOUT_S = 300
SHOWN = 5  # problems in one message: the later ones mostly follow from the first
SOURCE_DATE = "1767225600"  # 2026-01-01, so that the same inputs give the same PDF

ERROR = re.compile(
    r"^((?:\./)?[^\s:]+:\d+: (?! ==>).*)$(?:(?s:.{0,600}?)^(l\.\d+ .*)$)?", flags=re.M
)
# References, citations and letters that LaTeX only warns of.
WARNING = re.compile(
    r"^(?:LaTeX|Package biblatex) Warning: (?:Reference|Citation|The following entry).*$"
    r"|^Missing character.*$",
    flags=re.M,
)


def run_latexmk(folder: Path, name: str) -> None:
    """Make ``name.pdf`` of ``name.tex`` in ``folder``.

    Raises MedscaleError when LaTeX is missing, fails, takes too long, or prints an undefined
    reference, citation or letter.
    """
    for path in folder.glob(f"{name}.*"):  # a failed build's files would mislead this one
        if path.suffix != ".tex":
            path.unlink()
    command = ["latexmk", "-pdf", "-interaction=nonstopmode", "-halt-on-error", "-file-line-error"]
    log = folder / f"{name}.log"
    try:
        process = subprocess.run(
            [*command, f"{name}.tex"],
            cwd=folder,
            env=os.environ
            | {
                "SOURCE_DATE_EPOCH": SOURCE_DATE,
                "FORCE_SOURCE_DATE": "1",
                "max_print_line": "1000",
            },
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT_S,
        )
    except FileNotFoundError:
        raise MedscaleError("latexmk is not installed; `make setup-latex` installs LaTeX") from None
    except subprocess.TimeoutExpired:
        raise MedscaleError(f"LaTeX took longer than {TIMEOUT_S} s; see {log}") from None
    text = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
    if process.returncode:
        problems = _errors(text, folder / f"{name}.blg") or process.stdout.strip().splitlines()
        problems = problems[-SHOWN:]
    else:
        problems = [match[0] for match in WARNING.finditer(text)][:SHOWN]
    if problems:
        raise MedscaleError(f"the paper cannot be built ({log}):\n  " + "\n  ".join(problems))


def _errors(log: str, biber_log: Path) -> list[str]:
    """Return the errors of LaTeX, with file and line, or those of biber."""
    errors = [" … ".join(filter(None, match.groups())) for match in ERROR.finditer(log)]
    if not errors and biber_log.is_file():
        lines = biber_log.read_text(errors="replace").splitlines()
        errors = [line for line in lines if " ERROR " in line]
    return errors[:SHOWN]
