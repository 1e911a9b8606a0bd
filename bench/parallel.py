"""The engine against other loops, and two processes against one (`make bench-parallel`)."""

from __future__ import annotations

import math
import sys
import tempfile
from functools import partial
from pathlib import Path

import pandas as pd
import typer
from rich.console import Console

from bench.contest import Contestant, finish, hold, judge, ratio, show
from bench.inputs import make_shards, planned, write_plan
from medscale.base.code import ROOT
from medscale.base.errors import tell_user
from medscale.base.files import read_json
from medscale.engine.parallel.launch import KEEP_MEMORY

LOOPS = ("bare", "lightning", "accelerate", "two-at-once")
DEFAULT_MEMORY = "bare, default memory"  # without ``KEEP_MEMORY``, which the engine sets
JUDGED = ("engine", "bare", "two-at-once", "ddp_2cpu")
SETTLE = 3  # epochs of one or two steps until each process has all its memory
CHECKPOINTED_S = 240  # seconds of training over which the share of checkpoints is measured
OVERHEAD, SPEEDUP, CHECKPOINT = 1.02, 1.9, 0.02  # aims of the engine


def main(
    rounds: int = 3, epochs: int = 8, images: int = 64, size: int = 224, competitors: bool = True
) -> None:
    """Train medical_cnn in each loop in turns, one thread a process, and print the ratios.

    ``--no-competitors`` leaves out what only the table shows.
    """
    with tempfile.TemporaryDirectory(prefix="medscale-bench-") as temporary:
        folder = Path(temporary)
        shards = make_shards(folder / "shards", images, size)
        recipe = {"epochs": epochs, "batch_is": "per_device", "lr_scaling": "linear"}
        serial = write_plan(folder / "serial.json", planned("serial_1cpu", recipe=recipe))
        double = write_plan(folder / "ddp.json", planned("ddp_2cpu", recipe=recipe))
        halved = write_plan(folder / "halved.json", planned("ddp_2cpu", recipe={"epochs": epochs}))
        engines = {"engine": serial, "ddp_2cpu": double, "ddp_2cpu, batch halved": halved}
        contestants = [
            Contestant(name, partial(_engine, spec, shards), partial(_read, "timing.json"))
            for name, spec in engines.items()
        ]
        contestants += [
            Contestant(name, partial(_loop, name, serial, shards), partial(_read, "seconds.json"))
            for name in (*LOOPS, DEFAULT_MEMORY)
        ]
        if not competitors:
            contestants = [contestant for contestant in contestants if contestant.name in JUDGED]
        print(
            f"medical_cnn, {images} images of {size} px, batch 32 a process, one thread a process",
            flush=True,
        )
        table = hold(contestants, rounds, folder, SETTLE)
        show(table, "bare", "Seconds an epoch")
        seconds = float(table.loc[table["name"] == "engine", "seconds"].median())
        longer = planned(
            "serial_1cpu", recipe=recipe | {"epochs": math.ceil(CHECKPOINTED_S / seconds)}
        )
        share = _checkpoints(write_plan(folder / "longer.json", longer), shards, folder / "longer")
    _judge(table, share)


def _judge(table: pd.DataFrame, share: float) -> None:
    out = Console()
    overhead, speedup = ratio(table, "engine", "bare"), ratio(table, "engine", "ddp_2cpu")
    ceiling = tuple(2 * share for share in ratio(table, "bare", "two-at-once"))
    judge(f"engine / bare loop (aim: at most {OVERHEAD})", overhead, overhead[0] <= OVERHEAD)
    judge(f"speedup of ddp_2cpu (aim: at least {SPEEDUP})", speedup, speedup[0] >= SPEEDUP)
    out.print(
        "what two processes that share nothing reach: {:.3f} ({:.3f} to {:.3f})".format(*ceiling)
    )
    verdict = "[green]reached" if 0 < share <= CHECKPOINT else "[red]missed"  # 0: none was written
    out.print(
        f"checkpoints, share of {CHECKPOINTED_S} s (aim: at most {CHECKPOINT:.0%}): {share:.2%}"
        f"  {verdict}"
    )


def _engine(spec: Path, shards: Path, out: Path) -> list[str]:
    arguments = ["--spec", spec, "--shards", shards, "--out", out, "--log", out / "log.txt"]
    return [sys.executable, str(ROOT / "scripts" / "train.py"), *map(str, arguments)]


def _loop(name: str, spec: Path, shards: Path, out: Path) -> list[str]:
    kind, memory = ("bare", {}) if name == DEFAULT_MEMORY else (name, KEEP_MEMORY)
    variables = [f"{key}={value}" for key, value in memory.items()]
    loop = [sys.executable, "-m", "bench.loops", kind]
    return ["env", *variables, *loop, *map(str, (spec, shards, out))]


def _read(name: str, out: Path) -> list[float]:
    return list(read_json(out / name)["epoch_seconds"])


def _checkpoints(spec: Path, shards: Path, out: Path) -> float:
    """Return the share of a run's training time that checkpoints take by default."""
    out.mkdir()
    finish("the run with checkpoints", _engine(spec, shards, out))
    timing = read_json(out / "timing.json")
    return float(timing["seconds"]["checkpoint"] / sum(timing["epoch_seconds"]))


if __name__ == "__main__":
    tell_user(typer.run)(main)
