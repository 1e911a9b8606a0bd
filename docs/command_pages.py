"""The reference of the command line as Markdown, from the commands of the typer app."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from typer.main import get_command

from medscale.base.text import markdown as escaped
from medscale.cli.main import main

PROGRAM = "medscale"
CODE = re.compile(r"`([^`]+)`|(?<![\w-])(--[a-z][a-z-]*[a-z])")  # in a text of help


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
    names = "".join(f" {_usage(argument)}" for argument in arguments)
    options = " [OPTIONS]" if len(parameters) > len(arguments) else ""
    yield from (f"## `{name}`", "", _words(command.help), "")
    yield from ("```text", f"{name}{options}{names}", "```", "")
    if parameters:
        yield from ("| name | meaning | default |", "|---|---|---|")
    for each in parameters:
        is_argument = each.param_type_name == "argument"
        title = _metavar(each) if is_argument else ", ".join([*each.opts, *each.secondary_opts])
        yield f"| `{title}` | {_words(each.help or '')} | {_default(each)} |"
    yield ""


def _words(text: str) -> str:
    """Return a text as Markdown, with what is in backquotes and names of options as code."""
    # Every second and third part is code; escaping would remove the blanks at a part's beginning.
    parts = CODE.split(" ".join(text.split()))
    plain = [(" " if part[:1] == " " else "") + escaped(part) for part in parts[::3]]
    codes = [
        f"`{quoted or option}`" for quoted, option in zip(parts[1::3], parts[2::3], strict=True)
    ]
    return "".join(text for pair in zip(plain, [*codes, ""], strict=True) for text in pair)


def _usage(argument: Any) -> str:
    name = _metavar(argument)
    return name if argument.required else f"[{name}]"


def _metavar(argument: Any) -> str:
    name = (argument.metavar or argument.name).upper()
    return name if argument.nargs == 1 else f"{name}..."


def _default(parameter: Any) -> str:
    if parameter.required:
        return "required"
    value = parameter.default
    is_absent = value is None or value is False or value in ("", [], ())
    return "" if is_absent else f"`{value}`"
