"""What the processes of a pool do in tests; they import this by its name."""

from __future__ import annotations

import os
import time
from typing import Any

from medscale.base.errors import MedscaleError


def start(fault: str = "") -> int:
    if fault:
        raise MedscaleError(fault)
    return os.getpid()


def carry_out(key: Any, contents: list[Any]) -> list[Any]:
    """Double each content, with the size of its batch; words are obeyed."""
    for content in contents:
        if content == "die":
            os._exit(3)
        if content == "raise":
            raise ValueError("raised")
        if isinstance(content, float):
            time.sleep(content)
    return [(content * 2, len(contents)) for content in contents]
