"""Training of detectors: their data, the runs, and what these leave."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import load_file

from detector_runs import SIZE, make_study, train
from medscale.base.errors import MedscaleError
from medscale.base.files import read_json, sha256, write_parquet
from medscale.data import boxes as data_boxes
from medscale.data.boxes import SIDES
from medscale.engine.detect.loader import BoxLoader, with_boxes
from medscale.engine.plan import Augment, RunPlan
from medscale.evaluate import boxes
from medscale.evaluate.detection import localize
from medscale.report.result.detection import write_detection
from medscale.report.writer import write_chapter

ULTRALYTICS = pytest.mark.skipif(
    find_spec("ultralytics") is None,
    reason="ultralytics (AGPL, optional) is not installed: YOLOv8 itself is not tested",
)


@pytest.fixture(scope="module")
def detection_study(tmp_path_factory) -> SimpleNamespace:
    return make_study(tmp_path_factory.mktemp("detect"))


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


def test_images_without_boxes_are_left_out_of_training_and_never_of_the_test(detection_study):
    train_ids = with_boxes(detection_study.shards)
    ids_with_boxes = set(data_boxes.read(detection_study.shards)["id"])
    for split in ("train", "val"):
        assert set(train_ids.ids[train_ids.positions(split)]) == ids_with_boxes & set(
            detection_study.shards.ids[detection_study.shards.positions(split)]
        )
    assert len(train_ids.positions("test")) == len(detection_study.shards.positions("test"))
    assert len(train_ids.positions("train")) < len(detection_study.shards.positions("train"))


@pytest.fixture(scope="module")
def toy(detection_study) -> dict[str, Path]:
    """Serial and two-process runs of the small stand-in network with one global batch.

    The last steps of an epoch have one image, so that one of the two processes has none.
    """
    return {
        run: train(detection_study, run, run, batch_size=2)
        for run in ("serial_1cpu_yolov8n", "ddp_2cpu_yolov8n")
    }


def test_two_processes_train_and_predict_as_one(detection_study, toy):
    used = with_boxes(detection_study.shards)
    assert all(len(used.positions(split)) % 2 for split in ("train", "val"))
    serial, ddp = (toy[run] for run in ("serial_1cpu_yolov8n", "ddp_2cpu_yolov8n"))
    weights = [load_file(folder / "model.safetensors") for folder in (serial, ddp)]
    assert max(float(np.abs(weights[0][k] - weights[1][k]).max()) for k in weights[0]) < 1e-5
    history = [pd.read_csv(folder / "history.csv") for folder in (serial, ddp)]
    assert history[0]["train_loss"].tolist() == pytest.approx(
        history[1]["train_loss"].tolist(), rel=1e-5
    )
    assert history[0]["val_loss"].tolist() == pytest.approx(
        history[1]["val_loss"].tolist(), rel=1e-5
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
    assert "those of the last epoch" in card
    assert "chose the confidence." in card
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


def test_training_without_ultralytics_ends_in_one_message(detection_study):
    if find_spec("ultralytics") is not None:
        pytest.skip("ultralytics is installed")
    with pytest.raises(AssertionError) as error:
        train(detection_study, "serial_1cpu_yolov8n", "missing", toy=False)
    assert "error: detection runs (yolov8) need ultralytics, which is not installed" in str(
        error.value
    )
    assert "Traceback" not in str(error.value)


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
