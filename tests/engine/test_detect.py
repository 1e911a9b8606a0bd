"""Detection: boxes beside images, training on them, and what a run leaves."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.numpy import load_file

from medscale.base import extras
from medscale.base.errors import MedscaleError
from medscale.base.files import read_json, sha256, write_json, write_parquet
from medscale.config.configuration import Config, load
from medscale.config.planning import plan
from medscale.data import boxes as data_boxes
from medscale.data.boxes import SIDES, pad, relative
from medscale.data.settings import Preprocess
from medscale.data.shards import Shards
from medscale.engine.detect.loader import BoxLoader, flip, with_boxes
from medscale.engine.detect.task import suppress
from medscale.engine.models.names import check_model
from medscale.engine.plan import Augment, Detect, RunPlan
from medscale.engine.train.progress import Progress
from medscale.evaluate import boxes
from medscale.evaluate.detection import localize
from medscale.report.chapters import chapters_of
from medscale.report.detection.chapter import CHAPTER as DETECTION
from medscale.report.overview.chapter import CHAPTER as OVERVIEW
from medscale.report.result.detection import write_detection
from medscale.report.writer import write_chapter
from medscale.workflow.datasets import Datasets
from medscale.workflow.graph import Graph
from medscale.workflow.preflight import _models
from medscale.workflow.runs import Runs
from training_runs import fork_ranks

ROOT = Path(__file__).parents[2]
SIZE = 64
ULTRALYTICS = pytest.mark.skipif(
    find_spec("ultralytics") is None,
    reason="ultralytics (AGPL, optional) is not installed: YOLOv8 itself is not tested",
)


def configured(**settings) -> Config:
    """The demo study with detection of small images."""
    detect_section = {
        "size": SIZE,
        "epochs": 2,
        "batch_size": 8,
        "lr": 3e-3,
        "augment": {"hflip": 0.5},
    } | settings
    runs = ["serial_1cpu", "serial_1cpu_yolov8n", "ddp_2cpu_yolov8n"]
    study = {"detect": detect_section, "runs": runs}
    return load(
        ROOT / "config.yaml", {"scale": "demo", "seeds": [1], "studies": {"glaucoma": study}}
    )


def make_index(folder: Path, train: int = 24, val: int = 8, test: int = 10) -> pd.DataFrame:
    """Write PNG files of noise with up to two bright rectangles each; return their index."""
    rng, rows = np.random.default_rng(0), []
    (folder / "raw").mkdir()
    for number, split in enumerate(np.repeat(["train", "val", "test"], [train, val, test])):
        pixels, boxes_of_image = rng.integers(0, 90, (SIZE, 2 * SIZE, 3), dtype=np.uint8), []
        for part in range((0, 1, 2, 1)[number % 4]):
            x, y = int(rng.integers(0, 30)) + 62 * part, int(rng.integers(0, 30))
            width, height = int(rng.integers(20, 36)), int(rng.integers(18, 34))
            pixels[y : y + height, x : x + width] = 230
            boxes_of_image.append(
                [float(x), float(y), float(min(width, 2 * SIZE - x)), float(min(height, SIZE - y))]
            )
        path = folder / "raw" / f"{number}.png"
        Image.fromarray(pixels).save(path)
        rows.append(
            (
                number,
                path.name,
                split,
                f"g{number // 2}",
                2 * SIZE,
                SIZE,
                sha256(path),
                boxes_of_image,
            )
        )
    index = pd.DataFrame(
        rows, columns=["id", "path", "split", "group", "width", "height", "sha256", "boxes"]
    )
    index["label"] = pd.Categorical(
        ["opacity" if b else "normal" for b in index["boxes"]], ["normal", "opacity"], True
    )
    write_parquet(folder / "index.parquet", index)
    return index


@pytest.fixture(scope="module")
def detection_study(tmp_path_factory) -> SimpleNamespace:
    """A study's index and its shards for detection, made by the stage's own script."""
    folder = tmp_path_factory.mktemp("detect")
    index = make_index(folder)
    script, settings = ROOT / "scripts" / "shards.py", Preprocess(size=SIZE).model_dump_json()
    arguments = [
        "--index",
        folder / "index.parquet",
        "--raw",
        folder / "raw",
        "--preprocess",
        settings,
        "--boxes",
    ]
    arguments += [
        "--dask",
        '{"workers": 1}',
        "--out",
        folder / "shards_detect",
        "--log",
        folder / "shards.log",
    ]
    process = subprocess.run(
        [sys.executable, str(script), *map(str, arguments)],
        capture_output=True,
        text=True,
        env=_environment(),
    )
    assert process.returncode == 0, process.stderr
    return SimpleNamespace(folder=folder, index=index, shards=Shards.open(folder / "shards_detect"))


def _environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT / 'tests'}"}


def train(
    detection_study, run: str, name: str, toy: bool = True, gpu: bool = False, **settings
) -> Path:
    """Train a run as the rule does; with ``toy`` a small network in place of YOLOv8, forked.

    With ``gpu`` the run is trained on this machine's GPU, and no CPU process stands in for it.
    """
    out = detection_study.folder / name / "seed1"
    run_plan = plan(configured(**settings), "glaucoma", run, 1)
    if gpu:
        run_plan = run_plan.model_copy(update={"stand_in": False, "backend": "cuda"})
    write_json(out / "spec.json", run_plan.model_dump(mode="json"))
    paths = (
        out / "spec.json",
        detection_study.folder / "shards_detect",
        out,
        detection_study.folder / f"{name}.log",
    )
    if toy:
        fork_ranks([*map(str, paths)], run_plan.run.devices, "toy_detector:Detection")
        return out
    options = zip(("--spec", "--shards", "--out", "--log"), map(str, paths), strict=True)
    script = str(ROOT / "scripts" / "train_detector.py")
    command = [sys.executable, script, *(part for option in options for part in option)]
    process = subprocess.run(
        command, env=_environment(), stderr=subprocess.PIPE, text=True, timeout=200
    )
    assert process.returncode == 0, process.stderr
    return out


def test_boxes_are_shares_of_the_image_and_stand_beside_the_shards(detection_study):
    box_table = data_boxes.read(detection_study.shards)
    assert len(box_table) == sum(len(image_boxes) for image_boxes in detection_study.index["boxes"])
    x, y, width, height = detection_study.index["boxes"][2][1]
    second = box_table[box_table["id"] == 2].iloc[1]
    assert second[SIDES].tolist() == pytest.approx(
        [x / (2 * SIZE), y / SIZE, width / (2 * SIZE), height / SIZE]
    )
    assert detection_study.shards.meta["boxes"] == sha256(
        detection_study.shards.folder / "boxes.parquet"
    )
    image = detection_study.shards.gather(np.array([2]))[0]
    left, top, wide, high = (second[SIDES] * SIZE).tolist()
    inside = image[int(top) + 2 : int(top + high) - 2, int(left) + 2 : int(left + wide) - 2]
    assert inside.min() > 200, "the box is not where its rectangle is"


@pytest.mark.parametrize(
    ("box_list", "message"),
    [
        ([[0.0, 0.0, 0.0, 5.0]], "no area"),
        ([[200.0, 0.0, 5.0, 5.0]], "no area inside their image"),
        ([[0.0, 0.0, float("nan"), 5.0]], "no area"),
        ([[0.0, 0.0, 5.0]], "four numbers"),
        (None, "must hold lists of boxes"),
    ],
)
def test_a_wrong_box_is_named(box_list, message):
    index = pd.DataFrame({"id": [7], "width": [100], "height": [50], "boxes": [box_list]})
    with pytest.raises(MedscaleError, match=message):
        relative(index, "index.parquet")


def test_an_index_without_boxes_is_refused_and_what_lies_outside_is_cut_off():
    with pytest.raises(MedscaleError, match="no column `boxes`"):
        relative(pd.DataFrame({"id": [0], "width": [10], "height": [10]}), "index.parquet")
    index = pd.DataFrame(
        {"id": [0], "width": [10], "height": [10], "boxes": [[[8.0, -1.0, 4.0, 3.0]]]}
    )
    assert relative(index, "x")[SIDES].iloc[0].tolist() == pytest.approx([0.8, 0.0, 0.2, 0.2])


def test_padding_follows_the_order_of_the_images():
    table = pd.DataFrame(
        {"id": [5, 2, 5], "x": [0.1, 0.2, 0.3], "y": 0.0, "width": 0.1, "height": 0.1}
    )
    out = pad(table, np.array([2, 3, 5]))
    assert out.shape == (3, 2, 4)
    assert out[:, :, 0].tolist() == [pytest.approx([0.2, 0]), [0, 0], pytest.approx([0.1, 0.3])]
    assert pad(table.iloc[:0], np.array([1])).shape == (1, 1, 4)


@given(st.integers(0, 40), st.integers(1, 20), st.integers(0, 40), st.integers(1, 20))
def test_a_flipped_box_holds_the_same_pixels(x, width, y, height):
    image = torch.zeros(1, 3, 64, 64)
    image[:, :, y : y + height, x : x + width] = 1
    box = torch.tensor([[[x, y, width, height], [0, 0, 0, 0]]]) / 64
    images, flipped_boxes = flip(image, box, torch.tensor([True]))
    left, top, wide, high = (flipped_boxes[0, 0] * 64).round().int().tolist()
    assert images[0, :, top : top + high, left : left + wide].min() == 1
    assert images.sum() == image.sum()
    assert flipped_boxes[0, 1].tolist() == [0, 0, 0, 0], "padding has become a box"
    assert all(
        torch.equal(a, b)
        for a, b in zip(
            flip(images, flipped_boxes, torch.tensor([False])), (images, flipped_boxes), strict=True
        )
    )
    assert torch.allclose(flip(images, flipped_boxes, torch.tensor([True]))[1], box)


def test_of_boxes_that_overlap_by_more_than_half_the_most_confident_is_kept():
    boxes = [  # left, top, right, bottom, confidence
        [0.0, 0.0, 0.4, 0.19, 0.7],  # 0.475 of the union with the fourth
        [0.6, 0.0, 0.9, 0.3, 0.009],
        [0.0, 0.0, 0.4, 0.3, 0.8],  # 0.75 of the union with the fourth
        [0.0, 0.0, 0.4, 0.4, 0.9],
        [0.5, 0.5, 0.5, 0.9, 0.99],  # without area
        [0.6, 0.5, 0.9, 0.9, 0.011],
    ]
    table = torch.tensor(boxes)
    kept = [[0.0, 0.0, 0.4, 0.4, 0.9], [0.0, 0.0, 0.4, 0.19, 0.7], [0.6, 0.5, 0.3, 0.4, 0.011]]
    torch.testing.assert_close(suppress(table[:, :4], table[:, 4]), torch.tensor(kept))
    corner = torch.cartesian_prod(torch.arange(12), torch.arange(12)) / 12
    confidence = torch.linspace(0.1, 0.9, 144)
    most = suppress(torch.cat([corner, corner + 0.05], 1), confidence)
    assert most[:, 4].tolist() == confidence.flip(0)[:100].tolist()


def test_flips_depend_on_the_sample_alone_and_move_image_and_box(detection_study):
    def epoch(replicas: int, replica: int, hflip: float = 0.5):
        augment = Augment(hflip=hflip, brightness=0.1)
        common = {"global_batch": 8, "seed": 3, "training": True, "augment": augment}
        loader = BoxLoader(
            detection_study.shards, "train", replicas=replicas, replica=replica, **common
        )
        for step in loader.epoch(4):
            for batch in step.batches:
                yield from zip(batch.ids.tolist(), batch.images, batch.labels, strict=True)

    whole = {number: (image, image_boxes) for number, image, image_boxes in epoch(1, 0)}
    shared = {
        number: (image, image_boxes)
        for replica in (0, 1)
        for number, image, image_boxes in epoch(2, replica)
    }
    assert whole.keys() == shared.keys()
    assert all(torch.equal(whole[n][k], shared[n][k]) for n in whole for k in (0, 1))
    plain = {number: image_boxes for number, _, image_boxes in epoch(1, 0, hflip=0.0)}
    flipped_ids = [number for number in whole if not torch.equal(whole[number][1], plain[number])]
    assert 0 < len(flipped_ids) < sum(bool(image_boxes.any()) for image_boxes in plain.values())
    for number, (image, image_boxes) in whole.items():
        for left, top, wide, high in (image_boxes[image_boxes[:, 2] > 0] * SIZE).tolist():
            inside = image[
                :, int(top) + 2 : int(top + high) - 2, int(left) + 2 : int(left + wide) - 2
            ]
            assert inside.min() > 0.5, f"image {number} and its box part"


@pytest.mark.parametrize(
    "change", [{"rotate": 5}, {"vflip": 0.5}, {"minority": 2}, {"crop": {"size": 32}}]
)
def test_changes_that_would_leave_boxes_behind_are_refused(change):
    with pytest.raises(ValueError, match=f"augment.{next(iter(change))} is not for detection"):
        Detect(augment=change)


def test_images_without_boxes_are_left_out_of_training_and_never_of_the_test(detection_study):
    train_ids = with_boxes(detection_study.shards)
    ids_with_boxes = set(data_boxes.read(detection_study.shards)["id"])
    for split in ("train", "val"):
        assert set(train_ids.ids[train_ids.positions(split)]) == ids_with_boxes & set(
            detection_study.shards.ids[detection_study.shards.positions(split)]
        )
    assert len(train_ids.positions("test")) == len(detection_study.shards.positions("test"))
    assert len(train_ids.positions("train")) < len(detection_study.shards.positions("train"))


def test_where_losses_do_not_rank_epochs_the_last_finite_one_is_kept():
    progress = Progress()
    losses = [0.3, 7.0, 2.0, float("nan")]
    best = [
        progress.close_epoch({"epoch": n + 1, "val_loss": v}, None, 4, ranks=False)
        for n, v in enumerate(losses)
    ]
    assert best == [True, True, True, False]
    assert progress.best_epoch == 3


@pytest.fixture(scope="module")
def toy(detection_study) -> dict[str, Path]:
    """Serial and two-process runs of the small stand-in network with one global batch."""
    return {
        run: train(detection_study, run, run) for run in ("serial_1cpu_yolov8n", "ddp_2cpu_yolov8n")
    }


def test_two_processes_train_and_predict_as_one(toy):
    serial, ddp = (toy[run] for run in ("serial_1cpu_yolov8n", "ddp_2cpu_yolov8n"))
    weights = [load_file(folder / "model.safetensors") for folder in (serial, ddp)]
    assert max(float(np.abs(weights[0][k] - weights[1][k]).max()) for k in weights[0]) < 1e-5
    history = [pd.read_csv(folder / "history.csv") for folder in (serial, ddp)]
    assert history[0]["train_loss"].tolist() == pytest.approx(
        history[1]["train_loss"].tolist(), rel=1e-5
    )
    predictions = [pd.read_parquet(folder / "predictions.parquet") for folder in (serial, ddp)]
    assert predictions[0][["id", "split"]].equals(predictions[1][["id", "split"]])
    assert np.abs(predictions[0]["confidence"] - predictions[1]["confidence"]).max() < 1e-4


def test_a_run_leaves_the_files_of_any_run(detection_study, toy):
    folder = toy["ddp_2cpu_yolov8n"]
    files = {
        "spec.json",
        "history.csv",
        "timing.json",
        "environment.json",
        "model.safetensors",
        "predictions.parquet",
    }
    assert files <= {file.name for file in folder.iterdir()}
    history, timing = pd.read_csv(folder / "history.csv"), read_json(folder / "timing.json")
    assert history[["train_accuracy", "val_accuracy"]].isna().all(axis=None), (
        "nothing is judged right or wrong"
    )
    assert history[["train_loss", "val_loss"]].notna().all(axis=None)
    assert timing["train_images"] == len(with_boxes(detection_study.shards).positions("train"))
    assert timing["best_epoch"] == timing["epochs"]
    assert "accuracy" not in (detection_study.folder / "ddp_2cpu_yolov8n.log").read_text()
    predicted = pd.read_parquet(folder / "predictions.parquet")
    assert list(predicted.columns) == ["id", "split", *SIDES, "confidence"]
    assert set(predicted["split"]) == {"val", "test"}
    empty = detection_study.index[
        (detection_study.index["split"] == "val") & (detection_study.index["label"] == "normal")
    ]["id"]
    assert set(empty) & set(predicted["id"]), "images without boxes are predicted too"


def test_results_and_report_of_detection_runs(detection_study, toy):
    results = []
    for run, folder in toy.items():
        localization = localize([folder], detection_study.folder / "index.parquet", resamples=50)
        assert localization.counts["test"]["images"] == int(
            (detection_study.index["split"] == "test").sum()
        )
        results.append(detection_study.folder / "results" / run)
        write_detection(localization, detection_study.shards, results[-1])
        names = {file.name for file in results[-1].iterdir()}
        assert {
            "summary.json",
            "metrics.csv",
            "model_card.md",
            "boxes.pdf",
            "pr.pdf",
            "curves.pdf",
        } <= names
    summary = read_json(results[0] / "summary.json")
    assert set(summary["metrics"]["test"]) == set(boxes.NAMES)
    assert summary["detect"]["size"] == SIZE
    assert 0 < summary["thresholds"][0] < 1
    card = (results[0] / "model_card.md").read_text()
    assert "challenge mAP" in card
    assert "AUROC" not in card
    inputs = {"results": list(map(str, results))}
    write_chapter("detection", "glaucoma", inputs, detection_study.folder)
    shards = {"shards": str(detection_study.shards.folder / "meta.json")}
    write_chapter("boxes", "glaucoma", inputs | shards, detection_study.folder)
    tables = detection_study.folder / "tables" / "glaucoma"
    table = pd.read_csv(tables / "detection.csv").set_index("run")
    assert table.loc["serial_1cpu_yolov8n", "speedup"] == 1
    assert table.loc["ddp_2cpu_yolov8n", "speedup"] > 0
    assert (detection_study.folder / "figures" / "glaucoma" / "detection.pdf").stat().st_size > 5000
    assert "yolov8n" in (tables / "detection.tex").read_text()


def test_boxes_of_another_index_are_refused(detection_study, toy, tmp_path):
    other_index = detection_study.index.assign(
        split=detection_study.index["split"].replace({"val": "test", "test": "val"})
    )
    write_parquet(tmp_path / "index.parquet", other_index)
    with pytest.raises(MedscaleError, match="belong to no image of that split"):
        localize([toy["ddp_2cpu_yolov8n"]], tmp_path / "index.parquet", resamples=10)


def test_detection_stands_apart_from_a_study_s_classifications():
    study = Graph(
        {
            "scale": "demo",
            "studies": {"glaucoma": configured().study("glaucoma").model_dump(mode="json")},
        }
    )
    classified, detected = (
        chapter.inputs(study.config, "glaucoma")["results"] for chapter in (OVERVIEW, DETECTION)
    )
    assert classified == ["results/glaucoma/serial_1cpu"]
    assert detected == [f"results/glaucoma/{run}_yolov8n" for run in ("serial_1cpu", "ddp_2cpu")]
    runs, datasets = Runs(study), Datasets(study)
    detector = SimpleNamespace(study="glaucoma", run="ddp_2cpu_yolov8n")
    assert runs.shards(detector) == "data/glaucoma/shards_detect"
    assert runs.shards(SimpleNamespace(study="glaucoma", run="ddp_2cpu")) == "data/glaucoma/shards"
    shards = SimpleNamespace(study="glaucoma", shards="shards_detect")
    preprocess = Preprocess.model_validate_json(datasets.shard_preprocessing(shards))
    assert preprocess == Preprocess(size=SIZE)
    assert "detection" in [chapter.name for chapter in chapters_of(study.config, "glaucoma")]
    assert "results/glaucoma/ddp_2cpu_yolov8n" in study.results()


def test_a_detection_plan_has_its_own_recipe_and_none_of_the_classification_s_network():
    changes = {"model": {"trained": "last_layer", "metadata": ["age"]}}
    settings = configured(pretrained="some.safetensors")
    study = settings.study("glaucoma").model_dump(mode="json") | changes
    study["model"] |= {"name": "medical_cnn"}
    detection_plan = plan(
        load(ROOT / "config.yaml", {"studies": {"glaucoma": study}}),
        "glaucoma",
        "ddp_4gpu_yolov8n",
        1,
    )
    assert (
        detection_plan.model.trained,
        detection_plan.model.metadata,
        detection_plan.model.pretrained,
    ) == ("all", [], "some.safetensors")
    assert (detection_plan.global_batch, detection_plan.recipe.epochs) == (8, 2)
    changed_plan = plan(configured(images="all"), "glaucoma", "ddp_2cpu_yolov8n", 1)
    assert (
        changed_plan.training_digest
        != plan(configured(), "glaucoma", "ddp_2cpu_yolov8n", 1).training_digest
    )


def test_mistakes_are_reported_before_anything_is_trained(monkeypatch):
    check_model("yolov8n")
    with pytest.raises(MedscaleError, match="yolov9n"):
        check_model("yolov9n")
    with pytest.raises(MedscaleError, match="no section `detect`"):
        plan(load(ROOT / "config.yaml"), "glaucoma", "ddp_2cpu_yolov8n", 1)
    with pytest.raises(MedscaleError, match="a detector is the model of runs"):
        load(ROOT / "config.yaml", {"studies": {"glaucoma": {"model": {"name": "yolov8n"}}}})
    run_plan = plan(configured(), "glaucoma", "ddp_2cpu_yolov8n", 1)
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    [finding] = _models(configured(), [run_plan])
    assert finding.level == "error"
    assert "ultralytics, which is not installed" in finding.text
    monkeypatch.setattr(extras, "find_spec", lambda name: object())
    [finding] = _models(configured(), [run_plan])
    assert finding.level == "ok"
    for run in ("fsdp_2cpu_yolov8n", "mp_2cpu_yolov8n", "ddp_mp_4gpu_yolov8n"):
        with pytest.raises(MedscaleError, match="detection runs are serial or ddp"):
            plan(configured(), "glaucoma", run, 1)


def test_training_without_ultralytics_ends_in_one_message(detection_study):
    if find_spec("ultralytics") is not None:
        pytest.skip("ultralytics is installed")
    with pytest.raises(AssertionError) as error:
        train(detection_study, "serial_1cpu_yolov8n", "missing", toy=False)
    assert "error: detection runs (yolov8) need ultralytics, which is not installed" in str(
        error.value
    )
    assert "Traceback" not in str(error.value)


def test_only_one_module_imports_ultralytics_and_only_within_functions():
    for path in (ROOT / "src").rglob("*.py"):
        lines = [
            line
            for line in path.read_text(encoding="utf-8").splitlines()
            if "import" in line.split("#")[0]
        ]
        using = [
            line
            for line in lines
            if line.lstrip().startswith(("import ultralytics", "from ultralytics"))
        ]
        assert not using or path.name == "yolo.py", path
        assert all(line.startswith("    ") for line in using), path


@ULTRALYTICS
@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA card")
@pytest.mark.parametrize(
    ("run", "number_format"), [("serial_1gpu_yolov8n", "fp32"), ("ddp_amp_1gpu_yolov8n", "bf16")]
)
def test_yolov8n_trains_and_predicts_boxes_on_a_gpu(detection_study, run, number_format):
    folder = train(detection_study, run, f"{run}-cuda", toy=False, gpu=True, epochs=2, batch_size=8)
    assert pd.read_csv(folder / "history.csv")["val_loss"].notna().all()
    assert read_json(folder / "environment.json")["format"] == number_format
    text = (detection_study.folder / f"{run}-cuda.log").read_text()
    assert "as CUDA graphs in" in text, text
    assert read_json(folder / "timing.json")["peak_memory_mb"]["device"][0] > 0
    boxes = pd.read_parquet(folder / "predictions.parquet")
    assert boxes[["x", "y", "width", "height"]].to_numpy().min() >= 0


@ULTRALYTICS
@pytest.mark.slow
def test_yolov8n_trains_serially_and_on_two_processes(detection_study):
    for run in ("serial_1cpu_yolov8n", "ddp_2cpu_yolov8n"):
        folder = train(detection_study, run, f"{run}-real", toy=False, epochs=1, batch_size=16)
        assert pd.read_csv(folder / "history.csv")["val_loss"].notna().all()
        assert RunPlan.model_validate(read_json(folder / "spec.json")).detect is not None
        assert (
            localize([folder], detection_study.folder / "index.parquet", resamples=10)
            .scores["mean"]
            .notna()
            .any()
        )
