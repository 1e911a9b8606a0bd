"""Snakemake's scheduler with one timer, so that waiting for jobs takes little CPU time."""

from __future__ import annotations

import threading
from typing import Any


def use_one_timer(scheduler: Any) -> None:
    """Let a scheduler look at the jobs that are ready once per interval of its rate limit.

    Snakemake (seen in 9.27) starts a timer each time it looks at these jobs, and looks again when
    the timer ends. Each job that ends makes it look once more, which adds a timer that never stops
    as long as jobs are ready (snakemake/snakemake#2967, #3744). In the demo, 90 timers took a fifth
    of a core after half of the 207 jobs.

    Args:
        scheduler: Snakemake's ``JobScheduler``.
    """
    pending: set[float] = set()  # seconds: intervals for which a timer is running

    def wake(interval: float) -> None:
        # ``pending`` must not have the interval any more when the scheduler wakes up, since the
        # scheduler may start the next timer of this interval at once.
        pending.discard(interval)
        scheduler._open_jobs.release()

    def schedule(interval: float) -> None:
        if interval not in pending:
            pending.add(interval)
            timer = threading.Timer(interval, wake, [interval])
            timer.daemon = True  # so that Snakemake exits without waiting for the timer
            timer.start()

    scheduler._schedule_reevalutation = schedule  # the name is misspelt in Snakemake
