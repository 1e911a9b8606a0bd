"""Progress of a study: time left, lines, failures, `medscale status` and `medscale logs`."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
from snakemake.settings.enums import Quietness
from snakemake_interface_logger_plugins.common import LogEvent
from typer.testing import CliRunner

from medscale.base.errors import QUIET_VARIABLE, MedscaleError, tell_user
from medscale.base.log import log, set_up
from medscale.cli import progress
from medscale.cli.main import main
from medscale.engine.train.loop import log_epoch
from medscale.workflow.graph import Graph
from medscale.workflow.progress import expectations
from medscale.workflow.progress import handler as plugin
from medscale.workflow.progress.display import (
    LineDisplay,
    duration,
    headline,
    left_text,
    running_lines,
)
from medscale.workflow.progress.logs import epoch, last_sentence
from medscale.workflow.progress.state import FILE, STAGES, Job, State, read, stage_of
from medscale.workflow.targets import in_workdir
from progress_jobs import finished, training
from snakemake_command import ROOT, snakemake
from waiting import until

SETTINGS = SimpleNamespace(
    dryrun=False, quiet=set(), nocolor=True, stdout=False, debug_dag=False, verbose=False,
    printshellcmds=False, show_failed_logs=False,
)  # fmt: skip


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove what a handler sets in the environment of its process, also after the test."""
    monkeypatch.setenv(QUIET_VARIABLE, "1")
    monkeypatch.delenv(QUIET_VARIABLE)


def test_a_job_is_named_by_stage_study_run_and_seed() -> None:
    run = {"run": "ddp_2gpu", "study": "skin"}
    jobs = (
        Job(1, "train", {"replicate": "seed2_fold1", **run}),
        Job(2, "evaluate", run),
        Job(3, "overview_report", {"study": "skin"}),
        Job(4, "shards", {"shards": "shards", "study": "skin"}),
        Job(5, "profile", {"z": "last", "b": "first", **run}),
        Job(6, "paper_pdf"),
    )
    assert [job.name for job in jobs] == [
        "skin ddp_2gpu seed 2 fold 1",
        "evaluate skin ddp_2gpu",
        "overview skin",
        "shards skin",
        "profile skin ddp_2gpu first last",
        "paper pdf",
    ]


def test_time_left_is_the_cost_models_corrected_by_the_measured_times(tmp_path: Path) -> None:
    state = State(tmp_path, now=0.0)
    state.expect([finished(training(1), 0, 20), finished(training(2), 20, 20), training(3)])
    state.jobs[3].started = 40.0
    # 40 s were measured where 20 s were expected; the prior has the weight of 20 s.
    ratio = (40 + 20) / (20 + 20)
    assert state.left_s(44.0) == pytest.approx(10 * ratio - 4)
    assert state.left_s(1000.0) == pytest.approx(ratio, rel=0.01)  # late: a tenth, never below 0
    assert State(tmp_path).left_s(0.0) is None


def test_a_short_index_does_not_shorten_the_trainings(tmp_path: Path) -> None:
    state = State(tmp_path, now=0.0)
    index = finished(Job(1, "index", {"study": "skin"}, expected_s=97.0), 0, 5)
    state.expect([index, training(2, expected=90.0), training(3, expected=90.0)])
    assert state.left_s(5.0) == pytest.approx(180)


@pytest.mark.parametrize(("rule", "seconds"), [("quality_report", (5, 20)), ("paper_pdf", (9, 9))])
def test_a_chapter_is_expected_to_take_its_share_of_the_report(
    rule: str, seconds: tuple[float, float]
) -> None:
    changes = {
        "only": ["mine"],
        "studies": {"mine": {"source": {"kind": "folder", "path": "x"}, "classes": ["a", "b"]}},
    }
    job = SimpleNamespace(rule=SimpleNamespace(name=rule), threads=1)
    job.wildcards_dict = {"study": "mine"}
    assert seconds[0] <= expectations.seconds_of(Graph(changes), job) <= seconds[1]


