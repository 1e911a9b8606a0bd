"""Copies of a study's files without the names of hosts and home folders."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from medscale.base.files import read_json
from medscale.workflow.crate.scan import HOME

HOST = "host"  # key of the machine's name in records of earlier versions
SETTINGS = ("config.yaml",)


def copy(file: Path, to: Path) -> None:
    """Copy a file; JSON and settings without hosts, and with ``~`` for home folders."""
    to.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".json":
        content = read_json(file)
        if (cleaned := _cleaned(content)) != content:
            text = json.dumps(cleaned, indent=2, ensure_ascii=False) + "\n"
            _write(to, text, file)
            return
    elif file.name in SETTINGS:
        _write(to, _without_home(file.read_text(encoding="utf-8")), file)
        return
    shutil.copy2(file, to)


def _write(to: Path, text: str, original: Path) -> None:
    """Write a text with the time of the original, which the crate gives as the end of its job."""
    to.write_text(text, encoding="utf-8")
    shutil.copystat(original, to)


def _cleaned(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            _without_home(key): _cleaned(item)
            for key, item in value.items()
            if not (key == HOST and isinstance(item, str))
        }
    if isinstance(value, list):
        return [_cleaned(item) for item in value]
    return _without_home(value) if isinstance(value, str) else value


def _without_home(text: str) -> str:
    home = str(Path.home())
    if len(home) > 1:
        text = text.replace(f"{home}/", "~/")
    return HOME.sub("~", text)
