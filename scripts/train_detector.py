"""Train one replicate of a detection run (YOLOv8)."""

from medscale.base.script import run_script  # first: Ctrl-C during imports prints no traceback

# isort: split
from medscale.engine.detect.extra import require
from medscale.engine.train.launcher import command
from medscale.resources import cards

if __name__ == "__main__":
    run_script(command("medscale.engine.detect.worker", cards.reserve, require))
