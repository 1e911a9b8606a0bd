"""`medscale export`: one ONNX file of a trained run, made under a temporary name, checked, then put in place."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np
import torch

from medscale.base.errors import MedscaleError
from medscale.serve import export as onnx_files
from medscale.serve import inputs, runtime
from medscale.serve.export import FEATURES, PIXELS, Exportable
from medscale.serve.predict import Predictor

FORMATS = ("onnx", "fp16", "int8", "tensorrt")
TOLERANCE = 1e-3  # by which outputs of a 32-bit file may differ from PyTorch's
MOST = 256  # images that are read
NOISE = 16


def export(predictor: Predictor, to: str, path: Path | None, images: Path | None) -> list[str]:
    """Write a run as an ONNX file and hold it against PyTorch on images, or on noise where none are given.

    ``tensorrt`` writes the file in 32 bit and builds its engine beside it.

    Returns:
        What was made and how far it is from PyTorch, in sentences.

    Raises:
        MedscaleError: for a format that there is not or that needs what is not here, and for a file in 32 bit whose
            outputs are not PyTorch's; no file is left then.
    """
    if to not in FORMATS:
        raise MedscaleError(f"--to {to!r}: there are {', '.join(FORMATS)}")
    if to == "int8" and images is None:
        raise MedscaleError(
            "int8 is calibrated on images: name a folder with --images (not of the test split)"
        )
    if to == "tensorrt" and (why := runtime.absent("tensorrt")) is not None:
        raise MedscaleError(f"--to tensorrt: {why}")
    record = predictor.inference
    path = path or Path(f"{record.study}-{record.run}.{to}.onnx")
    given = _given(predictor, images)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        whole, made = Path(folder, "whole.onnx"), Path(folder, path.name)
        onnx_files.to_onnx(predictor, whole)
        distance = _distance(predictor, whole, given)
        if not distance <= TOLERANCE:
            raise MedscaleError(
                f"the ONNX file's outputs differ from PyTorch's by up to {distance:.3g}"
            )
        if to in ("onnx", "tensorrt"):
            made = whole
        elif to == "fp16":
            onnx_files.to_half(whole, made)
        else:
            onnx_files.to_int8(whole, made, given)
        distance = distance if made is whole else _distance(predictor, made, given)
        os.replace(made, path)
    where = f"{len(given[PIXELS])} {'images' if images else 'images of noise; name real ones with --images'}"
    lines = [
        f"{path} ({path.stat().st_size / 1e6:.1f} MB): outputs within {distance:.2g} of PyTorch's on {where}"
    ]
    if to == "tensorrt":
        runtime.onnx(path, "tensorrt")(
            given[PIXELS][:1], given[FEATURES][:1] if FEATURES in given else None
        )
        lines.append(f"TensorRT's engine stands in {path.parent}")
    return lines


def _given(predictor: Predictor, images: Path | None) -> dict[str, np.ndarray]:
    """Inputs of the file: of a folder's images, or noise."""
    size = predictor.inference.preprocess.size
    told: list[inputs.Facts] = [{}] * NOISE
    if images is None:
        pixels = np.random.default_rng(0).integers(0, 256, (NOISE, size, size, 3), dtype=np.uint8)
    else:
        columns = {one.column for one in predictor.inference.metadata}
        read = [predictor.prepare(image) for _, image in inputs.named(images)[:MOST]]
        pixels = np.stack([prepared.pixels for prepared, _ in read])
        told = [{key: value for key, value in facts.items() if key in columns} for _, facts in read]
    features = predictor.features(told)
    return {PIXELS: pixels} | ({} if features is None else {FEATURES: features})


@torch.inference_mode()
def _distance(predictor: Predictor, path: Path, given: dict[str, np.ndarray]) -> float:
    """Largest difference of the file's outputs from PyTorch's."""
    said = Exportable(predictor)(*(torch.from_numpy(one) for one in given.values()))
    wanted = said if isinstance(said, tuple) else (said,)
    found = runtime.outputs(path, given)
    return max(float(np.abs(a - b.numpy()).max()) for a, b in zip(found, wanted, strict=True))
