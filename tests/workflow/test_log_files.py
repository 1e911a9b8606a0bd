"""The log files that belong to a target of `medscale logs`."""

from __future__ import annotations

import os
from pathlib import Path

from medscale.workflow.progress.logs import logs_of


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
        log_file.touch()
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
    }
    for target, numbers in expected.items():
        files = logs_of(tmp_path, tmp_path, ".", target, lambda study: data.get(study, study))
        assert [file.stat().st_mtime for file in files] == numbers, target
