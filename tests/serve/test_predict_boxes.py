"""Boxes that a result folder predicts equal those of the evaluation."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

import medscale
from data_trees import image_bytes, picture
from medscale.base.errors import MedscaleError
from medscale.base.files import write_parquet
from medscale.config.configuration import load
from medscale.config.planning import plan
from medscale.data import boxes as data_boxes
from medscale.data.prepare import prepare
from medscale.data.settings import Preprocess
from medscale.data.shards import Shards, seal, write_chunk
from medscale.engine.detect.task import Detection
from medscale.serve import bundle
from raw_study import ROOT


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
    criterion = task.criterion(net, SimpleNamespace(sum_over_replicas=None))
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
