"""The command line ``medscale``: its commands, in the order of its help."""

import typer

from medscale.base.errors import tell_user
from medscale.cli import crate, datasets, exchange, results, study

main = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Check the plans of a study, run it, show and serve its results.",
)
for command in (
    study.check,
    study.study,
    study.config,
    study.why,
    results.serve,
    study.profile,
    study.summary,
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
