"""Ways to run a trained network, alike from the outside: eager and compiled PyTorch, ONNX Runtime on each device."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medscale.base.errors import MedscaleError
from medscale.serve.export import FEATURES, PIXELS, PROPERTY, Exportable
from medscale.serve.predict import Predictor

Run = Callable[
    [np.ndarray, np.ndarray | None], np.ndarray
]  # uint8 images and features to probabilities, all on host
PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
WHERE = {
    "cuda": "this ONNX Runtime was built without CUDA: install onnxruntime-gpu in place of onnxruntime",
    "tensorrt": "this ONNX Runtime was built without TensorRT: install onnxruntime-gpu and NVIDIA's tensorrt libraries",
}


def absent(provider: str) -> str | None:
    """Why an execution provider of ``PROVIDERS`` cannot be used here; None where it can, as far as this is known."""
    import onnxruntime

    if PROVIDERS[provider] not in onnxruntime.get_available_providers():
        return WHERE[provider]
    if provider != "cpu" and not torch.cuda.is_available():
        return "there is no GPU here"
    return None


def onnx(path: Path, provider: str = "cpu", threads: int = 0) -> Run:
    """An ONNX file of this package in ONNX Runtime; TensorRT builds its engine at the first call and keeps it beside.

    Args:
        path: the file.
        provider: cpu, cuda or tensorrt.
        threads: of a CPU; 0 for all cores.

    Raises:
        MedscaleError: when the provider is absent, cannot be started, or the file is none of ONNX.
    """
    session = _session(path, provider, threads)

    def run(pixels: np.ndarray, features: np.ndarray | None) -> np.ndarray:
        given = {PIXELS: pixels} if features is None else {PIXELS: pixels, FEATURES: features}
        return session.run(None, given)[0]

    return run


def outputs(path: Path, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    """All outputs of an ONNX file on the CPU."""
    return list(_session(path, "cpu", 0).run(None, inputs))


def about(path: Path) -> dict[str, Any]:
    """What an exported file says of itself: classes, preprocessing, network, where it comes from.

    Raises:
        MedscaleError: when it is no file of this package.
    """
    said = _session(path, "cpu", 1).get_modelmeta().custom_metadata_map.get(PROPERTY)
    if said is None:
        raise MedscaleError(f"{path} was not exported by medscale")
    return dict(json.loads(said))


def eager(predictor: Predictor, *, compiled: bool = False) -> Run:
    """The network in PyTorch in 32 bit, on the predictor's device; ``compiled`` by inductor, for any batch.

    Raises:
        MedscaleError: when it is to be compiled for a CPU and there is no C++ compiler.
    """
    if (
        compiled
        and predictor.device.type == "cpu"
        and not (shutil.which("g++") or shutil.which("clang++"))
    ):
        raise MedscaleError("torch.compile needs a C++ compiler (g++), which is not installed")
    module = Exportable(predictor)
    # dynamic_threads: the same code for any number of threads
    options: dict[str, Any] = {"cpp.dynamic_threads": True}
    called: Any = torch.compile(module, dynamic=True, options=options) if compiled else module

    @torch.inference_mode()
    def run(pixels: np.ndarray, features: np.ndarray | None) -> np.ndarray:
        given = [
            torch.from_numpy(one).to(predictor.device)
            for one in (pixels, features)
            if one is not None
        ]
        return called(*given).cpu().numpy()

    return run


def in_batches(run: Run, pixels: np.ndarray, features: np.ndarray | None, size: int) -> np.ndarray:
    """Probabilities of all images, ``size`` at a time."""
    starts = range(0, len(pixels), size)
    parts = [
        (pixels[at : at + size], None if features is None else features[at : at + size])
        for at in starts
    ]
    return np.concatenate([run(*part) for part in parts])


def _session(path: Path, provider: str, threads: int) -> Any:
    import onnxruntime

    if (why := absent(provider)) is not None:
        raise MedscaleError(f"ONNX Runtime on {provider}: {why}")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    settings: dict[str, Any] = {}
    if provider == "tensorrt":
        settings = {
            "trt_engine_cache_enable": True,
            "trt_engine_cache_path": str(path.parent),
            "trt_fp16_enable": True,
        }
    try:
        session = onnxruntime.InferenceSession(
            str(path), options, providers=[(PROVIDERS[provider], settings)]
        )
    except Exception as error:  # ONNX Runtime's errors have no common kind
        raise MedscaleError(
            f"{path} cannot be run by ONNX Runtime on {provider}: {str(error).strip()}"
        ) from None
    if (
        PROVIDERS[provider] not in session.get_providers()
    ):  # it falls back to the CPU where a library is missing
        raise MedscaleError(
            f"ONNX Runtime could not start on {provider}: libraries of NVIDIA's are missing"
        )
    return session
