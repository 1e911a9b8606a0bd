"""A study from raw images of many formats to the result of a trained network, for tests."""

from __future__ import annotations

import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
from PIL import Image
from safetensors.torch import load_file, save_file

from data_trees import image_bytes, index_and_summary, picture
from dicom_images import dicom
from medscale.base.files import write_json, write_parquet
from medscale.config.configuration import load
from medscale.config.planning import plan
from medscale.data.inventory import make_inventory
from medscale.data.prepare import read_image
from medscale.data.settings import Preprocess, Split
from medscale.data.shards import Shards, seal, write_chunk
from medscale.evaluate.evaluation import evaluate
from medscale.evaluate.replicates import read as read_replicate
from medscale.report.result.folder import write_result
from medscale.serve import bundle
from medscale.serve.predict import Prediction

ROOT = Path(__file__).parents[1]


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
            "f.dcm": lambda g=grey, n=number: dicom(
                g, PatientAge=f"{30 + n:03d}Y", PatientSex="MF"[n % 2]
            ),
        }
        name, make = list(kinds.items())[number // 3 % len(kinds)]
        path = folder / label / f"{number:02d}{name}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(make())
        rows.append({"path": f"{label}/{path.name}", "label": label, "source": "made"})
    return make_inventory(rows, [], CLASSES, [])


def make_study(folder: Path) -> SimpleNamespace:
    """Make a study from raw files to a result of two replicates: one trained, one a changed copy.

    Returns:
        ``folder``; ``raw``, the images; ``index``; ``result``, the result folder; ``run``, the
        trained replicate; and ``table``, its predictions by id.
    """
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
