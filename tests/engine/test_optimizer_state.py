"""A checkpoint holds tensors alone; the optimizer's settings are those of the plan."""

from __future__ import annotations

import io
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from medscale.engine.parallel.precision import Precision
from medscale.engine.train.recipe import optimizer, set_rate
from medscale.engine.train.state import Tensors
from training_runs import recipe_plan


def state_of(name: str, weight_decay: float) -> SimpleNamespace:
    """A layer after one step of an optimizer."""
    plan = recipe_plan("serial_1cpu", optimizer=name, weight_decay=weight_decay)
    network = nn.Linear(3, 2)
    rule = optimizer(network, plan.recipe, Precision("fp32", torch.device("cpu")))
    set_rate(rule, 0.1)
    network(torch.rand(4, 3)).sum().backward()
    rule.step()
    tensors = Tensors(SimpleNamespace(network=network), rule, SimpleNamespace(weights={}))
    return SimpleNamespace(network=network, optimizer=rule, tensors=tensors)


@pytest.mark.parametrize(("name", "count"), [("adamw", 6), ("adam", 6), ("sgd", 2)])
def test_state_is_restored_and_settings_are_not(name, count):
    """AdamW keeps a step and two moments for each of two parameters, SGD a momentum."""
    torch.manual_seed(0)
    before, after = state_of(name, 0.1), state_of(name, 0.2)
    collected = before.tensors.collect(with_best=False)
    assert len(collected["optimizer"]) == count
    assert all(isinstance(value, Tensor) for part in collected.values() for value in part.values())
    torch.save(collected, file := io.BytesIO())
    file.seek(0)
    rates = [group["lr"] for group in after.optimizer.param_groups]
    after.tensors.restore(torch.load(file))
    for mine, other in zip(after.network.parameters(), before.network.parameters(), strict=True):
        assert torch.equal(mine, other)
        state = before.optimizer.state[other]
        assert {key: value.tolist() for key, value in after.optimizer.state[mine].items()} == {
            key: value.tolist() for key, value in state.items()
        }
    (group,) = after.optimizer.param_groups
    assert group["lr"] is rates[0], "a captured step reads the tensor that it was captured with"
    assert group["weight_decay"] == 0.2
