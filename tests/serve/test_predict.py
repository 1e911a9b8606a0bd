"""A result folder is enough to predict any image as the evaluation did, without unpickling."""

from __future__ import annotations

import io
import json
import logging
import os
import pickle
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

import medscale
from data_trees import image_bytes, index_and_summary, picture
from file_tables import read_tables
from medscale.base.errors import MedscaleError
from medscale.base.files import read_json, write_json, write_parquet
from medscale.cli import main as cli
from medscale.config.configuration import load
from medscale.config.planning import plan
from medscale.data import boxes as data_boxes
from medscale.data.demo.xray import dicom_file
from medscale.data.images import Unreadable
from medscale.data.inventory import make_inventory
from medscale.data.metadata import Encoding, apply
from medscale.data.prepare import prepare, read_image
from medscale.data.settings import Preprocess, Split
from medscale.data.shards import Shards, seal, write_chunk
from medscale.engine.detect.task import Detection
from medscale.evaluate.evaluation import evaluate
from medscale.evaluate.replicates import read as read_replicate
from medscale.report.names import class_name
from medscale.report.result.folder import write_result
from medscale.serve import bundle, inputs
from medscale.serve.predict import Prediction

ROOT = Path(__file__).parents[2]
SIZE = 40
SETTINGS = Preprocess(size=SIZE, fit="cover", clahe={"tiles": 4}, median=3)
STUDY = {
    "model": {"name": "tiny_cnn", "options": {"width": 8}, "metadata": ["age", "sex"]},
    "augment": {"hflip": 0.5, "crop": {"size": 32}},
    "recipe": {"epochs": 2, "batch_size": 8, "batch_is": "global", "lr": 1e-2, "warmup_epochs": 0},
}
CLASSES = ["dark", "light", "odd"]
FP32 = 2e-6  # PyTorch computes a batch of another size, on more threads, in another order