def test_the_list_of_jobs_says_which_jobs_need_which(caplog: pytest.LogCaptureFixture) -> None:
    class FakeJob(NamedTuple):  # Snakemake's jobs are keys, too
        jobid: int
        name: str
        norun: bool = False

        @property
        def rule(self) -> FakeJob:
            return self

        @property
        def wildcards_dict(self) -> dict[str, str]:
            return {}

    jobs = [FakeJob(1, "plan"), FakeJob(2, "config"), FakeJob(3, "paper_pdf")]
    dependencies = {job: set(jobs[:2] if job.jobid == 3 else ()) for job in jobs}
    workflow = SimpleNamespace(
        dag=SimpleNamespace(needrun_jobs=lambda: jobs, dependencies=dependencies),
        executor_plugin=SimpleNamespace(name="local"),
        execution_settings=SimpleNamespace(keep_going=True),
    )
    with caplog.at_level(logging.INFO, "snakemake.logging"):
        expectations.announce(workflow, Graph({}), "")
    announced = caplog.records[-1].__dict__
    assert announced["medscale_keeps_going"]
    assert [sorted(job.needs) for job in announced["medscale_jobs"]] == [[], [], [1, 2]]


def test_jobs_that_run_at_a_time_divide_the_time_left(tmp_path: Path) -> None:
    state = State(tmp_path, now=0.0)
    state.expect(map(training, range(1, 7)))
    assert state.left_s(0.0) == 60  # before the first job
    state.expect([finished(training(1), 0, 10), finished(training(2), 0, 10)])
    assert state.left_s(10.0) == pytest.approx(20)
    state.expect([finished(training(3), 10, 10), finished(training(4), 10, 10)])
    state.expect([finished(training(5), 20, 10), finished(training(6), 20, 5)])
    state.expect([training(7, expected=50.0), training(8)])
    assert state.left_s(30.0) > 45  # the longest runs alone in the end


def test_jobs_that_need_each_other_do_not_run_at_a_time(tmp_path: Path) -> None:
    state = State(tmp_path, now=0.0)
    state.expect(finished(training(number), 0, 10) for number in range(1, 5))
    state.expect([training(5), training(6)])
    state.expect(
        [Job(7, "evaluate", {}, 4, needs=[1, 5]), Job(8, "paper_pdf", {}, 9, needs=[6, 7])]
    )
    assert state.left_s(10.0) == pytest.approx(10 + 4 + 9)
    assert state.left_s(10.0, [state.jobs[8]]) == pytest.approx(9)


def test_jobs_that_cannot_run_any_more_are_not_awaited(tmp_path: Path) -> None:
    """2 failed, 3 runs, 4 needs 2 by way of 5, and 6 needs none of them."""
    state = State(tmp_path, now=0.0)
    state.expect([finished(training(1), 0, 10), finished(training(2), 10, 2), training(3)])
    state.expect([Job(4, "paper_pdf", {}, 30, needs=[1, 5]), Job(5, "evaluate", {}, 5, needs=[2])])
    state.expect([Job(6, "evaluate", {}, 7, needs=[1])])
    state.jobs[2].failure, state.jobs[3].started = "no card is free", 12.0
    jobs = state.stages()
    assert state.left_s(12.0) == pytest.approx(10)  # of 3 alone
    assert headline(state, 12.0) == "1 of 6 jobs in 12 s, 10 s left, 1 failed, 3 will not start"
    assert [left_text(state, jobs[stage], 12.0) for stage in ("results", "paper")] == ["", ""]
    assert left_text(state, jobs["trainings"], 12.0) == "10 s left"
    state.keeps_going = True
    assert headline(state, 12.0) == "1 of 6 jobs in 12 s, 17 s left, 1 failed, 2 will not start"
    assert left_text(state, jobs["results"], 12.0) == "7 s left"
    state.is_interrupted = True
    state.write()
    recorded = read(tmp_path)
    assert recorded is not None
    assert (recorded.state.keeps_going, recorded.state.is_interrupted) == (True, True)
    assert headline(state, 12.0).endswith(" 10 s left, 1 failed, 3 will not start")
    state.jobs[2].failure, state.is_interrupted = None, False
    state.jobs[2].ended = None  # started again
    assert [job.number for job in state.to_come()] == [2, 3, 4, 5, 6]


