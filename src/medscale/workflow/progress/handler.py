"""The logger plugin: it turns Snakemake's events into the state of a study and its display."""

from __future__ import annotations

import os
import sys
import threading
import time
from logging import ERROR, WARNING, LogRecord
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent

from medscale.base.errors import QUIET_VARIABLE, MedscaleError

if TYPE_CHECKING:
    from medscale.workflow.progress.display import Display
    from medscale.workflow.progress.queue import Watch
    from medscale.workflow.progress.state import State

WRITE_EVERY_S = 2.0
NO_YAML = "Config file is not valid JSON or YAML"  # Snakemake names neither file nor line
NOTHING = "Nothing to be done"  # begin of Snakemake's message
# Messages of Snakemake that repeat a failure which the display has shown, or its guess of an
# account, which a cluster without accounting does not need (others are refused before).
REPEATED = (
    "RuleException:",
    "Exiting because a job execution failed",
    "WorkflowError:\nAt least",
    "Exception in run_job for rule",
    "No SLURM account given",
    "No account was given",
    "Unable to guess SLURM account",
)
# Messages of Snakemake that are no warnings and answer a signal or a failure, and what is shown in
# their place. Its executor for SLURM ends after the next query of the jobs, within 3 minutes.
ENDING, AWAITING = "Terminating processes on user request", "Will exit after finishing"
SHOWN = {
    ENDING: "ending the running jobs (in SLURM up to 3 minutes)",
    AWAITING: "starting no more jobs, awaiting those that run; Ctrl-C ends them",
    "Trying to restart job": "  it is started again",
}


def lists_jobs(settings: Any) -> bool:
    """Whether a dry run prints each job: with ``-np``, ``--verbose`` or ``--debug-dag``.

    Args:
        settings: Snakemake's settings of its output.
    """
    return bool(settings.printshellcmds or settings.verbose or settings.debug_dag)


