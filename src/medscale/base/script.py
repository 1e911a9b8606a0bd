"""Start of the scripts that Snakemake's jobs run; each script imports this module first.

The other imports of a script take seconds. Ctrl-C reaches all jobs of a study. During an import,
Python would answer it with a traceback, and some extension modules with a misleading ImportError.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from functools import wraps
from typing import Any

# In the background of a shell SIGINT is ignored, and stays so.
_LISTENS = signal.getsignal(signal.SIGINT) is signal.default_int_handler
if _LISTENS:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def run_script(main: Callable[..., object]) -> None:
    """Call a function with the command line of this process, and exit.

    An error of the user is one message and status 2 (``tell_user``), Ctrl-C is status 130 without a
    message, since the program that started the job says that it was stopped.
    """
    import typer

    from medscale.base.errors import EXIT_INTERRUPTED, tell_user

    @wraps(main)
    def command(*args: Any, **options: Any) -> None:
        try:
            main(*args, **options)
        except KeyboardInterrupt:
            raise SystemExit(EXIT_INTERRUPTED) from None

    if _LISTENS:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    tell_user(typer.run)(command)
