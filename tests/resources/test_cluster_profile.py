"""Tests of the resources that jobs request from SLURM; need no cluster."""

from __future__ import annotations

import math
import os
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from medscale.base.errors import MedscaleError
from medscale.config.configuration import Config, load
from medscale.config.layers import merge
from medscale.config.planning import plan
from medscale.engine.parallel.rendezvous import first_host, meeting_point
from medscale.report.chapters import chapters_of
from medscale.resources import cost, jobs, site, slurm
from medscale.resources.jobs import Failures, Request
from medscale.resources.machines import Cluster, Node
from medscale.resources.submit import Submission
from medscale.workflow.graph import Graph

ROOT = Path(__file__).parents[2]
SITE: dict[str, Any] = yaml.safe_load(
    (ROOT / "profiles/slurm/site.yaml").read_text(encoding="utf-8")
)
COMPLETE = merge(SITE, {"cluster": {"account": "physics", "partition": "gpu"}})
OURS = Cluster(
    account="physics", partition="gpu", max_minutes=600, safety=2.0, least_minutes=20, least_mb=1000
)
IN_IMAGE = SimpleNamespace(
    deployment_method=[SimpleNamespace(name="APPTAINER")], apptainer_args="--nv"
)


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


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("node1", "node1"),
        ("node[1-2]", "node1"),
        ("n[07-09,12],m3", "n07"),
        ("a-b3,a-b7", "a-b3"),
        ("r[2,4]n-ib", "r2n-ib"),
    ],
)
def test_nodes_meet_at_the_first(nodes: str, first: str) -> None:
    assert first_host(nodes) == first


def test_the_meeting_point_is_the_same_for_all_and_another_for_each_job() -> None:
    step = {"SLURM_STEP_NODELIST": "localhost,other", "SLURM_JOB_ID": "123456"}
    assert (
        meeting_point({**step, "SLURM_PROCID": "0"})
        == meeting_point({**step, "SLURM_PROCID": "1"})
        == "localhost:23456"
    )
    assert meeting_point({**step, "SLURM_JOB_ID": "123457"}) == "localhost:23457"
    unknown = {
        **step,
        "SLURM_STEP_NODELIST": "no-such-node.invalid",
        "SLURM_LAUNCH_NODE_IPADDR": "10.0.0.7",
    }
    assert meeting_point(unknown) == "10.0.0.7:23456"
    assert meeting_point({}) is None


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


SINFO = [
    "gpu|1-00:00:00|8|32|256000|gpu:a100:4(S:0-1)",
    "gpu|1-00:00:00|2|64|128000|gpu:v100:2,gpu:a100:1(S:0)",
    "cpu|infinite|20|128|512000+|(null)",
]


@pytest.mark.parametrize(
    ("cluster", "node", "fault"),
    [
        ({}, {"gpus": 4, "cpus": 32, "memory_mb": 256_000}, None),
        ({"partition": "cpu", "max_minutes": 100_000}, {"gpus": 0, "cpus": 128}, None),
        ({"gpu_model": "v100"}, {"gpus": 2, "cpus": 64}, None),
        ({"partition": "gpu,cpu", "max_minutes": 100_000}, {"gpus": 0}, None),
        ({"max_minutes": 1441}, {}, "cluster.max_minutes: 1441 must be at most 1440"),
        ({}, {"gpus": 8}, "node.gpus: 8 must be at most 4"),
        ({"gpu_model": "v100"}, {"gpus": 4}, "node.gpus: 4 must be at most 2 of kind v100"),
        ({"gpu_model": "h100"}, {"gpus": 1}, "node.gpus: 1 must be at most 0 of kind h100"),
        ({}, {"memory_mb": 300_000}, "node.memory_mb: 300000 must be at most 256000"),
        ({}, {"gpus": 4, "cpus": 64}, "no node has all that `node` says"),
        ({"partition": "long"}, {}, "SLURM has no partition 'long'; there are: cpu, gpu"),
    ],
)
def test_settings_that_would_wait_for_ever_are_refused(
    monkeypatch: pytest.MonkeyPatch,
    cluster: dict[str, Any],
    node: dict[str, Any],
    fault: str | None,
) -> None:
    monkeypatch.setattr(site.shutil, "which", lambda program: program)
    monkeypatch.setattr(slurm, "ask", lambda *_: SINFO)
    settings = OURS.model_copy(update={"max_minutes": 1440} | cluster)
    size = Node(**{"gpus": 1, "cpus": 8, "memory_mb": None, **node})
    if fault is None:
        partitions = site.check_partitions(settings, size)
        assert ",".join(partition.name for partition in partitions) == settings.partition
    else:
        with pytest.raises(MedscaleError) as caught:
            site.check_partitions(settings, size)
        assert fault in str(caught.value)


