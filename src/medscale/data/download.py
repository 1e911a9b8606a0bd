"""The official downloads of the datasets: their commands, requirements and execution."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import zipfile
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from medscale.base.errors import MedscaleError
from medscale.base.log import log
from medscale.data.kind import kind_names, load_kind

TOKEN = "~/.kaggle/kaggle.json"  # noqa: S105 (a path, not a token)
NO_TOKEN = (
    "Kaggle requires a token: sign in at kaggle.com, create a token in Settings, API, and put the "
    f"file at {TOKEN} (chmod 600), or set KAGGLE_USERNAME and KAGGLE_KEY"
)
NO_KAGGLE = "the program `kaggle` was not found: install it with pip (package kaggle)"
NO_CURL = "neither curl nor wget was found: install one of them"


@dataclass(frozen=True)
class Kaggle:
    """A dataset, or the data of a competition, at kaggle.com."""

    slug: str  # owner/name of a dataset, or name of a competition
    competition: bool = False  # the slug is that of a competition, whose rules must be accepted

    def commands(self, folder: Path | str = ".") -> list[list[str]]:
        """Return the command lines that download into ``folder``."""
        target = [] if str(folder) == "." else ["-p", str(folder)]
        if self.competition:
            return [["kaggle", "competitions", "download", "-c", self.slug, *target]]
        return [["kaggle", "datasets", "download", "-d", self.slug, *target]]

    @property
    def rules(self) -> str:
        """Terms that must first be accepted on the web page; empty without any."""
        page = f"https://www.kaggle.com/competitions/{self.slug}/rules"
        return f"its rules must be accepted once, signed in, at {page}" if self.competition else ""

    def missing(self) -> list[str]:
        """Return the programs and credentials that this machine lacks."""
        missing = [] if shutil.which("kaggle") else [NO_KAGGLE]
        environment = bool(os.environ.get("KAGGLE_USERNAME") and os.environ.get("KAGGLE_KEY"))
        has_token = environment or Path(TOKEN).expanduser().is_file()
        return missing if has_token else [*missing, NO_TOKEN]


@dataclass(frozen=True)
class Archives:
    """Files on an open web server."""

    start: str  # common beginning of the addresses
    # each address continues with one of the first tuple, then one of the second, …
    parts: tuple[tuple[str, ...], ...]
    rules = ""

    def commands(self, folder: Path | str = ".") -> list[list[str]]:
        """Return the command lines that download into ``folder`` or resume a download."""
        if shutil.which("wget") and not shutil.which("curl"):
            urls = [self.start + "".join(name) for name in product(*self.parts)]
            return [["wget", "--continue", "--directory-prefix", str(folder), *urls]]
        target = [] if str(folder) == "." else ["--create-dirs", "--output-dir", str(folder)]
        names = "".join(f"{{{','.join(part)}}}" for part in self.parts)  # curl's own globbing
        options = ["--fail-early", "-fL", "-C", "-", "--remote-name-all"]
        return [["curl", *options, *target, self.start + names]]

    def missing(self) -> list[str]:
        """Return the programs that this machine lacks."""
        return [] if shutil.which("curl") or shutil.which("wget") else [NO_CURL]


Download = Kaggle | Archives


def command_line(download: Download) -> str:
    """Return the commands of a download as one line, for messages."""
    return " && ".join(shlex.join(line) for line in download.commands())


def find_download(kind: str) -> Download:
    """Return the download of a dataset kind.

    Raises:
        MedscaleError: when the kind has no download, such as ``folder``.
    """
    download = load_kind(kind).download
    if download is None:
        names = ", ".join(name for name in kind_names() if load_kind(name).download)
        raise MedscaleError(
            f"dataset kind {kind!r} has no download; kinds with a download: {names}"
        )
    return download


def instructions(kind: str, folder: Path) -> str:
    """Return the steps of a download into ``folder``: prerequisites and command lines."""
    download = find_download(kind)
    lines = [f"first: {step}" for step in [*download.missing(), download.rules] if step]
    lines += [shlex.join(line) for line in download.commands(folder)]
    lines.append(
        f"then unzip the files in {folder}: `medscale data fetch {kind} --run` downloads, unzips "
        "and checks"
    )
    return "\n".join(lines)


def fetch(kind: str, folder: Path) -> None:
    """Download a dataset and unpack it into ``folder``.

    Files are collected in a hidden folder next to ``folder``, which is renamed at the end, so that
    the raw folder is complete or absent. After an interruption the same call resumes the download.

    Raises:
        MedscaleError: when the folder holds files, a program or a token is missing, a command
            fails, an archive is damaged, or the disk is too small for its contents.
    """
    download = find_download(kind)
    if missing := download.missing():
        steps = [*missing, download.rules] if download.rules else missing
        raise MedscaleError(f"the download of {kind} cannot run here:\n  " + "\n  ".join(steps))
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise MedscaleError(
            f"{folder} already holds files; check them: `medscale data check {kind} {folder}`, or "
            "empty the folder"
        )
    partial = _partial_folder(folder)
    try:
        partial.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MedscaleError(f"{partial} cannot be created: {error.strerror}") from None
    for line in download.commands(partial):
        log.info("%s", shlex.join(line))
        if subprocess.run(line).returncode != 0:
            hint = f"; {download.rules}" if download.rules else ""
            raise MedscaleError(
                f"the download failed, see above: {shlex.join(line)}{hint}. The same `medscale` "
                "command resumes it"
            )
    archives = sorted(partial.glob("*.zip"))
    for archive in archives:
        _unpack(archive, partial)
    for archive in archives:
        archive.unlink()
    if folder.is_dir():
        folder.rmdir()
    partial.rename(folder)


def interrupted_download(folder: Path) -> Path | None:
    """Return the hidden folder of an interrupted download into ``folder``, if there is one."""
    return _partial_folder(folder) if _partial_folder(folder).is_dir() else None


def _partial_folder(folder: Path) -> Path:
    folder = folder.absolute()
    return folder.parent / f".{folder.name}.download"


def _unpack(archive: Path, folder: Path) -> None:
    """Unpack a ZIP file into ``folder``; zipfile verifies its checksums."""
    try:
        with zipfile.ZipFile(archive) as file:
            size = sum(entry.file_size for entry in file.infolist())
            free = shutil.disk_usage(folder).free
            if size > free:
                raise MedscaleError(
                    f"{archive} needs {size / 1e9:.1f} GB unpacked, but {folder} has only "
                    f"{free / 1e9:.1f} GB free; free some space"
                )
            log.info("unpacking %s, %.1f GB", archive.name, size / 1e9)
            file.extractall(folder)
    except (zipfile.BadZipFile, OSError, EOFError) as error:
        raise MedscaleError(
            f"{archive} cannot be unpacked ({error}): delete it and run the same command again"
        ) from None
