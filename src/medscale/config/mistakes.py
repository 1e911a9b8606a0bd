"""All mistakes of a configuration in one message, each with its place and the nearest right name.

Pydantic stops at the first wrong field of a section before it checks what sections have in common.
Names of studies, runs, networks and dataset kinds are therefore checked here once more, and the
faults of the layers are collected.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple, get_args

from pydantic import BaseModel, ValidationError

from medscale.base.errors import MedscaleError
from medscale.base.suggest import suggestion
from medscale.config.fault import SettingFault
from medscale.config.layers import Keys, Layers
from medscale.config.places import Place, Places
from medscale.config.wording import in_words
from medscale.data.kind import check_kind
from medscale.engine.run import RunSpec

# Raises MedscaleError for a network that does not exist. The report reads the configuration and
# must not depend on the list of networks, which the callers know.
NetworkCheck = Callable[[str], None]
BEFORE_VALIDATION = {  # settings that are resolved before the validation, by the section's depth
    0: ("defaults", "scales"),
    2: ("like",),
}
LISTS_OF_RUNS = (("runs",), ("profile", "runs"), ("benchmarks", "export", "runs"))
SINGLE_RUNS = (("baseline",), ("benchmarks", "formats", "run"))
FRACTIONS = ("share", "probability")  # units of numbers between 0 and 1
KEY = "[key]"  # pydantic's last part of the path of a wrong key
GRAMMAR = "\n  A run's name is"  # begins the second line of RunSpec's messages


class Mistake(NamedTuple):
    """A wrong setting."""

    path: Keys
    text: str


def explain(
    layers: Layers,
    model: type[BaseModel],
    errors: list[Exception],
    files: list[Path],
    check_network: NetworkCheck,
) -> str:
    """Return one message on all mistakes.

    Args:
        layers: the settings before validation.
        model: the class of the whole configuration.
        errors: those of the validation, and of the layers.
        files: YAML files that the changes come from, the highest last.
        check_network: raises MedscaleError for the name of a network that does not exist.
    """
    misspelt = list(dict.fromkeys(_names(layers, check_network)))
    texts = [mistake.text for mistake in misspelt]
    reasons = [text.split(GRAMMAR)[0].split("; ")[0] for text in texts]  # without suggestions
    # A study that cannot be completed is left out, so that the names of it seem to be wrong.
    reasons += [f"there is no study {name!r}" for name in layers.studies]
    further = [
        mistake
        for error in errors
        for mistake in _of(error, model, layers.studies)
        if not any(reason in mistake.text for reason in reasons)
    ]
    places = Places(layers, files)
    further = list(_without_repetitions(further, errors, layers, places))
    placed = [(*places.of(mistake.path), mistake.text) for mistake in {*misspelt, *further}]
    lines = dict.fromkeys(_line(*row) for row in sorted(placed, key=_order))
    number = f"{len(lines)} mistakes" if len(lines) > 1 else "a mistake"
    end = [GRAMMAR.strip() + text.split(GRAMMAR)[1] for text in texts if GRAMMAR in text][:1]
    return "\n  ".join([f"the configuration has {number}:", *lines, *end])


def _without_repetitions(
    mistakes: list[Mistake], errors: list[Exception], layers: Layers, places: Places
) -> Iterator[Mistake]:
    """Yield the mistakes without consequences of others.

    The validation stumbles once more over a setting that is a fault of the layers, and over a
    section of a variant that is wrong in its study.
    """
    faults = {error.path: str(error) for error in errors if isinstance(error, SettingFault)}
    fault_places = {places.of(path) for path in faults}
    for mistake in mistakes:
        path, text = mistake
        if text not in faults.values() and places.of(path) in fault_places:
            continue
        study = layers.studies.get(str(path[1])) if path[:1] == ("studies",) and path[1:] else None
        of = (study or {}).get("variant_of")
        if of is None or Mistake(("studies", of, *path[2:]), text) not in mistakes:
            yield mistake


def unknown_networks(
    names: set[str], valid: set[str], check_network: NetworkCheck
) -> Iterator[tuple[str, str]]:
    """Yield each name of a network that does not exist, and the message on it.

    Names in ``valid`` are not checked, since the check can take a tenth of a second.
    """
    for name in sorted(names - valid):
        try:
            check_network(name)
        except MedscaleError as error:
            yield name, str(error)


def _order(placed: tuple[Place, Keys, str]) -> tuple[Place, list[str], str]:
    place, path, text = placed
    return place, [str(part) for part in path], text


def _line(place: Place, path: Keys, text: str) -> str:
    setting, text = ".".join(str(part) for part in path), text.split(GRAMMAR)[0]
    if not setting or text.startswith(f"{setting} "):
        return f"{place}: {text}"
    return f"{place}: {setting}: {text.removeprefix(f'{setting}: ')}"


def _of(error: Exception, model: type[BaseModel], studies: Collection[str]) -> Iterator[Mistake]:
    if not isinstance(error, ValidationError):
        yield Mistake(getattr(error, "path", ()), str(error))
        return
    for item in error.errors():
        path, kind = item["loc"], item["type"]
        text = in_words(item)
        if kind == "extra_forbidden":
            text = f"there is no such setting; {_right_name(model, path)}".rstrip("; ")
        elif kind == "literal_error":
            words = re.findall(r"'([^']+)'", str(item.get("ctx", {}).get("expected", "")))
            text += f" (found {item['input']!r}); {suggestion(item['input'], words)}".rstrip("; ")
        elif kind == "missing":
            text = "this setting is missing"
            if path[0] == "studies" and len(path) == 3:  # mostly a misspelt study
                right = [name for name in studies if name != path[1]]
                text += f", which a new study needs; {suggestion(path[1], right)}".rstrip("; ")
        elif path[-1:] == (KEY,) and path[:1] == ("studies",) and len(path) == 3:
            text = "a study's name has small letters, digits, _ and -, and begins with a letter"
            path = path[:-1]
        elif kind != "value_error":
            value = item["input"]
            value_text = str(value) if isinstance(value, date) else repr(value)
            text += f" (found {value_text}){_remedy(kind, value, _unit(model, path))}"
        yield Mistake(path, text)


def _right_name(model: type[BaseModel], path: Keys) -> str:
    """Return advice on a setting that does not exist: the most similar one."""
    if path == ("scales",):
        return "scales are read from config.yaml alone; write these changes without `scales`"
    return suggestion(path[-1], _fields(model, path[:-1]))


def _remedy(kind: str, value: object, unit: str | None) -> str:
    """Return how a value of the wrong type is written; empty if the message says it."""
    if kind == "model_type" and value is None:
        return "; write its settings below it, or remove the line"
    if kind == "string_type" and isinstance(value, bool):
        return "; yes, no, on, off, true and false stand in quotes where they are text"
    if kind == "string_type" and isinstance(value, int | float | date):
        looks = "date" if isinstance(value, date) else "number"
        return f"; text that looks like a {looks} stands in quotes: '{value}'"
    if unit is None or not kind.startswith(("int_", "float_")):
        return ""
    return f"; a {unit} between 0 and 1" if unit in FRACTIONS else f"; a number in {unit}"


def _unit(model: type[BaseModel], path: Keys) -> str | None:
    """Return the unit of a setting; None without one."""
    fields = [s.model_fields.get(str(path[-1])) for s in _sections_at(model, path[:-1])]
    extras = [field.json_schema_extra for field in fields if field is not None]
    return next((str(e["unit"]) for e in extras if isinstance(e, dict) and "unit" in e), None)


def _fields(model: type[BaseModel], path: Keys) -> list[str]:
    """Return the names of the settings of a section."""
    names = list(BEFORE_VALIDATION.get(len(path), ()))
    return names + [name for s in _sections_at(model, path) for name in s.model_fields]


def _sections_at(model: type[BaseModel], path: Keys) -> list[type[BaseModel]]:
    """Return the sections, mostly one, that a path of keys leads to."""
    sections = [model]
    for part in path:
        inner = [
            section.model_fields[str(part)].annotation
            for section in sections
            if str(part) in section.model_fields
        ]
        if inner:
            sections = [section for annotation in inner for section in _sections(annotation)]
    return sections


def _sections(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the sections that an annotation, such as ``dict[str, Study]``, consists of."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _sections(part)


def _names(layers: Layers, check_network: NetworkCheck) -> Iterator[Mistake]:
    """Yield the names in the settings that nothing has."""
    only = layers.tree.get("only")
    names = only if isinstance(only, list) and layers.studies else ()  # none: `studies` is wrong
    for number, name in enumerate(names):
        if name not in layers.names and name not in layers.studies:
            yield Mistake(("only", number), layers.no_study(name))
    for study, settings in layers.studies.items():
        for path, text in _names_of_study(layers, settings, check_network):
            yield Mistake(("studies", study, *path), text)


def _names_of_study(
    layers: Layers, study: dict[str, Any], check_network: NetworkCheck
) -> Iterator[tuple[Keys, str]]:
    source = _at(study, ("source",))
    if isinstance(kind := _at(source, ("kind",)), str):
        try:
            check_kind(kind)
        except MedscaleError as error:
            yield ("source", "kind"), str(error)
    if isinstance(other := _at(source, ("of",)), str) and other not in layers.studies:
        yield ("source", "of"), layers.no_study(other)
    runs = {run for study in layers.studies.values() for run in _runs(study).values()}
    networks = _networks(study)
    for path, name in _runs(study).items():
        try:
            spec = RunSpec.parse(name)
        except MedscaleError as error:
            reason, *grammar = str(error).split(GRAMMAR)
            right = [run for run in runs if run != name and RunSpec.is_name(run)]
            end = GRAMMAR.join(["", *grammar])
            yield path, f"{reason.rstrip('.')}; {suggestion(name, right)}".rstrip("; ") + end
            continue
        if spec.model is not None:
            networks[path] = spec.model
    measured = _at(layers.tree, ("cost", "networks"))
    valid = {*measured} if isinstance(measured, dict) else set()
    wrong = dict(unknown_networks({*networks.values()}, valid, check_network))
    yield from ((path, wrong[name]) for path, name in networks.items() if name in wrong)


def _runs(study: dict[str, Any]) -> dict[Keys, str]:
    """Return the names of runs in a study's settings by their paths."""
    names: dict[Keys, Any] = {path: _at(study, path) for path in SINGLE_RUNS}
    for path in LISTS_OF_RUNS:
        values = _at(study, path)
        if isinstance(values, list):
            names |= {(*path, number): name for number, name in enumerate(values)}
    return {path: name for path, name in names.items() if isinstance(name, str)}


def _networks(study: dict[str, Any]) -> dict[Keys, str]:
    models = _at(study, ("models",))
    names: dict[Keys, Any] = {("model", "name"): _at(study, ("model", "name"))}
    if isinstance(models, dict):
        names |= {("models", key, "name"): _at(model, ("name",)) for key, model in models.items()}
    return {path: name for path, name in names.items() if isinstance(name, str)}


def _at(tree: Any, path: Keys) -> Any:
    """Return the value of a setting, or None."""
    for part in path:
        if not isinstance(tree, dict):
            return None
        tree = tree.get(part)
    return tree
