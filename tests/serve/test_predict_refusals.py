"""A result folder is read without unpickling, and a damaged one is refused in words."""

from __future__ import annotations

import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

import medscale
from medscale.base.errors import MedscaleError
from medscale.base.files import read_json, write_json
from medscale.serve import bundle


@contextmanager
def no_pickle() -> Iterator[list[str]]:
    """Collect every unpickling: the interpreter raises an audit event for each class."""
    pickle_events: list[str] = []
    on = [True]
    sys.addaudithook(
        lambda event, args: (
            pickle_events.append(str(args)) if on[0] and event == "pickle.find_class" else None
        )
    )
    yield pickle_events
    on[0] = False


def test_nothing_is_unpickled(study_result, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "load", lambda *a, **k: pytest.fail("torch.load was called"))
    with no_pickle() as pickle_events:
        medscale.load(study_result.result, seed="all").predict(
            study_result.raw / study_result.index["path"][0]
        )
        assert pickle_events == []
        pickle.loads(pickle.dumps(Path("x")))
        assert pickle_events, "the hook sees nothing"
    assert {path.suffix for path in study_result.result.iterdir()} <= {
        ".csv",
        ".json",
        ".md",
        ".pdf",
        ".safetensors",
    }


@pytest.mark.parametrize("size", [0, -1])
def test_a_batch_of_no_image_is_refused(study_result, size: int) -> None:
    image = study_result.raw / study_result.index["path"][0]
    predictor = medscale.load(study_result.result)
    for images in (image, [image, image]):
        with pytest.raises(MedscaleError, match=f"batch_size is {size}: a batch has at least one"):
            predictor.predict(images, batch_size=size)


def test_damaged_or_hostile_folders_are_refused_in_words(study_result, tmp_path: Path) -> None:
    def change_record(**record: object) -> Path:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        shutil.copytree(study_result.result, folder)
        write_json(folder / bundle.INFERENCE, read_json(folder / bundle.INFERENCE) | record)
        return folder

    part = read_json(study_result.result / bundle.INFERENCE)["replicates"][0]
    damaged, missing = change_record(), change_record()
    with open(damaged / "seed1.safetensors", "r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x7f")
    (missing / "seed1.safetensors").unlink()
    timm = {"name": "test_resnet", "options": {"checkpoint_path": "evil.pth"}, "metadata": []}
    for folder, message in (
        (tmp_path / "none", "does not exist"),
        (study_result.raw, "so it is not a result"),
        (change_record(format=2), "format"),
        (change_record(replicates=[part | {"file": "../seed1.safetensors"}]), "replicates.0.file"),
        (
            change_record(model={"name": "tiny_cnn", "options": {"width": 4}, "metadata": []}),
            "does not fit",
        ),
        (change_record(model={"name": "no_such_network"}), "there is no model"),
        (change_record(model={"name": "hf-hub:somebody/model"}), "model.name"),
        (change_record(model=timm), "checkpoint_path cannot be set"),
        (damaged, "SHA-256 differs"),
        (missing, "copy the whole result folder"),
    ):
        with pytest.raises(MedscaleError, match=message):
            medscale.load(folder)
    with pytest.raises(MedscaleError, match="no GPU here"):
        medscale.load(study_result.result, device="meta" if torch.cuda.is_available() else "cuda")


def test_importing_the_package_stays_light() -> None:
    code = "import sys, medscale; print('torch' in sys.modules, callable(medscale.load))"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert process.stdout.split() == ["False", "True"], process.stderr
