"""Checkpoints: sharded tensors (DCP) and the progress, whole or not at all, each file under its SHA-256."""

from __future__ import annotations

import json
import re
import shutil
import warnings
from pathlib import Path
from typing import Any

import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint import CheckpointException, FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.default_planner import DefaultSavePlanner

from medscale.base.errors import MedscaleError
from medscale.base.files import read_json, sha256, sync_folder, write_json, write_text
from medscale.base.log import log
from medscale.engine.parallel.world import World
from medscale.engine.plan import KEPT_CHECKPOINTS
from medscale.engine.train.progress import Progress

MANIFEST, PROGRESS = "manifest.json", "progress.json"
_NAME = re.compile(r"step-(\d{9})")


class Checkpoints:
    """The checkpoints of one replicate, shared by its ranks.

    DCP's metadata is a pickle: only folders whose manifest fits are read, and only ones that this class wrote.

    Args:
        folder: where they are; on a disk that all ranks see.
        world: this rank's place.
        key: digest of what decides the weights; checkpoints of anything else are passed over.
    """

    def __init__(self, folder: Path, world: World, key: str) -> None:
        self._folder, self._world, self._key = folder, world, key
        self._broken: set[Path] = set()

    def save(self, tensors: dict[str, Any], progress: Progress, done: int) -> bool:
        """Write a checkpoint after ``done`` steps; all ranks call it, with their own part of ``tensors``.

        A failure (a full disk) is told, and the checkpoints before it stay; training goes on.

        Returns:
            Whether it was written, the same on every rank.
        """
        final = self._folder / f"step-{done:09d}"
        partial = self._folder / f".{final.name}.part"
        trouble = ""
        try:
            _write(tensors, partial, self._world)
            if self._world.is_main:
                self._seal(partial, final, progress)
        except (CheckpointException, OSError, MedscaleError) as error:
            trouble = _first_line(error)
        trouble = self._world.from_main(trouble)
        if trouble and self._world.is_main:
            log.warning(
                "checkpoint after step %d could not be written (%s); training goes on",
                done,
                trouble,
            )
            shutil.rmtree(partial, ignore_errors=True)
        return not trouble

    def latest(self) -> tuple[Path, Progress] | None:
        """The newest whole checkpoint of this training, same on every rank; broken ones are passed over, and told."""
        found = None
        if self._world.is_main:
            for leftover in self._folder.glob(".step-*.part"):
                shutil.rmtree(leftover, ignore_errors=True)
            for folder in self._all():
                fault = self._fault(folder)
                if fault is None:
                    found = folder, read_json(folder / PROGRESS)
                    break
                self._broken.add(folder)
                log.warning("checkpoint %s is passed over: %s", folder, fault)
        found = self._world.from_main(found)
        return None if found is None else (found[0], Progress.model_validate(found[1]))

    def read(self, folder: Path, tensors: dict[str, Any]) -> None:
        """Fill ``tensors`` (this rank's part, of the right shapes) in place."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dcp.load(
                tensors, storage_reader=FileSystemReader(folder), process_group=self._world.patient
            )

    def discard(self) -> None:
        """Remove all checkpoints: the outputs are written."""
        if self._world.is_main:
            for folder in [*self._all(), *self._folder.glob(".step-*.part")]:
                shutil.rmtree(folder, ignore_errors=True)

    def _seal(self, partial: Path, final: Path, progress: Progress) -> None:
        write_text(
            partial / PROGRESS, json.dumps(progress.model_dump())
        )  # a validation loss may be NaN
        files = {file.name: sha256(file) for file in sorted(partial.iterdir())}
        write_json(partial / MANIFEST, {"key": self._key, "files": files})
        if final.exists():  # a broken one of the same step
            shutil.rmtree(final)
            self._broken.discard(final)
        partial.rename(final)
        sync_folder(self._folder)
        good = [folder for folder in self._all() if folder not in self._broken]
        for folder in {*good[KEPT_CHECKPOINTS:], *self._broken}:
            shutil.rmtree(folder, ignore_errors=True)
        self._broken.clear()

    def _all(self) -> list[Path]:
        """Checkpoint folders, newest first."""
        if not self._folder.is_dir():
            return []
        return sorted((f for f in self._folder.iterdir() if _NAME.fullmatch(f.name)), reverse=True)

    def _fault(self, folder: Path) -> str | None:
        try:
            manifest = read_json(folder / MANIFEST)
            if manifest["key"] != self._key:
                return "it belongs to another configuration, dataset or code"
            wrong = [
                name
                for name, digest in manifest["files"].items()
                if sha256(folder / name) != digest
            ]
        except (MedscaleError, OSError, KeyError, TypeError, AttributeError) as error:
            return _first_line(error)
        return f"damaged: {', '.join(wrong)}" if wrong else None


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
    if isinstance(error, CheckpointException):
        error = next((e for e, _ in error.failures.values() if isinstance(e, BaseException)), error)
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__
