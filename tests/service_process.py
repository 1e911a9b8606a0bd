"""A service to test: results with random weights, the real command on a free port, uploads."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import psutil
import torch
from PIL import Image
from safetensors.torch import save_file

from medscale.base.files import sha256, write_json
from medscale.data.metadata import Encoding
from medscale.data.settings import Preprocess
from medscale.engine.models.registry import build
from medscale.engine.plan import Crop, Model
from medscale.serve.bundle import INFERENCE, Inference, Weights

CLASSES = ["calm", "odd", "worse"]
AGE_AND_SEX = [
    Encoding(column="age", mean=50, scale=10),
    Encoding(column="sex", words=["female", "male"]),
]


def make_result(
    folder: Path,
    run: str,
    classes: list[str],
    seed: int,
    metadata: list[Encoding],
    temperature: float | None,
    *,
    title: str = "",
    kind: str = "",
) -> Path:
    """Write a result of the study that the folder is in: a tiny network with random weights."""
    torch.manual_seed(seed)
    model = Model(
        name="tiny_cnn", options={"width": 8}, metadata=[variable.column for variable in metadata]
    )
    network = build(model, len(classes), 3, sum(variable.features for variable in metadata))
    folder.mkdir(parents=True)
    weights = {
        name: 3 * value + 0.1 * torch.randn_like(value)
        for name, value in network.state_dict().items()
    }
    save_file(weights, folder / "seed1.safetensors")
    replicate = Weights(
        seed=1,
        file="seed1.safetensors",
        sha256=sha256(folder / "seed1.safetensors"),
        validation=0.5,
        temperature=temperature,
    )
    record = Inference(
        study=folder.parent.name,
        run=run,
        title=title,
        kind=kind,
        task="classification",
        classes=classes,
        marks={"synthetic": True, "stand_in": True, "scale": "demo"},
        preprocess=Preprocess(size=64, fit="cover"),
        crop=Crop(size=48),
        model=model,
        amp=False,
        channels_last=False,
        metadata=metadata,
        replicates=[replicate],
        judged_by="loss",
        chosen=1,
        versions={},
    )
    write_json(folder / INFERENCE, record.model_dump(mode="json"))
    return folder


def make_results(folder: Path) -> Path:
    """Two runs of one study; one takes metadata, is calibrated, and has operating points."""
    make_result(folder / "made" / "serial_1cpu", "serial_1cpu", CLASSES, 1, [], None)
    full = folder / "made" / "ddp_2cpu"
    title = "Made of random weights"
    make_result(full, "ddp_2cpu", CLASSES, 2, AGE_AND_SEX, 1.5, title=title, kind="skin")
    write_json(full / "summary.json", summary())
    return folder


def summary() -> dict[str, object]:
    """The part of summary.json that the service shows: a threshold for each class, and its rates.

    The thresholds are such that the classes are found never, always, and always.
    """
    accuracy = {"mean": 0.75, "low": 0.6, "high": 0.85}
    rates = {"sensitivity": 0.88, "sensitivity_low": 0.77, "sensitivity_high": 0.97}
    rates |= {"specificity": 0.85, "specificity_low": None, "specificity_high": None}
    operating = [
        {"class": name, "wanted": 0.9, "threshold_1": threshold, "positives": 34, "negatives": 54}
        | rates
        for name, threshold in zip(CLASSES, (1.0, 0.0, 0.0), strict=True)
    ]
    return {"metrics": {"test": {"accuracy": accuracy}}, "operating": operating}


def picture(size: tuple[int, int] = (320, 200), seed: int = 0, kind: str = "JPEG") -> bytes:
    """A smooth coloured image as a file's bytes."""
    small = np.random.default_rng(seed).integers(0, 256, (4, 6, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(small).resize(size, Image.Resampling.BICUBIC).save(file, kind)
    return file.getvalue()


@dataclass
class Service:
    """The command `medscale serve`, running."""

    address: str
    process: subprocess.Popen[str]

    def client(self, **options: object) -> httpx.Client:
        """A client of it."""
        return httpx.Client(base_url=self.address, timeout=60, **options)  # type: ignore[arg-type]

    def post(self, *images: bytes | tuple[str, bytes], **query: object) -> httpx.Response:
        """Ask for a prediction of images, each as bytes or with its name."""
        metadata = query.pop("metadata", None)
        files = [
            ("images", image if isinstance(image, tuple) else ("photo.jpg", image))
            for image in images
        ]
        data = {"metadata": metadata} if metadata is not None else None
        with self.client() as client:
            return client.post("/v1/predict", files=files, data=data, params=query)  # type: ignore[arg-type]

    def workers(self, least_mb: float = 0) -> list[psutil.Process]:
        """Its processes that decode or predict (which are the large ones)."""
        processes = []
        for child in psutil.Process(self.process.pid).children():
            with suppress(psutil.NoSuchProcess):
                if "spawn_main" in " ".join(child.cmdline()) and resident(child) >= least_mb:
                    processes.append(child)
        return processes

    def resident(self) -> float:
        """Megabytes that it and its processes hold together."""
        return resident(psutil.Process(self.process.pid)) + sum(
            resident(worker) for worker in self.workers()
        )

    def counter(self, line: str) -> float:
        """A counter of the metrics, by the beginning of its line."""
        text = httpx.get(f"{self.address}/metrics").text
        return sum(
            float(metric_line.rsplit(" ", 1)[1])
            for metric_line in text.splitlines()
            if metric_line.startswith(line)
        )


def resident(process: psutil.Process) -> float:
    """Megabytes of a process that are not shared with a file."""
    return process.memory_full_info().uss / 2**20


@contextmanager
def running_service(results: Path, folder: Path, *options: str) -> Iterator[Service]:
    """Start the command on a free port, and end it; its log is ``folder/serve.log``."""
    log = folder / "serve.log"
    command = [
        sys.executable,
        "-u",
        "-m",
        "medscale.cli",
        "serve",
        str(results),
        "--port",
        "0",
        *options,
    ]
    environment = os.environ | {"TMPDIR": str(folder / "tmp")}
    (folder / "tmp").mkdir(exist_ok=True)
    with open(log, "w", encoding="utf-8") as stderr:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=stderr, text=True, env=environment
        )
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if match := re.search(r"http://[\d.]+:\d+", line):
                yield Service(match[0], process)
                break
        else:
            raise AssertionError(f"the service ended with {process.wait()}: {log.read_text()}")
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