def test_a_study_that_ended_has_no_time_left(tmp_path: Path) -> None:
    state = State(tmp_path, now=0.0)
    state.expect([finished(training(1), 0, 10), training(2), training(3), Job(4, "paper_pdf")])
    state.jobs[2].started = 10.0  # and was killed
    state.ended = 15.0
    texts = [left_text(state, jobs, 15.0) for jobs in state.stages().values()]
    assert texts == ["10 s", ""]
    assert state.left_s(15.0) == 0
    assert headline(state, 99.0) == "stopped: 1 of 4 jobs in 15 s"


def test_the_jobs_that_started_first_are_named_with_their_epoch(tmp_path: Path) -> None:
    state = State(tmp_path, now=0.0)
    state.expect([*map(training, range(1, 6)), finished(training(6), 0, 5)])
    for number in range(1, 6):
        state.jobs[number].started = 100.0 - number
    state.jobs[4].log = "4.log"
    (tmp_path / "4.log").write_text("epoch 3/20 loss 1 |  530 images/s, 51 s left\n")
    assert list(running_lines(state, 100.0)) == [
        "skin ddp_2gpu seed 5, 5 s",
        "skin ddp_2gpu seed 4, 4 s, epoch 3 of 20, 530 images/s, 51 s left",
        "skin ddp_2gpu seed 3, 3 s",
        "and 2 more",
    ]


def test_a_file_has_a_line_at_times_and_at_the_end_of_a_stage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = State(tmp_path)
    state.expect(map(training, range(1, 4)))
    display = LineDisplay(state)
    for number in (1, 2, 3):
        state.start(number, "train", {}, None)
        display.finished(state.finish(number))  # type: ignore[arg-type]
    display.close()
    lines = [line[9:].partition(",")[0] for line in capsys.readouterr().err.splitlines()]
    assert lines == ["0 of 3 jobs in 0 s", "trainings 1 of 3", "trainings 3 of 3", lines[-1]]
    assert left_text(state, list(state.jobs.values()), time.time()) == "0 s"


def test_every_rule_has_a_stage() -> None:
    text = "".join(file.read_text(encoding="utf-8") for file in ROOT.glob("rules/*.smk"))
    rules = set(re.findall(r"^rule (\w+):", text, re.M)) - {"data", "results", "paper", "figures"}
    staged_rules = {rule for names in STAGES.values() for rule in names}
    assert rules == staged_rules
    assert stage_of("overview_report") == "figures"


def test_a_trainings_log_tells_its_epoch(tmp_path: Path) -> None:
    file = tmp_path / "train.log"
    set_up(file, quiet=True)
    row = {f"{split}_{name}": 0.5 for split in ("train", "val") for name in ("loss", "accuracy")}
    row |= {"epoch": 3, "seconds": 2.0, "validation_s": 1.0, "images_per_second": 530.4}
    log_epoch(SimpleNamespace(history=[row], stopped=False, epoch=3, best_epoch=3), 20)  # type: ignore[arg-type]
    assert epoch(file) == "epoch 3 of 20, 530 images/s, 51 s left"
    assert epoch(tmp_path / "missing.log") == ""
    log.handlers.clear()


def test_the_reason_of_a_failure_is_that_of_the_last_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(error: Exception) -> None:
        raise error

    file = tmp_path / "job.log"
    set_up(file, quiet=True)
    assert "its log is empty" in last_sentence(file)
    with pytest.raises(SystemExit):
        tell_user(fail)(MedscaleError("the disk is full; free some space"))
    assert last_sentence(file) == "the disk is full; free some space"
    assert "the disk is full" in capsys.readouterr().err
    monkeypatch.setenv(QUIET_VARIABLE, "1")
    with pytest.raises(SystemExit):
        tell_user(fail)(MedscaleError("the card is gone"))
    assert last_sentence(file) == "the card is gone"
    assert capsys.readouterr().err == ""
    log.info("epoch 1/20 of the next attempt")
    assert last_sentence(file).endswith(
        "the last line of its log is: epoch 1/20 of the next attempt"
    )
    with pytest.raises(ZeroDivisionError):
        tell_user(fail)(ZeroDivisionError("division by zero"))
    assert last_sentence(file) == "a fault of medscale itself: ZeroDivisionError: division by zero"
    log.handlers.clear()


