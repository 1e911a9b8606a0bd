"""Checkpoints: damaged and changed ones are skipped, and no code in them runs."""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import pickle
import resource
import shutil
from pathlib import Path

import pytest
import torch
from torch.distributed.checkpoint import CheckpointException, metadata

from medscale.base.errors import MedscaleError
from medscale.config.configuration import load
from medscale.config.planning import plan
from medscale.engine.parallel.join import join
from medscale.engine.parallel.rendezvous import STORE
from medscale.engine.train import reading
from medscale.engine.train.checkpoint import Checkpoints
from medscale.engine.train.progress import Progress
from training_runs import ROOT


@pytest.fixture
def checkpoints(tmp_path, monkeypatch):
    """Checkpoints of a world of one rank in this process, with three steps saved."""
    spec = plan(load(ROOT / "config.yaml", {"scale": "demo"}), "glaucoma", "serial_1cpu", 1)
    place = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
    for name, value in {**place, STORE: str(tmp_path / "store")}.items():
        monkeypatch.setenv(name, value)
    cores, threads = os.sched_getaffinity(0), torch.get_num_threads()
    with join(spec) as world:
        store = Checkpoints(tmp_path / "checkpoints", world, "key")
        for step in (1, 2, 3):
            assert store.save({"x": torch.full((1000,), float(step))}, Progress(step=step), step)
        yield store
    os.sched_setaffinity(0, cores)
    torch.set_num_threads(threads)


def restored_value(checkpoints) -> float:
    folder, progress = checkpoints.latest()
    tensors = {"x": torch.zeros(1000)}
    checkpoints.read(folder, tensors)
    assert progress.step == float(tensors["x"][0])
    return float(tensors["x"][999])


def data_file(folder: Path) -> Path:
    return max(folder.iterdir(), key=lambda file: file.stat().st_size)


def flip_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def zero_block(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[512:1024] = bytes(512)
    file.write_bytes(content)


def truncate(file: Path) -> None:
    os.truncate(file, file.stat().st_size - 1)


@pytest.mark.parametrize("damage", [flip_bit, zero_block, truncate, Path.unlink])
def test_a_damaged_newest_checkpoint_is_passed_over_and_reported(checkpoints, damage, caplog):
    damage(data_file(checkpoints._folder / "step-000000003"))
    assert restored_value(checkpoints) == 2
    assert "step-000000003 is skipped" in caplog.text
    assert checkpoints.save({"x": torch.full((1000,), 3.0)}, Progress(step=3), 3)
    assert restored_value(checkpoints) == 3
    assert len(list(checkpoints._folder.glob("step-*"))) == 2


def test_two_are_kept_and_the_newest_whole_one_is_read(checkpoints):
    assert sorted(f.name for f in checkpoints._folder.glob("*")) == [
        "step-000000002",
        "step-000000003",
    ]
    assert restored_value(checkpoints) == 3


def test_a_half_written_checkpoint_is_no_checkpoint(checkpoints):
    partial = checkpoints._folder / ".step-000000004.part"
    shutil.copytree(checkpoints._folder / "step-000000003", partial)
    assert restored_value(checkpoints) == 3
    assert not partial.exists()


def test_a_validation_loss_that_is_not_finite_can_be_kept(checkpoints):
    row = {"epoch": 1, "val_loss": float("nan")}
    assert checkpoints.save({"x": torch.zeros(1000)}, Progress(step=4, history=[row]), 4)
    _, progress = checkpoints.latest()
    assert math.isnan(progress.history[0]["val_loss"])


def test_a_full_disk_is_reported_and_the_checkpoints_before_stay(checkpoints, caplog):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2048, hard))
    try:
        save_succeeded = checkpoints.save({"x": torch.full((100000,), 4.0)}, Progress(step=4), 4)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not save_succeeded
    assert "could not be written" in caplog.text
    assert restored_value(checkpoints) == 3


def test_checkpoints_of_another_configuration_are_not_used(checkpoints, tmp_path):
    other_checkpoints = Checkpoints(tmp_path / "checkpoints", checkpoints._world, "another key")
    assert other_checkpoints.latest() is None


