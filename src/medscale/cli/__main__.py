"""Run the command line, by ``medscale`` or ``python -m medscale.cli``.

Ctrl-C ends it with one line and status 130, also while the modules of the commands are imported.
"""

import sys


def run() -> None:
    """Import the commands and run the one of the command line."""
    try:
        from medscale.cli.main import app
    except KeyboardInterrupt:
        print("medscale: stopped", file=sys.stderr)
        raise SystemExit(130) from None
    app()


if __name__ == "__main__":
    run()
