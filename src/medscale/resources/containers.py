"""The image that jobs run in: which file it is, what its jobs must see, and what a record says of it."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from medscale.base.errors import MedscaleError
from medscale.base.files import read_json, sha256
from medscale.base.provenance import IMAGE_NAME, UNKNOWN

FOLDER, LINK, LOCK = "containers", "medscale.sif", "requirements.lock"
BUILD = "`make image` builds one"


def link(root: Path) -> Path:
    """The name under which the image is known that is in use."""
    return root / FOLDER / LINK


def image(root: Path) -> Path:
    """The image file that the link points to.

    Its name has the first 12 digits of its SHA-256, so that another image is another file and its jobs run again.
    Beside it lies a ``.json``, written when it was made: ``sha256, bytes, image`` (docker's id, null without docker),
    ``base, version, commit, dirty, apptainer, lock`` (SHA-256 of the requirements that it was built from).

    Args:
        root: the project's root.

    Raises:
        MedscaleError: where there is no image, or it was built from other requirements than the checkout's.
    """
    if not link(root).exists():
        raise MedscaleError(f"{link(root)}: there is no image to run jobs in; {BUILD}")
    file = link(root).resolve()
    if not IMAGE_NAME.fullmatch(file.name):
        raise MedscaleError(
            f"{link(root)} points to {file.name}, not to a medscale-<digest>.sif; {BUILD}"
        )
    if read_json(file.with_suffix(".json")).get("lock") != sha256(root / LOCK):
        raise MedscaleError(
            f"{file} was built from another {LOCK} than this checkout's; {BUILD} that fits"
        )
    return file


def environment(root: Path, folders: Iterable[Path], commit: dict[str, Any]) -> dict[str, str]:
    """What jobs find in their environment, so that in an image they run this checkout's code on this machine's files.

    The image brings what the code depends on, and a copy of the package for use without a checkout; in jobs the
    checkout's own ``src`` stands before that copy, as the rules' digests of the code are digests of the checkout.

    Args:
        root: the project's root.
        folders: where jobs read and write besides; what does not exist is left out.
        commit: ``commit`` and ``dirty`` of the checkout, which an image without git could not tell.

    Raises:
        MedscaleError: for a folder whose name Apptainer's list of folders cannot hold.
    """
    seen = [root.resolve()]
    for folder in (*folders, Path(tempfile.gettempdir())):
        if folder.exists() and not any(folder.resolve().is_relative_to(other) for other in seen):
            seen.append(folder.resolve())
    if odd := [str(folder) for folder in seen if re.search("[,:]", str(folder))]:
        raise MedscaleError(
            f"{odd[0]}: a folder with a comma or a colon in its name cannot be shown to a container"
        )
    inside = {
        "PYTHONPATH": _first(str(root / "src"), os.environ.get("PYTHONPATH", ""), os.pathsep),
        # said also where it is not known: else the commit that the image was built from would stand for the checkout's
        "MEDSCALE_COMMIT": commit["commit"] or UNKNOWN,
        "MEDSCALE_DIRTY": UNKNOWN if commit["dirty"] is None else str(commit["dirty"]).lower(),
    }
    binds = _first(",".join(map(str, seen)), os.environ.get("APPTAINER_BIND", ""), ",")
    # Apptainer lets what the image sets win over what it finds here, unless it stands under such a name.
    return (
        inside
        | {f"APPTAINERENV_{name}": value for name, value in inside.items()}
        | {"APPTAINER_BIND": binds}
    )


def _first(new: str, old: str, separator: str) -> str:
    """``new`` before what the user has set, once: each of Snakemake's processes comes by here."""
    return (
        old
        if old == new or old.startswith(new + separator)
        else new + (separator + old if old else "")
    )
