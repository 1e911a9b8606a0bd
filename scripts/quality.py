"""Write the quality chapter of a study, and the Grad-CAM figure of its baseline."""

from pathlib import Path

import typer

from medscale.base.errors import tell_user
from medscale.base.log import log, set_up
from medscale.report.quality import write_gallery, write_quality

main = typer.Typer()


@main.command()
def report(
    results: list[Path],
    replicates: list[Path] = typer.Option(..., help="run folders, runs/<study>/<run>/seed<k>"),
    study: str = typer.Option(...),
    config: Path = typer.Option(...),
    index: Path = typer.Option(...),
    figures: Path = typer.Option(...),
    tables: Path = typer.Option(...),
    log_file: Path = typer.Option(..., "--log"),
) -> None:
    set_up(log_file)
    by_run: dict[str, list[Path]] = {}
    for folder in replicates:
        by_run.setdefault(folder.parent.name, []).append(folder)
    write_quality(study, config, index, results, by_run, figures, tables)
    log.info("%s: figures in %s, tables in %s", study, figures, tables)


@main.command()
def gradcam(
    result: Path, figures: Path = typer.Option(...), log_file: Path = typer.Option(..., "--log")
) -> None:
    set_up(log_file)
    write_gallery(result, figures)


if __name__ == "__main__":
    tell_user(main)()
