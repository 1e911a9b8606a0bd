"""Checkpoints: sharded tensors (DCP) and the progress, with a SHA-256 for each file."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import warnings
from pathlib import Path
from typing import Any

import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint import CheckpointException, FileSystemWriter
from torch.distributed.checkpoint.default_planner import DefaultSavePlanner

from medscale.base.errors import MedscaleError
from medscale.base.files import read_json, sha256, sync_folder, write_json, write_text
from medscale.base.log import log
from medscale.engine.parallel.world import World
from medscale.engine.plan import KEPT_CHECKPOINTS, MANIFEST, PROGRESS
from medscale.engine.train.progress import Progress
from medscale.engine.train.reading import Planner, Reader, read_metadata

_NAME = re.compile(r"step-(\d{9})")


class Checkpoints:
    """The checkpoints of one replicate, shared by its ranks.

    A checkpoint is written under a temporary name and renamed, so that it is complete or absent.
    DCP's metadata is a pickle, so it is read by an unpickler that allows DCP's classes alone, and
    only from a folder of this user that holds exactly the files of its manifest.

    Args:
        folder: their folder, on a disk that all ranks see.
        world: this rank and its peers.
        key: digest of the settings that decide the weights; checkpoints with another are skipped.
    """

    def __init__(self, folder: Path, world: World, key: str) -> None:
        self._folder, self._world, self._key = folder, world, key
        self._broken: set[Path] = set()

    def save(self, tensors: dict[str, Any], progress: Progress, steps_done: int) -> bool:
        """Write a checkpoint; all ranks call it, each with its own part of ``tensors``.

        A failure, such as a full disk, is logged. Earlier checkpoints are kept.

        Returns:
            Whether the checkpoint was written, the same on every rank.
        """
        final = self._folder / f"step-{steps_done:09d}"
        partial = self._folder / f".{final.name}.part"
        failure = ""
        try:
            _write(tensors, partial, self._world)
            if self._world.is_main:
                self._seal(partial, final, progress)
        except (CheckpointException, OSError, MedscaleError) as error:
            failure = _first_line(error)
        failure = self._world.from_main(failure)
        if failure and self._world.is_main:
            log.warning(
                "checkpoint after step %d could not be written (%s); training continues",
                steps_done,
                failure,
            )
            shutil.rmtree(partial, ignore_errors=True)
        return not failure

    def latest(self) -> tuple[Path, Progress] | None:
        """Return the newest valid checkpoint, the same on every rank; damaged ones are logged."""
        checkpoint = None
        if self._world.is_main:
            for leftover in self._folder.glob(".step-*.part"):
                shutil.rmtree(leftover, ignore_errors=True)
            for folder in self._all():
                fault = self._fault(folder)
                if fault is None:
                    checkpoint = folder, read_json(folder / PROGRESS)
                    break
                self._broken.add(folder)
                log.warning("checkpoint %s is skipped: %s", folder, fault)
        checkpoint = self._world.from_main(checkpoint)
        if checkpoint is None:
            return None
        folder, progress = checkpoint
        return folder, Progress.model_validate(progress)

    def read(self, folder: Path, tensors: dict[str, Any]) -> None:
        """Fill ``tensors`` (this rank's part, with the right shapes) in place."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dcp.load(
                tensors,
                storage_reader=Reader(folder),
                planner=Planner(),
                process_group=self._world.patient,
            )

    def discard(self) -> None:
        """Remove all checkpoints, after the outputs are written."""
        if self._world.is_main:
            for folder in [*self._all(), *self._folder.glob(".step-*.part")]:
                shutil.rmtree(folder, ignore_errors=True)

    def _seal(self, partial: Path, final: Path, progress: Progress) -> None:
        """Add progress and manifest, rename the folder, and remove older checkpoints."""
        # Not write_json, which refuses NaN: a validation loss may be NaN.
        write_text(partial / PROGRESS, json.dumps(progress.model_dump()))
        files = {file.name: sha256(file) for file in sorted(partial.iterdir())}
        write_json(partial / MANIFEST, {"key": self._key, "files": files})
        if final.exists():  # a damaged checkpoint of the same step
            shutil.rmtree(final)
            self._broken.discard(final)
        partial.rename(final)
        sync_folder(self._folder)
        valid = [folder for folder in self._all() if folder not in self._broken]
        for folder in {*valid[KEPT_CHECKPOINTS:], *self._broken}:
            shutil.rmtree(folder, ignore_errors=True)
        self._broken.clear()

    def _all(self) -> list[Path]:
        """Return the checkpoint folders, newest first."""
        if not self._folder.is_dir():
            return []
        return sorted((f for f in self._folder.iterdir() if _NAME.fullmatch(f.name)), reverse=True)

    def _fault(self, folder: Path) -> str | None:
        """Return why a checkpoint cannot be used; None if it can."""
        try:
            if foreign := _foreign(folder):
                return f"{', '.join(foreign)}: a link, or another user's"
            manifest = read_json(folder / MANIFEST)
            if manifest["key"] != self._key:
                return "it belongs to another configuration or dataset"
            files = manifest["files"]
            damaged = files.keys() ^ ({file.name for file in folder.iterdir()} - {MANIFEST})
            damaged |= {
                name
                for name, digest in files.items()
                if name not in damaged and sha256(folder / name) != digest
            }
            if damaged:
                return f"damaged, missing or not in its manifest: {', '.join(sorted(damaged))}"
            read_metadata(folder)
        except (MedscaleError, OSError, KeyError, TypeError, AttributeError) as error:
            return _first_line(error)
        return None


def _foreign(folder: Path) -> list[str]:
    """Return the names of links, and of files that another user owns, in a checkpoint's folder.

    The folder is included: who owns it can exchange its files after they were verified.
    """
    expected = [(folder.parent, stat.S_ISDIR), (folder, stat.S_ISDIR)]
    expected += [(file, stat.S_ISREG) for file in folder.iterdir()]
    return sorted(
        path.name
        for path, is_type in expected
        if not is_type((status := path.lstat()).st_mode) or status.st_uid != os.geteuid()
    )


def _write(tensors: dict[str, Any], folder: Path, world: World) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.save(
            tensors,
            storage_writer=FileSystemWriter(folder, sync_files=True, overwrite=True),
            planner=DefaultSavePlanner(dedup_save_to_lowest_rank=True),
            process_group=world.patient,
        )


def _first_line(error: BaseException) -> str:
    """Return an error's type and the first line of its message."""
    if isinstance(error, CheckpointException):
        error = next((e for e, _ in error.failures.values() if isinstance(e, BaseException)), error)
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__
