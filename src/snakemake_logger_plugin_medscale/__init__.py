"""Entry of medscale's progress display into Snakemake, which finds logger plugins by this name.

`snakemake --logger medscale` uses it. Snakemake imports it at each start, so that it stays small.
"""

from typing import Any

from snakemake_interface_logger_plugins.base import LogHandlerBase

LogHandler: Any
try:
    from medscale.workflow.progress.handler import Handler as LogHandler
except ModuleNotFoundError:  # the Snakefile says what to do
    LogHandler = LogHandlerBase

__all__ = ["LogHandler"]
