"""Names of figures and tables."""

from medscale.config.sections import Benchmarks

FIGURES = (
    "samples",
    "audit",
    "curves",
    "accuracy",
    "roc",
    "confusion",
    "speedup",
    "efficiency",
    "time",
)


TABLES = ("data", "audit", "results", "parity", "per_class", "timing", "reported")


QUALITY_FIGURES = ("pr", "calibration", "subgroups")


QUALITY_TABLES = ("tests", "operating", "confusions", "ensemble")


SCALING_FIGURES, SCALING_TABLES = ("scaling", "cost"), ("scaling", "laws", "cost")


BENCHMARKS = tuple(Benchmarks.model_fields)


PROFILES = ("profile", "operators", "memory", "roofline")
