"""Train one replicate of a detection run (YOLOv8)."""

import typer

from medscale.base.errors import tell_user
from medscale.engine.detect.extra import require
from medscale.engine.train.launcher import command
from medscale.resources import cards


def main() -> None:
    require()
    typer.run(command("medscale.engine.detect.worker", cards.reserve))


if __name__ == "__main__":
    tell_user(main)()
