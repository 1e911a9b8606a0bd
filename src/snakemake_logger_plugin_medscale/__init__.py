"""Entry of medscale's progress display into Snakemake, which finds logger plugins by this name.

`snakemake --logger medscale` uses it. Snakemake imports it at each start, so that it stays small.
"""

from medscale.workflow.progress.handler import Handler as LogHandler

__all__ = ["LogHandler"]
