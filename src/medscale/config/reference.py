"""Writes docs/settings.md, the page of all settings, and config.schema.json from the sections.

``python -m medscale.config.reference`` (``make settings``) writes both into the checkout.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from textwrap import fill
from typing import Any

from medscale.base.code import ROOT
from medscale.base.files import write_text
from medscale.config.schema import Schema, schema, unit_of

WIDTH = 100
STUDY = "studies.<name>"
# Settings that users change first, in the order of docs/settings.md.
FIRST = (
    "only",
    "seeds",
    "workdir",
    f"{STUDY}.source.path",
    f"{STUDY}.source.patient",
    f"{STUDY}.classes",
    f"{STUDY}.split.mode",
    f"{STUDY}.preprocess.size",
    f"{STUDY}.model.name",
    f"{STUDY}.model.pretrained",
    f"{STUDY}.recipe.epochs",
    f"{STUDY}.recipe.batch_size",
    f"{STUDY}.recipe.lr",
    f"{STUDY}.recipe.patience",
    f"{STUDY}.runs",
    "node.gpus",
    "node.cpus",
    "dask.workers",
    "cluster.account",
    "cluster.partition",
)
INTRODUCTION = """\
# Settings

`make settings` writes this page and `config.schema.json` from the sections of the configuration; do
not edit them. An editor that reads YAML with schemas completes and checks the settings by the first
line of a file, `# yaml-language-server: $schema=…`.

Settings come from `config.yaml`, from the overlay of its scale, and from files of changes
(`--configfile`); the last one wins. `medscale config` prints what is in force and where each value
comes from; `medscale config --study skin` prints the settings of one study.
"""
FIRST_HEADING = "## What people change first"
OWN_IMAGES = (
    "`defaults` in `config.yaml` gives what a study of your own images (kind `folder`) leaves out, "
    "and `like: other` takes the runs and seeds of another study."
)
LIMITS = {
    "minimum": "at least",
    "maximum": "at most",
    "exclusiveMinimum": "above",
    "exclusiveMaximum": "below",
    "multipleOf": "a multiple of",
}
KINDS = {
    "string": "text",
    "boolean": "true or false",
    "object": "mapping",
    "null": "null",
    "number": "number",
    "integer": "whole number",
}


def page() -> str:
    """Return docs/settings.md."""
    document = schema()
    sections = list(_sections(document, document, "", {}))
    descriptions = {
        f"{path}.{name}".lstrip("."): text
        for path, _, settings in sections
        for name, text in settings
    }
    parts = [INTRODUCTION, FIRST_HEADING, _items((path, descriptions[path]) for path in FIRST)]
    for path, description, settings in sections:
        parts += [f"## `{path}`" if path else "## General", fill(description, WIDTH)]
        parts += [_items(settings)] if settings else []
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def schema_text() -> str:
    """Return config.schema.json."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


def _sections(
    document: Schema, section: Schema, path: str, places: dict[str, str]
) -> Iterator[tuple[str, str, list[tuple[str, str]]]]:
    """Yield path, description and settings of a section and of all sections in it.

    A section that occurs at two places is described at the first; ``places`` holds the first
    place of each, and is filled.
    """
    prefix = f"{path}." if path else ""
    settings, below = [], []
    for name, setting in section["properties"].items():
        if name in ("defaults", "scales"):
            continue
        inner, target = _target(setting)
        if target is None:
            settings.append((name, _description(setting)))
        else:
            below.append((f"{prefix}{name}{inner}", target))
    description = (
        section["description"] if path else f"Settings of all studies together. {OWN_IMAGES}"
    )
    yield path, description, settings
    for place, target in sorted(below, key=lambda entry: not entry[0].startswith("studies")):
        if target in places:
            yield place, f"As `{places[target]}`.", []
        else:
            places[target] = place
            yield from _sections(document, document["$defs"][target], place, places)


def _target(setting: Schema) -> tuple[str, str | None]:
    """Return the text between the names of a setting and of the section in it, and that section."""
    below = [*setting.get("patternProperties", {}).values(), setting.get("additionalProperties")]
    places = [("", setting), *((".<name>", part) for part in below)]
    places += [("[]", setting["items"])] if "items" in setting else []
    for between, place in places:
        for part in [place, *place.get("anyOf", [])] if isinstance(place, dict) else []:
            if "$ref" in part:
                return between, part["$ref"].rpartition("/")[-1]
    return "", None


def _description(setting: Schema) -> str:
    """Return the values that a setting takes, its default and its meaning."""
    meaning = setting["description"].removesuffix(f" ({unit_of(setting)})")
    default = f"; default {_literal(setting['default'])}" if "default" in setting else ""
    return f"({_values(setting)}{default}): {meaning}"


def _values(setting: Schema) -> str:
    """Return the values that a setting takes: kind, limits and unit."""
    if "anyOf" in setting:
        return ", or ".join(_values(part) for part in setting["anyOf"])
    if "enum" in setting:
        *values, last = map(_literal, setting["enum"])
        return f"{', '.join(values)} or {last}"
    if "const" in setting:
        return _literal(setting["const"])
    if setting["type"] == "array":
        return f"list of {_values(setting['items'])}"
    if isinstance(setting["type"], list):
        return " or ".join(KINDS[kind] for kind in setting["type"])
    kind, unit = KINDS[setting["type"]], setting.get("unit")
    limits = [f"{word} {setting[key]:,}" for key, word in LIMITS.items() if key in setting]
    if "minimum" in setting and "maximum" in setting:
        limits[:2] = [f"{setting['minimum']:,} to {setting['maximum']:,}"]
    if unit in ("share", "probability"):
        kind, unit = unit, None
    return ", ".join([kind, *limits]) + (f", in {unit}" if unit else "")


def _literal(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return f"`{text}`"


def _items(settings: Iterable[tuple[str, str]]) -> str:
    """Return settings, by name and description, as a list in Markdown."""
    texts = (f"- `{name}` {text}" for name, text in settings)
    return "\n".join(fill(text, WIDTH, subsequent_indent="  ") for text in texts)


def main() -> None:
    """Write both files into the checkout."""
    write_text(ROOT / "docs" / "settings.md", page())
    write_text(ROOT / "config.schema.json", schema_text())


if __name__ == "__main__":
    main()
