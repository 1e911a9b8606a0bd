"""Write a plan (spec.json) or the resolved configuration as a plain file, checked against its schema."""

from enum import Enum
from pathlib import Path

import typer

from medscale.base.errors import tell_user
from medscale.base.files import write_json
from medscale.config.configuration import Config
from medscale.engine.plan import RunPlan


class Kind(Enum):
    """What the JSON holds."""

    plan = "plan"
    config = "config"


def main(kind: Kind, text: str, out: Path = typer.Option(...)) -> None:
    schema = {Kind.plan: RunPlan, Kind.config: Config}[kind]
    write_json(out, schema.model_validate_json(text).model_dump(mode="json"))


if __name__ == "__main__":
    tell_user(typer.run)(main)
