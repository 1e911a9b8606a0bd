"""Any wrong value of any setting is one message, or the configuration is a valid plan."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medscale.base.errors import MedscaleError
from medscale.config import configuration as config
from medscale.config import layers
from medscale.config.layers import merge
from medscale.config.planning import plan
from medscale.engine.plan import RunPlan
from medscale.engine.train.loop import step_seed

BASE = Path(__file__).parents[2] / "config.yaml"
TREE = yaml.safe_load(BASE.read_text(encoding="utf-8"))
MINE = {"source": {"kind": "folder", "path": "images"}, "classes": ["a", "b"]}
COMPLETE = {  # sections that no study has, or not completely
    "augment": {"crop": {"size": 48, "mode": "resized", "smallest": 0.5, "ratio": 1.5}},
    "preprocess": {"clahe": {"clip_limit": 2, "tiles": 4}, "gamma": 1.1, "median": 3},
    "benchmarks": {
        "enhance": {},
        "loading": {},
        "export": {"runs": ["serial_1cpu"]},
        "inference": {},
    },
    "detect": {},
    "profile": {"runs": ["serial_1cpu"]},
}
Path_ = tuple[str, ...]


def settings_below(tree: Any, path: Path_ = ()) -> Iterator[Path_]:
    """Yield the paths of all settings, and of the sections around them."""
    if path:
        yield path
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from settings_below(value, (*path, str(key)))


def nested_settings(path: Path_, value: Any) -> dict[str, Any]:
    """Return the tree that has a value at a path."""
    return {path[0]: nested_settings(path[1:], value) if len(path) > 1 else value}


@pytest.fixture(autouse=True, scope="module")
def _read_once():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layers, "read_yaml", lambda path: copy.deepcopy(TREE))
        yield


def load(changes: dict[str, Any]) -> config.Config:
    below = {"only": ["mine"], "studies": {"mine": merge(MINE, COMPLETE)}}
    return config.load(BASE, merge(below, changes))


FULL = load({}).model_dump(mode="json")
FULL["studies"] = {"mine": FULL["studies"]["mine"] | {"like": None, "variant_of": None}}
PATHS = sorted({*settings_below(FULL), ("defaults",), ("defaults", "model"), ("scales",)})
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([0, -1, 1, 2**31, 2**63, 2**64, 2**70, 10**400, -(2**70)]),
    st.sampled_from([0.0, -0.5, 1e-320, 1e308, float("inf"), float("-inf"), float("nan")]),
    st.sampled_from(["", "a", "auto", "1", "-1", "é\u0301", "a\0b", "../x", "a b", "x" * 300]),
    st.sampled_from(["serial_1cpu", "ddp_9999999999999999999gpu", "ddp_2cpu_yolov8n", "mp_3cpu"]),
    st.integers(),
    st.text(max_size=5),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        SCALARS.map(lambda value: [value, value]),
        st.dictionaries(st.text(max_size=4), inner, max_size=2),
    ),
    max_leaves=4,
)


@settings(
    max_examples=200, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)
@given(path=st.sampled_from(PATHS), value=VALUES)
def test_a_wrong_value_is_one_message_or_a_valid_plan(path, value):
    try:
        loaded = load(nested_settings(path, value))
        plans = [
            plan(loaded, name, run, seed)
            for name in loaded.only or loaded.studies
            for run in loaded.study(name).runs
            for seed in loaded.seeds_of(name)
        ]
    except MedscaleError:
        return
    for run_plan in plans:
        assert RunPlan.model_validate_json(run_plan.model_dump_json()) == run_plan
        assert step_seed(run_plan.seed, 10**9, 1000) < 2**64


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scale": ["demo"]}, "there is no scale"),
        ({"studies": "glaucoma"}, "studies must be a mapping"),
        ({"studies": {"skin": ["a"]}}, "studies.skin must be a mapping"),
        ({"studies": {"mine": {"classes": ["a", "a"]}}}, "classes: has duplicates"),
        ({"studies": {"mine": {"classes": []}}}, "classes: must not have fewer than 2 entries"),
        ({"studies": {"mine": {"classes": ["0", 1]}}}, "classes.1: .*found 1.*in quotes: '1'"),
        ({"studies": {"mine": {"classes": ["yes", False]}}}, "classes.1: .*yes, no, .*in quotes"),
        ({"workdir": "~no-such-user/x"}, "workdir: .*is no user's home folder"),
        ({"seeds": [-1]}, "seeds.0: .*greater than or equal to 0"),
        ({"seeds": [1180591620717411303424]}, "seeds.0: .*less than or equal to 99999999"),
        ({"studies": {"mine": {"recipe": {"lr": float("inf")}}}}, "recipe.lr: .*finite"),
        ({"studies": {"mine": {"like": ["glaucoma"]}}}, "mine.like: .*did you mean 'glaucoma'"),
        ({"studies": {"mine": {"runs": ["serial_1cpu", "serial_1cpu"]}}}, "runs: has duplicates"),
    ],
    ids=lambda value: json.dumps(value)[:60],
)
def test_what_once_was_a_traceback_is_one_message(changes, message):
    with pytest.raises(MedscaleError, match=message):
        load(changes)
