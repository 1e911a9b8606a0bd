"""Snakemake's output on the terminal: the summary of a dry run, the progress of a study."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from medscale.workflow.progress.handler import Handler

DEFAULT_HANDLER = "DefaultStreamHandler"  # Snakemake's name of the handler that prints its messages
PROFILE = "--profile"
PROGRESS_VARIABLE = "MEDSCALE_PROGRESS"  # set where a run without a profile shows its progress


def shorten(manager: Any, arguments: Sequence[str]) -> None:
    """Leave out the messages of a dry run below a warning, and show other runs as progress.

    Progress is shown for `medscale study` and runs with a profile. Runs without a profile, those
    with a logger that the user names, and Snakemake's processes on the nodes of a cluster stay as
    they are. Snakemake's own plugins of loggers would not do: a profile that names one is refused
    where medscale is not installed, before the Snakefile says what to do.

    Args:
        manager: Snakemake's manager of loggers.
        arguments: command line of Snakemake.
    """
    settings, is_requested = manager.settings, os.environ.pop(PROGRESS_VARIABLE, None) is not None
    default = [handler for handler in manager.logger.handlers if handler.name == DEFAULT_HANDLER]
    if not default or settings.skip_plugin_handlers:
        return
    if settings.dryrun:
        if not (settings.printshellcmds or settings.verbose or settings.debug_dag):
            default[0].setLevel(logging.WARNING)
    elif is_requested or _has_profile(arguments):
        manager.logger.removeHandler(default[0])
        manager.logger.addHandler(Handler(settings))


def _has_profile(arguments: Sequence[str]) -> bool:
    if f"{PROFILE}=none" in arguments or (PROFILE, "none") in pairwise(arguments):
        return False
    is_named = any(argument.split("=")[0] == PROFILE for argument in arguments)
    return is_named or "SNAKEMAKE_PROFILE" in os.environ
