"""Start Dask workers as SLURM jobs, run the command after `--` with them, and end them."""

from medscale.base.script import run_script  # first: Ctrl-C during imports prints no traceback

# isort: split
import subprocess

import typer

from medscale.base.log import set_up
from medscale.data.cluster import workers_by_slurm
from medscale.data.settings import Dask


def main(
    command: list[str],
    dask: str = typer.Option(..., help="the dask section as JSON"),
    python: str = typer.Option(
        None, help="command of Python on the workers, such as apptainer exec IMAGE python"
    ),
) -> None:
    set_up()
    with workers_by_slurm(Dask.model_validate_json(dask), python):
        raise SystemExit(subprocess.run(command).returncode)


if __name__ == "__main__":
    run_script(main)
