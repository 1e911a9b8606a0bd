"""Benchmarks: contests take turns and compare within a round; each loop trains the same plan."""

import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

from bench.contest import Contestant, hold, ratio
from bench.inputs import make_shards, planned
from bench.loops import Epochs, bare
from medscale.base.errors import MedscaleError
from medscale.data.shards import Shards
from medscale.engine.models.registry import build


def sleeper(name: str, code: str) -> Contestant:
    return Contestant(
        name, lambda out: [sys.executable, "-c", code, str(out)], lambda out: [9.0, 1.0, 2.0, 3.0]
    )


def test_contestants_take_turns_and_the_first_repetition_is_left_out(tmp_path: Path) -> None:
    table = hold([sleeper("a", ""), sleeper("b", "")], 2, tmp_path)
    assert table["name"].tolist() == ["a", "b", "b", "a"]
    assert set(table["seconds"]) == {2.0}


def test_a_failing_contestant_says_why(tmp_path: Path) -> None:
    with pytest.raises(MedscaleError, match=r"(?s)broken failed.*no such luck"):
        hold([sleeper("broken", "raise SystemExit('no such luck')")], 1, tmp_path)


def test_ratios_are_taken_within_rounds() -> None:
    seconds = [1.0, 2.0, 10.0, 30.0, 4.0, 8.0]
    table = pd.DataFrame({"round": [0, 0, 1, 1, 2, 2], "name": ["a", "b"] * 3, "seconds": seconds})
    assert ratio(table, "b", "a") == (2.0, 2.0, 3.0)


def test_the_bare_loop_learns_and_is_timed_by_epoch(tmp_path: Path) -> None:
    plan = planned(
        "serial_1cpu", model={"name": "tiny_cnn", "options": {"width": 4}}, recipe={"epochs": 2}
    )
    shards = Shards.open(make_shards(tmp_path / "shards", 40, 16))
    network = build(plan.model, 2)
    before = [p.detach().clone() for p in network.parameters()]
    data = Epochs(plan, shards)
    adam = torch.optim.Adam(network.parameters(), lr=plan.recipe.lr)
    assert len(bare(network, adam, data, plan)) == 2
    assert len(data) == 2
    assert all((p != b).any() for p, b in zip(network.parameters(), before, strict=True))
