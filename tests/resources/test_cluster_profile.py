"""The resources that jobs request from SLURM, and the profile; need no cluster."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from cluster_settings import COMPLETE, IN_IMAGE, OURS, SITE
from medscale.base.errors import MedscaleError
from medscale.config.configuration import Config, load
from medscale.config.layers import merge
from medscale.config.planning import plan
from medscale.report.chapters import chapters_of
from medscale.resources import cost, jobs, site, slurm
from medscale.resources.jobs import Failures, Request
from medscale.resources.submit import Submission
from medscale.workflow.graph import Graph
from training_runs import ROOT


@pytest.fixture(scope="module")
def config() -> Config:
    return load(ROOT / "config.yaml", COMPLETE)


def resources(needs: Request, failed: Failures = Failures(), **more: Any) -> dict[str, Any]:
    fields = {"name": "train a/b seed1 (.)", "warn": True, "limit_mb": None, **more}
    return jobs.resources(OURS, needs, failed, **fields)


def test_preprocessing_without_a_cluster_has_the_cores_of_the_machine(config: Config) -> None:
    study, alone = {"study": "skin"}, load(ROOT / "config.yaml")
    assert jobs.request(config, "shards", study, 2).cpus == config.node.cpus
    here = jobs.request(alone, "shards", study, 2)
    assert here.cpus == 2
    assert here.minutes > 5 * jobs.request(config, "shards", study, 2).minutes


@pytest.mark.parametrize(
    ("run", "nodes", "gpus", "cpus"),
    [
        ("serial_1cpu", 1, 0, 1),
        ("ddp_16cpu", 1, 0, 16),
        ("ddp_64cpu", 2, 0, 32),
        ("serial_1gpu", 1, 1, 8),
        ("ddp_amp_4gpu", 1, 4, 32),
        ("fsdp_8gpu", 2, 4, 32),
        ("ddp_6gpu", 2, 3, 24),
    ],
)
def test_a_run_requests_the_resources_of_its_name(
    config: Config, run: str, nodes: int, gpus: int, cpus: int
) -> None:
    needs = jobs.request(config, "train", {"study": "glaucoma", "run": run, "replicate": "seed1"})
    assert (needs.nodes, needs.gpus, needs.cpus) == (nodes, gpus, cpus)
    run_plan = plan(config, "glaucoma", run, 0)
    estimate = cost.estimate(config, run_plan)
    assert (needs.minutes, needs.memory_mb) == (estimate.minutes, estimate.memory_mb)


def test_a_job_of_dask_or_a_benchmark_requests_cores_and_memory_of_its_processes(
    config: Config,
) -> None:
    settings = {"dask": {"scheduler": "slurm"}}
    settings["studies"] = {
        "skin": {
            "benchmarks": {
                "enhance": {"workers": [1, 8, 2]},
                "loading": {"processes": [4]},
                "export": {"runs": ["serial_1gpu"]},
                "inference": {},
            }
        }
    }
    changed = load(ROOT / "config.yaml", merge(COMPLETE, settings))

    def requested(rule: str, config: Config = changed) -> tuple[int, int]:
        needs = jobs.request(config, rule, {"study": "skin"}, 3)
        assert (needs.nodes, needs.gpus) == (1, 0)
        return needs.cpus, needs.memory_mb

    one_mb, cpus = jobs.DASK_WORKER_MB, config.node.cpus
    assert [requested(rule) for rule in ("index", "shards", "enhance", "loading")] == [
        *((1, one_mb), (1, one_mb), (8, 8 * one_mb), (4, 4 * one_mb))
    ]
    assert requested("index", config) == (cpus, cpus * one_mb)
    assert requested("evaluate") == (3, 0)
    # Those of a whole node, not of the machine on which Snakemake runs.
    assert requested("export") == requested("inference") == (cpus, 0)
    external = {"study": "skin_external1", "run": "serial_1gpu"}
    sets = {"skin": {"external": [{"title": "another", "source": {"kind": "folder", "path": "x"}}]}}
    with_set = load(ROOT / "config.yaml", merge(COMPLETE, {"studies": sets}))
    assert jobs.request(with_set, "external", external, 3).cpus == cpus
    assert jobs.request(config, "paper_pdf", {}) == Request(1, 0, 1, 0.0, 0)


def test_more_processes_than_a_node_has_cores_share_them(config: Config) -> None:
    """SLURM refuses a job that asks for more; the memory is still that of all processes."""
    most = config.node.cpus + 8
    benchmarks = {"enhance": {"workers": [1, most]}, "loading": {"processes": [most]}}
    settings = {"dask": {"workers": most}, "studies": {"skin": {"benchmarks": benchmarks}}}
    changed = load(ROOT / "config.yaml", merge(COMPLETE, settings))
    for rule in ("index", "shards", "enhance", "loading"):
        needs = jobs.request(changed, rule, {"study": "skin"})
        assert (needs.cpus, needs.memory_mb) == (config.node.cpus, most * jobs.DASK_WORKER_MB)


def test_the_benchmark_of_number_formats_requests_the_time_of_all_its_trainings(
    config: Config,
) -> None:
    estimates = cost.of_formats(config, "glaucoma")
    needs = jobs.request(config, "formats", {"study": "glaucoma"})
    one = jobs.request(config, "train", {"study": "glaucoma", "run": "serial_1gpu"})
    assert (needs.nodes, needs.gpus, needs.cpus) == (one.nodes, one.gpus, one.cpus)
    assert needs.minutes == sum(estimate.minutes for estimate in estimates)
    memories = {estimate.memory_mb for estimate in estimates}
    assert needs.memory_mb == max(memories)


def test_a_chapter_of_the_report_requests_the_time_of_the_report(config: Config) -> None:
    minutes = cost.preparation(config, "skin", 1)["report"]
    assert minutes > 1
    for rule in (f"{chapter.name}_report" for chapter in chapters_of(config, "skin")):
        assert jobs.request(config, rule, {"study": "skin"}).minutes == minutes


def test_a_stand_in_run_asks_for_the_gpus_of_its_name_where_there_is_a_cluster() -> None:
    local_config, cluster_config = (
        load(ROOT / "config.yaml", {"scale": "demo"}),
        load(ROOT / "config.yaml", {**COMPLETE, "scale": "demo"}),
    )
    assert plan(local_config, "glaucoma", "ddp_8gpu", 0).nodes == 1
    run_plan = plan(cluster_config, "glaucoma", "ddp_8gpu", 0)
    assert (run_plan.nodes, run_plan.stand_in, run_plan.backend) == (2, True, "cpu")
    needs = jobs.request(cluster_config, "train", {"study": "glaucoma", "run": "ddp_8gpu"})
    assert (needs.gpus, needs.cpus) == (4, 4)


def test_one_node_gets_one_task_and_several_one_each() -> None:
    one_node = resources(Request(nodes=1, gpus=4, cpus=32, minutes=30, memory_mb=9000))
    expected = {"nodes": 1, "gpu": 4, "tasks_per_gpu": 0, "cpus_per_task": 32}
    expected |= {"mpi": None, "tasks": None, "gres": None}
    assert {name: one_node[name] for name in expected} == expected
    two_nodes = resources(Request(nodes=2, gpus=4, cpus=32, minutes=30, memory_mb=9000))
    expected = {"nodes": 2, "tasks": 2, "mpi": "srun", "gres": "gpu:4", "gpu": None}
    assert {name: two_nodes[name] for name in expected} == expected
    assert "--ntasks-per-node=1" in two_nodes["slurm_extra"]
    assert set(one_node) == set(two_nodes) == set(jobs.RESOURCES)
    assert "--gres=gpu:4" in jobs.srun(OURS, Request(2, 4, 32, 30, 9000))
    assert "gres" not in jobs.srun(OURS, Request(2, 0, 32, 30, 9000))


def test_time_and_memory_have_margins_steps_and_limits() -> None:
    assert resources(Request(1, 0, 1, 0.5, 10))["runtime"] == 20
    assert resources(Request(1, 0, 1, 61, 10))["runtime"] == 125
    assert resources(Request(1, 0, 1, 5000, 10))["runtime"] == 600
    assert resources(Request(1, 0, 1, 1, 10))["mem_mb"] == 1000 + jobs.SNAKEMAKE_MB
    assert resources(Request(1, 0, 1, 1, 90_000), limit_mb=64_000)["mem_mb"] == 64_000


def test_only_a_failure_that_says_so_asks_for_more(tmp_path: Path) -> None:
    needs = Request(1, 0, 1, 60, 4000)
    before = resources(needs)
    assert resources(needs, jobs.failures(tmp_path / "none", 2, ".")) == before
    for number, log_text in enumerate(
        (
            "slurmstepd: error: *** JOB 7 ON n1 CANCELLED AT 2026-01-01T00:00:00 ***",
            "slurmstepd: error: *** JOB 8 ON n1 CANCELLED AT 2026-01-01 DUE TO TIME LIMIT ***",
            "slurmstepd: error: Detected 1 oom-kill event(s) in StepId=9.0",
            "medscale: error: out of memory with 32 images a device. Try serial_1gpu_bs16",
        )
    ):
        (tmp_path / f"{number}.log").write_text(log_text)
        os.utime(tmp_path / f"{number}.log", (number, number))
    (tmp_path / "demo.log").write_text("medscale: job of work/demo\nDUE TO TIME LIMIT\n")
    assert jobs.failures(tmp_path, 4, ".") == Failures(time=1, memory=1)
    assert jobs.failures(tmp_path, 2, ".") == Failures(time=0, memory=1)
    assert jobs.failures(tmp_path, 0, ".") == Failures()
    more = resources(needs, Failures(time=1, memory=2))
    assert (more["runtime"], more["mem_mb"]) == (2 * before["runtime"], 4 * before["mem_mb"])


def test_out_of_memory_in_our_own_words_is_understood() -> None:
    source = (ROOT / "src/medscale/engine/parallel/failures.py").read_text(encoding="utf-8")
    assert "out-of-memory killer" in source
    assert jobs.OUT_OF_MEMORY.search(
        "ended by SIGKILL (the system's out-of-memory killer does that: use a smaller batch)"
    )


def test_names_are_for_people() -> None:
    assert jobs.description(
        "train", {"study": "glaucoma", "run": "ddp_2gpu", "replicate": "seed1"}, "work/demo"
    ) == ("train glaucoma/ddp_2gpu seed1 (work/demo)")
    assert (
        jobs.description("shards", {"study": "skin", "shards": "shards"}, ".")
        == "shards skin shards (.)"
    )
    extra = resources(Request(1, 0, 1, 1, 1))["slurm_extra"]
    assert "--comme='train a/b seed1 (.)' --signal=USR1@180" in extra
    assert "--signal" not in resources(Request(1, 0, 1, 1, 1), warn=False)["slurm_extra"]


def test_the_plugin_accepts_what_is_asked_for() -> None:
    from snakemake_executor_plugin_slurm.validation import validate_slurm_extra

    for nodes in (1, 2):
        extra = resources(Request(nodes, 2, 2, 1, 1))["slurm_extra"]
        validate_slurm_extra(SimpleNamespace(resources=SimpleNamespace(slurm_extra=extra)))


def test_several_nodes_are_started_by_srun_with_the_image_on_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("medscale.resources.submit.signal.signal", lambda *_: None)
    submission = Submission(Graph(COMPLETE), "containers/medscale-0.sif", IN_IMAGE)
    one_node_job, two_node_job = (
        SimpleNamespace(study="glaucoma", run=f"ddp_{n}gpu") for n in (4, 8)
    )
    assert submission.start(one_node_job) == ""
    assert submission.train_image(one_node_job) == "containers/medscale-0.sif"
    assert submission.start(two_node_job).startswith(
        "srun --nodes=2 --ntasks=2 --ntasks-per-node=1 --cpus-per-task=32 "
    )
    assert submission.start(two_node_job).endswith("--nv containers/medscale-0.sif ")
    assert submission.train_image(two_node_job) is None
    assert submission.start_dask() == ""
    assert Submission(Graph({}), "containers/medscale-0.sif", IN_IMAGE).start(two_node_job) == ""


def test_dask_workers_are_started_in_the_image_by_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medscale.resources.submit.signal.signal", lambda *_: None)
    study = Graph(merge(COMPLETE, {"dask": {"scheduler": "slurm", "workers": 64}}))
    line = Submission(study, "containers/medscale-0.sif", IN_IMAGE).start_dask()
    assert '"account":"physics"' in line
    assert '"cores":32' in line
    assert line.endswith("--nv containers/medscale-0.sif ")
    assert (
        f"--python 'apptainer exec --home {ROOT} --nv containers/medscale-0.sif python' --" in line
    )


def test_options_and_partitions_reach_the_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"qos": "long", "constraint": "a100", "reservation": "course"}
    cluster = OURS.model_copy(update={"options": options, "cpu_partition": "cpu"})

    def requested(gpus: int) -> dict[str, Any]:
        needs = Request(1, gpus, 1, 1, 1)
        return jobs.resources(cluster, needs, Failures(), "name", warn=True, limit_mb=None)

    assert (requested(0)["slurm_partition"], requested(1)["slurm_partition"]) == ("cpu", "gpu")
    assert (requested(1)["qos"], requested(1)["constraint"]) == ("long", "a100")
    assert "--reservation=course" in requested(0)["slurm_extra"]
    assert "long" not in requested(0)["slurm_extra"]
    assert resources(Request(1, 1, 1, 1, 1))["qos"] is None
    monkeypatch.setattr("medscale.resources.submit.signal.signal", lambda *_: None)
    overlay = {"cluster": {"options": options, "cpu_partition": "cpu"}}
    overlay["dask"] = {"scheduler": "slurm", "workers": 64}
    study = Graph(merge(COMPLETE, overlay))
    line = Submission(study, None, IN_IMAGE).start_dask()
    assert '"queue":"cpu","job_extra_directives":["--qos=long","--constraint=a100"' in line


def test_what_the_site_does_not_say_is_one_message(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(MedscaleError, match="does not have your account and partition yet"):
        site.complete(Graph(SITE).config.cluster)
    with pytest.raises(MedscaleError, match="no section `cluster`"):
        site.complete(None)
    with pytest.raises(SystemExit):
        Submission(Graph({}), "", IN_IMAGE).ready("slurm")
    assert "medscale: error: jobs go through SLURM, but" in capsys.readouterr().err
    Submission(Graph({}), "", IN_IMAGE).ready("local")


def test_the_job_asks_for_another_turn_only_where_training_says_so(tmp_path: Path) -> None:
    (tmp_path / "logs/slurm").mkdir(parents=True)
    scontrol = tmp_path / "scontrol"
    scontrol.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\nexit 1\n')
    scontrol.chmod(0o755)
    squeue = tmp_path / "squeue"
    squeue.write_text("#!/bin/sh\necho ${STATE:-RUNNING}\n")
    squeue.chmod(0o755)
    script = f". {ROOT}/profiles/slurm/job.sh && %s"
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "7"}

    def job(command: str) -> int:
        return subprocess.run(
            ["sh", "-c", script % command], cwd=tmp_path, env=environment, timeout=120
        ).returncode

    assert job("true") == 0
    assert job("exit 3") == 3
    assert not (tmp_path / "asked").exists()
    assert job('touch "$MEDSCALE_ANOTHER_TURN"; exit 75') == 75
    assert (tmp_path / "asked").read_text() == "requeue 7\n"
    environment["STATE"] = "COMPLETING"  # of a job that was cancelled
    assert job('touch "$MEDSCALE_ANOTHER_TURN"; exit 75') == 75
    assert (tmp_path / "asked").read_text() == "requeue 7\n"


def test_the_profile_says_all_that_the_mechanisms_need() -> None:
    profile = yaml.safe_load((ROOT / "profiles/slurm/profile.v9+.yaml").read_text(encoding="utf-8"))
    assert profile["executor"] == "slurm"
    assert profile["software-deployment-method"] == "apptainer"
    assert "--nv" in profile["apptainer-args"]
    assert (ROOT / "profiles/slurm" / profile["configfile"]).samefile(ROOT / site.FILE)
    assert (ROOT / profile["precommand"].removeprefix(". ")).is_file()
    assert "$" not in profile["precommand"]  # it would be the submitting shell's
    assert profile["slurm-jobname-prefix"] == slurm.PREFIX
    assert Path(profile["slurm-logdir"]) == slurm.LOGS
    assert profile["slurm-requeue"] is True
    assert "retries" not in (ROOT / "rules/train.smk").read_text(encoding="utf-8")
