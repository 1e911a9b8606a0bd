"""Display of a running study: live lines on a terminal, plain lines in a file."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from medscale.base.code import shown_path
from medscale.base.console import Terminal, plain
from medscale.workflow.progress.logs import epoch
from medscale.workflow.progress.state import Job, State

BAR_WIDTH = 24
LINE_EVERY_S = 30.0  # between plain lines of a stage that is not complete
MOST_RUNNING = 3  # jobs that are shown by name


class Display:
    """Failures, warnings and errors; the other displays add the progress to them.

    The logger plugin calls these methods.
    """

    def __init__(self, state: State) -> None:
        self._state = state

    def finished(self, job: Job) -> None:
        """Show that a job ended."""

    def failed(self, job: Job) -> None:
        """Show the last sentence of a failed job, and its log."""
        for line in failure_lines(self._state, job):
            self.say(line)

    def say(self, text: str) -> None:
        """Print a line, such as a warning or an error of Snakemake."""
        print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        """End the display."""


def display(state: State, *, quiet: bool = False) -> Display:
    """Return the display for the terminal, or for a file where stderr is none.

    ``quiet``: only failures, warnings and errors are shown.
    """
    if quiet:
        return Display(state)
    return LiveDisplay(state) if sys.stderr.isatty() else LineDisplay(state)


class LiveDisplay(Display):
    """A line for each stage with a bar, redrawn in place; the next redraw shows a finished job."""

    def __init__(self, state: State) -> None:
        super().__init__(state)
        self._terminal = Terminal(stderr=True)
        self._live = Live(
            console=self._terminal, get_renderable=self._lines, refresh_per_second=2, transient=True
        )
        self._live.start()

    def say(self, text: str) -> None:
        """See ``Display``."""
        self._terminal.print(plain(text, lines=True))

    def close(self) -> None:
        """See ``Display``."""
        self._live.stop()
        self.say(headline(self._state, time.time()))

    def _lines(self) -> RenderableType:
        now, state = time.time(), self._state
        table = Table.grid(padding=(0, 2))
        for stage, jobs in state.stages().items():
            finished = sum(job.is_finished for job in jobs)
            table.add_row(
                f" {stage}",
                ProgressBar(total=len(jobs), completed=finished, width=BAR_WIDTH),
                f"{finished} of {len(jobs)}",
                left_text(state, jobs, now),
            )
        running = [plain(f" now: {line}") for line in running_lines(state, now)]
        return Group(f"[bold]{plain(headline(state, now))}[/]", table, *running)


class LineDisplay(Display):
    """A line with the time of day for each finished stage, and at times for an unfinished one."""

    def __init__(self, state: State) -> None:
        super().__init__(state)
        self._line_time = 0.0
        self.say(headline(state, time.time()))

    def finished(self, job: Job) -> None:
        """See ``Display``."""
        jobs, now = self._state.stages().get(job.stage, []), time.time()
        if not jobs:
            return
        finished = sum(other.is_finished for other in jobs)
        if finished == len(jobs) or now - self._line_time >= LINE_EVERY_S:
            self._line_time = now
            seconds = (job.ended or now) - (job.started or now)
            time_left = duration(self._state.left_s(now))
            self.say(
                f"{job.stage} {finished} of {len(jobs)}, last {job.name} in {duration(seconds)}; "
                f"{time_left} left in all"
            )

    def say(self, text: str) -> None:
        """Print a line that begins with the time of day; see ``Display``."""
        super().say(f"{time.strftime('%H:%M:%S')} {text}")

    def close(self) -> None:
        """See ``Display``."""
        self.say(headline(self._state, time.time()))


def headline(state: State, now: float) -> str:
    """Return one line on the whole study."""
    finished, total = len(state.finished()), len(state.jobs)
    passed = duration((state.ended or now) - state.start_time)
    failed = len(state.failed())
    failures = f", {failed} failed" if failed else ""
    if state.ended is not None:
        end = "done" if finished == total else "stopped"
        return f"{end}: {finished} of {total} jobs in {passed}{failures}"
    left = f"{duration(state.left_s(now))} left"
    if any(job.waits is not None for job in state.running()):
        left += " without the wait in SLURM's queue"
    if absent := total - finished - failed - len(state.to_come()):
        failures += f", {absent} will not start"
    return f"{finished} of {total} jobs in {passed}, {left}{failures}"


def left_text(state: State, jobs: list[Job], now: float) -> str:
    """Return the time that a stage will still take; if no job is to come, the time it took."""
    numbers = {job.number for job in jobs}
    if any(job.number in numbers for job in state.to_come()):
        return f"{duration(state.left_s(now, jobs))} left"
    ended = [job for job in jobs if job.ended is not None]
    return duration(sum((job.ended or 0) - (job.started or 0) for job in ended)) if ended else ""


def running_lines(state: State, now: float) -> Iterator[str]:
    """Yield a line for each running job, with its progress by its log, and one on the queue."""
    running = [job for job in state.running() if job.waits is None]
    waiting = [job for job in state.running() if job.waits is not None]
    for job in running[:MOST_RUNNING]:
        progress = epoch(state.workdir / job.log) if job.rule == "train" and job.log else ""
        texts = [job.name, duration(now - (job.started or now)), progress]
        yield ", ".join(text for text in texts if text)
    if len(running) > MOST_RUNNING:
        yield f"and {len(running) - MOST_RUNNING} more"
    if waiting:
        counts = Counter(job.waits for job in waiting)
        reasons = ", ".join(
            f"{reason} {count}" if len(counts) > 1 else str(reason)
            for reason, count in counts.most_common()
        )
        yield f"{len(waiting)} in SLURM's queue: {reasons}"


def failure_lines(state: State, job: Job) -> Iterator[str]:
    """Yield the reason of a failed job, and the path of its log."""
    yield f"failed: {job.name}: {job.failure}"
    if job.log:
        yield f"  its log: {shown_path(state.workdir / job.log)}"


def duration(seconds: float | None) -> str:
    """Return a duration as a person would say it; "an unknown time" for None."""
    if seconds is None:
        return "an unknown time"
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
