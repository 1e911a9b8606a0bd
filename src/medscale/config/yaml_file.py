"""YAML files that people write, read with messages that name file and line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from medscale.base.errors import MedscaleError
from medscale.base.section import Strict

T = TypeVar("T", bound=Strict)

# libyaml's loader, which takes a tenth of the time, if PyYAML was built with it.
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
MERGE = "tag:yaml.org,2002:merge"  # of the key `<<`, which a mapping may have several times


class _Duplicates(yaml.YAMLError):
    """Keys that a mapping has twice."""


def read_section(path: Path, schema: type[T]) -> T:
    """Return the content of a YAML file of a schema.

    Raises MedscaleError as ``read_yaml``, and for wrong fields, each named.
    """
    try:
        return schema.model_validate(read_yaml(path))
    except ValidationError as error:
        lines = [f"{path} has {error.error_count()} mistake(s):"]
        for item in error.errors():
            message = item["msg"].removeprefix("Value error, ")
            lines.append(f"  {'.'.join(map(str, item['loc']))}: {message}")
        raise MedscaleError("\n".join(lines)) from None


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the tree of settings in a file, which is empty for an empty file.

    Raises MedscaleError for a file that is missing or cannot be read, one that is no mapping in
    YAML, and keys that a mapping has twice, of which PyYAML would silently take the last.
    """
    try:
        tree = _parse(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MedscaleError(f"{path} does not exist") from None
    except _Duplicates as error:
        raise MedscaleError(f"{path}: {error}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise MedscaleError(
            f"{path}{place}: not valid YAML: {getattr(error, 'problem', error)}"
        ) from None
    except OSError as error:
        raise MedscaleError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:  # not UTF-8, or a number of too many digits
        raise MedscaleError(f"{path}: not valid YAML: {error}") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise MedscaleError(f"{path}: expected a mapping of settings, found {type(tree).__name__}")
    return tree


def _parse(text: str) -> Any:
    """Return the content of a YAML text; keys that a mapping has twice are refused."""
    try:
        node = yaml.compose(text, Loader=LOADER)
    except yaml.YAMLError:
        return yaml.safe_load(text)  # names the line of an error more exactly
    if node is None:
        return None
    if duplicates := list(_duplicates(node, set())):
        raise _Duplicates("a key is written twice; remove one of\n" + "\n".join(duplicates))
    return LOADER("").construct_document(node)


def _duplicates(node: yaml.Node, visited: set[int]) -> Iterator[str]:
    """Yield a line on each key of a mapping that is written again, in the order of the file."""
    if id(node) in visited:  # an alias
        return
    visited.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _duplicates(item, visited)
    elif isinstance(node, yaml.MappingNode):
        lines: dict[Any, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if isinstance(key, yaml.ScalarNode) and key.tag != MERGE:
                if (key.tag, key.value) in lines:
                    yield f"  {key.value}: lines {lines[key.tag, key.value]} and {line}"
                lines[key.tag, key.value] = line
            yield from _duplicates(value, visited)
