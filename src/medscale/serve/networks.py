"""A result folder's trained networks as PyTorch modules for inference."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from torch.nn.modules.module import register_module_module_registration_hook

from medscale.base.errors import MedscaleError
from medscale.base.files import sha256
from medscale.base.text import listed
from medscale.engine.models.registry import build, read_weights
from medscale.engine.plan import Model
from medscale.serve.bundle import Inference, Weights

CHANNELS = 3
# Types of tensors in a .safetensors file, as PyTorch names them.
TYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "BOOL": torch.bool,
}  # fmt: skip
Shapes = dict[str, tuple[tuple[int, ...], torch.dtype | None]]  # of tensors by name
# Networks have modules without weights, such as activations; no known network has more than these.
MODULES_PER_TENSOR, MODULES = 20, 1000


def network(inference: Inference, folder: Path, weights: Weights) -> nn.Module:
    """Return one replicate's network on the CPU, in evaluation mode, with the recorded weights.

    The folder may be a stranger's: before anything is allocated, the network's shapes are compared
    with those in the header of its weights. Pretrained weights, from which training may have
    started, are neither needed nor read. Raises MedscaleError when the weights are missing, damaged
    or not finite, or do not fit the network.
    """
    model = inference.model.model_copy(update={"pretrained": None, "trained": "all"})
    path = folder / weights.file
    shapes = _read_shapes(path)
    # The initial weights, which are replaced, must not take random numbers from the caller.
    with torch.random.fork_rng(devices=[]):
        module = _fitting(inference, model, shapes, path)
    if sha256(path) != weights.sha256:
        raise MedscaleError(
            f"{path} is not the file that was trained (its SHA-256 differs); copy the folder again"
        )
    module.load_state_dict(read_weights(path), strict=True)
    return module.eval().requires_grad_(False)


def _fitting(inference: Inference, model: Model, shapes: Shapes, path: Path) -> nn.Module:
    """Build the network; raise MedscaleError if its tensors are not those of the file."""
    if inference.task == "detection":
        from medscale.engine.detect import yolo  # imports ultralytics, an optional package

        # One of five detectors without options, which ultralytics cannot build without memory.
        module: nn.Module = yolo.build(model)
        _compare(module, shapes, path)
        return module
    # First without memory, to compare its size with that of the file.
    with torch.device("meta"), _few_modules(MODULES + MODULES_PER_TENSOR * len(shapes), path):
        outline = _build(inference, model)
    _compare(outline, shapes, path)
    return _build(inference, model)


def _build(inference: Inference, model: Model) -> nn.Module:
    features = sum(encoding.features for encoding in inference.metadata)
    return build(model, len(inference.classes), CHANNELS, features)


def _read_shapes(path: Path) -> Shapes:
    """Return the shapes in the header of a .safetensors file; its tensors are not read."""
    if not path.is_file():
        raise MedscaleError(f"{path} is missing; copy the whole result folder")
    try:
        with safe_open(path, "pt") as file:
            parts = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            return {
                name: (tuple(part.get_shape()), TYPES.get(part.get_dtype()))
                for name, part in parts.items()
            }
    except (SafetensorError, OSError) as error:
        raise MedscaleError(f"{path} is no valid .safetensors file ({error})") from None


def _compare(module: nn.Module, shapes: Shapes, path: Path) -> None:
    """Raise MedscaleError where a network's tensors are not those of the file."""
    state = {name: (tuple(value.shape), value.dtype) for name, value in module.state_dict().items()}
    faults = {
        "missing": [name for name in state if name not in shapes],
        "unknown": [name for name in shapes if name not in state],
        "of another shape or type": [
            name for name in state if name in shapes and shapes[name] != state[name]
        ],
    }
    if any(faults.values()):
        text = "; ".join(f"{fault}: {listed(names)}" for fault, names in faults.items() if names)
        raise MedscaleError(
            f"{path} does not fit the network that inference.json describes ({text})"
        )


@contextmanager
def _few_modules(most: int, path: Path) -> Iterator[None]:
    """Raise MedscaleError when a network with more modules than ``most`` is built.

    Options such as a depth make a network of any size, which takes memory even without weights.
    """
    count = 0

    def count_module(*_: object) -> None:
        nonlocal count
        count += 1
        if count > most:
            raise _TooMany

    hook = register_module_module_registration_hook(count_module)
    try:
        yield
    except _TooMany:
        raise MedscaleError(
            f"{path} does not fit the network that inference.json describes: that one has more than"
            f" {most} parts"
        ) from None
    finally:
        hook.remove()


class _TooMany(BaseException):
    """A network has too many modules; a constructor's handler of Exception does not catch it."""
