"""Entry of medscale's progress display into Snakemake, which finds logger plugins by this name.

`snakemake --logger medscale` uses it. Snakemake imports it at each start, so that it stays small.
"""

try:
    from medscale.workflow.progress.handler import Handler as LogHandler
except ModuleNotFoundError:  # the Snakefile says what to do
    from snakemake_interface_logger_plugins.base import LogHandlerBase as LogHandler

__all__ = ["LogHandler"]
