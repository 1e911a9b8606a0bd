"""Models by name: this package's own networks and all of timm's; their weights from files; their cut into stages."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from medscale.base.errors import MedscaleError
from medscale.engine.models.freeze import freeze
from medscale.engine.models.medical_cnn import MedicalCNN
from medscale.engine.models.metadata import WithMetadata
from medscale.engine.models.small import TinyCNN, XrayCNN
from medscale.engine.plan import Model

OWN: dict[str, Callable[..., nn.Sequential]] = {
    "medical_cnn": MedicalCNN,
    "xray_cnn": XrayCNN,
    "tiny_cnn": TinyCNN,
}
HUB = "hub"
# Options of timm.create_model through which weights come from elsewhere, also as pickles.
NOT_OPTIONS = (
    "pretrained",
    "pretrained_cfg",
    "pretrained_cfg_overlay",
    "checkpoint_path",
    "cache_dir",
    "scriptable",
)


def check_name(name: str) -> None:
    """Fail for a model that neither this package nor timm has; timm is only imported for names that are not ours.

    Raises:
        MedscaleError: with the names that come closest.
    """
    if name in OWN:
        return
    import timm  # takes seconds

    if not timm.is_model(name):
        close = difflib.get_close_matches(name, [*OWN, *timm.list_models()], n=5)
        hint = (
            f"; close to it: {', '.join(close)}"
            if close
            else f"; there are {', '.join(OWN)} and the models of timm"
        )
        raise MedscaleError(f"there is no model {name!r}{hint}")


def build(model: Model, num_classes: int, in_channels: int = 3, features: int = 0) -> nn.Module:
    """Make a network that maps float images (n,in_channels,H,W) to logits (n,num_classes).

    With metadata (``features`` numbers a sample) it maps pairs of images and features, see ``WithMetadata``. Of
    ``model.trained`` depends which weights have ``requires_grad``; the metadata branch always learns.

    Weights are drawn from torch's global generator, or read: ``model.pretrained`` is a .safetensors file of the same
    network, whose last layer is left out when it has another size, or 'hub' for timm's published weights.

    Raises:
        MedscaleError: for an unknown name or option, or weights that are missing or do not fit.
    """
    check_name(model.name)
    hub = model.pretrained == HUB
    if model.name in OWN:
        if hub:
            raise MedscaleError(
                f"{model.name} has no weights on the hub; name a .safetensors file or leave it out"
            )
        module = _build_own(model, num_classes, in_channels)
    else:
        module = _build_timm(model, num_classes, in_channels, hub)
    if model.pretrained is not None and not hub:
        load_weights(module, model.pretrained)
    if model.trained != "all":
        freeze(stages(module), model.trained)
    return WithMetadata(module, features, num_classes) if features else module


def load_weights(module: nn.Module, path: str | Path) -> None:
    """Fill ``module`` from a .safetensors file of the same network; a last layer of another size keeps its own weights.

    Raises:
        MedscaleError: when the file is missing or damaged, or its keys or shapes do not fit (they are named).
    """
    if not Path(path).is_file():
        raise MedscaleError(
            f"pretrained weights: {path} does not exist; give a .safetensors file, 'hub' or nothing"
        )
    given = read_weights(path, "pretrained weights: ")
    wanted = module.state_dict()
    linear = [name for name, part in module.named_modules() if isinstance(part, nn.Linear)]
    head = f"{linear[-1]}." if linear else None
    unlike = [key for key in wanted if key in given and given[key].shape != wanted[key].shape]
    replaced = [key for key in unlike if head is not None and key.startswith(head)]
    wrong = {
        "missing": [key for key in wanted if key not in given],
        "unknown": [key for key in given if key not in wanted],
        "of another shape": [key for key in unlike if key not in replaced],
    }
    if any(wrong.values()):
        told = "; ".join(f"{what}: {_some(keys)}" for what, keys in wrong.items() if keys)
        raise MedscaleError(f"pretrained weights: {path} does not fit the model ({told})")
    module.load_state_dict(
        {key: value for key, value in given.items() if key not in replaced}, strict=False
    )


def read_weights(path: str | Path, whose: str = "") -> dict[str, torch.Tensor]:
    """Tensors of a .safetensors file by name.

    Raises:
        MedscaleError: when it is missing or damaged; ``whose`` stands before the message.
    """
    if not Path(path).is_file():
        raise MedscaleError(f"{whose}{path} does not exist")
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise MedscaleError(f"{whose}{path} is no valid .safetensors file ({error})") from None


def stages(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """The network as a chain of blocks: applying them one after another gives ``module(images)`` exactly.

    Each block with parameters is the submodule of that name, shared and not copied, so that parameter ``key`` of block
    ``name`` is ``f"{name}.{key}"`` of the whole network. Dropout that a network applies as a function becomes a
    block of its own without parameters. Gradient checkpointing set on the whole network is not carried over.

    Raises:
        MedscaleError: for a network whose order of execution is not known here.
    """
    if isinstance(module, nn.Sequential):
        return _chain("", module)
    return [block for name, part in _timm_parts(module) for block in _chain(name, part)]


def _build_own(model: Model, num_classes: int, in_channels: int) -> nn.Module:
    network = OWN[model.name]
    allowed = {
        p.name for p in inspect.signature(network).parameters.values() if p.kind is p.KEYWORD_ONLY
    }
    if unknown := sorted(set(model.options) - allowed):
        raise MedscaleError(
            f"{model.name}: unknown option {', '.join(unknown)}; it has {', '.join(sorted(allowed)) or 'none'}"
        )
    try:
        return network(num_classes, in_channels, **model.options)
    except (TypeError, ValueError, RuntimeError) as error:
        raise MedscaleError(
            f"{model.name}: its options {model.options} are not possible ({error})"
        ) from None


def _build_timm(model: Model, num_classes: int, in_channels: int, hub: bool) -> nn.Module:
    import timm

    settings: dict[str, Any] = {"num_classes": num_classes, "in_chans": in_channels}
    if clash := sorted(set(model.options) & {*settings, *NOT_OPTIONS}):
        raise MedscaleError(
            f"{model.name}: {', '.join(clash)} cannot be set among the options: the study decides it"
        )
    try:
        with torch.device("meta"):
            timm.create_model(model.name, **settings, **model.options)
    except (
        Exception
    ) as error:  # whatever a network's constructor raises for options that it does not take
        with torch.device("meta"):
            network = type(timm.create_model(model.name))
        allowed = sorted(set(inspect.signature(network).parameters) - {*settings, "self", "kwargs"})
        raise MedscaleError(
            f"{model.name}: its options {model.options} are not possible ({error}); it has {', '.join(allowed)}"
        ) from None
    try:
        return timm.create_model(model.name, pretrained=hub, **settings, **model.options)
    except Exception as error:  # the hub's client raises errors of several libraries
        if not hub:
            raise
        raise MedscaleError(
            f"{model.name}: its weights could not be fetched from the hub "
            f"({str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__}); "
            "connect to the internet once, or give a .safetensors file"
        ) from None


def _chain(name: str, module: nn.Module) -> list[tuple[str, nn.Module]]:
    """A module, or, where it is a plain sequence, its parts in order."""
    if type(module).forward is not nn.Sequential.forward:
        return [(name, module)]
    prefix = f"{name}." if name else ""
    return [block for key, part in module.named_children() for block in _chain(prefix + key, part)]


def _timm_parts(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """Children of a timm network in the order of its ``forward`` (timm 1.0.31)."""
    from timm.models.densenet import DenseNet
    from timm.models.efficientnet import EfficientNet
    from timm.models.resnet import ResNet

    orders: dict[type[nn.Module], str] = {
        EfficientNet: "conv_stem bn1 blocks conv_head bn2 global_pool DROPOUT classifier",
        DenseNet: "features global_pool head_drop classifier",
        ResNet: "conv1 bn1 act1 maxpool layer1 layer2 layer3 layer4 global_pool DROPOUT fc",
    }
    for family, order in orders.items():
        if isinstance(module, family):
            dropout = nn.Dropout(
                getattr(module, "drop_rate", 0.0)
            )  # applied as a function by these networks
            parts = {"DROPOUT": dropout, **dict(module.named_children())}
            return [(name.lower(), parts[name]) for name in order.split()]
    raise MedscaleError(
        f"{type(module).__name__} cannot be cut into stages; model parallel runs, and training of a part, need one of "
        f"{', '.join(OWN)}, or an EfficientNet, DenseNet or ResNet of timm"
    )


def _some(keys: list[str], most: int = 5) -> str:
    return ", ".join(keys[:most]) + (f" and {len(keys) - most} more" if len(keys) > most else "")
