"""The JSON schema of config.yaml and of files of changes, for editors: config.schema.json."""

from __future__ import annotations

from typing import Any

from medscale.config.configuration import Config
from medscale.data.kind import kind_names
from medscale.engine.models.own import MODULES as NETWORKS
from medscale.serve.formats.registry import BENCHMARKED, PYTORCH_WAYS

Schema = dict[str, Any]
DRAFT = "http://json-schema.org/draft-07/schema#"  # which editors know
TITLE = "medscale: settings of a study"
DESCRIPTION = (
    "config.yaml, a file of changes (--configfile) or site.yaml. Each file holds a part of the "
    "settings; `medscale config` prints what is in force."
)


def schema() -> Schema:
    """Return the schema of a file with any part of the settings.

    It requires no setting: other files, ``defaults`` and ``like`` give the rest, and
    ``medscale check`` examines the whole.
    """
    document = Config.model_json_schema()
    sections, settings = document["$defs"], document["properties"]
    study = {"$ref": "#/$defs/Study"}
    for section in (document, *sections.values()):
        section.pop("required", None)
        _add_units(section)
    _name_values(sections)
    sections["Study"]["properties"]["like"] = {
        "type": "string",
        "title": "Like",
        "description": "another study, whose runs, baseline, seeds, models, parallel and evaluate "
        "this one takes",
    }
    settings["only"]["anyOf"].append({"type": "string"})
    several = {"type": "array", "minItems": 1, "items": {"type": ["string", "number"]}}
    sections["Split"]["properties"]["held_out"]["anyOf"].append(several)
    (pattern,) = settings["studies"].pop("patternProperties")
    settings["studies"] |= {
        "patternProperties": {pattern: {"anyOf": [study, {"type": "null"}]}},
        "additionalProperties": False,
    }
    settings["studies"].pop("minProperties")
    settings["defaults"] = study | {
        "title": "Defaults",
        "description": "what a study of your own images has where it gives nothing",
    }
    settings["scales"] = {
        "type": "object",
        "title": "Scales",
        "description": "changes by the name of a scale, in force where `scale` names it",
        "additionalProperties": {"$ref": "#"},
    }
    return {"$schema": DRAFT, **document, "title": TITLE, "description": DESCRIPTION}


def _add_units(section: Schema) -> None:
    """Write units into the descriptions, in place, since editors show only those."""
    for setting in section.get("properties", {}).values():
        if (unit := unit_of(setting)) is not None:
            setting["description"] = f"{setting['description']} ({unit})"


def unit_of(setting: Schema) -> str | None:
    """Return the unit of a setting, of its items, or of its value where it can be null."""
    parts = [setting, *setting.get("anyOf", []), setting.get("items", {})]
    return next((part["unit"] for part in parts if "unit" in part), None)


def _name_values(sections: Schema) -> None:
    """Name the values that registries allow, in place; the models leave them to ``Config``."""
    formats, ways = list(BENCHMARKED), [*PYTORCH_WAYS, *BENCHMARKED]
    sections["Source"]["properties"]["kind"]["enum"] = kind_names()
    sections["Export"]["properties"]["formats"]["items"]["enum"] = formats
    sections["Latency"]["properties"]["ways"]["items"]["enum"] = ways
    sections["Model"]["properties"]["name"]["examples"] = list(NETWORKS)
