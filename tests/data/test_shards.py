"""Shard sets are verified: a flipped bit is found, and files are read once a run and node."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd
import pytest

from medscale.base.errors import MedscaleError
from medscale.base.files import sha256
from medscale.data import shards as module
from medscale.data.shards import Shards, seal
from medscale.engine.train import launcher


def flip_bit(file: Path) -> None:
    """Change one bit near the end of a file, and keep its time, as a failing disk does."""
    status = file.stat()
    content = bytearray(file.read_bytes())
    content[-9] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("name", ["images-00001.npy", "rows.parquet", "boxes.parquet"])
def test_a_flipped_bit_is_found_and_its_file_named(make_shards, name):
    shards = Shards.open(make_shards())
    boxes = shards.folder / "boxes.parquet"
    pd.DataFrame({"id": [0], "x": 0.1, "y": 0.2, "width": 0.3, "height": 0.4}).to_parquet(boxes)
    seal(shards.folder, shards.rows, shards.classes, {"boxes": sha256(boxes)})
    shards = Shards.open(shards.folder)
    shards.verify()
    flip_bit(shards.folder / name)
    with pytest.raises(MedscaleError, match=name):
        shards.verify()


def test_rows_that_cannot_be_read_are_one_message(make_shards):
    folder = make_shards()
    (folder / "rows.parquet").write_bytes(b"PAR1")
    with pytest.raises(MedscaleError, match=r"rows\.parquet cannot be read .*delete the folder"):
        Shards.open(folder)


def test_files_are_read_once_and_again_when_they_change(make_shards, tmp_path, monkeypatch):
    shards, memory, read_files = Shards.open(make_shards()), tmp_path / "memory.json", []
    monkeypatch.setattr(
        module, "sha256", lambda f, real=module.sha256: read_files.append(f.name) or real(f)
    )
    shards.verify(memory)
    assert "images-00000.npy" in read_files
    read_files.clear()
    shards.verify(memory)
    assert not [name for name in read_files if name.startswith("images")]
    os.utime(shards.folder / "images-00000.npy")
    shards.verify(memory)
    assert [name for name in read_files if name.startswith("images")] == ["images-00000.npy"]
    memory.write_text("damaged")
    shards.verify(memory)


def test_no_run_trains_on_a_flipped_bit(training):
    flip_bit(training.shards / "images-00000.npy")
    spec, shards, out, log = map(Path, training.paths("serial_1cpu"))
    with pytest.raises(MedscaleError, match=r"content of images-00000\.npy has changed"):
        launcher.command("worker", None)(spec, shards, out, log, None)
    assert not out.exists()


def test_a_loss_that_is_not_finite_has_the_shards_read_again(training, monkeypatch):
    spec, shards, out, log = map(Path, training.paths("serial_1cpu"))

    def fail(*_):
        flip_bit(shards / "images-00000.npy")
        raise MedscaleError("serial_1cpu: rank 0 failed: the loss is not finite, in epoch 1")

    monkeypatch.setattr(launcher, "launch", fail)
    with pytest.raises(MedscaleError, match=r"not finite, .*content of images-00000\.npy"):
        launcher.command("worker", None)(spec, shards, out, log, None)
