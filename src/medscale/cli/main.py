"""The command line ``medscale``: its commands, in the order of its help."""

from typing import Annotated

import typer

from medscale import __version__
from medscale.base.errors import tell_user
from medscale.cli import crate, datasets, exchange, progress, results, study, verify

main = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _print_version(is_asked: bool) -> None:
    if is_asked:
        print(f"medscale {__version__}")
        raise typer.Exit


@main.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_print_version, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Check the plans of a study, run it, show and serve its results."""


for command in (
    study.check,
    study.study,
    progress.status,
    progress.logs,
    study.config,
    study.why,
    results.serve,
    study.profile,
    study.summary,
    verify.verify,
    results.leaks,
    results.predict,
    results.evaluate,
    results.export,
    exchange.publish,
    exchange.track,
    study.size,
    results.show,
):
    main.command()(command)
data = typer.Typer(no_args_is_help=True, help="Downloads: are they complete, how to get them.")
data.command()(datasets.check)
data.command()(datasets.fetch)
data.command()(datasets.croissant)
main.add_typer(data, name="data")
main.add_typer(crate.crate, name="crate")


def app() -> None:
    """Run the command line; a MedscaleError becomes one message."""
    tell_user(main)()
