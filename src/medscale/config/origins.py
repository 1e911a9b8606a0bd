"""The settings in force, each with the origin of its value, for ``medscale config``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from medscale.config.configuration import accept_network, validate
from medscale.config.expansion import makers
from medscale.config.layers import Layer, Layers, has
from medscale.config.mistakes import NetworkCheck

DEFAULT = "default"  # origin of values that no file and no command line gives


class Setting(NamedTuple):
    """One setting of the validated configuration."""

    path: tuple[str, ...]
    value: Any  # as in JSON
    origin: str  # such as "config.yaml", "like: glaucoma", "command line" or "default"

    @property
    def name(self) -> str:
        """The path as messages and documents write it."""
        return ".".join(self.path)

    @property
    def text(self) -> str:
        """The value in one line, as YAML reads it."""
        is_plain = isinstance(self.value, str) and self.value.isprintable()
        is_read_back = is_plain and _content(self.value) == self.value
        return self.value if is_read_back else json.dumps(self.value, ensure_ascii=False)


def in_force(
    base: str | Path,
    changes: list[Layer],
    study: str | None = None,
    check_network: NetworkCheck = accept_network,
) -> list[Setting]:
    """Return all settings, or those of one study, with their origins.

    Raises MedscaleError where the configuration is not valid, or has no such study.

    Args:
        base: path of config.yaml.
        changes: layers above config.yaml, the highest last.
        study: name of the study; None for all settings.
        check_network: as for ``load``.
    """
    layers = Layers(base, changes)
    config = validate(layers, check_network=check_network)
    if study is not None:
        config.study(study)
    return [
        Setting(path, value, _origin(layers, path))
        for path, value in _leaves(config.model_dump(mode="json"))
        if study is None or path[:2] == ("studies", study)
    ]


def _content(text: str) -> Any:
    """Return what YAML reads in a text; None where it is not YAML."""
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):  # also a date that does not exist
        return None


def _leaves(tree: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield the path and the value of each setting; a list and an empty mapping are values."""
    if isinstance(tree, dict) and tree:
        for key, value in tree.items():
            yield from _leaves(value, (*path, str(key)))
    else:
        yield path, tree


def _origin(layers: Layers, path: tuple[str, ...]) -> str:
    """Return the origin of a setting: the highest layer that has it."""
    if path[0] != "studies":
        return _file(layers, path)
    if path[1] not in layers.studies:
        complete = {name: layers.study(name) for name in layers.studies}
        return f"made from studies.{makers(complete)[path[1]]}"
    if not has(layers.study(path[1]), path[2:]):
        return DEFAULT  # also of a value that a higher layer makes obsolete
    for layer in reversed(layers.of_study(path[1])):
        if not has(layer.tree, path[2:]):
            continue
        if layer.origin == "defaults":
            return f"{_file(layers, ('defaults', *path[2:]))}, defaults"
        return layer.origin or _file(layers, path)
    return DEFAULT


def _file(layers: Layers, path: tuple[str, ...]) -> str:
    files = (layer.origin for layer in reversed(layers.files) if has(layer.tree, path))
    return next(files, DEFAULT)
