"""Networks by name: this package's own and all of timm's.

A new network is a module in this folder and one line of ``own.MODULES``. The module's
``NETWORKS`` maps names to classes.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from medscale.base.errors import MedscaleError
from medscale.base.log import log
from medscale.base.text import listed
from medscale.engine.models.freeze import Block, freeze
from medscale.engine.models.metadata import WithMetadata
from medscale.engine.models.names import AUTO, check_name, check_own
from medscale.engine.models.own import MODULES
from medscale.engine.plan import HUB, Model

# Each class is called as network(num_classes, in_channels, **options); options are keyword-only.
OWN: dict[str, Callable[..., nn.Sequential]] = {
    name: import_module(module).NETWORKS[name] for name, module in MODULES.items()
}
# Options of timm.create_model that are refused: they load weights from other places, some of which
# are pickles.
NOT_OPTIONS = (
    "pretrained",
    "pretrained_cfg",
    "pretrained_cfg_overlay",
    "checkpoint_path",
    "cache_dir",
    "scriptable",
)
SMALL = 64  # pixels; networks of timm can refuse images below this size


def build(
    model: Model, num_classes: int, in_channels: int = 3, features: int = 0, side: int | None = None
) -> nn.Module:
    """Return a network from float images (n,in_channels,H,W) to logits (n,num_classes).

    Raises MedscaleError for an unknown name or option, weights that are missing or do not fit, and
    images of a size that the network does not take.

    Args:
        model: name, options and weights. Weights are drawn from torch's global generator or read:
            ``pretrained`` is a .safetensors file of the same network, or 'hub' for timm's published
            weights. ``trained`` decides which weights have ``requires_grad``.
        num_classes: number of logits.
        in_channels: channels of the images.
        features: number of metadata per image; if there are some, the input is a pair of images and
            metadata, see ``WithMetadata``. The metadata branch is always trained.
        side: height and width of the images in pixels; None: not checked.
    """
    check_name(model.name)
    check_own(model, side)
    hub = model.pretrained == HUB
    if model.name in OWN:
        network: nn.Module = _build_own(model, num_classes, in_channels)
    else:
        network = _build_timm(model, num_classes, in_channels, hub)
        # Few networks are particular about the size; a check of all would delay each training.
        is_particular = getattr(network, "default_cfg", {}).get("fixed_input_size", False)
        if side is not None and (is_particular or side < SMALL):
            check(model, side, num_classes, in_channels)
    if model.pretrained is not None and not hub:
        load_weights(network, model.pretrained)
    if model.trained != "all":
        freeze(stages(network), model.trained)
    return WithMetadata(network, features, num_classes) if features else network


def check(
    model: Model,
    side: int | None = None,
    num_classes: int = 2,
    in_channels: int = 3,
    *,
    is_cut: bool = False,
) -> None:
    """Raise MedscaleError unless a network exists, has the options, and takes images of a size.

    It is built on PyTorch's meta device, which computes shapes alone and draws no random numbers. A
    network of timm is also run there.

    Args:
        model: name and options.
        side: height and width of the images in pixels; None: not checked.
        num_classes: number of logits.
        in_channels: channels of the images.
        is_cut: whether the network must consist of a chain of blocks (``stages``).
    """
    check_name(model.name)
    check_own(model, side)
    network = _shapes(model, num_classes, in_channels)
    if model.name in OWN:
        return
    if is_cut or model.trained != "all":
        stages(network)
    if side is None:
        return
    try:
        network.eval()(torch.empty(2, in_channels, side, side, device="meta"))
    except NotImplementedError:  # an operation that has no meta device
        return
    except Exception as error:  # modules raise any kind of error for a size
        if "meta" in str(error):  # the values of a tensor decide what is computed
            return
        raise MedscaleError(
            f"{model.name} does not take images of {side} x {side} pixels ({error}); change "
            "preprocess.size or augment.crop.size, or the network's options"
        ) from None


def check_weights(model: Model, path: str | Path) -> None:
    """Raise MedscaleError unless ``load_weights`` can load a file into a network, see there."""
    _fitting_weights(_shapes(model, num_classes=2, in_channels=3), path)


def _shapes(model: Model, num_classes: int, in_channels: int) -> nn.Module:
    """Return a network on PyTorch's meta device, without any values."""
    if model.name not in OWN:
        return _timm_shapes(model, num_classes, in_channels)
    options = {name: value for name, value in model.options.items() if value != AUTO}
    with torch.device("meta"):
        return _build_own(model.model_copy(update={"options": options}), num_classes, in_channels)


