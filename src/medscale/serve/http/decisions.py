"""Decisions for an image at the operating points of a model."""

from __future__ import annotations

import math
from collections.abc import Mapping

from medscale.serve.http.answers import Decision, Model


def decisions(
    probabilities: Mapping[str, float] | None, model: Model, temperature: float | None
) -> list[Decision] | None:
    """Return the decision for an image at each operating point of a model; None without points.

    Thresholds were chosen for probabilities before calibration, and operating points are known of
    single networks alone. Their probabilities before calibration, softmax(z), follow from the
    calibrated ones, p = softmax(z / T): z is T log p, but for a summand that softmax ignores.

    Args:
        probabilities: by class; None for a detector.
        model: the model that gave them.
        temperature: by which they are calibrated; None if they are not.
    """
    if probabilities is None or not model.operating:
        return None
    highest = max(probabilities.values())
    powers = {name: (p / highest) ** (temperature or 1.0) for name, p in probabilities.items()}
    total = math.fsum(powers.values())
    return [
        Decision(
            label=point.label,
            validation_specificity=point.validation_specificity,
            positive=powers[point.label] / total > point.threshold,
        )
        for point in model.operating
    ]