class Handler(LogHandlerBase):
    """Shows a line for each stage; a dry run with ``-np`` is printed as Snakemake prints it.

    Snakemake writes its own messages to ``.snakemake/log`` in any case. Warnings, errors and the
    notes of the workflow itself are printed above the lines. ``--quiet all`` leaves only failures
    and errors, ``--quiet progress`` also warnings.
    """

    def __post_init__(self) -> None:
        self._state: State | None = None
        self._display: Display | None = None
        self._writer: threading.Timer | None = None
        self._watch: Watch | None = None
        self._is_ending = False  # a user stopped the study with its jobs
        self._plain: Any = None
        quiet = {value.name for value in self.common_settings.quiet or ()}
        self._is_quiet = bool(quiet & {"ALL", "PROGRESS"})
        self._least_level = ERROR if "ALL" in quiet else WARNING
        if self.common_settings.dryrun:
            from snakemake.logging import ColorizingTextHandler, DefaultFilter, DefaultFormatter

            settings = self.common_settings
            filter_options = (
                settings.quiet,
                settings.debug_dag,
                settings.verbose,
                True,
                settings.printshellcmds,
            )
            self._plain = ColorizingTextHandler(
                nocolor=settings.nocolor,
                stream=sys.stdout if settings.stdout else sys.stderr,
                formatter=DefaultFormatter(settings.quiet, settings.show_failed_logs),
                filter=DefaultFilter(*filter_options),
            )
            if not lists_jobs(settings):
                self._plain.setLevel(WARNING)
        else:
            os.environ[QUIET_VARIABLE] = "1"

    @property
    def writes_to_stream(self) -> bool:
        """Records are printed to the terminal, in place of Snakemake's own messages."""
        return True

    @property
    def writes_to_file(self) -> bool:
        """Snakemake writes the log file itself."""
        return False

    @property
    def has_filter(self) -> bool:
        """All records arrive, whatever ``--quiet`` says."""
        return True

    @property
    def has_formatter(self) -> bool:
        """Records become lines of the display."""
        return True

    @property
    def needs_rulegraph(self) -> bool:
        """The graph of rules is not shown."""
        return False

    def emit(self, record: LogRecord) -> None:
        """Take a record of Snakemake; an error of the display itself never stops a study."""
        if NO_YAML in record.getMessage() and (mistake := _mistake_in_yaml()):
            print(f"medscale: error: {mistake}", file=sys.stderr)
            return
        if self._plain is not None:
            if record.levelno >= self._plain.level:
                self._plain.handle(record)
            return
        try:
            self._take(record)
        except Exception:
            self.handleError(record)

    def close(self) -> None:
        """Write the final state, and take the display away."""
        if self._watch is not None:
            self._watch.close()
        if self._writer is not None:
            self._writer.cancel()
        if self._state is not None:
            self._state.ended = time.time()
            self._state.write()
        if self._display is not None:
            self._display.close()
            self._display = None
        super().close()

    def _take(self, record: LogRecord) -> None:
        event, values = getattr(record, "event", None), record.__dict__
        if (jobs := values.get("medscale_jobs")) is not None:
            self._begin(jobs, values)
        elif self._state is None or self._display is None:
            is_notice = record.getMessage().startswith(NOTHING) and not self._is_quiet
            if record.levelno >= self._least_level or is_notice:
                print(record.getMessage(), file=sys.stderr)
        elif event == LogEvent.JOB_INFO:
            # targets such as `all` come as jobs as well; they run nothing and are not expected
            if values["jobid"] not in self._state.jobs:
                return
            log = next(iter(values["log"] or ()), None)
            self._state.start(values["jobid"], values["rule_name"], values["wildcards"], log)
        elif event == LogEvent.JOB_FINISHED:
            if (job := self._state.finish(values["job_id"])) is not None:
                self._display.finished(job)
        elif event == LogEvent.JOB_ERROR:
            self._fail(values)
        elif record.levelno >= self._least_level and not record.getMessage().startswith(REPEATED):
            self._display.say(record.getMessage())
        elif begin := next(filter(record.getMessage().startswith, SHOWN), None):
            self._state.is_interrupted |= begin in (ENDING, AWAITING)
            self._is_ending |= begin == ENDING
            self._display.say(SHOWN[begin])
        self._record()

    def _begin(self, jobs: Any, values: dict[str, Any]) -> None:
        from medscale.workflow.progress.display import display
        from medscale.workflow.progress.state import State

        self._state = State(Path.cwd())
        self._state.expect(jobs)
        self._state.keeps_going = values["medscale_keeps_going"]
        self._state.write()
        self._display = display(self._state, quiet=self._is_quiet)
        if (place := values["medscale_place"]) is not None:
            from medscale.base.code import ROOT
            from medscale.resources import slurm
            from medscale.workflow.progress.queue import Watch

            self._watch = Watch(self._state, lambda: slurm.queue(ROOT, place), self._display.say)

    def _fail(self, values: dict[str, Any]) -> None:
        from medscale.workflow.progress.logs import reason

        assert self._state is not None
        assert self._display is not None
        if self._is_ending:
            self._state.stop(values["jobid"])
            return
        job = self._state.jobs.get(values["jobid"])
        logs = [self._state.workdir / name for name in values["log"] or ()]
        sentence, log = reason(logs, values.get("rule_msg") or "", job.started if job else None)
        if (job := self._state.finish(values["jobid"], sentence)) is not None:
            job.log = str(log) if log is not None else None
            self._display.failed(job)

    def _record(self) -> None:
        """Write the state ``WRITE_EVERY_S`` seconds from now, unless a write is due already."""
        if self._state is not None and self._writer is None:
            self._writer = threading.Timer(WRITE_EVERY_S, self._write)
            self._writer.daemon = True
            self._writer.start()

    def _write(self) -> None:
        assert self._state is not None
        self._writer = None
        self._state.write()


def _mistake_in_yaml() -> str | None:
    """Return the first mistake in the grammar of Snakemake's configuration files, with its line."""
    from medscale.base.code import ROOT
    from medscale.base.provenance import SITE
    from medscale.config.yaml_file import read_yaml

    for path in [*map(Path, sys.argv[1:]), ROOT / SITE]:
        if path.suffix in (".yaml", ".yml") and path.is_file():
            try:
                read_yaml(path)
            except MedscaleError as error:
                return str(error)
    return None
