"""Run Snakemake for a command; Ctrl-C while it starts ends it without a traceback."""

import sys


def run() -> None:
    """Run Snakemake with the command line of this process."""
    sys.argv[0] = "snakemake"
    try:
        from snakemake.cli import main

        main()
    except KeyboardInterrupt:  # the command that waits for this process says that it was stopped
        raise SystemExit(130) from None


if __name__ == "__main__":
    run()