def test_the_last_event_before_a_silence_reaches_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(QUIET_VARIABLE, "1")
    monkeypatch.setattr(plugin, "WRITE_EVERY_S", 0.2)
    handler = plugin.Handler(SETTINGS, None)  # type: ignore[arg-type]
    job = training(1)
    handler.emit(record(None, medscale_jobs=[job]))
    values = {"rule_name": job.rule, "wildcards": job.wildcards, "log": ["a.log"]}
    handler.emit(record(LogEvent.JOB_INFO, jobid=job.number, **values))
    until(lambda: read(tmp_path).state.running(), "the start is written")  # type: ignore[union-attr]
    assert [job.number for job in read(tmp_path).state.running()] == [1]  # type: ignore[union-attr]
    handler.close()


def record(
    event: LogEvent | None, message: str = "", level: int = logging.INFO, **values: Any
) -> Any:
    log_record = logging.LogRecord("snakemake.logging", level, "", 0, message, (), None)
    announced = {"medscale_keeps_going": False, "medscale_place": None}
    log_record.__dict__.update(announced | values, event=event)
    return log_record


def test_events_become_lines_and_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    handler = plugin.Handler(SETTINGS, None)  # type: ignore[arg-type]
    (tmp_path / "b.log").write_text("2026-11-26 12:00:00 ERROR medscale: error: no card is free\n")
    jobs = [training(1), training(2), Job(3, "paper_pdf", {}, 30)]
    handler.emit(record(None, "Jobs to carry out: 3", medscale_jobs=jobs))
    for job, text in ((jobs[0], "a.log"), (jobs[1], "b.log")):
        values = {"rule_name": job.rule, "wildcards": job.wildcards, "log": [text]}
        handler.emit(record(LogEvent.JOB_INFO, jobid=job.number, **values))
    target = {"rule_name": "all", "wildcards": {}, "log": []}
    handler.emit(record(LogEvent.JOB_INFO, jobid=0, **target))
    handler.emit(record(LogEvent.JOB_FINISHED, job_id=0))
    handler.emit(record(LogEvent.JOB_FINISHED, job_id=1))
    handler.emit(record(LogEvent.JOB_ERROR, level=logging.ERROR, jobid=2, log=["b.log"]))
    handler.emit(record(None, "RuleException:\nCalledProcessError", logging.ERROR))
    handler.emit(record(None, "Trying to restart job 2."))
    handler.emit(record(None, "Select jobs to execute..."))
    handler.emit(record(None, "a warning of Snakemake", logging.WARNING))
    handler.emit(record(None, "Terminating processes on user request, this might take time."))
    values = {"rule_name": "paper_pdf", "wildcards": {}, "log": ["c.log"]}
    handler.emit(record(LogEvent.JOB_INFO, jobid=3, **values))
    handler.emit(record(LogEvent.JOB_ERROR, level=logging.ERROR, jobid=3, log=["c.log"]))
    handler.close()
    lines = [line[9:] for line in capsys.readouterr().err.splitlines()]
    assert lines[0].startswith("0 of 3 jobs in 0 s, ")
    assert lines[1].startswith("trainings 1 of 2, last skin ddp_2gpu seed 1 in 0 s")
    assert lines[2:] == [
        "failed: skin ddp_2gpu seed 2: no card is free",
        f"  its log: {tmp_path / 'b.log'}",
        "  it is started again",
        "a warning of Snakemake",
        "ending the running jobs (in SLURM up to 3 minutes)",
        "stopped: 1 of 3 jobs in 0 s, 1 failed",
    ]
    events = read(tmp_path)
    assert events is not None
    assert events.is_alive is False
    assert events.state.is_interrupted
    assert [job.number for job in events.state.finished()] == [1]
    assert [job.failure for job in events.state.failed()] == ["no card is free"]


