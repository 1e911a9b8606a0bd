"""The official downloads by source kind: the command of each, what it needs, and carrying it out."""

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

TOKEN = "~/.kaggle/kaggle.json"
NO_TOKEN = (
    f"Kaggle wants a token: sign in at kaggle.com, Settings, API, create a token, and put the file at {TOKEN} "
    "(chmod 600), or set KAGGLE_USERNAME and KAGGLE_KEY"
)
NO_KAGGLE = "the program `kaggle` is not found: install it with pip (package kaggle)"
NO_CURL = "neither curl nor wget is found: install one of them"


@dataclass(frozen=True)
class Kaggle:
    """A dataset, or a competition's data, at kaggle.com.

    Attributes:
        slug: owner/name of a dataset, name of a competition.
        competition: whether its rules must be accepted before.
    """

    slug: str
    competition: bool = False

    def commands(self, folder: Path | str = ".") -> list[list[str]]:
        """The command lines that download into ``folder``."""
        where = [] if str(folder) == "." else ["-p", str(folder)]
        if self.competition:
            return [["kaggle", "competitions", "download", "-c", self.slug, *where]]
        return [["kaggle", "datasets", "download", "-d", self.slug, *where]]

    @property
    def rules(self) -> str:
        """What a person must have done on the web page before."""
        page = f"https://www.kaggle.com/competitions/{self.slug}/rules"
        return f"its rules must be accepted once, signed in, at {page}" if self.competition else ""

    def missing(self) -> list[str]:
        """What must still be done here before the commands can run."""
        lacks = [] if shutil.which("kaggle") else [NO_KAGGLE]
        environment = bool(os.environ.get("KAGGLE_USERNAME") and os.environ.get("KAGGLE_KEY"))
        return lacks if environment or Path(TOKEN).expanduser().is_file() else [*lacks, NO_TOKEN]


@dataclass(frozen=True)
class Archives:
    """Files on an open web server.

    Attributes:
        start: what their addresses begin with.
        parts: each address goes on with one of each part, in this order.
    """

    start: str
    parts: tuple[tuple[str, ...], ...]

    def commands(self, folder: Path | str = ".") -> list[list[str]]:
        """The command lines that download into ``folder``; an interrupted download goes on."""
        if shutil.which("wget") and not shutil.which("curl"):
            urls = [self.start + "".join(name) for name in product(*self.parts)]
            return [["wget", "--continue", "--directory-prefix", str(folder), *urls]]
        where = [] if str(folder) == "." else ["--create-dirs", "--output-dir", str(folder)]
        names = "".join(f"{{{','.join(part)}}}" for part in self.parts)  # curl's own globbing
        return [
            [
                "curl",
                "--fail-early",
                "-fL",
                "-C",
                "-",
                "--remote-name-all",
                *where,
                self.start + names,
            ]
        ]

    @property
    def rules(self) -> str:
        """Nothing: the server is open."""
        return ""

    def missing(self) -> list[str]:
        """What must still be done here before the commands can run."""
        return [] if shutil.which("curl") or shutil.which("wget") else [NO_CURL]


DOWNLOADS: dict[str, Kaggle | Archives] = {
    "smdg": Kaggle("sabari50312/fundus-pytorch"),
    "skin": Kaggle("muhammadabdulsami/massive-skin-disease-balanced-dataset"),
    "isic2017": Archives(
        "https://isic-challenge-data.s3.amazonaws.com/2017/ISIC-2017_",
        (("Training", "Validation", "Test_v2"), ("_Data.zip", "_Part3_GroundTruth.csv")),
    ),
    "rsna": Kaggle("rsna-pneumonia-detection-challenge", competition=True),
}


def official(kind: str) -> Kaggle | Archives:
    """The download of a source kind.

    Raises:
        MedscaleError: when there is none, as for a person's own images.
    """
    if kind not in DOWNLOADS:
        known = ", ".join(sorted(DOWNLOADS))
        raise MedscaleError(
            f"there is no download for source kind {kind!r}; there are for: {known}"
        )
    return DOWNLOADS[kind]


def command(kind: str) -> str:
    """The official download as one line, for messages."""
    return " && ".join(shlex.join(line) for line in official(kind).commands())


def instructions(kind: str, folder: Path) -> str:
    """What a person must do to get a dataset into ``folder``: what is lacking here, and the command lines."""
    download = official(kind)
    lines = [shlex.join(line) for line in download.commands(folder)]
    lines += [
        f"then unzip what came into {folder}: `medscale data fetch {kind} --run` does both, and checks"
    ]
    return "\n".join(
        [*(f"first: {lack}" for lack in [*download.missing(), download.rules] if lack), *lines]
    )


def fetch(kind: str, folder: Path) -> None:
    """Download a dataset and unpack it into ``folder``.

    Files are collected in a hidden folder beside ``folder``, which takes its name at the end: the raw folder is there
    whole or not at all, and after an interruption the same call goes on with what is there.

    Raises:
        MedscaleError: when the folder holds files, a program or a token is missing, a command fails, an archive is
            damaged, or the disk is too small for what is in it.
    """
    download = official(kind)
    if lacks := download.missing():
        todo = [*lacks, download.rules] if download.rules else lacks
        raise MedscaleError(f"the download of {kind} cannot run here:\n  " + "\n  ".join(todo))
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise MedscaleError(
            f"{folder} already holds files: see `medscale data check {kind} {folder}`, or empty it"
        )
    waiting = _waiting(folder)
    try:
        waiting.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MedscaleError(f"{waiting} cannot be made: {error.strerror}") from None
    for line in download.commands(waiting):
        log.info("%s", shlex.join(line))
        if subprocess.run(line).returncode != 0:
            hint = f"; {download.rules}" if download.rules else ""
            raise MedscaleError(
                f"the download failed, see above: {shlex.join(line)}{hint}. The same command goes on"
            )
    archives = sorted(waiting.glob("*.zip"))
    for archive in archives:
        _unpack(archive, waiting)
    for archive in archives:
        archive.unlink()
    if folder.is_dir():
        folder.rmdir()
    waiting.rename(folder)


def unfinished(folder: Path) -> Path | None:
    """Where a download into ``folder`` that was interrupted waits, if there is one."""
    return _waiting(folder) if _waiting(folder).is_dir() else None


def _waiting(folder: Path) -> Path:
    folder = folder.absolute()
    return folder.parent / f".{folder.name}.download"


def _unpack(archive: Path, folder: Path) -> None:
    """Unpack a ZIP file, whose checksums are verified, into ``folder``."""
    again = "delete it and run the same command again"
    try:
        with zipfile.ZipFile(archive) as file:
            need, free = (
                sum(entry.file_size for entry in file.infolist()),
                shutil.disk_usage(folder).free,
            )
            if need > free:
                raise MedscaleError(
                    f"{archive} needs {need / 1e9:.1f} GB unpacked, {folder} has {free / 1e9:.1f} GB free: free some"
                )
            log.info("unpacking %s, %.1f GB", archive.name, need / 1e9)
            file.extractall(folder)
    except (zipfile.BadZipFile, OSError, EOFError) as error:
        raise MedscaleError(f"{archive} cannot be unpacked ({error}): {again}") from None
