"""Strategies are declared without PyTorch, each drawn in its own way, and registered by name."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from medscale.engine.parallel.strategies.registry import STRATEGIES
from medscale.engine.parallel.strategies.strategy import Costs, Look, Strategy
from medscale.engine.run import RunSpec
from medscale.resources.machines import Cost


def test_declarations_are_read_without_pytorch() -> None:
    code = (
        "import sys; from medscale.engine.run import RunSpec; import medscale.engine.plan;"
        "RunSpec.parse('fsdp_2gpu'); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_names_fit_into_the_names_of_runs() -> None:
    for name, strategy in STRATEGIES.items():
        assert name == strategy.name
        assert re.fullmatch(r"[a-z][a-z0-9]*", name)
        devices = strategy.most or strategy.least
        assert RunSpec.parse(f"{name}_{devices}cpu").strategy == name


def test_no_two_groups_of_runs_are_drawn_alike() -> None:
    looks = [look for strategy in STRATEGIES.values() for look in strategy.looks.values()]
    for part in zip(*looks, strict=True):
        assert len(set(part)) == len(part)


def test_a_combination_without_a_look_is_drawn_as_the_plain_strategy() -> None:
    plain = Look("#000000", "o", "-")
    strategy = Strategy(name="x", title="X", looks={"": plain}, wrap=lambda setup: None)
    assert strategy.look(amp=True, mp=True) == plain


@pytest.mark.parametrize(
    ("limits", "devices", "message"),
    [
        ({"most": 1}, 2, "a x run has exactly 1 device"),
        ({"least": 4, "most": 4}, 2, "exactly 4 devices"),
        ({"least": 2}, 1, "needs at least 2 devices"),
        ({"most": 8}, 9, "has at most 8 devices"),
        ({"most": 8}, 8, None),
    ],
)
def test_the_number_of_devices_is_checked(limits, devices, message) -> None:
    strategy = Strategy(name="x", title="X", looks={}, wrap=lambda setup: None, **limits)
    refusal = strategy.refusal(devices)
    assert (message is None and refusal is None) or message in refusal


def test_the_cost_model_takes_the_declared_assumptions() -> None:
    assert Cost().strategies["fsdp"].share == STRATEGIES["fsdp"].costs.share
    assert set(Cost().strategies) == set(STRATEGIES)
    assert STRATEGIES["serial"].costs == Costs()