@pytest.mark.parametrize(
    ("quiet", "lines"),
    [
        (Quietness.ALL, ["failed: skin ddp_2gpu seed 1: no card is free", "  its log: a.log"]),
        (
            Quietness.PROGRESS,
            [
                "a warning of Snakemake",
                "failed: skin ddp_2gpu seed 1: no card is free",
                "  its log: a.log",
            ],
        ),
    ],
)
def test_quiet_leaves_failures(
    quiet: Quietness,
    lines: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = SimpleNamespace(**{**vars(SETTINGS), "quiet": {quiet}})
    handler = plugin.Handler(settings, None)  # type: ignore[arg-type]
    (tmp_path / "a.log").write_text("2026-11-26 12:00:00 ERROR medscale: error: no card is free\n")
    handler.emit(record(None, f"{plugin.NOTHING} (all requested files are present)"))
    job = training(1)
    handler.emit(record(None, "Jobs to carry out: 1", medscale_jobs=[job]))
    values = {"rule_name": job.rule, "wildcards": job.wildcards, "log": ["a.log"]}
    handler.emit(record(LogEvent.JOB_INFO, jobid=1, **values))
    handler.emit(record(None, "a warning of Snakemake", logging.WARNING))
    handler.emit(record(LogEvent.JOB_ERROR, level=logging.ERROR, jobid=1, log=["a.log"]))
    handler.close()
    output = capsys.readouterr().err.replace(f"{tmp_path}/", "")
    assert output.splitlines() == lines


def test_a_killed_study_is_distinguished_from_a_running_one(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    state = State(tmp_path)
    state.expect([training(1)])
    state.write()
    facts = json.loads((tmp_path / FILE).read_text()) | {"begun": time.time() - 3600}
    (tmp_path / FILE).write_text(json.dumps(facts | {"process": child.pid}))
    assert read(tmp_path).is_alive is False  # type: ignore[union-attr]  # a later process
    facts |= {"begun": time.time()}
    (tmp_path / FILE).write_text(json.dumps(facts | {"process": child.pid}))
    assert read(tmp_path).is_alive is True  # type: ignore[union-attr]
    child.send_signal(signal.SIGKILL)
    # Also before its parent has asked for its end.
    until(lambda: read(tmp_path).is_alive is False, "the process is dead")  # type: ignore[union-attr]
    child.wait()
    facts["jobs"][0]["started"] = facts["begun"]
    (tmp_path / FILE).write_text(json.dumps(facts | {"process": child.pid}))
    os.utime(tmp_path / FILE, (facts["begun"] + 300, facts["begun"] + 300))
    killed = read(tmp_path)
    assert killed is not None
    assert killed.was_killed
    # As it was at the last word, and not as if it still ran days later.
    assert headline(killed.state, time.time() + 9e5) == "stopped: 0 of 1 jobs in 5 min"
    assert progress._facts(killed, [])["running"] == []
    (tmp_path / FILE).write_text(json.dumps(facts | {"host": "elsewhere"}))
    assert read(tmp_path).is_alive is None  # type: ignore[union-attr]


@pytest.mark.parametrize("text", ["{}", "[]"])
def test_a_state_of_another_version_is_refused(text: str, tmp_path: Path) -> None:
    State(tmp_path).write()
    (tmp_path / FILE).write_text(text)
    with pytest.raises(MedscaleError, match="written by another version of medscale"):
        read(tmp_path)


def test_a_disk_that_takes_no_file_does_not_end_the_display(tmp_path: Path) -> None:
    (tmp_path / "logs").touch()  # in the place of the folder
    State(tmp_path).write()
    assert read(tmp_path) is None


def test_a_file_that_snakemake_cannot_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("node: {gpus: 4}\ncluster:\n  account physics\n  partition: gpu\n")
    monkeypatch.setattr(sys, "argv", ["snakemake", "--configfile", str(file), "-n"])
    handler = plugin.Handler(SETTINGS, None)  # type: ignore[arg-type]
    text = f"WorkflowError:\n{plugin.NO_YAML}. In case of YAML, make sure to"
    handler.emit(logging.LogRecord("snakemake", logging.ERROR, "", 0, text, (), None))
    assert f"medscale: error: {file}, line 4, column 12: not valid" in capsys.readouterr().err


def test_durations_are_those_of_a_person() -> None:
    texts = [duration(seconds) for seconds in (None, 0, 89, 600, 5400, 90_000)]
    assert texts == ["an unknown time", "0 s", "89 s", "10 min", "1 h 30 min", "25 h 00 min"]


def test_a_profile_shows_the_progress_and_the_commands_read_what_it_wrote(tmp_path: Path) -> None:
    changes = tmp_path / "changes.yaml"
    changes.write_text(f"scale: demo\nworkdir: {tmp_path / 'out'}\nonly: skin\n")
    options = ("--configfile", str(changes), "--profile", "demo", "--cores", "1")
    process = snakemake("config.resolved.json", "runs/skin/serial_1gpu/seed1/spec.json", *options)
    assert process.returncode == 0, process.stderr
    assert re.search(r"^\d\d:\d\d:\d\d done: 2 of 2 jobs in ", process.stderr, re.M)
    assert "localrule" not in process.stderr
    repetition = snakemake("config.resolved.json", *options)
    assert "Nothing to be done" in repetition.stderr
    for logger in ((), ("--logger", "medscale")):
        dry = snakemake("-n", "results/skin/serial_1gpu", *options, *logger)
        lines = (dry.stdout + dry.stderr).splitlines()
        assert len([line for line in lines if not line.startswith("Using ")]) <= 15
        assert "train 1" in dry.stderr
        listed = snakemake("-np", "results/skin/serial_1gpu", *options, *logger)
        assert "rule train:" in listed.stdout + listed.stderr
    runner = CliRunner()
    result = runner.invoke(main, ["status", "--configfile", str(changes)])
    assert "done: 2 of 2 jobs" in result.stdout
    facts = json.loads(
        runner.invoke(main, ["status", "--configfile", str(changes), "--json"]).stdout
    )
    assert {job["rule"] for job in facts["jobs"]} == {"plan", "config"}
    assert facts["is_running"] is False
    text = runner.invoke(main, ["logs", "results/skin/serial_1gpu", "--configfile", str(changes)])
    assert "seed1.plan.log" in text.stdout
    refusal = runner.invoke(main, ["logs", "results/skin/fsdp_2gpu", "--configfile", str(changes)])
    assert isinstance(refusal.exception, MedscaleError)
    assert "no log belongs to results/skin/fsdp_2gpu" in str(refusal.exception)


def test_without_a_scale_the_study_that_began_last_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def graph(changes: dict[str, Any], arguments: list[str], files: list[Path]) -> Any:
        workdir = tmp_path / changes["scale"]
        return SimpleNamespace(workdir=workdir, target=lambda text: in_workdir(text, workdir))

    monkeypatch.setattr("medscale.workflow.graph.Graph", graph)
    assert progress._graph(None, None, None).workdir.name == "full"
    for number, scale in enumerate(("full", "demo", "full")):
        State(tmp_path / scale).write()
        os.utime(tmp_path / scale / FILE, (number, number))
        assert progress._graph(None, None, None).workdir.name == scale
        assert progress._graph(None, None, None, "results/skin/ddp_2gpu").workdir.name == scale
    for scale in ("full", "demo"):  # of a path of the shell
        path = str(tmp_path / scale / "results/skin/ddp_2gpu/")
        assert progress._graph(None, None, None, path).workdir.name == scale
    assert progress._graph("demo", None, None).workdir.name == "demo"


def test_what_has_not_begun_is_reported(tmp_path: Path) -> None:
    changes = tmp_path / "changes.yaml"
    changes.write_text(f"scale: demo\nworkdir: {tmp_path / 'out'}\n")
    refusal = CliRunner().invoke(main, ["status", "--configfile", str(changes)])
    message = str(refusal.exception)
    assert message.startswith("no study has been started in")
    assert message.endswith(f"; `medscale study --configfile {changes}` starts it")
    (tmp_path / "out/logs").mkdir(parents=True)  # of Snakemake without a profile
    refusal = CliRunner().invoke(main, ["status", "--configfile", str(changes)])
    assert str(refusal.exception).startswith(f"no progress is recorded in {tmp_path / 'out'}: only")


@pytest.mark.parametrize("command", ["status", "logs"])
def test_a_mistake_is_that_of_the_file(command: str, tmp_path: Path) -> None:
    changes = tmp_path / "changes.yaml"
    changes.write_text("scale: demo\nseeds: one\n")
    refusal = CliRunner().invoke(main, [command, "--configfile", str(changes)])
    assert refusal.exit_code == 2
    assert f"{changes}, line 2: seeds" in refusal.stderr
