"""Terminals and logs print text of users without its control characters."""

from __future__ import annotations

import logging
import sys

import pytest
from rich.table import Table

from medscale.base import console, log
from medscale.base.errors import MedscaleError, tell_user

NAME = "\x1b]0;title\x07\x9b2J[bold]x[/bold] :smile:\n\u202e\ud800"
SHOWN = "[U+001B]]0;title[U+0007][U+009B]2J[bold]x[/bold] :smile:[U+000A][U+202E][U+D800]"


def test_a_terminal_prints_names_as_they_are(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    table = Table("class", console.plain(NAME))
    table.add_row(console.plain(NAME), console.plain(NAME))
    console.Terminal().print(table)
    console.Terminal().print(f"[bold]{console.plain(NAME)}[/]")
    output = capsys.readouterr().out
    assert output.count(SHOWN) == 4
    assert "\x1b" not in output
    assert "\x9b" not in output


def test_an_error_message_does_not_control_the_terminal(capsys):
    @tell_user
    def command() -> None:
        raise MedscaleError(f"first line\n  {NAME}")

    with pytest.raises(SystemExit):
        command()
    output = capsys.readouterr().err
    assert output.startswith("medscale: error: first line\n  [U+001B]]0;title[U+0007]")
    assert not {"\x1b", "\x9b", "\x07", "\u202e"} & set(output)


@pytest.mark.parametrize("tty", [False, True])
def test_a_log_does_not_control_the_terminal(tmp_path, capsys, monkeypatch, tty):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: tty)
    logger = log.set_up(tmp_path / "x.log")
    try:
        logger.warning("file %s", NAME)
        logging.getLogger("py.warnings").warning("warning of %s", NAME)
    finally:
        log.set_up(quiet=True)
    text = (tmp_path / "x.log").read_text(encoding="utf-8")
    assert text.count("[U+001B]]0;title[U+0007]") == 2
    output = capsys.readouterr().err
    assert "U+001B" in output
    for line_text in (text, output):
        assert not {"\x07", "\x9b", "\u202e"} & set(line_text)
        assert "\x1b]" not in line_text  # which sets the title; colours of rich stay
