"""The reference of the command line as Markdown, from the commands of the typer app."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from typer.main import get_command

from medscale.base.text import markdown as escaped
from medscale.cli.main import main

PROGRAM = "medscale"


def commands(group: Any = None, name: str = PROGRAM) -> Iterator[tuple[str, Any]]:
    """Yield each command of the command line with its full name, in the order of the help."""
    for part, command in (group or get_command(main)).commands.items():
        if getattr(command, "hidden", False):
            continue
        if hasattr(command, "commands"):
            if command.invoke_without_command:
                yield f"{name} {part}", command
            yield from commands(command, f"{name} {part}")
        else:
            yield f"{name} {part}", command


def markdown() -> str:
    """Return a section for each command: what it does, its usage, arguments and options."""
    return "\n".join(line for name, command in commands() for line in _section(name, command))


def _section(name: str, command: Any) -> Iterator[str]:
    parameters = [each for each in command.params if not getattr(each, "hidden", False)]
    arguments = [each for each in parameters if each.param_type_name == "argument"]
    names = "".join(f" {_metavar(argument)}" for argument in arguments)
    options = " [OPTIONS]" if len(parameters) > len(arguments) else ""
    yield from (f"## `{name}`", "", escaped(" ".join(command.help.split())), "")
    yield from ("```text", f"{name}{options}{names}", "```", "")
    if parameters:
        yield from ("| name | meaning | default |", "|---|---|---|")
    for each in parameters:
        is_argument = each.param_type_name == "argument"
        title = _metavar(each) if is_argument else ", ".join([*each.opts, *each.secondary_opts])
        help_text = escaped(" ".join((each.help or "").split()))
        yield f"| `{title}` | {help_text} | {_default(each)} |"
    yield ""


def _metavar(argument: Any) -> str:
    name = (argument.metavar or argument.name).upper()
    return name if argument.nargs == 1 else f"{name}..."


def _default(parameter: Any) -> str:
    if parameter.required:
        return "required"
    value = parameter.default
    is_absent = value is None or value is False or value == [] or value == ()
    return "" if is_absent else f"`{value}`"
