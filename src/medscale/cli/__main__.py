"""Run the command line, by ``medscale`` or ``python -m medscale.cli``.

Ctrl-C ends it with one line and status 130, also while commands are imported and built.
"""

import sys


def run() -> None:
    """Import the commands and run the one of the command line."""
    try:
        from medscale.cli.main import app

        app()
    except KeyboardInterrupt:
        print("medscale: stopped", file=sys.stderr)
        raise SystemExit(130) from None


if __name__ == "__main__":
    run()
