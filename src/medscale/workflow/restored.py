"""A study restored from its crate: only its report can be made, and nothing that needs images.

``restored.json`` in the folder of outputs marks such a study. Results, predictions and records are
then sources: the rules that index, train, evaluate and measure are left out of the graph, so that
no job can replace them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from medscale.base.code import ROOT, shown_path
from medscale.base.errors import MedscaleError
from medscale.base.files import read_foreign_json
from medscale.config.configuration import Config
from medscale.config.layers import names_of

MARKER = "restored.json"  # below the workdir
RESOLVED = "config.resolved.json"
# Files of rules whose jobs need raw images, networks, or the hardware that a study is measured on.
ABSENT = ("data", "train", "evaluate", "benchmark", "export", "profile")
FOLDERS = ("data", "runs", "results", "external", "measured", "profiled", "exported")
RULE = re.compile(r"^rule (\w+):", re.MULTILINE)


@dataclass(frozen=True)
class Restored:
    """The folder of a restored study."""

    workdir: Path

    def config(self, changes: Mapping[str, Any]) -> Config:
        """Return the configuration of the crate, with this folder as its workdir.

        Raises MedscaleError when it is not valid in this version, or ``changes`` differ from it.
        """
        config = read_config(self.workdir)
        own = config.model_dump(mode="json")
        settings = {key: value for key, value in changes.items() if key != "workdir"}
        if "only" in settings:
            settings["only"] = names_of(settings["only"])
        for name, value in _differences(settings, own):
            raise MedscaleError(
                f"{shown_path(self.workdir)} was restored from a crate and has the "
                f"configuration of {RESOLVED}, where {name!r} is {value!r}: leave the "
                "setting out, give this value, or name another workdir"
            )
        return config

    def check_target(self, target: str) -> None:
        """Raise MedscaleError for a target that only images or a training could make."""
        path = target.removeprefix("./").rstrip("/")
        is_absent = (
            path.partition("/")[0] in FOLDERS
            and path.count("/") > 0
            and not path.endswith("/datasheet.md")  # which a chapter makes
            and not (self.workdir / path).exists()
        )
        if is_absent or path in absent_rules():
            raise MedscaleError(
                f"{target} cannot be made: {shown_path(self.workdir)} was restored from a crate, "
                "without the images; its report can be made: snakemake paper"
            )


def _differences(
    changes: Mapping[str, Any], own: Mapping[str, Any], prefix: str = ""
) -> Iterator[tuple[str, Any]]:
    """Yield name and own value of each setting that changes would give another value."""
    for key, value in changes.items():
        present = own.get(key)
        if isinstance(value, Mapping) and isinstance(present, Mapping):
            yield from _differences(value, present, f"{prefix}{key}.")
        elif present != value:
            yield f"{prefix}{key}", present


def find(workdir: Path) -> Restored | None:
    """Return the restored study in a folder, if that is one."""
    return Restored(workdir) if (workdir / MARKER).is_file() else None


def read_config(workdir: Path) -> Config:
    """Return the recorded configuration of a restored study; its outputs go into ``workdir``.

    Raises MedscaleError when it is missing, or another version wrote it.
    """
    tree = read_foreign_json(workdir / RESOLVED)
    try:
        return Config.model_validate({**tree, "workdir": str(workdir), "cluster": None})
    except (ValidationError, TypeError) as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else None
        setting = ".".join(map(str, first["loc"])) if first else "(whole file)"
        raise MedscaleError(
            f"{workdir / RESOLVED} is no configuration of this version of medscale ({setting}: "
            f"{first['msg'] if first else error}); use the version that packed the crate"
        ) from None


def absent_rules() -> set[str]:
    """Return the names of the rules that a restored study does not have."""
    texts = [(ROOT / "rules" / f"{name}.smk").read_text(encoding="utf-8") for name in ABSENT]
    return {name for text in texts for name in RULE.findall(text)}
