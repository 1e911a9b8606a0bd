"""A study with a result of two replicates whose networks predict; nothing is trained."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import NoReturn

import pytest
import torch
from safetensors.torch import save_file

from medscale.base.files import read_json
from medscale.data.shards import Shards
from medscale.engine.models.registry import build
from medscale.evaluate.replicates import read
from medscale.serve import bundle
from synthetic_runs import make_study

RUN = "serial_1cpu"
CLASSES = ["normal", "glaucoma"]


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each use of the network is an error."""

    def refuse(*arguments: object, **options: object) -> NoReturn:
        pytest.fail(f"the network is used: {arguments}")

    for name in ("getaddrinfo", "create_connection"):
        monkeypatch.setattr(socket, name, refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture(scope="session")
def result(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder results/glaucoma/serial_1cpu, in a study's working folder."""
    workdir = tmp_path_factory.mktemp("exchange")
    (folder,) = make_study(
        workdir, "glaucoma", CLASSES, [RUN], metadata={"age": [50, 60, 70]}, drawn=True
    )
    replicates = [read(run) for run in sorted((workdir / "runs" / "glaucoma" / RUN).iterdir())]
    for number, replicate in enumerate(replicates):
        torch.manual_seed(number)
        network = build(replicate.plan.model, len(CLASSES), 3, 0)
        save_file(network.state_dict(), replicate.folder / "model.safetensors")
        (folder / f"seed{replicate.plan.seed}.safetensors").unlink()
    shards = Shards.open(workdir / "data" / "glaucoma" / "shards")
    bundle.put(replicates, shards, folder, read_json(folder / "summary.json"))
    return folder
