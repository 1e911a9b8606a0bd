"""Tests of settings that training decides from its images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from medscale.config import configuration as config
from medscale.config.planning import plan
from medscale.engine.plan import RunPlan
from medscale.engine.resolve import record, recorded, resolve

CPU = torch.device("cpu")
BASE = Path(__file__).parents[2] / "config.yaml"
MINE = {"source": {"kind": "folder", "path": "images"}, "classes": ["a", "b"]}


def make_plan(**recipe) -> RunPlan:
    loaded = config.load(BASE, {"studies": {"mine": MINE | {"recipe": recipe}}})
    return plan(loaded, "mine", "serial_1cpu", 1)


@pytest.mark.parametrize(
    ("counts", "weights"), [([300, 100], False), ([301, 100], True), ([50, 0, 60], False)]
)
def test_class_weights_begin_above_a_ratio_of_three(counts, weights):
    assert resolve(make_plan(), np.array(counts), 224, CPU).recipe.class_weights is weights


@pytest.mark.parametrize(
    ("images", "dropout"), [(400, 0.0), (1999, 0.0), (2000, 0.1), (50_000, 0.3)]
)
def test_dropout_grows_with_the_number_of_images(images, dropout):
    resolved_plan = resolve(make_plan(), np.array([images // 2, images - images // 2]), 224, CPU)
    assert resolved_plan.model.options["dropout"] == dropout


@pytest.mark.parametrize(("images", "epochs"), [(320, 10), (321, 10), (10_000, 1), (32, 100)])
def test_steps_become_whole_epochs(images, epochs):
    resolved_plan = resolve(make_plan(steps=100), np.array([images, 0]), 224, CPU)
    assert (resolved_plan.recipe.epochs, resolved_plan.recipe.steps) == (epochs, None)


def test_a_plan_that_leaves_nothing_open_is_unchanged():
    settled = {"studies": {"glaucoma": {"recipe": {"compile": False}}}}
    published = plan(config.load(BASE, settled), "glaucoma", "serial_1cpu", 1)
    assert resolve(published, np.array([1000, 10]), 224, CPU) == published
    settled["studies"]["glaucoma"]["recipe"]["class_weights"] = "auto"  # of the same network
    open_plan = plan(config.load(BASE, settled), "glaucoma", "serial_1cpu", 1)
    assert resolve(open_plan, np.array([1000, 10]), 224, CPU).recipe.class_weights is True


def test_a_decision_survives_its_record():
    open_plan = make_plan()
    resolved_plan = resolve(open_plan, np.array([400, 50]), 224, CPU)
    assert recorded(open_plan, {"resolved": record(resolved_plan)}) == resolved_plan
    assert recorded(open_plan, {}) == open_plan
