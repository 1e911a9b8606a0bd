"""config.schema.json and docs/settings.md are those of the sections, and editors can trust them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator

from medscale.base.section import Strict
from medscale.config import reference
from medscale.config.configuration import Config
from medscale.config.schema import schema
from medscale.config.sections import Study
from medscale.data.settings import Source

ROOT = Path(__file__).parents[2]
SCHEMA = schema()
FILES = [
    "config.yaml",
    "profiles/slurm/site.yaml",
    "profiles/demo/scale.yaml",
    "tests/cluster/study.yaml",
    *(str(path.relative_to(ROOT)) for path in sorted(ROOT.glob("examples/*.yaml"))),
    *(str(path.relative_to(ROOT)) for path in sorted(ROOT.glob(".test/**/*.yaml"))),
]


def settings() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield section and schema of each setting that is no section."""
    for section, content in {"Config": SCHEMA, **SCHEMA["$defs"]}.items():
        for name, setting in content["properties"].items():
            if "$ref" not in json.dumps(setting):
                yield f"{section}.{name}", setting


@pytest.mark.parametrize(
    ("path", "content"),
    [("config.schema.json", reference.schema_text), ("docs/settings.md", reference.page)],
)
def test_the_files_are_those_of_the_sections(path, content):
    assert (ROOT / path).read_text(encoding="utf-8") == content(), "run `make settings`"


def test_each_setting_has_a_title_and_a_description():
    Draft7Validator.check_schema(SCHEMA)
    every = dict(settings())
    assert len(every) > 170
    incomplete = [n for n, s in every.items() if not (s.get("title") and s.get("description"))]
    assert not incomplete
    units = {"Parallel.timeout_s": "seconds", "Crop.size": "pixels", "Augment.rotate": "degrees"}
    for name, unit in units.items():
        assert every[name]["description"].endswith(f"({unit})")


@pytest.mark.parametrize("file", FILES)
def test_a_file_of_settings_names_the_schema_and_fits_it(file):
    text = (ROOT / file).read_text(encoding="utf-8")
    match = re.fullmatch(r"# yaml-language-server: \$schema=(\S+)", text.splitlines()[0])
    assert match, f"{file} does not name config.schema.json in its first line"
    assert (ROOT / file).parent.joinpath(match[1]).resolve() == ROOT / "config.schema.json"
    errors = Draft7Validator(SCHEMA).iter_errors(yaml.safe_load(text))
    assert [error.message for error in errors] == []


def test_an_example_names_the_schema_also_as_a_copy_in_the_project_folder():
    for path in ROOT.glob("examples/*.yaml"):
        line = path.read_text(encoding="utf-8").splitlines()[0]
        assert (ROOT / line.rpartition("=")[2]).is_file(), path


def in_study(**settings: Any) -> dict[str, Any]:
    return {"studies": {"skin": settings}}


@pytest.mark.parametrize(
    "tree",
    [
        {"sceale": "demo"},
        {"seeds": [1, 1]},
        {"node": {"gpus": -1}},
        in_study(recipe={"learning_rate": 1}),
        in_study(recipe={"epochs": 0}),
        in_study(recipe={"schedule": "cosin"}),
        in_study(source={"kind": "skn"}),
        in_study(runs=["ddp_gpu2"]),
        in_study(augment={"crop": {"mode": "resize"}}),
        in_study(benchmarks={"export": {"formats": ["fp8"]}}),
        {"studies": {"My study": {}}},
        {"scales": {"demo": in_study(recipe={"epochs": "many"})}},
        {"defaults": {"recipe": {"ema": 2}}},
    ],
    ids=lambda tree: json.dumps(tree)[:50],
)
def test_the_schema_refuses_what_the_program_refuses(tree):
    assert not Draft7Validator(SCHEMA).is_valid(tree)


@pytest.mark.parametrize(
    "tree",
    [
        {"only": "skin,melanoma", "studies": {"skin": None}},
        in_study(like="glaucoma", recipe={"patience": None, "class_weights": "auto"}),
        in_study(runs=["ddp_amp_mp_4gpu_bs16_densenet121", "serial_1gpu_yolov8n"]),
    ],
)
def test_the_schema_accepts_what_the_program_accepts(tree):
    assert Draft7Validator(SCHEMA).is_valid(tree)


def test_the_page_names_every_setting():
    page = reference.page()
    assert len(reference.FIRST) == 20
    missing = [name for name, _ in settings() if f"- `{name.split('.')[1]}` (" not in page]
    assert not missing


def sections_in(section: type[Strict]) -> Iterator[type[Strict]]:
    """Yield the sections that are defaults of a section's settings, and those within them."""
    for field in section.model_fields.values():
        if isinstance(field.default, Strict):
            yield type(field.default)
            yield from sections_in(type(field.default))


def test_defaults_that_no_validator_has_seen_are_valid() -> None:
    sections = {*sections_in(Config), *sections_in(Study), *sections_in(Source)}
    sections -= {s for s in sections if any(f.is_required() for f in s.model_fields.values())}
    assert len(sections) > 12
    for section in sections:
        assert section.of_defaults() == section(), section.__name__
