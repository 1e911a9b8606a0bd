"""What can end or interrupt training between two steps: signals, time limits, a loss that is not finite, a hang."""

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
from medscale.engine.parallel.world import World
from medscale.engine.plan import Parallel

SHARE = 0.02  # of training time that checkpoints may take
SETTLE_S = 600.0  # before the first step: reading, compilation, warm-up
PEERS_FIRST_S = 4.0  # peers that wait for a rank that hangs give up before it is ended: so it is told which one hung
NOT_FINITE, STOP, SAVE = range(3)


class Elsewhere(MedscaleError):
    """Another rank has failed and says why; this one only ends with it."""


@dataclass
class Watch:
    """Signals that ask for a stop; handlers only set a flag."""

    asked: str = ""

    def install(self) -> None:
        """Listen to SIGTERM (a job is ended), SIGUSR1 (a time limit comes) and SIGINT (a person)."""
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
            signal.signal(number, self._note)

    def _note(self, number: int, _frame: Any) -> None:
        self.asked = signal.Signals(number).name


@dataclass
class _Pending:
    """A step whose flags are on their way: from the GPU (event) or between ranks (work)."""

    event: torch.cuda.Event | None
    work: Any
    flags: Tensor
    mine: int | None
    ids: list[Tensor]
    where: str


class Guard:
    """Agrees among all ranks, one step late and without holding a step up, whether to stop or to save.

    Args:
        world: this rank's place.
        settings: intervals and limits.
        watch: signals.
    """

    def __init__(self, world: World, settings: Parallel, watch: Watch) -> None:
        self._world, self._settings, self._watch = world, settings, watch
        self._begun = self._saved = time.monotonic()
        self._save_cost = 0.0
        self._pending: _Pending | None = None

    def after(self, step: Step, sums: Tensor, done: int, where: str) -> tuple[bool, bool]:
        """Call after each optimizer step.

        Args:
            step: what was just trained on.
            sums: int64, shape 3, as ``Strategy.backward`` gives them.
            done: optimizer steps since the beginning.
            where: epoch and step, for messages.

        Returns:
            Whether to stop, and whether to save a checkpoint: the same on every rank.
        """
        verdict = self.settle()
        flags, event = self._fetch(sums)
        flags[STOP] = int(bool(self._watch.asked) or self._out_of_time())
        if self._world.is_main and self._due(done):
            flags[SAVE] = 1
            self._saved = (
                time.monotonic()
            )  # not again in the next step, before this one is carried out
        mine = None if event else int(flags[NOT_FINITE])
        work = None if event else dist.all_reduce(flags, group=self._world.control, async_op=True)
        self._pending = _Pending(
            event, work, flags, mine, [batch.ids for batch in step.batches], where
        )
        return verdict

    def settle(self) -> tuple[bool, bool]:
        """What the ranks agreed on after the step before; see ``after``.

        Raises:
            MedscaleError: when its loss was not finite, with the images of this rank's batch.
            Elsewhere: when that was so on another rank.
        """
        pending, self._pending = self._pending, None
        if pending is None:
            return False, False
        if pending.event is not None:
            pending.event.synchronize()
            pending.mine = int(pending.flags[NOT_FINITE])
            dist.all_reduce(pending.flags, group=self._world.control)
        else:
            pending.work.wait()
        if pending.flags[NOT_FINITE]:
            raise self._not_finite(pending)
        return bool(pending.flags[STOP]), bool(pending.flags[SAVE])

    @staticmethod
    def _fetch(sums: Tensor) -> tuple[Tensor, torch.cuda.Event | None]:
        """Flags with the count of losses that are not finite; from a GPU it comes without waiting."""
        flags = torch.zeros(3, dtype=torch.int64)
        if sums.device.type == "cpu":
            flags[NOT_FINITE] = sums[2]
            return flags, None
        flags = flags.pin_memory()
        flags[:1].copy_(sums[2:], non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        return flags, event

    def saved(self, seconds: float) -> None:
        """A checkpoint was tried; the next one waits until its cost is small against the time since."""
        self._saved, self._save_cost = time.monotonic(), seconds

    @property
    def reason(self) -> str:
        """Why this rank was asked to stop."""
        return self._watch.asked or ("the time limit" if self._out_of_time() else "another rank")

    def _due(self, done: int) -> bool:
        if self._settings.checkpoint_every_steps is not None:
            return done % self._settings.checkpoint_every_steps == 0
        return time.monotonic() - self._saved > max(
            self._settings.checkpoint_every_s, self._save_cost / SHARE
        )

    def _out_of_time(self) -> bool:
        limit = self._settings.stop_after_s
        return limit is not None and time.monotonic() - self._begun > limit

    def _not_finite(self, pending: _Pending) -> MedscaleError:
        if not pending.mine:
            return Elsewhere(f"the loss is not finite on another rank, {pending.where}")
        ids = torch.cat(pending.ids).tolist()
        return MedscaleError(
            f"the loss is not finite, {pending.where}; the batch has the images with these ids in index.parquet: {ids}"
            ". Lower recipe.lr, set recipe.clip_norm, or look at the images; the last checkpoint is kept"
        )


class Watchdog:
    """Ends this process, with its stack written down, when no step finishes in time (a hang), even inside C code."""

    def __init__(self, rank: int, timeout_s: float, first_s: float = SETTLE_S) -> None:
        folder = os.environ.get("MEDSCALE_FAILURES")
        self._file = open(Path(folder, f"hang{rank}.txt"), "w") if folder else None  # noqa: SIM115 (kept open)
        self._timeout, self._longest = timeout_s, 0.0
        self._last = time.monotonic()
        self._arm(first_s, until_next=True)

    def pet(self) -> None:
        """A step, or a batch of validation, has finished."""
        now = time.monotonic()
        if not self._settling:
            self._longest = max(self._longest, now - self._last)
        self._last = now
        if self._settling or now - self._armed > 1:
            self._arm(self._timeout + self._longest + PEERS_FIRST_S)

    def rest(self) -> None:
        """What follows (writing, predicting) has no time limit of its own but the settling time."""
        self._arm(SETTLE_S, until_next=True)

    def dismiss(self) -> None:
        """Training is over."""
        faulthandler.cancel_dump_traceback_later()

    def _arm(self, seconds: float, *, until_next: bool = False) -> None:
        self._armed, self._settling = time.monotonic(), until_next
        if self._file is not None:
            faulthandler.dump_traceback_later(seconds, exit=True, file=self._file)
