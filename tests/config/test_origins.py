"""The settings in force, and the origin of each: a file, an overlay, another study, a default."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from medscale.base.errors import MedscaleError
from medscale.cli.main import main
from medscale.config.configuration import load
from medscale.config.layers import Layer
from medscale.config.origins import Setting, in_force

ROOT = Path(__file__).parents[2]
BASE = ROOT / "config.yaml"
MINE = Layer(
    "mine.yaml",
    {
        "scale": "demo",
        "node": {"gpus": 2},
        "defaults": {"recipe": {"lr": 0.5}},
        "studies": {
            "mine": {
                "like": "glaucoma",
                "source": {"kind": "folder", "path": "images"},
                "recipe": {"ema": None},
                "model": {"options": {"width": 8}},
            },
            "skin": {"augment": {"crop": None}},
            "glaucoma": {"model": {"name": "resnet50"}},
            "other": {
                "like": "glaucoma",
                "source": {"kind": "folder"},
                "model": {"name": "resnet18"},
            },
        },
    },
)
COMMAND = Layer("command line", {"only": "mine"})


def origins(study: str | None = None) -> dict[str, tuple[object, str]]:
    settings = in_force(BASE, [MINE, COMMAND], study)
    return {setting.name: (setting.value, setting.origin) for setting in settings}


@pytest.mark.parametrize(
    ("name", "value", "origin"),
    [
        ("scale", "demo", "mine.yaml"),
        ("only", ["mine"], "command line"),
        ("node.gpus", 2, "mine.yaml"),
        ("node.cpus", 32, "config.yaml"),
        ("node.memory_mb", None, "default"),
        ("stand_in_gpu", True, "config.yaml, scales.demo"),
        ("studies.mine.title", "mine", "default"),
        ("studies.mine.recipe.ema", None, "mine.yaml"),
        ("studies.mine.recipe.lr", 0.5, "mine.yaml, defaults"),
        ("studies.mine.recipe.steps", 1200, "config.yaml, defaults"),
        ("studies.mine.model.options.width", 8, "mine.yaml"),
        ("studies.mine.model.options.dropout", "auto", "config.yaml, defaults"),
        ("studies.mine.evaluate.gradcam", "baseline", "like: glaucoma"),
        ("studies.mine.recipe.accumulate", 1, "default"),
        # Options of a network that another one replaces: of the demo, and of the defaults.
        ("studies.glaucoma.model.options", {}, "default"),
        ("studies.other.model.options", {}, "default"),
        ("studies.skin.augment.crop", None, "mine.yaml"),
        ("studies.skin.recipe.epochs", 16, "config.yaml, scales.demo"),
        ("studies.skin_random.split.mode", "random", "config.yaml"),
        ("studies.skin_random.recipe.epochs", 16, "variant_of: skin"),
    ],
)
def test_the_origin_of_a_setting_is_the_highest_layer_that_has_it(name, value, origin):
    assert origins()[name] == (value, origin)


@pytest.mark.parametrize("text", ["2024", "yes", "a: b", "a # b", "{a", "2024-13-01", "", "a b"])
def test_a_value_is_printed_as_yaml_reads_it(text):
    printed = Setting(("title",), text, "").text
    assert yaml.safe_load(printed) == text
    assert (printed == text) == (text == "a b")


def test_the_values_are_those_of_the_configuration():
    config = load(BASE, {**MINE.tree, **COMMAND.tree}).model_dump(mode="json")
    for setting in in_force(BASE, [MINE, COMMAND]):
        value = config
        for key in setting.path:
            value = value[key]
        assert value == setting.value, setting.name
    assert {name.split(".")[1] for name in origins("mine")} == {"mine"}
    with pytest.raises(MedscaleError, match="no study 'nix'"):
        in_force(BASE, [], "nix")


def test_the_command_prints_lines_or_json():
    options = ["config", "--study", "skin", "--scale", "demo"]
    lines = CliRunner().invoke(main, options).stdout.splitlines()
    entries = json.loads(CliRunner().invoke(main, [*options, "--json"]).stdout)
    assert len(lines) == len(entries)
    assert entries["studies.skin.recipe.lr"] == {
        "value": 0.003,
        "origin": "config.yaml, scales.demo",
    }
    (line,) = [line for line in lines if line.startswith("studies.skin.recipe.lr ")]
    assert line.split(maxsplit=2)[1:] == ["0.003", "config.yaml, scales.demo"]
    whole = json.loads(CliRunner().invoke(main, ["config", "--cluster", "--json"]).stdout)
    assert whole["cluster.max_minutes"]["origin"] == "profiles/slurm/site.yaml"
    assert whole["scale"] == {"value": "full", "origin": "config.yaml"}
