"""When a network is compiled, and where its code is kept."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from medscale.base.errors import MedscaleError
from medscale.config.configuration import load
from medscale.config.planning import plan
from medscale.engine import compiling
from medscale.engine.plan import Recipe
from medscale.engine.train import compiled

pytestmark = pytest.mark.usefixtures("one_thread")


ROOT = Path(__file__).parents[2]


CPU = torch.device("cpu")


def test_compilation_pays_for_long_runs_of_measured_networks():
    def decided(run, images, side=224, number_format="bf16", card="NVIDIA H200", present=None):
        run_plan = plan(load(ROOT / "config.yaml"), "glaucoma", run, 1)
        run_plan = run_plan if present is None else run_plan.on_fewer(present)
        return compiling.pays(run_plan, images, side, card, number_format)

    # docs/gpu.csv: 5,778 and 8,182 images/s, and 4 and 48 s until the first step.
    pays, reason = decided("serial_amp_1gpu", 10_000_000)
    assert pays
    assert reason == (
        "it saves 509 s and takes 44 s, as measured with a plain loop on the NVIDIA H200"
        " (docs/gpu.csv)"
    )
    assert not decided("serial_amp_1gpu", 20 * 8621)[0], "it takes longer than it saves"
    assert not decided("serial_amp_1gpu", 10_000_000, side=64)[0], "small images are fast"
    assert not decided("ddp_amp_16gpu", 10_000_000)[0], "devices share the images"
    assert "saves 254 s" in decided("ddp_amp_16gpu", 10_000_000, present=2)[1], (
        "it goes on with two"
    )
    assert "on the NVIDIA H200" in decided("serial_amp_1gpu", 10_000_000, card="NVIDIA L4")[1]
    assert decided("serial_1gpu", 10**9, number_format="fp32") == (
        False,
        "docs/gpu.csv has no compiled medical_cnn in fp32",
    )


def test_compiled_code_is_kept_beside_the_replicates_of_a_run(tmp_path, monkeypatch):
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    folder = compiled.keep(tmp_path / "run", CPU)
    assert folder == compiled.keep(tmp_path / "run", CPU)
    assert folder.parent == tmp_path / "run" / "compiled"
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(folder.resolve())
    assert folder.stat().st_mode & 0o077 == 0
    monkeypatch.setattr(torch, "__version__", "another")
    assert compiled.keep(tmp_path / "run", CPU) != folder
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(MedscaleError, match="belongs to another user"):
        compiled.keep(tmp_path / "run", CPU)


def test_on_and_off_may_be_written_as_yaml_reads_them():
    assert (Recipe(graph=True).graph, Recipe(compile=False).compile) == ("on", "off")
    assert (Recipe().graph, Recipe().compile) == ("auto", "auto")
    with pytest.raises(ValidationError, match="'auto', 'on' or 'off'"):
        Recipe(graph="never")


def test_graphs_do_not_decide_the_weights_and_compilation_does():
    def digest(**recipe):
        studies = {"studies": {"glaucoma": {"recipe": recipe}}}
        return plan(
            load(ROOT / "config.yaml", studies), "glaucoma", "serial_1gpu", 1
        ).training_digest

    assert digest(graph="off") == digest(graph="on")
    assert digest(compile="off") != digest(compile="on")
