"""Run the command line by ``python -m medscale.cli``."""

from medscale.cli.main import app

if __name__ == "__main__":
    app()
