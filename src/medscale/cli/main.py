"""The command line ``medscale``: its commands, in the order of its help."""

import os
import re
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from medscale import __version__
from medscale.base.errors import tell_user
from medscale.cli import crate, datasets, exchange, progress, results, study, verify

# Commands of other programs' names, and what to type for them here.
ELSEWHERE = {
    "run": "medscale study, or: snakemake results/STUDY/RUN",
    "train": "snakemake results/STUDY/RUN",
    "test": "medscale evaluate RESULT FOLDER",
    "list": "medscale summary",
    "ls": "medscale summary",
    "results": "medscale summary, or: snakemake results",
    "studies": "medscale config, or: medscale summary",
    "version": "medscale --version",
    "help": "medscale --help",
    "report": "medscale study, or: make report",
    # commands of a group, which a person may type without the name of the group
    "croissant": "medscale data croissant",
    "fetch": "medscale data fetch KIND",
    "restore": "medscale crate restore CRATE --to FOLDER",
    "compare": "medscale crate compare CRATE FOLDER",
}


HOME = re.compile(r"(--[a-z-]+=)(~/.*)", re.DOTALL)


class Commands(TyperGroup):
    """The commands; a name that other programs have is answered with what to type here."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; Ctrl-C ends it with one line, and with the status that Typer gives."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            print("medscale: stopped", file=sys.stderr)
            raise

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse a command line in which ``--option=~/path`` names a path of the home folder.

        Shells replace ``~`` at the beginning of a word alone.
        """

        def expanded(option: re.Match[str]) -> str:
            return option[1] + os.path.expanduser(option[2])

        return super().parse_args(ctx, [HOME.sub(expanded, argument) for argument in args])

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return name, command and further arguments, as click does."""
        if args[0] in ELSEWHERE and args[0] not in self.commands:
            ctx.fail(f"there is no command {args[0]!r}; type {ELSEWHERE[args[0]]}")
        return super().resolve_command(ctx, args)


main = typer.Typer(cls=Commands, no_args_is_help=True, pretty_exceptions_enable=False)


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


PANELS = {  # the parts of `medscale --help`
    "Plan and run": (
        study.check,
        study.size,
        study.study,
        progress.status,
        progress.logs,
        study.config,
        study.why,
        study.profile,
    ),
    "Results": (study.summary, results.show, verify.verify),
    "Use trained networks": (results.predict, results.serve, results.evaluate, results.export),
    "Publish": (results.leaks, exchange.publish, exchange.track),
}
for panel, commands in PANELS.items():
    for command in commands:
        main.command(rich_help_panel=panel)(command)
data = typer.Typer(no_args_is_help=True, help="Check, fetch and describe datasets.")
data.command()(datasets.check)
data.command()(datasets.fetch)
data.command()(datasets.croissant)
main.add_typer(crate.crate, name="crate", rich_help_panel="Publish")
main.add_typer(data, name="data", rich_help_panel="Datasets")


def app() -> None:
    """Run the command line; a MedscaleError becomes one message."""
    tell_user(main)()
