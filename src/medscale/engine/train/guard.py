"""What can interrupt training: signals, time limits, losses that are not finite, hangs."""

from __future__ import annotations

import faulthandler
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from medscale.base.errors import MedscaleError
from medscale.data.loader import Step
from medscale.engine.parallel import failures
from medscale.engine.parallel.failures import LOSS_NOT_FINITE
from medscale.engine.parallel.world import World
from medscale.engine.plan import Parallel

CHECKPOINT_SHARE = 0.02  # of training time that checkpoints may take
SETTLE_S = 600.0  # time limit of reading, compilation and warm-up before the first step
# A rank that hangs is ended this much later than its peers give up waiting for it. The peers'
# reports come first then, and the message can name the rank that hung.
PEERS_FIRST_S = 4.0
NOT_FINITE, STOP, SAVE = range(3)


class FailedElsewhere(MedscaleError):
    """Another rank has failed and reports why; this rank only ends because of it."""


@dataclass
class Watch:
    """Signals that ask for a stop; their handler only stores the signal's name."""

    signal: str = ""

    def install(self) -> None:
        """Listen to SIGTERM (end of a job), SIGUSR1 (time limit ahead) and SIGINT (Ctrl-C)."""
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
            signal.signal(number, self._store)

    def _store(self, number: int, _frame: Any) -> None:
        self.signal = signal.Signals(number).name


@dataclass
class _Pending:
    """A step whose flags are being copied from the GPU (event) or summed over ranks (work)."""

    event: torch.cuda.Event | None
    work: Any
    flags: Tensor
    not_finite_here: int | None
    ids: list[Tensor]
    position: str


class Guard:
    """Let all ranks agree, after each step, whether to stop or to save a checkpoint.

    The ranks' flags are summed while the next step computes and read after it, so that no step
    waits for them.

    Args:
        world: this rank and its peers.
        settings: intervals and limits.
        watch: signals.
    """

    def __init__(self, world: World, settings: Parallel, watch: Watch) -> None:
        self._world, self._settings, self._watch = world, settings, watch
        self._start = self._saved = time.monotonic()
        self._save_seconds = 0.0
        self._pending: _Pending | None = None

    def after(self, step: Step, sums: Tensor, steps_done: int, position: str) -> tuple[bool, bool]:
        """Check the step before, and send this step's flags; called after each optimizer step.

        Args:
            step: the step that was just trained on.
            sums: what ``ParallelModel.backward`` returns, added over steps; the last element is
                the number of losses that are not finite.
            steps_done: optimizer steps since the beginning.
            position: epoch and step, for messages.

        Returns:
            Whether to stop, and whether to save a checkpoint: the same on every rank.
        """
        decision = self.settle()
        flags, event = self._fetch(sums)
        flags[STOP] = int(bool(self._watch.signal) or self._out_of_time())
        if self._world.is_main and self._is_due(steps_done):
            flags[SAVE] = 1
            # Set here, so that the next step does not ask for a second checkpoint.
            self._saved = time.monotonic()
        ids = [batch.ids for batch in step.batches]
        if event is None:
            work = dist.all_reduce(flags, group=self._world.control, async_op=True)
            self._pending = _Pending(None, work, flags, int(sums[-1]), ids, position)
        else:
            self._pending = _Pending(event, None, flags, None, ids, position)
        return decision

    def settle(self) -> tuple[bool, bool]:
        """Return the ranks' decision after the step before; see ``after``.

        Raises:
            MedscaleError: when its loss was not finite, with the ids of this rank's images.
            FailedElsewhere: when the loss was not finite on another rank.
        """
        pending, self._pending = self._pending, None
        if pending is None:
            return False, False
        if pending.event is not None:
            pending.event.synchronize()
            pending.not_finite_here = int(pending.flags[NOT_FINITE])
            dist.all_reduce(pending.flags, group=self._world.control)
        else:
            pending.work.wait()
        if pending.flags[NOT_FINITE]:
            raise self._not_finite(pending)
        return bool(pending.flags[STOP]), bool(pending.flags[SAVE])

    @staticmethod
    def _fetch(sums: Tensor) -> tuple[Tensor, torch.cuda.Event | None]:
        """Return flags with the number of losses not finite; a GPU copies it asynchronously."""
        flags = torch.zeros(3, dtype=torch.int64)
        if sums.device.type == "cpu":
            flags[NOT_FINITE] = sums[-1]
            return flags, None
        flags = flags.pin_memory()
        flags[:1].copy_(sums[-1:], non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        return flags, event

    def saved(self, seconds: float) -> None:
        """Note that a checkpoint was tried, and how long it took, to plan the next one."""
        self._saved, self._save_seconds = time.monotonic(), seconds

    @property
    def reason(self) -> str:
        """Why this rank stops."""
        return self._watch.signal or ("the time limit" if self._out_of_time() else "another rank")

    def _is_due(self, steps_done: int) -> bool:
        if self._settings.checkpoint_every_steps is not None:
            return steps_done % self._settings.checkpoint_every_steps == 0
        interval = max(self._settings.checkpoint_every_s, self._save_seconds / CHECKPOINT_SHARE)
        return time.monotonic() - self._saved > interval

    def _out_of_time(self) -> bool:
        limit = self._settings.stop_after_s
        return limit is not None and time.monotonic() - self._start > limit

    def _not_finite(self, pending: _Pending) -> MedscaleError:
        if not pending.not_finite_here:
            return FailedElsewhere(f"{LOSS_NOT_FINITE} on another rank, {pending.position}")
        ids = torch.cat(pending.ids).tolist()
        return MedscaleError(
            f"{LOSS_NOT_FINITE}, {pending.position}; the batch has the images with these ids "
            f"in index.parquet: {ids}. Lower recipe.lr, set recipe.clip_norm, or look at the "
            "images; the last checkpoint is kept"
        )


class Watchdog:
    """End this process and write its stack down when a step takes too long, even in C code.

    Args:
        rank: this rank, which names the file.
        timeout_s: time limit of a collective; a step has this on top of the longest step so far.
    """

    def __init__(self, rank: int, timeout_s: float) -> None:
        folder = os.environ.get(failures.FOLDER)
        # The file stays open, since faulthandler writes to it at any time.
        self._file = open(Path(folder, f"hang{rank}.txt"), "w") if folder else None  # noqa: SIM115
        self._timeout, self._longest = timeout_s, 0.0
        self._last = time.monotonic()
        self.rest()

    def pet(self) -> None:
        """Restart the timer after a step of training or a batch of validation."""
        now = time.monotonic()
        if not self._resting:
            self._longest = max(self._longest, now - self._last)
        self._last = now
        if self._resting or now - self._armed > 1:
            self._arm(self._timeout + self._longest + PEERS_FIRST_S, resting=False)

    def rest(self) -> None:
        """Allow SETTLE_S until the next step, for work such as writing or predicting."""
        self._arm(SETTLE_S, resting=True)

    def dismiss(self) -> None:
        """Stop the timer at the end of training."""
        faulthandler.cancel_dump_traceback_later()

    def _arm(self, seconds: float, *, resting: bool) -> None:
        self._armed, self._resting = time.monotonic(), resting
        if self._file is not None:
            faulthandler.dump_traceback_later(seconds, exit=True, file=self._file)
