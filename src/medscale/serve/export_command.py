"""`medscale export`: write a trained run as one checked ONNX file."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from medscale.base.errors import MedscaleError
from medscale.base.extras import require
from medscale.serve import export as onnx_export
from medscale.serve import inputs, runtime
from medscale.serve.export import Exportable
from medscale.serve.formats.format import FEATURES, PIXELS, Format, Inputs, inputs_of
from medscale.serve.formats.registry import ONNX, by_name
from medscale.serve.inputs import Facts
from medscale.serve.predict import Predictor

MOST_IMAGES = 256  # read for calibration and comparison
NOISE_IMAGES = 16  # compared where no images are given


@dataclass(frozen=True)
class ExportedFile:
    """A written ONNX file and its comparison with PyTorch."""

    file: Path
    format: str
    megabytes: float
    largest_difference: float  # of the outputs (logits) from PyTorch's
    compared_inputs: int
    compared_on: str  # "images" or "noise"
    engine: str | None  # whose compiled engine lies beside the file, or None

    def lines(self) -> Iterator[str]:
        """Yield the facts as sentences."""
        noise = "images of noise; name real ones with --images"
        yield (
            f"{self.file} ({self.megabytes:.1f} MB): outputs within {self.largest_difference:.2g}"
            f" of PyTorch's on {self.compared_inputs}"
            f" {noise if self.compared_on == 'noise' else self.compared_on}"
        )
        if self.engine is not None:
            yield f"the engine of {self.engine} is in {self.file.parent}"


def export(predictor: Predictor, to: str, path: Path | None, images: Path | None) -> ExportedFile:
    """Write a run as an ONNX file and compare it with PyTorch on images, or on noise without them.

    The file is written under a temporary name, checked, and only then put in place. Raises
    MedscaleError for an unknown format or one that cannot be written here, and for a file whose
    outputs differ from PyTorch's by more than its format allows.

    Args:
        predictor: the loaded run, on the CPU.
        to: name of a format.
        path: the new file; None for ``<study>-<run>.<format>.onnx`` here.
        images: a folder of images; None for noise.
    """
    require("ONNX exports", "export", "onnx", "onnxscript", "onnxruntime")
    form = by_name(to)
    if form.calibrated and images is None:
        raise MedscaleError(
            f"{to} is calibrated on images: name a folder with --images (not of the test split)"
        )
    if form.engine is not None and (reason := runtime.absent(form.engine)) is not None:
        raise MedscaleError(f"--to {to}: {reason}")
    record = predictor.inference
    path = path or Path(f"{record.study}-{record.run}.{to}.onnx")
    samples = _samples(predictor, images)
    difference = _write(predictor, form, path, samples)
    if form.engine is not None:
        features = samples[FEATURES][:1] if FEATURES in samples else None
        runtime.onnx(path, form.engine)(samples[PIXELS][:1], features)
    return ExportedFile(
        file=path,
        format=to,
        megabytes=path.stat().st_size / 1e6,
        largest_difference=difference,
        compared_inputs=len(samples[PIXELS]),
        compared_on="images" if images else "noise",
        engine=form.engine,
    )


def _write(predictor: Predictor, form: Format, path: Path, samples: Inputs) -> float:
    """Write the file, and return the largest difference of its outputs from PyTorch's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        file = Path(folder, "whole.onnx")
        onnx_export.to_onnx(predictor, file)
        difference = _difference(predictor, file, samples)
        ONNX.check(difference, "the ONNX file in 32 bit")
        if form.convert is not None:
            whole, file = file, Path(folder, path.name)
            form.write(whole, file, samples)
            difference = _difference(predictor, file, samples)
            form.check(difference, path.name)
        os.replace(file, path)
    return difference


def _samples(predictor: Predictor, images: Path | None) -> Inputs:
    """Return inputs of the ONNX file: from a folder's images, or noise."""
    if images is None:
        size = predictor.inference.preprocess.size
        shape = (NOISE_IMAGES, size, size, 3)
        pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        facts: list[Facts] = [{}] * NOISE_IMAGES
    else:
        read = [predictor.prepare(image) for _, image in inputs.name_images(images)[:MOST_IMAGES]]
        pixels = np.stack([prepared.pixels for prepared, _ in read])
        facts = [predictor.accepted(headers) for _, headers in read]
    return inputs_of(pixels, predictor.features(facts))


@torch.inference_mode()
def _difference(predictor: Predictor, path: Path, samples: Inputs) -> float:
    """Return the largest difference of a file's outputs from PyTorch's."""
    outputs = Exportable(predictor)(*(torch.from_numpy(values) for values in samples.values()))
    expected = outputs if isinstance(outputs, tuple) else (outputs,)
    actual = runtime.outputs(path, samples)
    return max(float(np.abs(a - e.numpy()).max()) for a, e in zip(actual, expected, strict=True))
