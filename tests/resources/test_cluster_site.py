"""What SLURM says of a site before the first job: partitions, accounts, options and old jobs."""

from __future__ import annotations

import math
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cluster_settings import OURS
from medscale.base.errors import MedscaleError
from medscale.resources import site, slurm
from medscale.resources.machines import Node
from training_runs import ROOT

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
