"""Train one replicate of a detection run (YOLOv8)."""

from medscale.base.script import run_script  # first: from here on Ctrl-C is silent

# isort: split
from functools import wraps
from typing import Any

from medscale.engine.detect.extra import require
from medscale.engine.train.launcher import command
from medscale.resources import cards

train = command("medscale.engine.detect.worker", cards.reserve)


@wraps(train)
def main(*values: Any, **options: Any) -> None:
    require()
    train(*values, **options)


if __name__ == "__main__":
    run_script(main)
