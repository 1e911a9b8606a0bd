"""Result folders of strangers: refused in a sentence, before anything large is made."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file

import medscale
from medscale.base.errors import MedscaleError, print_error
from medscale.base.files import MAX_JSON_BYTES, sha256
from medscale.engine.plan import Model
from medscale.serve import predict_command
from medscale.serve.bundle import INFERENCE
from medscale.serve.http.predicting import start
from service_process import AGE_AND_SEX, CLASSES, make_result, picture

Change = Callable[[dict[str, Any]], None]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_result(tmp_path / "made" / "result", "serial_1cpu", CLASSES, 1, AGE_AND_SEX, 1.5)


def change(folder: Path, function: Change) -> None:
    content = json.loads((folder / INFERENCE).read_text())
    function(content)
    (folder / INFERENCE).write_text(json.dumps(content))


def change_weights(folder: Path, function: Callable[[dict[str, torch.Tensor]], None]) -> None:
    path = folder / "seed1.safetensors"
    weights = load_file(path)
    function(weights)
    save_file({name: value.contiguous() for name, value in weights.items()}, path)
    change(folder, lambda content: content["replicates"][0].update(sha256=sha256(path)))


def setting(place: str, value: Any) -> Change:
    """A change of one value of inference.json, such as ``model.name``."""

    def set_value(content: Any) -> None:
        *path, last = place.split(".")
        for key in path:
            content = content[int(key) if key.isdigit() else key]
        content[last] = value

    return set_value


def refusal(folder: Path) -> str:
    """The message with which a folder is refused, soon."""
    begin = time.process_time()
    with pytest.raises(MedscaleError) as caught:
        medscale.load(folder, device="cpu")
    assert time.process_time() - begin < 5
    message = str(caught.value)
    assert str(folder) in message
    assert len(message) < 2000
    return message


def test_the_result_is_whole_without_changes(folder: Path) -> None:
    assert medscale.load(folder, device="cpu").classes == CLASSES


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("classes", []),
        ("classes", ["a", "a", "b"]),
        ("classes", [str(number) for number in range(20_000)]),
        ("classes", ["a", "b", "c" * 5000]),
        ("class_titles", {"a": "c" * 5000}),
        ("study", "s" * 5000),
        ("replicates", []),
        ("replicates.0.seed", -1),
        ("replicates.0.seed", 10**20),
        ("replicates.0.file", "../seed1.safetensors"),
        ("replicates.0.file", "/etc/passwd"),
        ("replicates.0.file", "a" * 300 + ".safetensors"),
        ("replicates.0.file", "seed1.pt"),
        ("replicates.0.sha256", ""),
        ("replicates.0.temperature", 1e-300),
        ("replicates.0.temperature", 0),
        ("replicates.0.temperature", 1e300),
        ("preprocess.size", 10**9),
        ("preprocess.median", 10**9 + 1),
        ("preprocess.gamma", 1e308),
        ("crop.size", 65),
        ("crop.size", 10**9),
        ("metadata.0.scale", 0),
        ("metadata.0.scale", -1),
        ("metadata", [AGE_AND_SEX[0].model_dump()] * 200),
        ("model.options", {"width": 10**12}),
        ("model.options", {"width": -(10**12)}),
        ("model.options", {f"option {number}": 1 for number in range(300)}),
        ("model.options", {"width": [[[[[8]]]]]}),
        ("model.options", {"width": "8" * 1000}),
        ("model.options", {"width": list(range(1000))}),
        ("model.name", "../evil"),
        ("model.name", "hf-hub:someone/model"),
        ("model.name", "yolov8n"),
        ("task", "detection"),
        ("marks", {}),
        ("marks", {"synthetic": [[]], "stand_in": False, "scale": "full"}),
        ("versions", {str(number): "1" for number in range(5000)}),
        ("further", 1),
    ],
)
def test_values_beyond_the_schema_are_refused(folder: Path, place: str, value: Any) -> None:
    change(folder, setting(place, value))
    assert "is not valid here" in refusal(folder)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[" * 100_000, "nested more than"),
        ('{"study": ' + "[" * 900 + "]" * 900 + "}", "nested more than"),
        ('{"study": "' + "[" * 900 + '"}', "is not valid here"),  # brackets in a text
        ('{"format": 1' + " " * MAX_JSON_BYTES + "}", "more than"),
        ('{"format": NaN}', "NaN"),
        ('{"format": 1e999}', "not valid JSON"),
        ('{"study": "\\ud800"}', "not valid JSON"),
        ('{"format": ' + "9" * 5000 + "}", "not valid JSON"),
        ("null", "is not valid here"),
        ("", "not valid JSON"),
        ('{"a": "\\', "not valid JSON"),
    ],
)
def test_json_beyond_limits_is_refused(folder: Path, text: str, words: str) -> None:
    (folder / INFERENCE).write_text(text)
    assert words in refusal(folder)


def test_json_that_is_no_text_is_refused(folder: Path) -> None:
    (folder / INFERENCE).write_bytes(b"\xff\xfe{")
    assert "not valid JSON" in refusal(folder)


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), -float("inf")], ids=["NaN", "inf", "-inf"]
)
def test_weights_that_are_not_finite_are_refused(folder: Path, value: float) -> None:
    change_weights(folder, lambda weights: weights["image.fc1.bias"].fill_(0)[3:4].fill_(value))
    assert "not finite, in image.fc1.bias" in refusal(folder)


def test_weights_whose_outputs_overflow_are_refused_by_the_service(folder: Path) -> None:
    def overflow(weights: dict[str, torch.Tensor]) -> None:
        for name, value in weights.items():
            if name.endswith("weight"):
                value.fill_(3e38)

    change_weights(folder, overflow)
    with pytest.raises(MedscaleError, match="outputs are not finite"):
        start(0, [folder], "best", "cpu", 1)


def grow(weights: dict[str, torch.Tensor]) -> None:
    weights["image.fc1.weight"] = torch.zeros(64, 16)


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (grow, "of another shape or type: image.fc1.weight"),
        (lambda weights: weights.pop("image.fc1.bias"), "missing: image.fc1.bias"),
        (lambda weights: weights.update(more=torch.zeros(1)), "unknown: more"),
        (
            lambda weights: weights.update({"image.fc1.bias": torch.zeros(32).double()}),
            "of another shape or type: image.fc1.bias",
        ),
    ],
)
def test_weights_of_another_network_are_refused(folder: Path, function: Any, words: str) -> None:
    change_weights(folder, function)
    assert words in refusal(folder)


GIGANTIC = {
    "wide": {"model.name": "tiny_cnn", "model.options": {"width": 100_000}},
    "wide and fully connected": {
        "model.name": "xray_cnn",
        "model.options": {"width": 50_000, "hidden": 100_000, "size": 4096},
    },
    "of timm, deep": {
        "model.name": "vit_tiny_patch16_224",
        "model.options": {"depth": 100_000},
    },
    "of timm, wide": {
        "model.name": "vit_tiny_patch16_224",
        "model.options": {"embed_dim": 99_999, "num_heads": 3},
    },
    "of timm, large images": {
        "model.name": "vit_tiny_patch16_224",
        "model.options": {"img_size": 100_000},
    },
}


def test_a_gigantic_network_is_refused_before_it_is_built(folder: Path, tmp_path: Path) -> None:
    """In a process that may take 6 GB: the networks would take terabytes, or hours."""
    folders = []
    for number, changes in enumerate(GIGANTIC.values()):
        folders.append(shutil.copytree(folder, tmp_path / str(number)))
        for place, value in changes.items():
            change(folders[-1], setting(place, value))
    program = """
