"""Where a setting is written: its file and line, from YAML files read again for a message."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from medscale.base.code import shown_path
from medscale.config.layers import Keys, Layers, has, is_inherited, names_of, takes_defaults
from medscale.config.yaml_file import LOADER


class Place(NamedTuple):
    """The origin of settings: a file or, in words, another origin; and the line, or 0."""

    origin: str
    line: int

    def __str__(self) -> str:
        return f"{self.origin}, line {self.line}" if self.line else self.origin


class Places:
    """The places of the settings of some layers."""

    def __init__(self, layers: Layers, files: list[Path]) -> None:
        """Take the layers, and the YAML files that changes without a file come from."""
        self._layers = layers
        base = Path(layers.base)
        first, overlay, *changes = layers.files
        # By layer, the highest first: its settings, the files that may have given them, and the
        # keys above them in these files.
        self._levels: list[tuple[Any, list[Path], Keys, str]] = []
        for origin, tree in reversed(changes):
            is_file = origin.endswith((".yaml", ".yml")) and Path(origin).is_file()
            own_files = [Path(origin)] if is_file else files[::-1]
            self._levels.append((tree, own_files, (), origin))
        self._levels += [
            (overlay.tree, [base], ("scales", layers.scale), overlay.origin),
            (first.tree, [base], (), first.origin),
        ]

    def of(self, path: Keys) -> tuple[Place, Keys]:
        """Return the place of a setting, and the setting as it is written there.

        A setting that a study inherits is written in another study, or in ``defaults``. A setting
        that is missing has the place of its section.
        """
        for length in range(len(path), 0, -1):
            for own_path in self._inherited(path[:length]):
                for tree, files, above, origin in self._levels:
                    if has(tree, own_path):
                        rest = path[length:]
                        return _place(files, above, own_path, tree, origin), (*own_path, *rest)
        return Place(shown_path(self._layers.base), 0), path

    def _inherited(self, path: Keys, passed: tuple[str, ...] = ()) -> Iterator[Keys]:
        """Yield the paths by which a setting of a study can be written: its own first.

        They follow ``Layers.of_study``. ``passed``: studies that inherit from this one.
        """
        yield path
        if len(path) < 2 or path[0] != "studies":
            return
        name, rest = str(path[1]), path[2:]
        study = self._layers.studies.get(name)
        if study is None:
            for other in self._layers.studies:
                if name.startswith(f"{other}_"):  # an entry that ``expand`` made
                    yield from self._inherited(("studies", other, *rest), passed)
            return
        if not rest or name in passed:
            return
        for key in ("variant_of", "like"):
            other = study.get(key)
            if isinstance(other, str) and is_inherited(key, rest[0]):
                yield from self._inherited(("studies", other, *rest), (*passed, name))
        if takes_defaults(study):
            yield "defaults", *rest


def _place(files: list[Path], above: Keys, path: Keys, tree: Any, origin: str) -> Place:
    """Return the place in the first file that has the setting with its value in ``tree``.

    ``--config`` replaces values of the files: a file with another value is not the place.
    """
    for file in files:
        line = _line(file, (*above, *path))
        if line is not None and (above or _is_same(_tree(file), tree, path)):
            return Place(shown_path(file), line)
    return Place(origin, 0)


def _is_same(content: Any, tree: Any, path: Keys) -> bool:
    """Return whether two trees have a section at a path, or equal values; lists are one value."""
    for key in path:
        if not (isinstance(content, dict) and isinstance(tree, dict)):
            break
        content, tree = content.get(key), tree.get(key)
    if isinstance(content, dict) and isinstance(tree, dict):
        return True
    return content == tree or repr(content) == repr(tree)  # NaN equals nothing


@cache
def _nodes(file: Path) -> Any:
    try:
        return yaml.compose(file.read_text(encoding="utf-8"), Loader=LOADER)
    except (OSError, ValueError, yaml.YAMLError):
        return None


@cache
def _tree(file: Path) -> dict[str, Any]:
    """Return the settings in a file that ``_nodes`` can read, as ``Layers`` takes them."""
    tree = LOADER("").construct_document(_nodes(file))
    return {**tree, "only": names_of(tree.get("only"))}


def _line(file: Path, path: Keys) -> int | None:
    """Return the line of a setting, counted from 1, or None if the file does not have it."""
    node, line = _nodes(file), None
    for key in path:
        if isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
            node = node.value[key]
            line = node.start_mark.line + 1
            continue
        if isinstance(node, yaml.ScalarNode) and path == ("only", key):  # text such as `skin, mela`
            return line
        pairs = node.value if isinstance(node, yaml.MappingNode) else []
        matches = [pair for pair in pairs if pair[0].value == str(key)]
        if not matches:
            return None
        line, node = matches[-1][0].start_mark.line + 1, matches[-1][1]
    return line
