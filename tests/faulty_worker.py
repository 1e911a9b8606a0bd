"""A worker in which one rank fails at a step: FAULT=<kind>:<rank>:<step>."""

import os
import signal
import time

from medscale.engine.train import worker
from medscale.engine.train.loop import Trainer

kind, rank, step = os.environ["FAULT"].split(":")
real_step = Trainer._step


def faulty(self, batch):
    if self.world.rank == int(rank) and self.progress.steps_done(self.training.steps()) == int(
        step
    ):
        if kind == "raise":
            raise ValueError("a test's own error")
        if kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if kind == "sleep":
            time.sleep(600)
        if kind == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
    return real_step(self, batch)


Trainer._step = faulty

if __name__ == "__main__":
    import typer

    typer.run(worker.command(worker.Classification))
