"""The log files that belong to a target of `medscale logs`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from medscale.base.errors import MedscaleError
from medscale.workflow.progress.logs import is_path_elsewhere, logs_of


def test_logs_are_of_the_workdir_study_and_run(tmp_path: Path) -> None:
    folders = {
        "skin_ddp_2gpu_seed1": ".",
        "skin_ddp_2gpu_seed2_fold1": "work/demo",
        "skin_ddp_2gpu_bs16_seed1": ".",
        "skin_second_ddp_2gpu_seed1": ".",
        "skin_shards": ".",
        "skin": ".",
        "skin_lr_1_ddp_2gpu_seed1": ".",
        "skin_shards_detect": "work/demo",
        "melanoma_shards": ".",
    }
    data = {"skin_lr_1": "skin"}  # a point of a sweep has the images of its study
    for number, (folder, place) in enumerate(folders.items()):
        log_file = tmp_path / "slurm/rule_any" / folder / f"{number}.log"
        log_file.parent.mkdir(parents=True)
        log_file.write_text(f"medscale: job of {place}\nepoch 1/2\n")
        os.utime(log_file, (number, number))
    expected = {
        (".", "results/skin/ddp_2gpu"): [0, 4, 5],
        ("work/demo", "results/skin/ddp_2gpu"): [1, 7],
        (".", "skin_lr_1/ddp_2gpu"): [4, 5, 6],
        (".", "skin_lr_1"): [4, 5, 6],
        (".", "skin"): [0, 2, 4, 5],
        (".", "results/skin/"): [0, 2, 4, 5],
        (".", "figures/skin/roc.pdf"): [0, 2, 4, 5],
        (".", "figures"): [],
        (".", "paper"): [],
    }
    for (place, target), numbers in expected.items():
        files = logs_of(
            tmp_path / "work", tmp_path / "slurm", place, target, lambda s: data.get(s, s)
        )
        assert [int(file.stem) for file in files] == numbers, target


def test_logs_of_a_study_are_those_of_its_runs_too(tmp_path: Path) -> None:
    names = ["config", "skin/index", "skin/ddp_2gpu/train", "skin_lr_1/ddp_2gpu/train"]
    for number, name in enumerate([*names, "melanoma/export"]):
        log_file = tmp_path / "logs" / f"{name}.log"
        log_file.parent.mkdir(parents=True, exist_ok=True)
        log_file.write_text("chapter\n")
        os.utime(log_file, (number, number))
    data = {"skin_lr_1": "skin"}  # a point of a sweep has the images of its study
    expected = {
        "": [0, 1, 2, 3, 4],
        "results": [0, 1, 2, 3, 4],  # of all studies
        "paper": [0],
        "./paper/paper.pdf": [0],
        "figures/how_far.pdf": [0],  # about all studies
        "config.resolved.json": [0],
        "skin": [1, 2],
        "./skin/ddp_2gpu": [1, 2],
        "skin/ddp_4gpu": [1],
        "skin_lr_1": [1, 3],
        "results/skin_lr_1/ddp_2gpu": [1, 3],
        "exported/melanoma/serial_1gpu.onnx.onnx": [4],
        "logs": [0, 1, 2, 3, 4],
        "logs/skin/ddp_2gpu/train.log": [1, 2],
        "logs/skin/index.log": [1],
        "logs/config.log": [0],
        "runs": [0, 1, 2, 3, 4],
        "data/raw/skin": [1, 2],
    }
    for target, numbers in expected.items():
        files = logs_of(tmp_path, tmp_path, ".", target, lambda study: data.get(study, study))
        assert [file.stat().st_mtime for file in files] == numbers, target


def test_empty_logs_are_left_out_beside_others(tmp_path: Path) -> None:
    plan, train = (tmp_path / f"logs/skin/ddp_2gpu/seed1.{name}.log" for name in ("plan", "train"))
    plan.parent.mkdir(parents=True)
    for file, text in ((plan, ""), (train, "epoch 1/2\n")):
        file.write_text(text)
        arguments = (tmp_path, tmp_path, ".", "skin/ddp_2gpu", str)
        assert list(logs_of(*arguments)) == [file]


@pytest.mark.parametrize("target", ["skin/index", "skin/dp_2gpu/"])
def test_a_name_that_no_run_has_is_refused(target: str, tmp_path: Path) -> None:
    with pytest.raises(MedscaleError, match="is no run name"):
        list(logs_of(tmp_path, tmp_path, ".", target, str))


def test_a_path_of_another_folder_is_none_of_the_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("work/demo/results", "skin/ddp_2gpu", "results/skin"):
        Path(folder).mkdir(parents=True)
    assert is_path_elsewhere("work/demo/results", {"skin"})
    for path in (
        tmp_path / "skin",
        tmp_path / "absent",
        "..",
        "skin/../../skin",
    ):  # others are relative to the workdir
        assert is_path_elsewhere(str(path), {"skin"})
    for target in ("skin/ddp_2gpu", "results/skin", "work", "work/full", ""):
        assert not is_path_elsewhere(target, {"skin"}), target