def raw_images(folder: Path, count: int = 48) -> pd.DataFrame:
    """Write PNG, large JPEG, JPEG turned by EXIF, 16-bit TIFF, GIF and DICOM in turns; list all."""
    rows = []
    for number in range(count):
        label, exif = CLASSES[number % 3], Image.Exif()
        exif[0x0112] = 6
        image = picture(number, (150 + number, 110)).point(
            lambda value, n=number: value // 2 + 60 * (n % 3)
        )
        grey = np.asarray(image.convert("L"))
        kinds = {
            "a.png": lambda i=image: image_bytes(i),
            "b.jpg": lambda i=image: image_bytes(i.resize((700, 500)), "JPEG", quality=90),
            "c.jpeg": lambda i=image, e=exif: image_bytes(i, "JPEG", exif=e),
            "d.tif": lambda g=grey: image_bytes(Image.fromarray(g.astype(np.uint16) * 257), "TIFF"),
            "e.gif": lambda i=image: image_bytes(i, "GIF"),
            "f.dcm": lambda g=grey, n=number: xray(g, age=30 + n, sex="MF"[n % 2]),
        }
        name, make = list(kinds.items())[number // 3 % len(kinds)]
        path = folder / label / f"{number:02d}{name}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(make())
        rows.append({"path": f"{label}/{path.name}", "label": label, "source": "made"})
    return make_inventory(rows, [], CLASSES, [])


def xray(grey: np.ndarray, age: int, sex: str) -> bytes:
    about = {
        "SOPInstanceUID": "1.2.3",
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
    }
    about |= {
        "Rows": grey.shape[0],
        "Columns": grey.shape[1],
        "BitsAllocated": 8,
        "BitsStored": 8,
        "HighBit": 7,
    }
    header_fields = {"PixelRepresentation": 0, "PatientAge": f"{age:03d}Y", "PatientSex": sex}
    return dicom_file(about | header_fields, grey.tobytes(), "1.2.840.10008.1.2.1")


@pytest.fixture(scope="module")
def study_result(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A study from raw files to a result of two replicates: one trained, one a changed copy."""
    folder = tmp_path_factory.mktemp("predict")
    index, _ = index_and_summary(
        folder / "raw", raw_images(folder / "raw"), Split(train=0.5, val=0.2, test=0.3)
    )
    write_parquet(folder / "index.parquet", index)
    (folder / "shards").mkdir()
    images = index[["path", "sha256", "width", "height"]].itertuples(index=False, name=None)
    write_chunk(
        folder / "shards",
        0,
        np.stack([read_image(str(folder / "raw"), path, SETTINGS) for path in images]),
    )
    rows = index[["id", "label", "split", "group", "age", "sex"]].assign(
        label=index["label"].cat.codes.astype("int64")
    )
    seal(
        folder / "shards",
        rows,
        CLASSES,
        {"preprocess": SETTINGS.model_dump(mode="json"), "versions": {}},
    )
    config = load(ROOT / "config.yaml", {"scale": "demo", "studies": {"glaucoma": STUDY}})
    first, second = (folder / "runs" / f"seed{seed}" for seed in (1, 2))
    for seed, run in ((1, first), (2, second)):
        write_json(
            run / "spec.json", plan(config, "glaucoma", "serial_1cpu", seed).model_dump(mode="json")
        )
    command = [
        "--spec",
        first / "spec.json",
        "--shards",
        folder / "shards",
        "--out",
        first,
        "--log",
        folder / "log",
    ]
    script = [sys.executable, str(ROOT / "scripts" / "train.py")]
    process = subprocess.run(
        [*script, *map(str, command)], capture_output=True, text=True, timeout=200
    )
    assert process.returncode == 0, process.stderr
    for name in ("history.csv", "timing.json", "environment.json", "predictions.parquet"):
        shutil.copy(first / name, second / name)
    history = pd.read_csv(first / "history.csv")
    history.assign(val_loss=history["val_loss"] + 1).to_csv(second / "history.csv", index=False)
    weights = {name: value + 0.05 for name, value in load_file(first / "model.safetensors").items()}
    save_file(weights, second / "model.safetensors")
    runs = [read_replicate(first), read_replicate(second)]
    usable = partial(bundle.put, runs, Shards.open(folder / "shards"))
    result = folder / "results" / "glaucoma" / "serial_1cpu"
    write_result(
        evaluate([first, second], folder / "index.parquet", resamples=20), result, further=usable
    )
    table = pd.read_parquet(first / "predictions.parquet").set_index("id").sort_index()
    return SimpleNamespace(
        folder=folder, raw=folder / "raw", index=index, result=result, run=first, table=table
    )


def values(predictions: list[Prediction]) -> np.ndarray:
    return np.array([list(prediction.probabilities.values()) for prediction in predictions])


# The same as evaluation


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


# What may be given


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


def test_metadata_is_given_or_read_from_headers_or_unknown(study_result) -> None:
    predictor = medscale.load(study_result.result)
    image = np.asarray(picture(3, (60, 60)))
    unknown, with_metadata = (
        predictor.predict(image),
        predictor.predict(image, {"age": 61, "sex": "female"}),
    )
    assert values([unknown]).tolist() != values([with_metadata]).tolist()
    assert (unknown.unknown, with_metadata.unknown) == (["age", "sex"], [])
    assert predictor.predict(image, {"sex": "male"}).unknown == ["age"]
    batch_predictions = predictor.predict([image, image], [{}, {"age": 61, "sex": "female"}])
    np.testing.assert_allclose(
        values(batch_predictions), values([unknown, with_metadata]), atol=FP32
    )
    image_paths = [
        study_result.raw / path for path in study_result.index["path"] if path.endswith(".dcm")
    ][:2]
    table = pd.DataFrame({"path": [str(image_paths[0])], "age": [None], "sex": [None]})
    hidden, from_headers = predictor.predict(image_paths, table), predictor.predict(image_paths)
    assert (hidden[0].unknown, from_headers[0].unknown) == (["age", "sex"], [])
    # the table wins over the header, also where it has no value
    assert hidden[0].probabilities != from_headers[0].probabilities
    np.testing.assert_allclose(values(hidden[1:]), values(from_headers[1:]), atol=FP32)
    for bad_argument, message in (
        ({"site": "arm"}, "site is not known; this network takes age, sex"),
        ({"sex": "femal"}, "sex is 'femal'; the training images have female, male. Leave out"),
        ({"age": "old"}, "age is 'old', where the network takes a number"),
        ({"age": np.inf}, "age is inf, where the network takes a number"),
        ({"age": 10**400}, "0, where the network takes a number"),
        ([{}, {}], "metadata of 2 images were given with 1"),
    ):
        with pytest.raises(MedscaleError, match=message):
            predictor.predict(image, bad_argument)


def test_a_table_of_metadata_must_name_the_images(
    study_result, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    predictor, image = medscale.load(study_result.result), np.asarray(picture(3, (60, 60)))
    names = [f"im{number:02d}.png" for number in range(24)]
    lines = [f"data/images/{name},{30 + number}" for number, name in enumerate(names)]
    (tmp_path / "facts.csv").write_text("\n".join(["path,age", *lines]) + "\n")
    table = inputs.parse_metadata(str(tmp_path / "facts.csv"))
    message = (
        r"names none of the 24 images \(its first path: data/images/im00.png; the first image: "
        r"im00.png\)"
    )
    with pytest.raises(MedscaleError, match=message):
        list(predictor.stream([(name, image) for name in names], table))
    table = table[:2].assign(path=["./im00.png", "other.png"])
    facts = inputs.metadata_by_image(names[:2], table)
    assert facts == [{"age": "30"}, {}]
    assert "names 1 of the 2 images; 1 of its 2 paths are of no image" in caplog.text


def test_a_table_of_metadata_is_read_as_a_table_of_images_is(tmp_path: Path) -> None:
    """Spreadsheets write a byte order mark, semicolons and decimal commas."""
    file = tmp_path / "facts.csv"
    file.write_text("path;age;sex\na,1.png;61,5;NA\nb.png;;female\n", encoding="utf-8-sig")
    table = inputs.parse_metadata(str(file))
    assert inputs.metadata_by_image(["a,1.png", "b.png"], table) == [
        {"age": "61.5", "sex": None},
        {"age": None, "sex": "female"},
    ]
    file.write_text("image,age\na.png,1\n")
    with pytest.raises(MedscaleError, match="no column path; it has: image, age"):
        inputs.parse_metadata(str(file))


def test_text_of_a_number_is_the_number(study_result) -> None:
    predictor = medscale.load(study_result.result)
    np.testing.assert_array_equal(
        predictor.features([{"age": "33"}]), predictor.features([{"age": 33}])
    )
    coded = Encoding(column="site", words=["12", "7"])
    features = apply([coded], pd.DataFrame({"site": [7.0, 7, "7", 12.0, None]}, dtype=object))
    assert features.argmax(axis=1).tolist() == [1, 1, 1, 0, 2]


def test_files_left_out_of_a_folder_are_named(
    study_result, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "photo.png").write_bytes(image_bytes(picture(1)))
    radiograph = xray(np.asarray(picture(2).convert("L")), 40, "F")
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


# What is refused


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


# The command line


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
    assert "not a medical device" in invocation.output
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
    (tmp_path / "in" / "x.png").write_bytes(b"broken")
    invocation = run(arguments)
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


# Boxes


@pytest.mark.skipif(
    find_spec("ultralytics") is None, reason="ultralytics (AGPL, optional) is not installed"
)
def test_boxes_equal_those_of_the_evaluation_in_pixels_of_the_image(tmp_path: Path) -> None:
    size, wide, out = 64, 3 * 64, tmp_path / "result"
    paths = [tmp_path / f"{number}.png" for number in range(6)]
    for number, path in enumerate(paths):
        path.write_bytes(image_bytes(picture(number, (wide, size))))
    settings, folder = Preprocess(size=size), tmp_path / "shards"
    folder.mkdir()
    write_chunk(
        folder, 0, np.stack([prepare(path.read_bytes(), settings).pixels for path in paths])
    )
    write_parquet(
        folder / data_boxes.BOXES,
        pd.DataFrame([[0, 0.1, 0.1, 0.5, 0.5]], columns=["id", *data_boxes.SIDES]),
    )
    rows = pd.DataFrame(
        {"id": range(6), "label": 0, "split": "test", "group": [str(path) for path in paths]}
    )
    seal(
        folder,
        rows,
        ["normal", "opacity"],
        {"preprocess": settings.model_dump(mode="json"), "versions": {}},
    )
    config = {"detect": {"size": size, "images": "all"}}
    run_plan = plan(
        load(ROOT / "config.yaml", {"studies": {"glaucoma": config}}),
        "glaucoma",
        "serial_1cpu_yolov8n",
        1,
    )
    shards = Shards.open(folder)
    task = Detection(run_plan, shards)
    torch.manual_seed(0)
    net = task.network().eval()
    with torch.no_grad():
        for parameter in net.parameters():  # as it begins it says the same everywhere
            parameter.add_(0.1 * torch.randn_like(parameter))
    criterion = task.criterion(net, torch.device("cpu"))
    steps = task.loader("test", SimpleNamespace(replica=0, device=torch.device("cpu"))).epoch(0)
    with torch.no_grad():
        parts = [
            task.part(criterion, net(b.images), b.labels, b.ids.numpy())
            for step in steps
            for b in step.batches
        ]
    expected = task.table(parts, "test", 6)
    min_confidence = float(expected["confidence"].quantile(0.5))
    run = tmp_path / "seed1"
    run.mkdir()
    save_file(net.state_dict(), run / "model.safetensors")
    out.mkdir()
    detection = {
        "marks": {"synthetic": True, "stand_in": True, "scale": "demo"},
        "thresholds": [min_confidence, 0.9],
        "metrics": {"val": {"map50": {"values": [0.5, 0.4]}}},
    }
    second_plan = run_plan.model_copy(update={"seed": 2})
    bundle.put(
        [
            SimpleNamespace(plan=replicate_plan, folder=run)
            for replicate_plan in (run_plan, second_plan)
        ],
        shards,
        out,
        detection,
    )
    predictor = medscale.load(out)
    predictions = predictor.predict(paths)
    expected = expected[expected["confidence"] >= min_confidence]
    assert len(expected) > 6
    assert expected["width"].nunique() > 2
    table = predictor.table(predictions)
    assert set(table["label"].dropna()) == {"opacity"}
    counts = [len(replicate_plan.boxes) for replicate_plan in predictions]
    assert counts == [int((expected["id"] == number).sum()) for number in range(6)]
    sides = expected[[*data_boxes.SIDES, "confidence"]].to_numpy() * [wide, size, wide, size, 1]
    predicted_boxes = table.dropna(subset="x")[[*data_boxes.SIDES, "confidence"]].to_numpy(float)
    np.testing.assert_allclose(predicted_boxes, sides, atol=1e-2)
    assert len(table) == sum(max(count, 1) for count in counts)
    with pytest.raises(MedscaleError, match="cannot be combined"):
        medscale.load(out, seed="all")
    assert predictor.predict(paths[0]).calibration == "none"


def test_the_test_images_as_an_external_set_have_the_scores_of_the_test_split(
    study_result, tmp_path
):
    test = study_result.index[study_result.index["split"] == "test"]
    names = {"dark": "DARK", "light": "light", "odd": "Odd!"}
    for path, label in zip(test["path"], test["label"], strict=True):
        copy = tmp_path / "clinic" / names[label] / Path(path).name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(study_result.raw / path, copy)
    (tmp_path / "clinic" / "unclear").mkdir()
    shutil.copy(study_result.raw / test["path"].iloc[0], tmp_path / "clinic" / "unclear" / "1.png")
    out = tmp_path / "outside"
    command = ["evaluate", str(study_result.result), str(tmp_path / "clinic"), "--out", str(out)]
    command += ["--index", str(study_result.folder / "index.parquet"), "--prevalence", "odd=0.02"]
    answer = CliRunner().invoke(cli.main, command)
    assert answer.exit_code == 0, answer.output
    summary, inside = (
        read_json(out / "summary.json"),
        read_json(study_result.result / "summary.json"),
    )
    assert summary["counts"]["test"]["images"] == len(test)
    for metric in inside["metrics"]["test"]:
        values = [run["metrics"]["test"][metric]["values"][0] for run in (summary, inside)]
        if None not in values and "calibration_" not in metric:  # of 15 images, hardly defined
            assert values[0] == pytest.approx(values[1], abs=1e-4), metric
    limits = [
        [row[f"threshold_{n}"] for row in run["operating"] for n in (1, 2)]
        for run in (summary, inside)
    ]
    np.testing.assert_allclose(*np.array(limits, float), rtol=1e-12)
    assert summary["calibration"]["temperatures"] == inside["calibration"]["temperatures"]
    odd = next(row for row in summary["operating"] if row["class"] == "odd")
    assert (odd["prevalence"], odd["stated"]) == (0.02, True)
    assert summary["copies"] == {"train": 0, "val": 0, "test": len(test)}
    assert f"{len(test)} of test" in " ".join(answer.output.split())
    assert "left out: unclear" in " ".join(answer.output.split())
    table = pd.read_csv(out / "predictions.csv")
    assert table.groupby("seed").size().to_dict() == {1: len(test), 2: len(test)}
    from_headers = study_result.table.loc[test["id"], ["p_0", "p_1", "p_2"]].to_numpy()
    order = [Path(path).name for path in test["path"]]
    first = table[table["seed"] == 1]
    first.index = pd.Index([Path(path).name for path in first["path"]])
    assert first.loc[order, ["p_0", "p_1", "p_2"]].to_numpy() == pytest.approx(
        from_headers, abs=1e-4
    )
    assert {path.suffix for path in out.iterdir()} == {".json", ".csv", ".pdf"}
    for section in read_tables():
        if section.pattern.startswith("external/"):
            file = out / Path(section.pattern).name
            names = read_json(file) if file.suffix == ".json" else pd.read_csv(file).columns
            unlisted = [n for n in names if not any(entry.fits(n) for entry in section.entries)]
            assert not set(unlisted) - set(inside), file
            required = [entry for entry in section.entries if not entry.optional]
            assert all(any(entry.fits(n) for n in names) for entry in required), file


def test_an_external_set_needs_no_index_and_says_what_is_not_known(study_result, tmp_path):
    shutil.copytree(study_result.raw / "odd", tmp_path / "clinic" / "rare")
    command = [
        "evaluate",
        str(study_result.result),
        str(tmp_path / "clinic"),
        "--label",
        "rare=odd",
    ]
    answer = CliRunner().invoke(cli.main, [*command, "--out", str(tmp_path / "outside")])
    assert answer.exit_code == 0, answer.output
    words = " ".join(answer.output.split())
    assert "is a copy" not in words
    assert "copies of training images is not known" in words
    assert "Whether patients of the study are among these is not known." in words
    assert "No image is of class dark, light" in words
    summary = read_json(tmp_path / "outside" / "summary.json")
    assert summary["missing"] == ["dark", "light"]
    assert summary["metrics"]["test"]["auroc"]["mean"] is None
    assert summary["metrics"]["test"]["accuracy"]["mean"] is not None
    refusal = CliRunner().invoke(cli.main, [*command, "--prevalence", "odd=2"])
    assert "a share between 0 and 1" in str(refusal.exception or refusal.output)
