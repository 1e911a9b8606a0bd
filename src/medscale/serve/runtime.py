"""Ways to run a trained network: PyTorch eager, compiled or captured, and ONNX Runtime."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medscale.base.errors import MedscaleError
from medscale.engine.formats import NumberFormat, number_format, using
from medscale.serve.batches import FixedBatches
from medscale.serve.export import Exportable
from medscale.serve.formats.format import inputs_of
from medscale.serve.predict import Predictor

# From images (uint8, n,size,size,3) and features (float32, n,F) to probabilities (float32, n,K);
# all three are in host memory.
Run = Callable[[np.ndarray, np.ndarray | None], np.ndarray]
PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
INSTALL = {
    "cuda": "this ONNX Runtime was built without CUDA: install onnxruntime-gpu in place of"
    " onnxruntime",
    "tensorrt": "this ONNX Runtime was built without TensorRT: install onnxruntime-gpu and"
    " NVIDIA's tensorrt libraries",
}


def absent(provider: str) -> str | None:
    """Return why an execution provider of ``PROVIDERS`` cannot be used, or None if it can.

    Missing libraries of NVIDIA's are noticed only when a session starts.
    """
    import onnxruntime

    if PROVIDERS[provider] not in onnxruntime.get_available_providers():
        return INSTALL[provider]
    if provider != "cpu" and not torch.cuda.is_available():
        return "there is no GPU here"
    return None


def open_session(path: Path, provider: str = "cpu", threads: int = 0, *, tf32: bool = False) -> Any:
    """Load any ONNX file into ONNX Runtime; return its InferenceSession.

    Arguments and errors are those of ``onnx``.
    """
    import onnxruntime

    if (reason := absent(provider)) is not None:
        raise MedscaleError(f"ONNX Runtime on {provider}: {reason}")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    settings: dict[str, Any] = {"use_tf32": int(tf32)} if provider == "cuda" else {}
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
    except Exception as error:  # ONNX Runtime's errors have no common base class
        raise MedscaleError(
            f"{path} cannot be run by ONNX Runtime on {provider}: {str(error).strip()}"
        ) from None
    # ONNX Runtime falls back to the CPU without an error where a library is missing.
    if PROVIDERS[provider] not in session.get_providers():
        raise MedscaleError(
            f"ONNX Runtime could not start on {provider}: libraries of NVIDIA's are missing"
        )
    return session


def onnx(path: Path, provider: str = "cpu", threads: int = 0, *, tf32: bool = False) -> Run:
    """Load an ONNX file of this package into ONNX Runtime.

    TensorRT builds its engine at the first call, and keeps it in the file's folder. Raises
    MedscaleError when the provider is absent or cannot start, or the file is not ONNX.

    Args:
        path: the file.
        provider: cpu, cuda or tensorrt.
        threads: of a CPU; 0 for all cores.
        tf32: CUDA may compute fp32 operations in TF32, where the GPU has it.
    """
    session = open_session(path, provider, threads, tf32=tf32)

    def run(pixels: np.ndarray, features: np.ndarray | None) -> np.ndarray:
        return session.run(None, inputs_of(pixels, features))[0]

    return run


def pytorch(predictor: Predictor, *, compiled: bool = False, captured: Sequence[int] = ()) -> Run:
    """Return the network in PyTorch on the predictor's device, in fp32 or tf32 (``form_of``).

    Raises MedscaleError when compiling for a CPU needs a C++ compiler and there is none, or
    capturing needs a GPU.

    Args:
        predictor: the loaded run.
        compiled: compile by inductor, for any batch size and number of threads; with ``captured``
            for each of its sizes.
        captured: batch sizes, each of which is captured as a CUDA graph.
    """
    on_cpu = predictor.device.type == "cpu"
    if compiled and on_cpu and not (shutil.which("g++") or shutil.which("clang++")):
        raise MedscaleError("torch.compile needs a C++ compiler (g++), which is not installed")
    if captured and on_cpu:
        raise MedscaleError("CUDA graphs need a GPU, and there is none here")
    module: Any = Exportable(predictor)
    if compiled and captured:
        module = torch.compile(module, dynamic=False)
    elif compiled:
        # Without dynamic_threads, code would be compiled again for each number of threads.
        module = torch.compile(module, dynamic=True, options={"cpp.dynamic_threads": True})

    if captured:
        module = FixedBatches(module, 0, sorted(captured))

    @torch.inference_mode()
    def run(pixels: np.ndarray, features: np.ndarray | None) -> np.ndarray:
        inputs = inputs_of(pixels, features).values()
        tensors = [torch.from_numpy(values).to(predictor.device) for values in inputs]
        with using(form_of(predictor)):
            return module(*tensors).cpu().numpy()

    return run


def form_of(predictor: Predictor) -> NumberFormat:
    """Return the number format of ``pytorch``: tf32 if the run asks for it and the GPU has it."""
    return number_format(False, predictor.inference.tf32, "auto", predictor.device)


def in_batches(run: Run, pixels: np.ndarray, features: np.ndarray | None, size: int) -> np.ndarray:
    """Return the probabilities of all images, computed in batches of ``size`` images."""
    return np.concatenate(
        [
            run(pixels[at : at + size], None if features is None else features[at : at + size])
            for at in range(0, len(pixels), size)
        ]
    )
