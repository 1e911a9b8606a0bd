"""A result folder is enough to predict any image as the evaluation did."""

from __future__ import annotations

import io
import json
import logging
import os
import shutil
import warnings
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import medscale
from data_trees import image_bytes, picture
from dicom_images import dicom
from medscale.base.errors import MedscaleError
from medscale.base.files import read_json, write_json
from medscale.cli import main as cli
from medscale.data.images import Unreadable
from medscale.data.prepare import prepare
from medscale.data.settings import Preprocess
from medscale.report.names import class_name
from medscale.serve import bundle, inputs
from medscale.serve.calibration import SENTENCES
from medscale.serve.predict import Box, Prediction
from medscale.serve.predict_command import _in_words
from raw_study import CLASSES, FP32, values


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, "no boxes"),
        (1, "1 box: 0.90 at 1,2 (3x4)"),
        (4, "4 boxes: 0.90 at 1,2 (3x4); 0.90 at 1,2 (3x4); 0.90 at 1,2 (3x4) and 1 more"),
    ],
)
def test_boxes_are_counted_in_words(number: int, words: str) -> None:
    boxes = [Box("ill", 1, 2, 3, 4, 0.9)] * number
    predictor: Any = SimpleNamespace(inference=SimpleNamespace(class_titles={}))
    assert _in_words(predictor, Prediction("a.png", boxes=boxes)) == words


def test_predictions_of_raw_files_equal_those_of_the_evaluation(study_result) -> None:
    rows = study_result.index.set_index("id").loc[study_result.table.index]
    predictions = medscale.load(study_result.result).predict(
        [study_result.raw / path for path in rows["path"]], batch_size=7, calibrated=False
    )
    assert {Path(path).suffix for path in rows["path"]} == {
        ".png",
        ".jpg",
        ".jpeg",
        ".tif",
        ".gif",
        ".dcm",
    }
    expected = study_result.table[[f"p_{code}" for code in range(3)]].to_numpy()
    np.testing.assert_allclose(values(predictions), expected, rtol=0, atol=FP32)
    assert np.ptp(expected, axis=0).max() > 0.05, "the network says the same of every image"


def test_a_prediction_changes_nothing_else_in_the_process(study_result) -> None:
    """The caller may train by PyTorch in the same process, and read its own images."""

    def settings() -> tuple[object, ...]:
        loggers = [logging.getLogger(name).level for name in ("pydicom", "tifffile")]
        tf32 = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
        silent = any(entry[:3] == ("ignore", None, Warning) for entry in warnings.filters)
        return *loggers, *tf32, silent, dict(os.environ), cv2.getNumThreads()

    medscale.load(study_result.result).predict(study_result.raw)  # imports libraries
    torch.backends.cudnn.allow_tf32 = True  # PyTorch's default
    torch.manual_seed(0)
    before, random = settings(), torch.get_rng_state()
    medscale.load(study_result.result).predict(study_result.raw)
    assert settings() == before
    assert torch.equal(torch.get_rng_state(), random)


