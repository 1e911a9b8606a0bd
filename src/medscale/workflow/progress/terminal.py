"""Snakemake's output on the terminal: the summary of a dry run, the progress of a study."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from medscale.workflow.progress.handler import Handler, lists_jobs

DEFAULT_HANDLER = "DefaultStreamHandler"  # Snakemake's name of the handler that prints its messages
PROFILE = "--profile"


def shorten(manager: Any, arguments: Sequence[str]) -> None:
    """Leave out the messages of a dry run below a warning, and show a profile's run as progress.

    A profile cannot name the logger plugin itself: where Snakemake is installed without medscale,
    its parser would refuse the name before the Snakefile says what to do. A logger that the user
    names, Snakemake's processes on the nodes of a cluster, and runs without a profile stay as they
    are.

    Args:
        manager: Snakemake's manager of loggers.
        arguments: command line of Snakemake.
    """
    settings = manager.settings
    default = [handler for handler in manager.logger.handlers if handler.name == DEFAULT_HANDLER]
    if not default or settings.skip_plugin_handlers:
        return
    if settings.dryrun:
        if not lists_jobs(settings):
            default[0].setLevel(logging.WARNING)
    elif _has_profile(arguments):
        manager.logger.removeHandler(default[0])
        manager.logger.addHandler(Handler(settings, None))


def _has_profile(arguments: Sequence[str]) -> bool:
    if f"{PROFILE}=none" in arguments or (PROFILE, "none") in pairwise(arguments):
        return False
    is_named = any(argument.split("=")[0] == PROFILE for argument in arguments)
    return is_named or "SNAKEMAKE_PROFILE" in os.environ
