"""Trainings of a small network, as the rule `train` starts them or with forked ranks."""

from __future__ import annotations

import atexit
import json
import os
import select
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from medscale.base.files import write_json
from medscale.config.configuration import load
from medscale.config.layers import merge
from medscale.config.planning import plan
from medscale.engine.plan import RunPlan
from medscale.engine.run import RunSpec
from warm_python import TRAINING, Program
from warm_python import start as start_warm

ROOT = Path(__file__).parent.parent
CLASSIFICATION = "medscale.engine.train.task:Classification"
TINY = {
    "model": {"name": "tiny_cnn", "options": {"width": 8}},
    "augment": {"rotate": 15, "brightness": 0.2},
    "recipe": {"epochs": 1, "batch_size": 20, "batch_is": "global", "lr": 1e-2, "warmup_epochs": 0},
}
# Batch norm, dropout, EMA, a plateau and patience: everything that a restart could lose.
WHOLE = {
    "model": {"name": "medical_cnn", "options": {"width": 4}},
    "recipe": {"epochs": 4, "schedule": "plateau", "patience": 3, "ema": 0.9, "batch_size": 8},
    "parallel": {"checkpoint_every_steps": 3, "microbatches": 2},
}
_references: dict[str, Path] = {}


@dataclass
class Training:
    """Replicates on this machine.

    A call trains as the rule `train` does: script, launcher and ranks. ``start`` does so in
    processes whose imports are done (``warm_python``). ``fork`` trains with the same code of a
    rank, but without script and launcher.
    """

    folder: Path
    shards: Path
    settings: dict[str, Any]
    on_cards: bool = False  # on GPUs, for which no CPU process stands in

    def paths(self, run: str, name: str | None = None, **changes: Any) -> list[str]:
        """Write the plan of a run; return its file, the shards, the run folder and the log."""
        name, fold = name or run, changes.pop("fold", None)
        study = merge(
            self.settings, {key: value for key, value in changes.items() if key != "node"}
        )
        top = {"node": changes["node"]} if "node" in changes else {}
        top |= {"stand_in_gpu": False} if self.on_cards else {}
        config = load(
            ROOT / "config.yaml", {"scale": "demo", "studies": {"glaucoma": study}, **top}
        )
        spec = self.folder / f"{name}.json"
        write_json(spec, plan(config, "glaucoma", run, 1, fold).model_dump(mode="json"))
        log = self.folder / f"{name}.log"
        return [str(path) for path in (spec, self.shards, self.folder / name, log)]

    def command(self, run: str, name: str | None = None, **changes: Any) -> list[str]:
        """Write the plan of a run; return the command line that trains it into ``folder/name``."""
        options = ("--spec", "--shards", "--out", "--log")
        paths = zip(options, self.paths(run, name, **changes), strict=True)
        script = str(ROOT / "scripts" / "train.py")
        return [sys.executable, script, *(part for option in paths for part in option)]

    def start(self, run: str, name: str | None = None, **changes: Any) -> Program:
        """Start a run in the background; its messages are in its log."""
        command = self.command(run, name, **changes)[1:]
        return start_warm(command, TRAINING, cwd=self.folder, ranks=True)

    def wait_for(self, text: str, name: str, seconds: float = 300) -> None:
        """Wait until a run's log contains a text."""
        log, end = self.folder / f"{name}.log", time.monotonic() + seconds
        while not (log.exists() and text in log.read_text()):
            assert time.monotonic() < end, f"{text!r} never came"
            time.sleep(0.02)

    def __call__(self, run: str, name: str | None = None, **changes: Any) -> Path:
        """Train a run to its end; return its folder."""
        process = subprocess.run(
            self.command(run, name, **changes), stderr=subprocess.PIPE, text=True, timeout=300
        )
        assert process.returncode == 0, process.stderr
        return self.folder / (name or run)

    def fork(self, run: str, name: str | None = None, *, status: int = 0, **changes: Any) -> Path:
        """Train a run with forked ranks until they end with a status; return its folder."""
        fork_ranks(self.paths(run, name, **changes), RunSpec.parse(run).devices, status=status)
        return self.folder / (name or run)

    def reference(self, run: str = "serial_1cpu", **changes: Any) -> Path:
        """Return the folder of a run, trained once for all tests of this process."""
        key = f"{run} {changes}"
        if key not in _references:
            _references[key] = self.fork(run, f"reference{len(_references)}", **changes)
        return _references[key]


def recipe_plan(run: str = "serial_1cpu", **recipe: Any) -> RunPlan:
    """The plan of a run of the delivered study of glaucoma, with changes of its recipe."""
    config = load(ROOT / "config.yaml", {"studies": {"glaucoma": {"recipe": recipe}}})
    return plan(config, "glaucoma", run, 1)


def fork_ranks(paths: list[str], ranks: int, task: str = CLASSIFICATION, status: int = 0) -> None:
    """Train a plan with forked ranks; fail unless all of them end with ``status``.

    Args:
        paths: plan, shards, run folder and log.
        ranks: number of ranks.
        task: ``module:name`` of the function or class that makes the task.
        status: expected exit status of each rank.
    """
    server, reports = _fork_server(), Path(f"{paths[3]}.reports")
    shutil.rmtree(reports, ignore_errors=True)
    Path(f"{reports}.store").unlink(missing_ok=True)
    reports.mkdir(parents=True)
    request = {"paths": paths, "ranks": ranks, "task": task, "reports": str(reports)}
    print(json.dumps(request), file=server.stdin, flush=True)
    assert server.stdout is not None
    statuses: object = "none in 300 s"
    ended: list[Any] = []
    try:
        ended = select.select([server.stdout], [], [], 300)[0]
    finally:
        if not ended:  # the ranks end with the server
            server.kill()
            _fork_server.cache_clear()
    if ended:
        statuses = json.loads(server.stdout.readline())
    texts = "\n".join(file.read_text() for file in sorted(reports.iterdir()))
    assert statuses == [status] * ranks, f"exit statuses {statuses}: {texts}"


@cache
def _fork_server() -> subprocess.Popen[str]:
    """Start the process that ranks are forked from; it ends with this one."""
    one_thread = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}  # as the launcher sets on CPUs
    search = os.pathsep.join([str(ROOT / "tests"), *sys.path])
    server = subprocess.Popen(
        [sys.executable, str(ROOT / "tests" / "forked_ranks.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | one_thread | {"PYTHONPATH": search},
    )
    atexit.register(server.kill)
    return server
