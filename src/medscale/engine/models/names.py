"""Names of all networks, and options of this package's own, readable without PyTorch."""

from __future__ import annotations

import ast
import re
from difflib import get_close_matches
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from medscale.base.errors import MedscaleError
from medscale.base.suggest import suggestion
from medscale.engine.models.own import MODULES
from medscale.engine.plan import HUB, Model
from medscale.engine.run import is_detector

# timm registers a network by a decorator of its function, or as an old name of another network.
_REGISTERED = re.compile(r"^@register_model\b[^\n]*\n(?:@[^\n]*\n)*def (\w+)", re.MULTILINE)
_RENAMED = re.compile(r"register_model_deprecations\(__name__, \{(.*?)\}\)", re.DOTALL)
_KEY = re.compile(r"['\"](\w+)['\"]\s*:")
CLOSE = 3  # names of a suggestion
AUTO = "auto"  # value of an option that the number of training images decides


@cache
def timm_names() -> frozenset[str]:
    """Return the names of timm's networks, read from its source files in a tenth of a second.

    Importing timm imports PyTorch, which takes seconds.
    """
    spec = find_spec("timm")
    if spec is None or spec.origin is None:
        return frozenset()
    texts = [
        file.read_text(encoding="utf-8")
        for file in (Path(spec.origin).parent / "models").rglob("*.py")
    ]
    renamed = (keys for text in texts for keys in _RENAMED.findall(text))
    return frozenset(
        [*(name for text in texts for name in _REGISTERED.findall(text))]
        + [name for keys in renamed for name in _KEY.findall(keys)]
    )


def check_name(name: str) -> None:
    """Fail for a network that neither this package nor timm has.

    Raises MedscaleError with the names that come closest. A name may end with the tag of timm's
    weights, as in ``resnet50.a1_in1k``.
    """
    if name in MODULES or name.partition(".")[0] in timm_names():
        return
    close = get_close_matches(name, sorted({*MODULES, *timm_names()}), CLOSE)
    hint = (
        f"; did you mean {' or '.join(map(repr, close))}?"
        if close
        else f"; there are {', '.join(MODULES)} and the models of timm"
    )
    raise MedscaleError(f"there is no model {name!r}{hint}")


def check_model(name: str | None) -> None:
    """Refuse the name of a network that no registry has.

    For a detector nothing is checked here: the plan knows whether the study has detection, and
    ``medscale check`` and the run itself whether ultralytics is installed, which may differ between
    this machine and the jobs' machines. Raises MedscaleError with names that are close.
    """
    if name is not None and not is_detector(name):
        check_name(name)


class Option(NamedTuple):
    """An option of a network of this package."""

    default: Any
    annotation: str  # type in the source, such as ``int | None``

    def is_valid(self, value: object) -> bool:
        """Return whether a value has the type of the option, or is ``auto`` (``resolve``)."""
        kinds = {"int": (int,), "float": (int, float), "None": (type(None),)}
        allowed = [kind for part in self.annotation.split(" | ") for kind in kinds[part]]
        is_auto = value == AUTO and float in allowed
        return is_auto or (isinstance(value, tuple(allowed)) and not isinstance(value, bool))

    @property
    def kind(self) -> str:
        """The type in words."""
        words = {"int": "a whole number", "float": "a number or auto", "None": "null"}
        return " or ".join(words[part] for part in self.annotation.split(" | "))


@cache
def own_options(name: str) -> dict[str, Option]:
    """Return the options of a network of this package by name, from its source.

    They are the keyword-only arguments of the class that the module's ``NETWORKS`` names. Importing
    the module would import PyTorch, which takes seconds.
    """
    spec = find_spec(MODULES[name])
    assert spec is not None
    assert spec.origin is not None
    body = ast.parse(Path(spec.origin).read_text(encoding="utf-8")).body
    classes = {node.name: node for node in body if isinstance(node, ast.ClassDef)}
    networks = {
        ast.literal_eval(key): classes[value.id]
        for node in body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "NETWORKS"
        if isinstance(node.value, ast.Dict)
        for key, value in zip(node.value.keys, node.value.values, strict=True)
        if key is not None and isinstance(value, ast.Name)
    }
    (constructor,) = (
        node
        for node in networks[name].body
        if isinstance(node, ast.FunctionDef) and node.name == "__init__"
    )
    arguments = constructor.args
    return {
        argument.arg: Option(ast.literal_eval(default), ast.unparse(argument.annotation))
        for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
        if default is not None and argument.annotation is not None
    }


def check_own(model: Model, side: int | None = None) -> None:
    """Refuse settings of this package's own networks that no training could carry out.

    Networks of timm are not checked: that needs PyTorch (``registry.check``). Raises MedscaleError
    for an option that the network does not have or that has another type, for weights of the hub,
    and for images of another size than an option ``size``.

    Args:
        model: the network.
        side: height and width of its input images in pixels; None: not known.
    """
    if model.name not in MODULES:
        return
    options = own_options(model.name)
    if unknown := sorted(model.options.keys() - options):
        raise MedscaleError(
            f"{model.name}: unknown option {', '.join(unknown)}; "
            f"{suggestion(unknown[0], options)}it has {', '.join(sorted(options))}"
        )
    if model.pretrained == HUB:
        raise MedscaleError(
            f"{model.name} has no weights on the hub; name a .safetensors file or leave it out"
        )
    for name, value in model.options.items():
        if not options[name].is_valid(value):
            raise MedscaleError(
                f"{model.name}: its option {name} is {value!r}, but must be {options[name].kind}"
            )
    size = model.options.get("size", options["size"].default if "size" in options else None)
    if None not in (size, side) and size != side:
        raise MedscaleError(
            f"{model.name}: its option size is {size}, but the images have {side} pixels a side: "
            f"set options: {{size: {side}}}, or size: null for any size"
        )