class Answers:
    """SLURM's programs: what they answer to the command that is tested."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.accounts: list[str] | None = ["physics", "biology"]
        self.storage, self.refusals, self.commands = "slurmdbd", {0: "", 1: ""}, list[str]()
        monkeypatch.setattr(site.shutil, "which", lambda program: program)
        monkeypatch.setattr(slurm, "ask", self)

    def __call__(self, *command: str) -> list[str]:
        self.commands.append(" ".join(command))
        refusal = self.refusals["--gres" in " ".join(command)]
        if command[0] == "sbatch" and refusal:
            raise MedscaleError(f"sbatch failed: sbatch: error: x\nallocation failure: {refusal}")
        if command[0] == "sacctmgr" and self.accounts is None:
            raise MedscaleError("sacctmgr failed")
        return {
            "sinfo": SINFO,
            "scontrol": [f"AccountingStorageType   = accounting_storage/{self.storage}"],
            "sacctmgr": self.accounts or [],
        }.get(command[0], [])


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Answers:
    return Answers(monkeypatch)


def test_the_account_is_one_of_the_user(answers: Answers) -> None:
    node = Node(gpus=1, cpus=8)
    assert (
        "account physics; partition gpu: 8 nodes of 32 CPUs, 256000 MB, 4 GPUs a100 and 2"
        in (site.check(OURS, node)[0])
    )
    answers.accounts = None
    assert "account physics (not checked" in site.check(OURS, node)[0]
    answers.accounts = ["biology"]
    with pytest.raises(MedscaleError, match="you have no account 'physics'; there are: biology"):
        site.check(OURS, node)


def test_slurm_is_asked_where_its_programs_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site.shutil, "which", lambda _: None)
    with pytest.raises(MedscaleError, match="run this where jobs are submitted"):
        site.check(OURS, Node(gpus=1, cpus=8))


def test_a_cluster_without_accounting_has_no_accounts(answers: Answers) -> None:
    answers.storage = "none"
    node, without = Node(gpus=1, cpus=8), OURS.model_copy(update={"account": None})
    assert site.check(without, node)[0].startswith("no account, as the cluster has no accounting")
    assert not any("--account" in command for command in answers.commands)
    with pytest.raises(MedscaleError, match=r"set cluster\.account to null"):
        site.check(OURS, node)
    answers.storage = "slurmdbd"
    with pytest.raises(MedscaleError, match="does not have your account yet"):
        site.check(without, node)


def test_slurm_judges_options_before_the_first_job(answers: Answers) -> None:
    cluster = OURS.model_copy(
        update={"options": {"qos": "long", "exclude": "n1"}, "cpu_partition": "cpu"}
    )
    node = Node(gpus=1, cpus=8)
    text, obstacles = site.check(cluster, node)
    assert "partition cpu" in text
    assert obstacles == []
    cpu_job, gpu_job = (command for command in answers.commands if command.startswith("sbatch"))
    assert "--account=physics --partition=cpu --qos=long --exclude=n1 --time=20" in cpu_job
    assert "--partition=gpu --qos=long --exclude=n1 --gres=gpu:1" in gpu_job
    answers.refusals[1] = "Requested node configuration is not available"
    [obstacle] = site.check(cluster, node)[1]
    assert obstacle == f"jobs in gpu would wait: {answers.refusals[1]} (`sinfo -R`)"
    answers.refusals[0] = "Invalid qos specification"
    with pytest.raises(MedscaleError, match=r"without GPUs in partition cpu: Invalid.*; correct"):
        site.check(cluster, node)
    answers.refusals[0] = ""
    with pytest.raises(MedscaleError, match=r"node\.cpus: 200 must be at most 128"):
        site.check(cluster.model_copy(update={"partition": "cpu"}), Node(gpus=0, cpus=200))


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


def test_a_controller_that_is_down_is_told_from_a_refusal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "sinfo"
    program.write_text('#!/bin/sh\necho "slurm_load_partitions: $1" >&2\nexit 1\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(MedscaleError, match="SLURM does not answer; try again when it does"):
        slurm.ask("sinfo", "Unable to contact slurm controller (connect failure)")
    with pytest.raises(MedscaleError, match=r"^sinfo Access denied failed: slurm_load"):
        slurm.ask("sinfo", "Access denied")
    program.write_text("#!/bin/sh\nprintf ' a\\n\\nb|\\n'\n")
    assert slurm.ask("sinfo") == [" a", "b|"]


def test_jobs_of_a_dead_snakemake_are_ended_and_others_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    queue = [
        f"1|medscale_a|{ROOT}|RUNNING|1:00|node1|train glaucoma/ddp_2gpu seed1 (work/demo)",
        f"2|medscale_b|{ROOT}|PENDING|0:00|(Priority)|train glaucoma/ddp_2gpu seed1 (.)",
        "3|medscale_c|/elsewhere|RUNNING|1:00|node1|train glaucoma/ddp_2gpu seed1 (work/demo)",
        f"4|other|{ROOT}|RUNNING|1:00|node1|(work/demo)",
    ]
    cancelled, clock = [], [0.0]
    seconds_to_end = 100.0

    def answer(*command: str) -> list[str]:
        cancelled.extend(command[1:] if command[0] == "scancel" else [])
        gone = cancelled if clock[0] >= seconds_to_end else []
        return [line for line in queue if line[0] not in gone]

    monkeypatch.setattr(slurm, "ask", answer)
    monkeypatch.setattr(
        slurm,
        "time",
        SimpleNamespace(
            monotonic=lambda: clock[0],
            sleep=lambda seconds: clock.append(clock.pop() + seconds),
        ),
    )
    [job] = slurm.queue(ROOT, "work/demo")
    assert (job.number, job.state, job.elapsed, job.place) == ("1", "RUNNING", "1:00", "node1")
    assert slurm.end_orphans(ROOT, "work/demo") == ["train glaucoma/ddp_2gpu seed1 (work/demo)"]
    assert (cancelled, clock) == (["1"], [100.0])
    seconds_to_end = math.inf
    with pytest.raises(MedscaleError, match=r"do not end: 1; cancel them with scancel"):
        slurm.end_orphans(ROOT, "work/demo")
    assert clock == [100.0 + slurm.CANCEL_TIMEOUT_S + 1]


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
