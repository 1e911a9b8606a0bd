"""YAML files that people write, read with messages that name file and line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from medscale.base.errors import MedscaleError
from medscale.base.section import Strict
from medscale.base.text import amount
from medscale.config.wording import in_words

T = TypeVar("T", bound=Strict)

# libyaml's loader, which takes a tenth of the time, if PyYAML was built with it.
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
MERGE = "tag:yaml.org,2002:merge"  # of the key `<<`, which a mapping may have several times


class _Fault(yaml.YAMLError):
    """Valid YAML that is refused; the message goes on after the file's name."""


def read_section(path: Path, schema: type[T]) -> T:
    """Return the content of a YAML file of a schema.

    Raises MedscaleError as ``read_yaml``, and for wrong fields, each named.
    """
    try:
        return schema.model_validate(read_yaml(path))
    except ValidationError as error:
        lines = [f"{path} has {amount(error.error_count(), 'mistake')}:"]
        for item in error.errors():
            lines.append(f"  {'.'.join(map(str, item['loc']))}: {in_words(item)}")
        raise MedscaleError("\n".join(lines)) from None


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the tree of settings in a file, which is empty for an empty file.

    Raises MedscaleError for a file that is missing or cannot be read, one that is not UTF-8 or no
    mapping in YAML, an alias within its own anchor, and keys that a mapping has twice, of which
    PyYAML would silently take the last.
    """
    try:
        tree = _parse(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MedscaleError(f"{path} does not exist") from None
    except _Fault as error:
        raise MedscaleError(f"{path}{error}") from None
    except yaml.YAMLError as error:
        raise MedscaleError(
            f"{path}{_place(error, path)}: not valid YAML: {_problem(error)}"
        ) from None
    except OSError as error:
        raise MedscaleError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise MedscaleError(
            f"{path}, line {line}: not UTF-8; save the file in this encoding"
        ) from None
    except ValueError as error:  # an integer with more digits than Python converts
        raise MedscaleError(f"{path}: not valid YAML: {error}") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise MedscaleError(f"{path}: expected a mapping of settings, found {type(tree).__name__}")
    return tree


def _parse(text: str) -> Any:
    """Return the content of a YAML text.

    Raises _Fault for keys that a mapping has twice, and for an alias within its own anchor.
    """
    try:
        node = yaml.compose(text, Loader=LOADER)
    except yaml.YAMLError:
        return yaml.safe_load(text)  # names the line of an error more exactly
    if node is None:
        return None
    if duplicates := list(_duplicates(node, {})):
        raise _Fault(": a key is written twice; remove one of\n" + "\n".join(duplicates))
    return LOADER("").construct_document(node)


def _place(error: yaml.YAMLError, path: Path) -> str:
    """Return the line of an error, and its column if known, as it follows the file's name."""
    if mark := getattr(error, "problem_mark", None):
        return f", line {mark.line + 1}, column {mark.column + 1}"
    if isinstance(error, yaml.reader.ReaderError):
        return f", line {path.read_text(encoding='utf-8').count(chr(10), 0, error.position) + 1}"
    return ""


def _problem(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.reader.ReaderError):
        return f"the control character {chr(error.character)!r}; remove it"
    problem = str(getattr(error, "problem", error))
    if problem.startswith("found unknown escape character"):
        problem += r"; in double quotes \ begins an escape: put expressions in single quotes"
    return problem


def _duplicates(node: yaml.Node, complete: dict[int, bool]) -> Iterator[str]:
    """Yield a line on each key of a mapping that is written again, in the order of the file.

    Raises _Fault for an alias within its own anchor, which has no end.

    Args:
        node: of the parsed file.
        complete: by node, whether all below it was examined; an alias is the node of its anchor.
    """
    if id(node) in complete:
        if not complete[id(node)]:
            line = node.start_mark.line + 1
            raise _Fault(f", line {line}: what this anchor names contains itself by an alias")
        return
    complete[id(node)] = False
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _duplicates(item, complete)
    elif isinstance(node, yaml.MappingNode):
        lines: dict[Any, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if isinstance(key, yaml.ScalarNode) and key.tag != MERGE:
                if (key.tag, key.value) in lines:
                    yield f"  {key.value}: lines {lines[key.tag, key.value]} and {line}"
                lines[key.tag, key.value] = line
            yield from _duplicates(value, complete)
    complete[id(node)] = True