def test_the_folder_may_be_copied_and_its_source_lost(
    study_result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copytree(study_result.result, tmp_path / "elsewhere")
    path = study_result.raw / study_result.index["path"][0]
    from_original, from_copy = (
        medscale.load(folder).predict(path) for folder in (study_result.result, "~/elsewhere")
    )
    assert from_original == from_copy
    shutil.copyfile(path, tmp_path / path.name)
    of_image = medscale.load(study_result.result).predict(f"~/{path.name}")
    assert of_image.probabilities == from_original.probabilities
    assert (tmp_path / "elsewhere" / "seed1.safetensors").stat().st_ino != (
        study_result.run / "model.safetensors"
    ).stat().st_ino
    assert (study_result.result / "seed1.safetensors").stat().st_ino == (
        study_result.run / "model.safetensors"
    ).stat().st_ino


def test_the_replicate_is_the_best_by_validation_loss_or_as_asked_or_all(study_result) -> None:
    path = study_result.raw / study_result.index["path"][0]
    best, first, second, all_replicates = (
        medscale.load(study_result.result, seed=seed).predict(path) for seed in (None, 1, 2, "all")
    )
    assert best == first != second
    np.testing.assert_allclose(
        values([all_replicates]), values([first, second]).mean(axis=0, keepdims=True), atol=1e-6
    )
    with pytest.raises(MedscaleError, match=r"no replicate of seed 7; there are 1, 2$"):
        medscale.load(study_result.result, seed=7)


def test_calibrated_probabilities_use_the_fitted_temperature(study_result, tmp_path: Path) -> None:
    path = study_result.raw / study_result.index["path"][0]
    record = read_json(study_result.result / bundle.INFERENCE)
    assert all(replicate["temperature"] > 0 for replicate in record["replicates"])
    for name, temperature in (("cold", None), ("warm", 2.0)):
        shutil.copytree(study_result.result, tmp_path / name)
        for replicate in record["replicates"]:
            replicate["temperature"] = temperature
        write_json(tmp_path / name / bundle.INFERENCE, record)
    plain, warm = (
        values([medscale.load(tmp_path / "warm").predict(path, calibrated=c)])[0]
        for c in (False, True)
    )
    np.testing.assert_allclose(warm, np.sqrt(plain) / np.sqrt(plain).sum(), atol=1e-6)
    both = medscale.load(tmp_path / "warm", "all").predict(path)
    assert both.calibration == "temperature of each network"
    record["replicates"][1]["temperature"] = None
    write_json(tmp_path / "warm" / bundle.INFERENCE, record)
    for name, folder_seed in (("cold", None), ("warm", 1), ("warm", "all")):
        predictor = medscale.load(tmp_path / name, folder_seed)
        prediction = predictor.predict(path)
        used = name == "warm" and folder_seed == 1
        assert prediction.calibration == ("temperature" if used else "none")
        assert predictor.table([prediction])["calibration"].tolist() == [prediction.calibration]
        without = predictor.predict(path, calibrated=False)
        assert without.calibration == "none"
        assert (without.probabilities != prediction.probabilities) is used


def test_bytes_pil_arrays_lists_and_folders(study_result) -> None:
    predictor = medscale.load(study_result.result)
    path = study_result.raw / next(
        name for name in study_result.index["path"] if name.endswith(".png")
    )
    pixels = np.asarray(Image.open(path))
    alike = predictor.predict([path, path.read_bytes(), Image.open(path), pixels])
    assert [name.source for name in alike] == [str(path), "image 2", "image 3", "image 4"]
    np.testing.assert_allclose(values(alike), np.repeat(values(alike[:1]), 4, axis=0), atol=FP32)
    name = predictor.predict(path.read_bytes())
    assert name.label == max(name.probabilities, key=name.probabilities.get)
    assert name.probability == max(name.probabilities.values()) == name.probabilities[name.label]
    rotated_path = study_result.raw / next(
        name for name in study_result.index["path"] if name.endswith("c.jpeg")
    )
    np.testing.assert_allclose(
        values([predictor.predict(Image.open(rotated_path))]),
        values([predictor.predict(rotated_path)]),
        atol=3e-3,
    )
    folder_predictions = predictor.predict(study_result.raw)
    assert [name.source for name in folder_predictions] == sorted(study_result.index["path"])
    np.testing.assert_allclose(
        values(folder_predictions)[0],
        values(predictor.predict([study_result.raw / folder_predictions[0].source]))[0],
    )


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_pil_image_of_16_bits_is_read_as_its_file(order: str) -> None:
    """PIL's own conversion would make all values above 255 white."""
    grey = (np.arange(64 * 64, dtype=np.uint16) * 16).reshape(64, 64)
    file = io.BytesIO()
    Image.fromarray(grey).save(file, "PNG")
    mode = {"<": "I;16", ">": "I;16B"}[order]
    image = Image.frombytes(mode, (64, 64), grey.astype(f"{order}u2").tobytes())
    np.testing.assert_array_equal(inputs.pixels_of(image), inputs.pixels_of(file.getvalue()))
    for mode in ("I", "F"):
        with pytest.raises(MedscaleError, match=f"a PIL image of mode {mode}"):
            inputs.pixels_of(Image.new(mode, (8, 8)))


def test_a_bad_image_is_an_error_alone_and_a_row_among_others(study_result, tmp_path: Path) -> None:
    predictor = medscale.load(study_result.result)
    good = study_result.raw / study_result.index["path"][0]
    (tmp_path / "b.png").write_bytes(
        good.read_bytes()[:500] if good.suffix == ".png" else b"\x89PNG\r\n\x1a\n"
    )
    (tmp_path / "c.jpg").write_bytes(b"no image")
    (tmp_path / "d.dcm").write_bytes(b"")
    shutil.copy(good, tmp_path / f"a{good.suffix}")
    predictions = predictor.predict(tmp_path)
    assert [prediction.error is None for prediction in predictions] == [True, False, False, False]
    assert [prediction.error.split(":")[0] for prediction in predictions[1:]] == [
        "truncated",
        "not an image",
        "zero bytes",
    ]
    table = predictor.table(predictions)
    assert list(table.columns) == [
        "path",
        "label",
        "probability",
        *(f"p_{name}" for name in CLASSES),
        "calibration",
        "error",
        "note",
    ]
    assert table["error"].isna().tolist() == [True, False, False, False]
    with pytest.raises(Unreadable, match="not an image"):
        predictor.predict(tmp_path / "c.jpg")
    for bad_argument, message in (
        (np.zeros((4, 4)), "float64"),
        (np.zeros((4, 4, 4), np.uint8), "uint8"),
        (3, "int is no image"),
    ):
        with pytest.raises(MedscaleError, match=message):
            predictor.predict(bad_argument)


def test_files_left_out_of_a_folder_are_named(
    study_result, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "photo.png").write_bytes(image_bytes(picture(1)))
    radiograph = dicom(np.asarray(picture(2).convert("L")))
    for name in ("IM00001", "1.2.840.5"):  # DICOM names of media, and by UID
        (tmp_path / name).write_bytes(radiograph)
    for name in ("phone.heic", "scan.jp2"):
        (tmp_path / name).write_bytes(b"x")
    predictions = medscale.load(study_result.result).predict(tmp_path)
    names = [prediction.source for prediction in predictions]
    assert names == ["1.2.840.5", "IM00001", "photo.png"]
    assert all(prediction.label for prediction in predictions)
    assert "2 files were left out by name" in caplog.text
    assert (
        "phone.heic (image format that is not read), scan.jp2 (image format that is not read)"
        in (caplog.text)
    )


def test_the_command_prints_and_writes(study_result, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for path in study_result.index["path"][:3]:
        shutil.copy(study_result.raw / path, tmp_path / "in")
    run = partial(CliRunner().invoke, cli.main)
    arguments = [
        "predict",
        str(study_result.result),
        str(tmp_path / "in"),
        "--csv",
        str(tmp_path / "out.csv"),
        "--seed",
        "all",
    ]
    invocation = run([*arguments, "--metadata", "age=50,sex=male"])
    assert invocation.exit_code == 0, invocation.output
    words = " ".join(invocation.output.split())
    seeds = ", ".join(str(each.seed) for each in bundle.read(study_result.result).replicates)
    assert f"mean of seeds {seeds}, not a medical device" in words
    chosen = medscale.load(study_result.result)
    seed = chosen.inference.seeds_in_words(chosen.weights)
    assert seed == f"seed {chosen.inference.chosen}"
    assert SENTENCES["temperature of each network"] in words
    assert "3 images in" in words
    table = pd.read_csv(tmp_path / "out.csv")
    assert table["path"].tolist() == sorted(
        Path(path).name for path in study_result.index["path"][:3]
    )
    np.testing.assert_allclose(table[[f"p_{name}" for name in CLASSES]].sum(axis=1), 1, atol=1e-6)
    facts = json.loads(run([*arguments, "--json"]).stdout)
    assert facts["calibration"] == "temperature of each network" == table["calibration"][0]
    assert json.loads(run([*arguments, "--uncalibrated", "--json"]).stdout)["calibration"] == "none"
    assert facts["result"] == "glaucoma/serial_1cpu"
    assert facts["seeds"] == [1, 2]
    assert [image["path"] for image in facts["predictions"]] == table["path"].tolist()
    for image in facts["predictions"]:
        assert sum(image["probabilities"].values()) == pytest.approx(1, abs=1e-5)
        assert image["label"] == max(image["probabilities"], key=image["probabilities"].get)
        assert image["title"] == class_name(image["label"])  # the study has no class_titles
    first = str(tmp_path / "in" / table["path"][0])
    several = json.loads(run([*arguments[:2], first, *arguments[2:], "--json"]).stdout)
    names = [first, *(str(tmp_path / "in" / name) for name in table["path"])]
    assert [image["path"] for image in several["predictions"]] == names
    (tmp_path / "in" / "x.png").write_bytes(b"broken")
    invocation = run([*arguments, "--batch", "1"])
    assert isinstance(invocation.exception, MedscaleError)
    assert "1 of 4 images" in str(invocation.exception)
    assert pd.read_csv(tmp_path / "out.csv")["error"].notna().sum() == 1
    os.mkfifo(pipe := tmp_path / "pipe")
    for bad_argument, message in (
        (["--device", "gpu"], "--device is cpu, cuda or a GPU by its number"),
        (["--csv", str(tmp_path)], "is a folder; name a file"),
        (["--csv", str(pipe)], "is a device or a pipe"),
        (["--metadata", "age"], "neither a CSV table"),
        (["--seed", "two"], "--seed is a number"),
    ):
        assert message in str(run([*arguments, *bad_argument]).exception)


def test_an_image_without_contrast_is_noted() -> None:
    ramp = np.tile(np.arange(256, dtype=np.uint16), (64, 1))
    notes = [
        prepare(image_bytes(Image.fromarray(ramp * factor), "PNG"), Preprocess(size=64)).note
        for factor in (16, 257)  # 12 bits in a file of 16 bits, and 16 bits
    ]
    assert notes == ["hardly any contrast: its pixels span 16 of 255 levels", None]


def test_the_used_frame_of_several_is_named(study_result, tmp_path: Path) -> None:
    first, second, third = (picture(number, (150, 110)) for number in range(3))
    pages = {"save_all": True, "append_images": [second, third]}
    (tmp_path / "pages.tif").write_bytes(image_bytes(first, "TIFF", **pages))
    (tmp_path / "single.tif").write_bytes(image_bytes(second, "TIFF"))
    predictor = medscale.load(study_result.result)
    batch_predictions = predictor.predict(tmp_path)
    note = "frame 1 of the file's 3 frames was used"
    assert [prediction.note for prediction in batch_predictions] == [note, None]
    page_prediction = predictor.predict(tmp_path / "pages.tif[2]")
    assert page_prediction.note == "frame 2 of the file's 3 frames was used"
    np.testing.assert_allclose(values([page_prediction]), values(batch_predictions[1:]), atol=FP32)
    arguments = [
        "predict",
        str(study_result.result),
        str(tmp_path),
        "--csv",
        str(tmp_path / "out.csv"),
    ]
    result = CliRunner().invoke(cli.main, arguments)
    words = " ".join(result.output.split())
    assert f"1 file has several frames or pages, of which one was used (pages.tif: {note})" in words
    assert pd.read_csv(tmp_path / "out.csv")["note"].fillna("").tolist() == [note, ""]
    arguments[2] = str(tmp_path / "pages.tif[3]")
    assert CliRunner().invoke(cli.main, arguments).exit_code == 0
    assert pd.read_csv(tmp_path / "out.csv")["note"].tolist() == [note.replace("1", "3", 1)]
