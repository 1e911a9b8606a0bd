"""Train one replicate of a classification run."""

import typer

from medscale.base.errors import tell_user
from medscale.engine.train.launcher import command
from medscale.resources import cards

if __name__ == "__main__":
    tell_user(typer.run)(command("medscale.engine.train.worker", cards.reserve))
