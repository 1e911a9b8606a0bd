"""What the processes of a pool do in tests; they import this by its name."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from medscale.base.errors import MedscaleError
from waiting import until


def start(fault: str = "") -> int:
    if fault:
        raise MedscaleError(fault)
    return os.getpid()


def carry_out(key: Any, contents: list[Any]) -> list[Any]:
    """Double each content, with the size of its batch; words are obeyed.

    A path is awaited and counts as 1.
    """
    for content in contents:
        if content == "die":
            os._exit(3)
        if content == "raise":
            raise ValueError("raised")
        if isinstance(content, float):
            time.sleep(content)
        if isinstance(content, Path):
            until(content.exists, f"{content} is written")
    numbers = [1 if isinstance(content, Path) else content for content in contents]
    return [(number * 2, len(contents)) for number in numbers]
