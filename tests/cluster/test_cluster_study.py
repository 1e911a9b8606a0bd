"""The small study through SLURM: resources of its jobs; results equal those without SLURM."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rig import Rig, finish, read_document

from file_tables import differences

pytestmark = pytest.mark.cluster
# Nodes, tasks, CPUs and GPUs of all nodes. A node has two GPUs, so four GPUs take both nodes.
REQUESTED = {
    "serial_1cpu": (1, 1, 1, 0),
    "ddp_2gpu": (1, 1, 2, 2),
    "fsdp_2gpu": (1, 1, 2, 2),
    "ddp_4gpu": (2, 2, 4, 4),
}


@pytest.mark.parametrize("run", REQUESTED)
def test_sacct_shows_what_the_run_asked_for(
    rig: Rig, study: Path, run: str, outcome: list[str]
) -> None:
    nodes, tasks, cpus, gpus = REQUESTED[run]
    # the last one: in a folder that stays (--cluster-folder), a change of code trains again
    *_, job = rig.accounts(Comment=f"train glaucoma/{run} seed1 ({study})", State="COMPLETED")
    allocation = dict(part.split("=") for part in job["AllocTRES"].split(","))
    assert (job["AllocNodes"], allocation["node"], allocation["cpu"]) == (
        str(nodes),
        str(nodes),
        str(cpus),
    )
    assert allocation.get("gres/gpu", "0") == str(gpus)
    steps = [
        row
        for row in rig.accounts(JobIDRaw=f"{job['JobIDRaw']}.")
        if row["JobIDRaw"].split(".")[1].isdecimal()
    ]
    assert [row["NTasks"] for row in steps] == [str(tasks)]
    outcome += [
        f"train {run}",
        f"{nodes} node(s) {job['NodeList']}, {tasks} task(s), {cpus} CPUs, {gpus} GPUs",
    ]


@pytest.mark.parametrize("run", REQUESTED)
def test_training_ran_where_it_was_to_run(rig: Rig, study: Path, run: str) -> None:
    environment = read_document(study / f"runs/glaucoma/{run}/seed1/environment.json")
    assert environment["slurm_job"] is not None
    assert (environment["container"] is None) == (rig.software != "apptainer")
    assert environment["stand_in"] == ("gpu" in run)
    assert (
        read_document(study / f"runs/glaucoma/{run}/seed1/spec.json")["nodes"] == REQUESTED[run][0]
    )


def test_preprocessing_ran_on_workers_that_were_jobs(
    rig: Rig, study: Path, local: Path, outcome: list[str]
) -> None:
    workers = [row for row in rig.accounts(JobName="medscale-dask") if "." not in row["JobIDRaw"]]
    assert len(workers) >= 2  # for the index, and for the shards
    on_cluster, on_host = (
        read_document(folder / "data/glaucoma/shards/meta.json") for folder in (study, local)
    )
    assert on_cluster["digest"] == on_host["digest"]
    assert on_cluster["chunks"] == on_host["chunks"]
    nodes = ", ".join(sorted({row["NodeList"] for row in workers}))
    outcome += [
        "Dask workers by SLURM",
        f"{len(workers)} jobs on {nodes}; the same bytes as by local workers",
    ]


def test_a_serial_run_is_the_local_one_bit_by_bit(
    study: Path, local: Path, outcome: list[str]
) -> None:
    run = Path("runs/glaucoma/serial_1cpu/seed1")
    assert (study / run / "model.safetensors").read_bytes() == (
        local / run / "model.safetensors"
    ).read_bytes()
    pd.testing.assert_frame_equal(
        predictions(study / run), predictions(local / run), check_exact=True
    )
    outcome += ["serial_1cpu against without SLURM", "equal bit by bit"]


@pytest.mark.parametrize("run", [run for run in REQUESTED if run != "serial_1cpu"])
def test_a_parallel_run_is_the_local_one_within_rounding(
    study: Path, local: Path, run: str, outcome: list[str]
) -> None:
    on_cluster, on_host = (
        predictions(folder / f"runs/glaucoma/{run}/seed1") for folder in (study, local)
    )
    assert (on_cluster["id"] == on_host["id"]).all()
    off = float(
        np.abs(on_cluster[["p_0", "p_1"]].to_numpy() - on_host[["p_0", "p_1"]].to_numpy()).max()
    )
    assert off < 1e-4
    outcome += [f"{run} against without SLURM", f"probabilities differ by at most {off:.1e}"]


def test_files_have_the_columns_and_keys_of_their_tables(study: Path) -> None:
    faults, present = differences(study)
    assert not faults, "docs/files.md differs from the files:\n" + "\n".join(faults)
    assert "results/<study>/<run>/summary.json" in present


def test_typed_again_nothing_is_done(rig: Rig, study: Path) -> None:
    configfile, log = study.with_suffix(".yaml"), study.with_suffix(".log")
    begin = log.stat().st_size
    finish(rig.snakemake(configfile, "results"), log, 120)
    assert "Nothing to be done" in log.read_text(encoding="utf-8")[begin:]


def predictions(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "predictions.parquet").sort_values(
        ["split", "id"], ignore_index=True
    )