def load_weights(network: nn.Module, path: str | Path) -> None:
    """Load weights from a .safetensors file of the same network.

    The last linear layer keeps its weights if the file's have another shape, since the number of
    classes decides its size. Raises MedscaleError when the file is missing or damaged, or its keys
    or shapes do not fit.
    """
    network.load_state_dict(_fitting_weights(network, path), strict=False)


def _fitting_weights(network: nn.Module, path: str | Path) -> dict[str, torch.Tensor]:
    """Return the weights of a file that ``load_weights`` loads; raises as it does."""
    weights = read_weights(path, "pretrained weights: ")
    state = network.state_dict()
    linear = [name for name, part in network.named_modules() if isinstance(part, nn.Linear)]
    head = f"{linear[-1]}." if linear else None
    misshapen = [key for key in state if key in weights and weights[key].shape != state[key].shape]
    replaced = [key for key in misshapen if head is not None and key.startswith(head)]
    faults = {
        "missing": [key for key in state if key not in weights],
        "unknown": [key for key in weights if key not in state],
        "of another shape": [key for key in misshapen if key not in replaced],
    }
    if any(faults.values()):
        text = "; ".join(f"{fault}: {listed(keys)}" for fault, keys in faults.items() if keys)
        raise MedscaleError(f"pretrained weights: {path} does not fit the model ({text})")
    return {key: value for key, value in weights.items() if key not in replaced}


def read_weights(path: str | Path, setting: str = "") -> dict[str, torch.Tensor]:
    """Return the tensors of a .safetensors file by name.

    Raises MedscaleError when it is missing or damaged, or a value is not finite.

    Args:
        path: the file.
        setting: prefix of error messages that names the setting with the path.
    """
    if not Path(path).is_file():
        raise MedscaleError(f"{setting}{path} does not exist")
    try:
        weights = load_file(path)
    except (SafetensorError, OSError) as error:
        raise MedscaleError(f"{setting}{path} is no valid .safetensors file ({error})") from None
    faulty = [name for name, value in weights.items() if not torch.isfinite(value).all()]
    if faulty:
        raise MedscaleError(
            f"{setting}{path} has values that are not finite, in {listed(faulty)}; "
            "use other weights"
        )
    return weights


def stages(network: nn.Module) -> list[Block]:
    """Return a network as a chain of named blocks.

    Applying the blocks one after another gives ``network(images)`` exactly. Each block is a
    submodule of the network (shared, not copied), so that parameter ``key`` of block ``name`` is
    ``f"{name}.{key}"`` of the network. Dropout that a network applies as a function becomes a block
    without parameters. Gradient checkpointing of the whole network is not carried over. Raises
    MedscaleError for a network whose order of execution is not known here.
    """
    if isinstance(network, nn.Sequential):
        return _chain("", network)
    return [block for name, part in _timm_parts(network) for block in _chain(name, part)]


def _build_own(model: Model, num_classes: int, in_channels: int) -> nn.Sequential:
    try:
        return OWN[model.name](num_classes, in_channels, **model.options)
    except (TypeError, ValueError, RuntimeError) as error:
        raise MedscaleError(
            f"{model.name}: its options {model.options} are not possible ({error})"
        ) from None


