"""Compare the engine with other loops on this machine's GPU: docs/gpu.csv and docs/gpu.md.

`make bench-gpu ARGS="--network medical_cnn --batch 32 --format bf16"` measures a part of the table;
rows of other cells and other cards stay. Each round starts the engine and the loops again, in
turns.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
import typer

from bench.gpu_loops import WAYS
from bench.gpu_page import page
from bench.inputs import arguments, environment, make_shards, write_plan
from medscale.base.code import ROOT
from medscale.base.errors import MedscaleError, tell_user
from medscale.base.files import read_json, write_csv, write_text
from medscale.config.benchmarks import Profile
from medscale.config.configuration import load
from medscale.config.planning import plan
from medscale.engine.card_rates import COLUMNS, KEY, SOURCE, TABLE
from medscale.engine.formats import FORMATS, lacking
from medscale.engine.run import RunSpec, is_detector
from medscale.measure.record import in_turns

PAGE = ROOT / "docs" / "gpu.md"
# Network: the study that trains it, pixels of its input, pixels of its shards.
NETWORKS = {
    "medical_cnn": ("glaucoma", 224, 224),
    "efficientnet_b3": ("skin", 224, 256),
    "densenet121": ("dermatology", 224, 256),
    "resnet50": ("melanoma_all", 224, 224),
    "yolov8n": ("pneumonia", 416, 416),
}
# The engine's ways: title, strategy, whether it compiles.
ENGINE = {
    "engine": ("engine", "serial", False),
    "engine_compiled": ("engine, compiled", "serial", True),
    "engine_ddp": ("engine, DDP", "ddp", False),
    "engine_fsdp": ("engine, FSDP", "fsdp", False),
}
TITLES = {name: title for name, (title, *_) in ENGINE.items()}
TITLES |= {name: way.title for name, way in WAYS.items()}
# Of the engine's training; the first epoch warms up. An epoch of a fast network takes a second,
# since its first batch is waited for.
EPOCHS, STEPS, MOST_IMAGES = 4, 128, 8192
LIMIT_S = 420.0  # of one engine training, and of all loops of a round
SHOWN = 3000  # last characters of a process that failed, which are printed
Row = dict[str, Any]


def main(
    network: list[str] = typer.Option(list(NETWORKS)),
    batch: list[int] = typer.Option([32, 64, 128, 256]),
    number_format: list[str] = typer.Option(list(FORMATS), "--format"),
    way: list[str] = typer.Option(list(TITLES)),
    rounds: int = 3,
    gaps: bool = typer.Option(True, help="measure roofline and gaps, by profiles"),
    page_only: bool = typer.Option(False, help="write the page from the table; measure nothing"),
) -> None:
    """Measure, and write the table after each way of a network, batch size and format."""
    if not page_only:
        if (reason := _no_card()) is not None:
            print(f"bench-gpu: nothing is measured, as {reason}")
            return
        about = card()
        with tempfile.TemporaryDirectory(prefix="medscale-bench-") as temporary:
            for cell in product(network, batch, number_format):
                for rows in measure(*cell, way, rounds, Path(temporary), gaps=gaps):
                    save(pd.DataFrame([about | row for row in rows]))
                    write_text(PAGE, page(_read(), TITLES))
    write_text(PAGE, page(_read(), TITLES))


def _no_card() -> str | None:
    """Return why this machine cannot be measured; None if it has a GPU."""
    import torch

    return None if torch.cuda.is_available() else "this machine has no GPU that PyTorch can use"


def card() -> Row:
    """Return the columns that describe card, driver, versions and date."""
    import pynvml
    import torch

    pynvml.nvmlInit()
    return {
        "card": torch.cuda.get_device_name(0),
        "driver": str(pynvml.nvmlSystemGetDriverVersion()),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "date": datetime.now(UTC).date().isoformat(),
        "source": SOURCE,
    }


def measure(
    network: str,
    batch: int,
    name: str,
    ways: list[str],
    rounds: int,
    folder: Path,
    *,
    gaps: bool = True,
) -> Iterator[list[Row]]:
    """Yield, after each measurement, a row for each way: median and range over its rounds so far.

    A way that cannot be measured has a note with the reason.
    """
    rounds_of: dict[str, list[Row]] = {way: [] for way in ways}
    cell = {"network": network, "size": NETWORKS[network][1], "batch": batch, "format": name}
    base: float | None = None
    for number in range(rounds):
        loops = [way for way in in_turns(ways, number) if way in WAYS]
        engines = [way for way in in_turns(ways, number) if way in ENGINE]
        for turn, names in in_turns([(_loops, loops), (_engines, engines)], number):
            for way, row in turn(network, batch, name, names, folder, gaps):
                rounds_of[way].append(row)
                print(json.dumps(cell | row), flush=True)
                base = base or row.get("roofline_s")
                yield [
                    cell | {"way": way} | summary(rows, batch, base)
                    for way, rows in rounds_of.items()
                    if rows
                ]


def summary(rows: list[Row], batch: int, roofline_s: float | None) -> Row:
    """Return the columns of one way from its rounds."""
    measured = pd.DataFrame([row for row in rows if "images_per_second" in row])
    notes = sorted({row["note"] for row in rows if row.get("note")})
    if measured.empty:
        return {"rounds": 0, "note": "; ".join(notes)}
    rate = measured["images_per_second"]
    return {
        "images_per_second": rate.median(),
        "low": rate.min(),
        "high": rate.max(),
        "rounds": len(rate),
        "note": "; ".join(notes),
        "roofline": None if roofline_s is None else roofline_s / (batch / rate.median()),
        **{
            column: measured[column].median()
            for column in ("peak_mb", "joules_image", "gap", "data", "setup_s")
            if column in measured and measured[column].notna().any()
        },
    }


def _loops(
    network: str, batch: int, name: str, ways: list[str], _folder: Path, gaps: bool
) -> Iterator[tuple[str, Row]]:
    """Yield a row of each plain loop and package; a note names a process that ends early."""
    line = [sys.executable, "-m", "bench.gpu_loops", network, str(NETWORKS[network][1])]
    unmeasured = list(ways)
    try:
        process = _run([*line, str(batch), name, *ways, "--gaps" if gaps else "--no-gaps"])
        output = process.stdout
        reason = f"the process ended with status {process.returncode}"
        if process.returncode:
            print(process.stderr[-SHOWN:], flush=True)
    except subprocess.TimeoutExpired as late:
        output = (late.stdout or b"").decode()  # the lines of ways that were measured in time
        reason = f"not finished within {LIMIT_S:g} s"
    for text in output.splitlines():
        if text.startswith("{"):
            row = json.loads(text)
            unmeasured.remove(row["way"])
            yield row["way"], row
    for way in unmeasured:
        yield way, {"way": way, "note": reason}


def _engines(
    network: str, batch: int, name: str, ways: list[str], folder: Path, gaps: bool
) -> Iterator[tuple[str, Row]]:
    """Yield a row of each way of the engine, trained as the workflow does."""
    for way in ways:
        try:
            row = _engine(network, batch, name, way, folder)
            if gaps and "note" not in row:
                profile = folder / f"profile-{network}-{batch}-{name}-{way}"
                row |= _gap(folder / "spec.json", row.pop("shards"), profile)
            row.pop("shards", None)
            yield way, {"way": way} | row
        except subprocess.TimeoutExpired:
            yield way, {"way": way, "note": f"not finished within {LIMIT_S:g} s"}
        except MedscaleError as error:
            yield way, {"way": way, "note": str(error).splitlines()[0][:200]}


def _engine(network: str, batch: int, name: str, way: str, folder: Path) -> Row:
    """Train a run on random shards, and return its row.

    Energy is that of the whole training. The row also has the folder of the shards.
    """
    import torch

    if (reason := lacking(name, torch.device("cuda"))) is not None:  # type: ignore[arg-type]
        return {"note": reason}
    study, _, side = NETWORKS[network]
    images = min(batch * STEPS, MOST_IMAGES)
    shards = folder / f"shards-{images}-{side}"
    if not shards.exists():
        make_shards(shards, images, side, boxes=is_detector(network))
    out = folder / "run"
    spec = write_plan(folder / "spec.json", planned(study, network, batch, name, way))
    script = "train_detector.py" if is_detector(network) else "train.py"
    options = {"--spec": spec, "--shards": shards, "--out": out, "--log": folder / "log.txt"}
    shutil.rmtree(out, ignore_errors=True)
    process = _run([sys.executable, f"scripts/{script}", *arguments(options)])
    if process.returncode:
        print(process.stderr[-SHOWN:], flush=True)
        return {"note": (process.stderr.strip().splitlines() or ["failed"])[-1][:200]}
    timing = read_json(out / "timing.json")
    if (number_format := read_json(out / "environment.json")["format"]) != name:
        raise MedscaleError(f"the engine computed in {number_format}, not in {name}")
    joules, memory = timing["energy_joules"], timing["peak_memory_mb"]["device"]
    return {
        "images_per_second": timing["images_per_second"],
        "peak_mb": max(memory) if memory else None,
        "joules_image": joules / (images * timing["epochs"]) if joules else None,
        "data": waiting(pd.read_csv(out / "history.csv")),
        "setup_s": timing["wall_seconds"] - sum(timing["epoch_seconds"]),
        "shards": shards,
    }


def waiting(history: pd.DataFrame) -> float:
    """Return the share of training in which batches are waited for; the first epoch warms up."""
    rows = history.iloc[1:] if len(history) > 1 else history
    return float(rows["data_s"].sum() / rows["seconds"].sum())


def _gap(spec: Path, shards: Path, out: Path) -> Row:
    """Profile the steps of a plan; return the share of time in which the GPU runs no kernel.

    Nothing is returned if ``out`` exists, as the plan was profiled before.
    """
    if out.exists():
        return {}
    options = {"--plan": spec.read_text(), "--settings": Profile(memory=False).model_dump_json()}
    paths = {"--shards": shards, "--out": out, "--log": out.with_suffix(".txt")}
    try:
        line = [sys.executable, "scripts/profile_run.py", *arguments(options), *arguments(paths)]
        process = _run(line)
    except subprocess.TimeoutExpired:
        return {"note": f"gaps: not profiled within {LIMIT_S:g} s"}
    if process.returncode:
        lines = process.stderr.strip().splitlines() or ["failed"]
        return {"note": f"gaps: {lines[-1][:200]}"}
    shares = read_json(out / "profile.json")["numbers"]
    return {"gap": shares["idle"] + shares["data"]}


def planned(study: str, network: str, batch: int, name: str, way: str) -> Any:
    """Return the plan of a run of the engine; MedscaleError where the engine has no such run."""
    _, strategy, compiled = ENGINE[way]
    amp = name in ("bf16", "fp16")
    recipe: Row = {"epochs": EPOCHS, "batch_is": "global", "patience": None, "compile": compiled}
    recipe |= {"tf32": name == "tf32", "half": name if amp else "auto"}
    detects = is_detector(network)
    if detects and compiled:
        raise MedscaleError("runs of detection have no setting that compiles")
    section: Row = {"recipe": recipe, "model": {"pretrained": None}, "tensorboard": False}
    if detects:
        section["detect"] = {"epochs": EPOCHS, "batch_size": batch}
    names = ("efficientnet_b3", "densenet121")
    section["models"] = {n: {"pretrained": None} for n in names if study in ("skin", "dermatology")}
    spec = RunSpec(strategy=strategy, devices=1, device="gpu", amp=amp, batch=batch)
    spec = spec.model_copy(update={"model": network if detects else None})
    config = load(ROOT / "config.yaml", {"studies": {study: section}})
    return plan(config, study, spec, 1)


def _run(line: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        line, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=LIMIT_S
    )


def save(rows: pd.DataFrame, table: Path = TABLE) -> None:
    """Write rows into the table, in place of those of the same cells."""
    rows = rows.reindex(columns=list(COLUMNS))
    old = _read(table)
    if not old.empty:
        new = set(rows[list(KEY)].itertuples(index=False, name=None))
        is_replaced = [
            tuple(row) in new for row in old[list(KEY)].itertuples(index=False, name=None)
        ]
        rows = pd.concat([old[[not s for s in is_replaced]], rows], ignore_index=True)
    write_csv(table, rows.sort_values(list(KEY), ignore_index=True, kind="stable"))


def _read(table: Path = TABLE) -> pd.DataFrame:
    content = pd.read_csv(table) if table.is_file() else pd.DataFrame()
    return content.reindex(columns=list(COLUMNS))  # an older table has fewer


if __name__ == "__main__":
    tell_user(typer.run)(main)
