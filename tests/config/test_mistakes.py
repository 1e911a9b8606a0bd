"""All mistakes of a configuration in one message: place, setting, reason, nearest right name."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from medscale.base.errors import MedscaleError
from medscale.config.configuration import load, validate
from medscale.config.layers import Layer, Layers, merge
from medscale.config.yaml_file import read_yaml
from medscale.engine.models.names import check_model
from medscale.report.checklists.items import read_listing
from medscale.report.claims.statements import read_claims
from medscale.report.reported import read_reported
from snakemake_command import snakemake

ROOT = Path(__file__).parents[2]
MINE = """\
scale: dem
only: [glaucom, mine]
cost: {gpu: a100, curency: EUR}
studies:
  mine:
    like: glaucoma
    source: {kind: foldr, path: images}
    recpie: {epochs: 3}
    runs: [serial_1cpu, ddp_gpu2, dpp_2cpu, ddp_2gpu_densnet121]
    profile: {runs: [serail_1cpu]}
  skin:
    recipe: {epochs: 0, optimzer: adam, batch_size: many}
    model: {name: efficientnet_c3}
    evaluate: {gradcam: non}
  skin2:
    variant_of: skn
  other: 7
  melanom:
    recipe: {epochs: 3}
"""
# Line of the file, setting, and a part of the reason.
MISTAKES = [
    (1, "scale", "there is no scale 'dem'; did you mean 'demo'?"),
    (2, "only.0", "there is no study 'glaucom'; did you mean 'glaucoma'?"),
    (3, "cost.curency", "there is no such setting; did you mean 'currency'?"),
    (7, "studies.mine.source.kind", "there is no dataset kind 'foldr'; did you mean 'folder'?"),
    (8, "studies.mine.recpie", "there is no such setting; did you mean 'recipe'?"),
    (9, "studies.mine.runs.1", "'ddp_gpu2' is no run name"),
    (9, "studies.mine.runs.2", "it begins with 'dpp'"),
    (9, "studies.mine.runs.3", "there is no model 'densnet121'; did you mean 'densenet121'"),
    (10, "studies.mine.profile.runs.0", "did you mean 'serial_1cpu'?"),
    (12, "studies.skin.recipe.batch_size", "(found 'many')"),
    (12, "studies.skin.recipe.epochs", "greater than or equal to 1 (found 0)"),
    (12, "studies.skin.recipe.optimzer", "there is no such setting; did you mean 'optimizer'?"),
    (13, "studies.skin.model.name", "did you mean 'efficientnet_b3'"),
    (14, "studies.skin.evaluate.gradcam", "did you mean 'none'?"),
    (16, "studies.skin2.variant_of", "did you mean 'skin'?"),
    (17, "studies.other", "must be a mapping of settings, not 7"),
    (18, "studies.melanom.model", "which a new study needs; did you mean 'melanoma'?"),
    (18, "studies.melanom.runs", "which a new study needs; did you mean 'melanoma'?"),
    (18, "studies.melanom.source", "which a new study needs; did you mean 'melanoma'?"),
]


@pytest.fixture
def configuration_file(tmp_path: Path) -> Path:
    (tmp_path / "mine.yaml").write_text(MINE)
    return tmp_path / "mine.yaml"


def test_all_mistakes_are_in_one_message_each_with_its_line(configuration_file: Path) -> None:
    layer = Layer(str(configuration_file), yaml.safe_load(MINE))
    with pytest.raises(MedscaleError) as error:
        validate(Layers(ROOT / "config.yaml", [layer]), check_network=check_model)
    first, *lines, grammar = str(error.value).splitlines()
    assert first == f"the configuration has {len(MISTAKES)} mistakes:"
    assert grammar.startswith("  A run's name is <strategy>")
    assert len(lines) == len(MISTAKES)
    for text, (line, setting, reason) in zip(lines, MISTAKES, strict=True):
        assert text.startswith(f"  {configuration_file}, line {line}: {setting}")
        assert reason in text


def test_a_mistake_that_others_inherit_is_named_once_where_it_is_written() -> None:
    changes = {"studies": {"skin": {"recipe": {"epochs": 0}}}}
    with pytest.raises(MedscaleError) as error:
        load(ROOT / "config.yaml", changes)  # skin_random and dermatology inherit it
    assert str(error.value).count("studies.") == 1
    assert "command line: studies.skin.recipe.epochs" in str(error.value)


def test_a_mistake_in_config_yaml_has_its_line(tmp_path: Path) -> None:
    text = (ROOT / "config.yaml").read_text(encoding="utf-8")
    line = text.splitlines().index("seeds: [1, 2, 3]       # one replicate a seed") + 1
    (tmp_path / "config.yaml").write_text(text.replace("seeds: [1, 2, 3]", "seeds: [1, 2, x]"))
    with pytest.raises(MedscaleError, match=rf"config\.yaml, line {line}: seeds\.2: .*found 'x'"):
        load(tmp_path / "config.yaml")


@pytest.mark.parametrize(
    ("setting", "value", "text"),
    [
        ("account", 12345, "text that looks like a number stands in quotes: '12345'"),
        ("max_minutes", "1-00:00:00", "(found '1-00:00:00'); a number in minutes"),
        ("least_mb", "3G", "(found '3G'); a number in MB"),
        ("safety", "high", "(found 'high')"),
    ],
)
def test_a_value_of_the_wrong_type_is_answered_with_how_to_write_it(
    setting: str, value: object, text: str
) -> None:
    with pytest.raises(MedscaleError) as error:
        load(ROOT / "config.yaml", {"cluster": {setting: value}})
    assert str(error.value).endswith(text)


def test_snakemake_names_the_file_and_line_too(configuration_file: Path) -> None:
    process = snakemake("-n", "--configfile", str(configuration_file))
    assert process.returncode != 0
    assert (
        f"{configuration_file}, line 8: studies.mine.recpie: there is no such setting"
        in process.stderr
    )
    assert f"the configuration has {len(MISTAKES)} mistakes" in process.stderr


@pytest.mark.parametrize(
    ("text", "changes", "lines"),
    [  # the settings of --config, laid over those of the file as Snakemake does it
        ("seeds: [1, 2]", {"seeds": ["x"]}, ["command line: seeds.0: must be a whole number"]),
        ("seeds: [x]", {}, ["{file}, line 1: seeds.0: must be a whole number (found 'x')"]),
        ("seeds: [y]", {"seeds": ["y"]}, ["{file}, line 1: seeds.0: must be"]),
        ("only: skin", {"only": "melanom"}, ["command line: only.0: there is no study 'melanom'"]),
        ('only: "skin, melanom"', {}, ["{file}, line 1: only.1: there is no study 'melanom'"]),
        ("workdir: x", {"workdr": "y"}, ["command line: workdr: there is no such setting"]),
        (
            "node: {gpus: 2}\nseeds: [1]\nstudies:\n  skin:\n    recipe: {epochs: 3, lr: .nan}",
            {"node": {"gpus": "two"}, "studies": {"skin": {"recipe": {"epochs": 0}}}},
            [
                "{file}, line 5: studies.skin.recipe.lr: must be a finite number (found nan)",
                "command line: node.gpus: must be a whole number (found 'two')",
                "command line: studies.skin.recipe.epochs: must be greater than or equal to 1",
            ],
        ),
        ("node: {gpus: 2}", {"node": 2}, ["command line: node: must be a section of settings"]),
        ("only: skin", {"studies": "{skin: {"}, ["command line: studies must be a mapping"]),
        ("scale: full", {"scale": "dem"}, ["command line: scale: there is no scale 'dem'"]),
    ],
)
def test_a_wrong_value_of_the_command_line_is_not_blamed_on_the_file(
    tmp_path: Path, text: str, changes: dict[str, Any], lines: list[str]
) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(f"{text}\n")
    with pytest.raises(MedscaleError) as error:
        load(ROOT / "config.yaml", merge(read_yaml(file), changes), [file], check_model)
    found = str(error.value).split("\n  ")[1:]
    for line, start in zip(found, lines, strict=True):
        assert line.startswith(start.format(file=file))


def test_a_wheel_without_a_clone_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(MedscaleError, match="need a clone of the repository"):
        Layers(tmp_path / "config.yaml")


def test_a_key_written_twice_is_refused_in_every_yaml_file(tmp_path: Path) -> None:
    text = "a: &x {b: 1}\nc:\n  <<: *x\n  d: 1\n  e: [{f: 1, f: 2}]\n  d: 2\ng: *x\na: 3\n"
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(MedscaleError) as caught:
        read_yaml(tmp_path / "x.yaml")
    assert str(caught.value).splitlines() == [
        f"{tmp_path / 'x.yaml'}: a key is written twice; remove one of",
        "  f: lines 5 and 5",
        "  d: lines 4 and 6",
        "  a: lines 1 and 8",
    ]
    (tmp_path / "y.yaml").write_text("a: &x {b: 1}\nc: {<<: *x, b: 2}\n'1': 1\n1: 2\n")
    assert read_yaml(tmp_path / "y.yaml") == {"a": {"b": 1}, "c": {"b": 2}, "1": 1, 1: 2}
    # Claims, checklists and published figures are read by the same function.
    (tmp_path / "claims.yaml").write_text("claims: []\nclaims: []\n")
    for read in (read_claims, read_listing, partial(read_reported, study="skin")):
        with pytest.raises(
            MedscaleError, match=r"claims\.yaml: a key is .*\n  claims: lines 1 and 2"
        ):
            read(tmp_path / "claims.yaml")


def test_snakemake_refuses_a_key_written_twice(tmp_path: Path) -> None:
    (tmp_path / "twice.yaml").write_text("scale: demo\nscale: full\n")
    process = snakemake("-n", "--configfile", str(tmp_path / "twice.yaml"))
    assert process.returncode != 0
    assert "twice.yaml: a key is written twice" in process.stderr
    assert "scale: lines 1 and 2" in process.stderr


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: 1\nb: Müller\n".encode("latin-1"), ", line 2: not UTF-8; save the file"),
        ("a: 1\n".encode("utf-16"), ", line 1: not UTF-8; save the file"),
        (b"a: 1\nb: \x07\n", r", line 2: not valid YAML: the control character '\x07'; remove it"),
        (b"a:\n\t- 1\n", r", line 2, column 1: not valid YAML: found character '\t'"),
        (
            b'a: "(\\d+)_"\n',
            ", line 1, column 7: not valid YAML: found unknown escape character 'd'; "
            r"in double quotes \ begins an escape: put expressions in single quotes",
        ),
        (b"a: 1\n---\na: 2\n", ", line 2, column 1: not valid YAML: but found another document"),
        (b"a: 1\nb: &x\n  c: [*x]\n", ", line 2: what this anchor names contains itself"),
    ],
)
def test_a_file_that_is_no_tree_of_settings_is_one_message(tmp_path, content, message):
    file = tmp_path / "x.yaml"
    file.write_bytes(content)
    with pytest.raises(MedscaleError) as caught:
        read_yaml(file)
    assert str(caught.value).startswith(f"{file}{message}")
    assert "\n" not in str(caught.value)


def test_a_file_from_windows_is_read(tmp_path):
    (tmp_path / "x.yaml").write_bytes(b"\xef\xbb\xbfa: 1\r\nb: &x [2]\r\nc: *x\r\n")
    assert read_yaml(tmp_path / "x.yaml") == {"a": 1, "b": [2], "c": [2]}


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("seeds: [true]", ["seeds.0: must be a whole number (found 'true')"]),
        (
            "studies: {glaucoma: {augment: {hflip: yes}}}",
            ["studies.glaucoma.augment.hflip: must be a number (found 'true')"],
        ),
        ("studies: {skin: {recipe: }}", ["studies.skin.recipe: must be a section of settings"]),
        (
            "studies: {skin: {models: {resnet50: {name: resnet18}}}}",
            ["studies.skin: models.resnet50.name is 'resnet18', but a run whose name ends with"],
        ),
        (
            "studies: {skin: {external: [{title: x}]}}",
            ["studies.skin.external.0.source: this setting is missing"],
        ),
        (
            "studies: {skin: {split: {held_out: [a]}}}",
            ["studies.skin.split.held_out: a list of values makes a variant of each"],
        ),
        (
            "studies: {skin: {split: {train: 0.9}}}",
            ["studies.skin.split: train + val + test must be 1"],
        ),
        (
            "{only: [mine], studies: {mine: {like: mina}}}",
            ["studies.mine.like: there is no study 'mina'; name a study that exists"],
        ),
        (
            "studies: {skin: {title: 2024-01-01}}",
            ["studies.skin.title: must be text (found 2024-01-01); text that looks like a date"],
        ),
        (
            "studies: {skin: {split: {train: 70%}}}",
            ["studies.skin.split.train: must be a number (found '70%'); a share between 0 and 1"],
        ),
        (
            "studies: {a: {like: b}, b: {like: a}}",
            [
                "studies.a.like is 'b', which itself inherits from a; give one",
                "studies.b.like is 'a', which itself inherits from b; give one",
            ],
        ),
        ("studies: {My Study: }", []),
        (
            "studies: {My Study: {like: skin, source: {kind: skin}}}",
            ["studies.My Study: a study's name has small letters"],
        ),
        ("scales: {demo: {}}", ["scales: there is no such setting; scales are read from config.y"]),
        ("stand_in_gpu: true", ["stand_in_gpu is for scale demo only"]),
        (
            "studies: {dermatology: {benchmarks: {export: {formats: [fp8]}}}}",
            ["studies.dermatology.benchmarks.export.formats: 'fp8' is unknown"],
        ),
        (
            "studies: {dermatology: {benchmarks: {export: {formats: [fp16]}, inference: "
            "{ways: [eager, onnx, int8]}}}}",
            ["studies.dermatology.benchmarks.inference.ways: int8 is not exported: add it to"],
        ),
        ('only: "skin, melanoma,"', []),
        (
            "studies: {v: {variant_of: skin, split: {held_out: [A+, A-]}}}",
            ["studies.v: two of its values make the same entry, v_a: give each a study"],
        ),
        (
            "studies: {v: {variant_of: skin, split: {held_out: [no, a]}}}",
            ["studies.v.split.held_out: must be text or a number (found False); yes, no, on"],
        ),
        (
            "{defaults: {recipe: {lr: x}}, studies: {m: {source: {kind: folder, path: a}, "
            "runs: [serial_1cpu]}}}",
            ["defaults.recipe.lr: must be a number (found 'x')"],
        ),
        (
            "{defaults: {recipe: {lr: x}}, studies: {m: {like: skin, source: {kind: folder, "
            "path: a}}}}",
            ["defaults.recipe.lr: must be a number (found 'x')"],
        ),
        (
            "{defaults: {recipe: {lr: x}}, studies: {m: {like: skin, source: {kind: folder, "
            "path: a}}, v: {variant_of: m}, w: {variant_of: v}}}",
            ["defaults.recipe.lr: must be a number (found 'x')"],
        ),
    ],
)
def test_a_mistake_has_its_place_and_no_consequences(tmp_path, text, lines):
    file = tmp_path / "x.yaml"
    file.write_text(f"{text}\n")
    layers = Layers(ROOT / "config.yaml", [Layer(str(file), read_yaml(file))])
    try:
        validate(layers, [file], check_model)
        found = []
    except MedscaleError as error:
        found = str(error).split("\n  ")[1:]
    assert len(found) == len(lines), found
    for line, start in zip(found, lines, strict=True):
        assert line.removeprefix(str(file)).split(": ", 1)[1].startswith(start)
        assert line.startswith(str(file))