def _timm_shapes(model: Model, num_classes: int, in_channels: int) -> nn.Module:
    """Return a network of timm without weights, on the meta device."""
    import timm

    settings = _settings(model, num_classes, in_channels)
    with torch.device("meta"):
        try:
            network: nn.Module = timm.create_model(model.name, **settings, **model.options)
        except Exception as error:  # constructors raise any kind of error for unknown options
            kind = type(timm.create_model(model.name))
            parameters = inspect.signature(kind).parameters
            options = sorted(set(parameters) - {*settings, "self", "kwargs"})
            raise MedscaleError(
                f"{model.name}: its options {model.options} are not possible ({error}); "
                f"it has {', '.join(options)}"
            ) from None
    return network


def _settings(model: Model, num_classes: int, in_channels: int) -> dict[str, Any]:
    """Return timm's arguments that the study decides.

    Raises MedscaleError if the model sets one of them, or has a tag that timm does not know.
    """
    from timm.models import get_pretrained_cfg, list_pretrained

    settings = {"num_classes": num_classes, "in_chans": in_channels}
    try:
        get_pretrained_cfg(model.name)
    except RuntimeError:
        network = model.name.partition(".")[0]
        names = [network, *list_pretrained(f"{network}.*")]
        raise MedscaleError(f"there is no model {model.name!r}; timm has {listed(names)}") from None
    if clash := sorted(set(model.options) & {*settings, *NOT_OPTIONS}):
        raise MedscaleError(
            f"{model.name}: {', '.join(clash)} cannot be set among the options: "
            "the study decides it"
        )
    return settings


def _build_timm(model: Model, num_classes: int, in_channels: int, hub: bool) -> nn.Module:
    import timm

    settings = _settings(model, num_classes, in_channels)
    if hub:
        _announce(model)
    try:
        return timm.create_model(model.name, pretrained=hub, **settings, **model.options)
    except Exception as error:  # the hub's client raises errors of several libraries
        _timm_shapes(model, num_classes, in_channels)  # names the options, if they are the cause
        if not hub:
            raise
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise MedscaleError(
            f"{model.name}: its weights could not be fetched from the hub ({lines[0]}); "
            "connect to the internet once, or give a .safetensors file"
        ) from None


def _announce(model: Model) -> None:
    """Log that weights are fetched; silence the hub's client, which would print each attempt."""
    from huggingface_hub.utils import disable_progress_bars, logging

    log.info("fetching the weights of %s from the hub, or from its cache here", model.name)
    disable_progress_bars()
    logging.set_verbosity_error()


def _chain(name: str, module: nn.Module) -> list[Block]:
    """Return the blocks of a plain sequence in order, or the module itself."""
    if type(module).forward is not nn.Sequential.forward:
        return [(name, module)]
    prefix = f"{name}." if name else ""
    return [block for key, part in module.named_children() for block in _chain(prefix + key, part)]


def _timm_parts(network: nn.Module) -> list[Block]:
    """Return the children of a timm network in the order of its ``forward`` (timm 1.0.31)."""
    from timm.models.densenet import DenseNet
    from timm.models.efficientnet import EfficientNet
    from timm.models.resnet import ResNet

    orders: dict[type[nn.Module], str] = {
        EfficientNet: "conv_stem bn1 blocks conv_head bn2 global_pool DROPOUT classifier",
        DenseNet: "features global_pool head_drop classifier",
        ResNet: "conv1 bn1 act1 maxpool layer1 layer2 layer3 layer4 global_pool DROPOUT fc",
    }
    for family, order in orders.items():
        if isinstance(network, family):
            # These networks apply dropout as a function, not as a module.
            dropout = nn.Dropout(getattr(network, "drop_rate", 0.0))
            parts = {"DROPOUT": dropout, **dict(network.named_children())}
            return [(name.lower(), parts[name]) for name in order.split()]
    raise MedscaleError(
        f"{type(network).__name__} cannot be cut into stages; model parallel runs, and training of "
        f"a part, need one of {', '.join(OWN)}, or an EfficientNet, DenseNet or ResNet of timm"
    )