class Attack:
    """An object whose unpickling creates a file."""

    def __init__(self, file: Path) -> None:
        self._file = str(file)

    def __reduce__(self):
        return os.mkdir, (self._file,)


def seal_again(folder: Path) -> None:
    """Write a manifest that fits the changed files of a checkpoint, as an attacker can."""
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"] = {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()
        for file in folder.iterdir()
        if file.name != "manifest.json"
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_code_in_the_metadata_of_a_checkpoint_does_not_run(checkpoints, tmp_path, caplog):
    newest = checkpoints._folder / "step-000000003"
    (newest / ".metadata").write_bytes(pickle.dumps(Attack(tmp_path / "attacked")))
    seal_again(newest)
    assert restored_value(checkpoints) == 2
    assert ".metadata names posix.mkdir, which is no part of a checkpoint" in caplog.text
    # PyTorch 2.11 does not pass on the error of the reader.
    with pytest.raises(CheckpointException, match=r"names posix|metadata is None"):
        checkpoints.read(newest, {"x": torch.zeros(1000)})
    assert not (tmp_path / "attacked").exists()


def test_code_in_a_value_of_a_checkpoint_does_not_run(checkpoints, tmp_path):
    """DCP reads a value that is no tensor by torch.load(weights_only=False)."""
    attack = Attack(tmp_path / "attacked")
    assert checkpoints.save({"x": attack}, Progress(step=4), 4)
    with pytest.raises(CheckpointException, match="x is no tensor"):
        checkpoints.read(checkpoints.latest()[0], {"x": torch.ones(2)})
    assert not (tmp_path / "attacked").exists()


def test_a_checkpoint_with_another_file_than_those_of_its_manifest_is_skipped(checkpoints):
    (checkpoints._folder / "step-000000003" / "__1_0.distcp").write_bytes(b"more")
    assert restored_value(checkpoints) == 2


def test_metadata_cannot_name_files_outside_the_checkpoint(checkpoints, tmp_path):
    newest = checkpoints._folder / "step-000000003"
    metadata = pickle.loads((newest / ".metadata").read_bytes())
    for info in metadata.storage_data.values():
        info.relative_path = "../step-000000002/__0_0.distcp"
    (newest / ".metadata").write_bytes(pickle.dumps(metadata))
    seal_again(newest)
    assert restored_value(checkpoints) == 2


def test_links_and_checkpoints_of_another_user_are_skipped(checkpoints, tmp_path, monkeypatch):
    newest = checkpoints._folder / "step-000000003"
    newest.rename(tmp_path / "elsewhere")
    newest.symlink_to(tmp_path / "elsewhere")
    assert restored_value(checkpoints) == 2
    user = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: user + 1)
    assert checkpoints.latest() is None


class _ByName:
    """Pickles as the call ``getattr(owner, name)``."""

    def __init__(self, owner: object, name: str) -> None:
        self.owner, self.name = owner, name

    def __reduce__(self):
        return getattr, (self.owner, self.name)


def test_members_of_enumerations_are_read_as_python_3_11_2_pickles_them():
    kind = metadata._MEM_FORMAT_ENCODING
    by_name = pickle.dumps(_ByName(kind, "TORCH_CONTIGUOUS_FORMAT"))
    assert reading._Unpickler(io.BytesIO(by_name)).load() is kind.TORCH_CONTIGUOUS_FORMAT
    for owner, name in ((kind, "__init_subclass__"), (metadata.Metadata, "__init__")):
        with pytest.raises(MedscaleError, match="no part of a checkpoint"):
            reading._Unpickler(io.BytesIO(pickle.dumps(_ByName(owner, name)))).load()


def test_paths_are_read_as_python_3_13_pickles_them():
    pickled, module = pickle.dumps(Path("a"), protocol=2), type(Path("a")).__module__
    for name in (b"pathlib", b"pathlib._local"):
        content = pickled.replace(f"c{module}\n".encode(), b"c" + name + b"\n")
        assert content.startswith(b"\x80\x02c" + name + b"\n")
        assert reading._Unpickler(io.BytesIO(content)).load() == Path("a")
