"""The container image of jobs: its file, and the environment of jobs that run in it."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from medscale.base.errors import MedscaleError
from medscale.base.files import read_json, sha256
from medscale.base.provenance import IMAGE_NAME, UNKNOWN

FOLDER, LINK, LOCK = "containers", "medscale.sif", "requirements.lock"
BUILD = "`make image` builds one"
WITHOUT = "Jobs without an image: `--sdm env-modules` (docs/cluster.md, Without an image)"
BOUND = "MEDSCALE_BIND"  # the folders that a parent process has put into APPTAINER_BIND


def link(root: Path) -> Path:
    """Return the path of the link to the image in use."""
    return root / FOLDER / LINK


def image(root: Path) -> Path:
    """Return the image file that the link points to.

    Its name contains the first 12 digits of its SHA-256, so that a new image has a new name and its
    jobs run again. The build wrote a ``.json`` file next to it: ``sha256, bytes, image`` (docker's
    id, null without docker), ``base, version, commit, dirty, apptainer, lock`` (SHA-256 of the
    requirements of the build).

    Args:
        root: the project's root.

    Raises:
        MedscaleError: when there is no image, or when it was built from other requirements than
            those of the checkout.
    """
    if not link(root).exists():
        text = f"{link(root)}: there is no image to run jobs in; {BUILD}"
        if copies := sorted(link(root).parent.glob("medscale-*.sif")):
            text += f", and `ln -s {copies[-1].name} {FOLDER}/{LINK}` uses the copied one"
        raise MedscaleError(f"{text}. {WITHOUT}")
    file = link(root).resolve()
    if not IMAGE_NAME.fullmatch(file.name):
        raise MedscaleError(
            f"{link(root)} points to {file.name}, not to a medscale-<digest>.sif; {BUILD}"
        )
    if read_json(file.with_suffix(".json")).get("lock") != sha256(root / LOCK):
        raise MedscaleError(
            f"{file} was built from a {LOCK} that differs from this checkout's; {BUILD} that fits"
        )
    return file


def program() -> str | None:
    """Return the path of the program Apptainer; None if it is not installed."""
    return shutil.which("apptainer")


def check_program() -> None:
    """Check that Apptainer is on PATH.

    Raises:
        MedscaleError: otherwise.
    """
    if program() is None:
        raise MedscaleError(
            "Apptainer, which runs the image, is not on PATH; load its module (`module load "
            f"apptainer`) or install it, here and on every node. {WITHOUT}"
        )


def check_home(workdir: Path) -> None:
    """Check that Snakemake can pass the workdir to Apptainer; it quotes paths by Python's ``repr``.

    Raises:
        MedscaleError: otherwise; the message names the folder.
    """
    name_repr = repr(str(workdir))
    # ``repr`` takes double quotes for a name with a single quote; within them the shell expands $
    # and `.
    if "\\" in name_repr or (name_repr.startswith('"') and re.search("[$`]", name_repr)):
        raise MedscaleError(
            f"{workdir}: a folder with both kinds of quotes, a backslash, or a quote and a dollar "
            "sign in its name cannot be the workdir of jobs in a container; name another `workdir`"
        )


def environment(root: Path, folders: Iterable[Path], commit: dict[str, Any]) -> dict[str, str]:
    """Return the environment variables of jobs.

    In an image, jobs run the code of this checkout on the files of this machine. The image has the
    dependencies, and a copy of the package for use without a checkout. In jobs, the checkout's
    ``src`` precedes that copy, since the digests of the rules are those of the checkout. The
    folders are those of this machine: a node may lack folders of a login node, and Apptainer does
    not start with a missing folder.

    Args:
        root: the project's root.
        folders: further folders of inputs and outputs; missing ones are left out.
        commit: ``commit`` and ``dirty`` of the checkout, which the image cannot find without git.

    Raises:
        MedscaleError: for a folder name with a comma or colon, which Apptainer's list of folders
            cannot express.
    """
    mounts = [root.resolve()]
    hub = _hub()
    for folder in (*folders, Path(tempfile.gettempdir()), hub):
        if folder.exists() and not any(folder.resolve().is_relative_to(outer) for outer in mounts):
            mounts.append(folder.resolve())
    if refused := [str(folder) for folder in mounts if re.search("[,:]", str(folder))]:
        raise MedscaleError(
            f"{refused[0]}: a folder with a comma or a colon in its name cannot be mounted in a "
            "container; rename it"
        )
    inside = {
        "PYTHONPATH": _prepend(str(root / "src"), os.environ.get("PYTHONPATH", ""), os.pathsep),
        # Set even if unknown, since the image's own variables would name another commit.
        "MEDSCALE_COMMIT": commit["commit"] or UNKNOWN,
        "MEDSCALE_DIRTY": UNKNOWN if commit["dirty"] is None else str(commit["dirty"]).lower(),
    }
    binds = ",".join(map(str, mounts))
    inherited = os.environ.get("APPTAINER_BIND", "")
    own = os.environ.get(BOUND, "")
    if own and inherited.startswith(own):
        inherited = inherited.removeprefix(own).removeprefix(",")
    if hub.is_dir():
        inside["HF_HOME"] = str(hub)
    # The image's variables override the host's, except those with the prefix APPTAINERENV_.
    return (
        inside
        | {f"APPTAINERENV_{name}": value for name, value in inside.items()}
        | {"APPTAINER_BIND": f"{binds},{inherited}".removesuffix(","), BOUND: binds}
    )


def _hub() -> Path:
    """Return the folder in which huggingface_hub keeps weights.

    It follows from the home folder, which is another one in a container.
    """
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("HF_HOME") or Path(cache, "huggingface"))


def _prepend(new: str, old: str, separator: str) -> str:
    """Put ``new`` before the user's value, once, although each process of Snakemake calls this."""
    if old == new or old.startswith(new + separator):
        return old
    return new + (separator + old if old else "")
