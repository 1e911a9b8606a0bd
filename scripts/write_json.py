"""Write a plan (spec.json) or the resolved configuration as a readable file.

The text comes complete from the rule, where its schema was checked. So this script imports no
schema, and a change of a section of the configuration does not make all plans outdated.
"""

from medscale.base.script import run_script  # first: Ctrl-C during imports prints no traceback

# isort: split
import json
from pathlib import Path

import typer

from medscale.base.files import write_json


def main(
    text: str,
    out: Path = typer.Option(...),
    keep_order: bool = typer.Option(False, "--keep-order", help="do not sort the keys"),
) -> None:
    write_json(out, json.loads(text), keep_order=keep_order)


if __name__ == "__main__":
    run_script(main)