import resource, sys, time
import timm
from medscale.base.errors import MedscaleError
from medscale.serve.predict import load
resource.setrlimit(resource.RLIMIT_DATA, (6 * 2**30, 6 * 2**30))
for folder in sys.argv[1:]:
    begin = time.process_time()
    try:
        load(folder, device="cpu")
    except MedscaleError as error:
        print(round(time.process_time() - begin), error)
"""
    command = [sys.executable, "-c", program, *map(str, folders)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert run.returncode == 0, run.stderr[-2000:]
    lines = run.stdout.splitlines()
    assert len(lines) == len(GIGANTIC)
    for line in lines:
        assert "does not fit the network that inference.json describes" in line
        assert int(line.split()[0]) < 20


def test_a_description_of_yolo_in_the_working_directory_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ultralytics evaluates texts of such a file as Python."""
    # No importorskip: the import alone, without the package's care, replaces PIL's functions.
    if find_spec("ultralytics") is None:
        pytest.skip("ultralytics (AGPL, optional) is not installed")
    from medscale.engine.detect import yolo

    marker = tmp_path / "touched"
    evil = f"activation: open({str(marker)!r}, 'w') and torch.nn.SiLU()\n"
    evil += "nc: 1\nbackbone: []\nhead: []\n"
    for name in ("yolov8n.yaml", "yolov8.yaml"):
        (tmp_path / name).write_text(evil)
    monkeypatch.chdir(tmp_path)
    assert sum(value.numel() for value in yolo.build(Model(name="yolov8n")).parameters()) > 10**6
    assert not marker.exists()


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "{}",
        '{"metrics": {"test": 1}}',
        '{"metrics": {"test": {"accuracy": {"mean": "x", "low": 0, "high": 1}}}}',
        '{"metrics": {"test": {"accuracy": {"mean": NaN, "low": 0, "high": 1}}}}',
        "[" * 5000,
    ],
)
def test_a_summary_of_another_form_is_refused_by_the_service(folder: Path, text: str) -> None:
    (folder / "summary.json").write_text(text)
    with pytest.raises(MedscaleError, match=re.escape(str(folder / "summary.json"))):
        start(0, [folder], "best", "cpu", 1)


def test_names_in_a_folder_cannot_control_the_terminal(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evil = "\x1b[2J\x1b]0;owned\x07\u202eclass\r"
    change(folder, setting("classes", [evil, "b", "c"]))
    change(folder, setting("study", evil))
    predictor = medscale.load(folder, device="cpu")
    prediction = predictor.predict([picture()])
    parts = predict_command.lines(predictor, prediction, None)
    with pytest.raises(MedscaleError) as caught:
        medscale.load(folder, seed=7)
    console = Console(file=io.StringIO(), width=200)
    for part in parts:
        console.print(part)
    print_error(caught.value)
    for text in (console.file.getvalue(), capsys.readouterr().err):
        assert "[U+001B]" in text
        assert not set("\x1b\x07\u202e\r") & set(text)
