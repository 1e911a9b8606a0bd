"""Predictions to metrics with intervals; reads run folders, knows nothing of training."""

from medscale.evaluate.evaluation import Evaluation, evaluate
from medscale.evaluate.summary import one_line

__all__ = ["Evaluation", "evaluate", "one_line"]
