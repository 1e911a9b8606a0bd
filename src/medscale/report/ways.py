"""Looks of the ways of running a trained network, the same in the chapters export and inference.

Apart from `names`, so that a new export format does not draw the figures of other chapters again.
"""

from medscale.report.names import LOOKS
from medscale.serve.formats.registry import looks

WAYS = {name: LOOKS[number] for name, number in looks().items()}
