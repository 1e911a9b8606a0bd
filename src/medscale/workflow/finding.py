"""A line of `medscale check`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "note", "error"]


@dataclass(frozen=True)
class Finding:
    """One line of the report: the subject, its state, and the remedy of an error."""

    level: Level
    subject: str
    text: str
