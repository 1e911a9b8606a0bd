"""Run Snakemake for a command; SIGINT (Ctrl-C) ends it without a traceback."""

import signal
import sys


def run() -> None:
    """Run Snakemake with the command line of this process."""
    sys.argv[0] = "snakemake"
    # A script's shell starts what runs in its background with this signal ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        from snakemake.cli import main

        main()
    except KeyboardInterrupt:  # the command that waits for this process says that it was stopped
        raise SystemExit(130) from None


if __name__ == "__main__":
    run()
