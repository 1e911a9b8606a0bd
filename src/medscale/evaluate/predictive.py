"""Predictive values, likelihood ratios, MCC and expected cost of a test at a prevalence."""

from typing import Any

import numpy as np

from medscale.evaluate.bootstrap import ratio

NAMES = {
    "ppv": "positive predictive value",
    "npv": "negative predictive value",
    "lr_positive": "positive likelihood ratio",
    "lr_negative": "negative likelihood ratio",
    "mcc": "MCC",
    "cost": "expected cost",
}
# These metrics are computed as shares x, since the odds x/(1-x) of a resample can be infinite.
ODDS = ("lr_positive", "lr_negative")


def consequences(
    sensitivity: Any, specificity: Any, prevalence: Any, miss_cost: float
) -> dict[str, Any]:
    """Compute predictive values, likelihood ratios, MCC and expected cost of a test.

    - Predictive values: shares of correct answers among the positive and among the negative
      answers, by Bayes' theorem at the prevalence.
    - Likelihood ratios (Deeks & Altman, BMJ 2004); they do not depend on the prevalence.
    - MCC: Matthews' correlation coefficient (Chicco & Jurman, BMC Genomics 2020), 0 if all answers
      are equal.
    - Expected cost of a patient in units of a false alarm (Ferrer 2022; Maier-Hein et al., Metrics
      Reloaded, Nature Methods 2024).

    Args:
        sensitivity, specificity, prevalence: numbers or arrays, 0 to 1.
        miss_cost: cost of a missed case in units of a false alarm.

    Returns:
        Values by name of ``NAMES``; NaN for a share of no patients. Likelihood ratios are given as
        shares x; ``odds`` turns them into ratios x/(1-x).
    """
    true_positives, false_negatives = prevalence * sensitivity, prevalence * (1 - sensitivity)
    true_negatives = (1 - prevalence) * specificity
    false_positives = (1 - prevalence) * (1 - specificity)
    positives, negatives = true_positives + false_positives, true_negatives + false_negatives
    denominator = np.sqrt(positives * negatives * prevalence * (1 - prevalence))
    mcc = ratio(true_positives * true_negatives - false_positives * false_negatives, denominator)
    missed, false_alarms = 1 - sensitivity, 1 - specificity  # exactly 0 for rates of 1
    return {
        "ppv": ratio(true_positives, positives),
        "npv": ratio(true_negatives, negatives),
        "lr_positive": ratio(sensitivity, sensitivity + false_alarms),
        "lr_negative": ratio(missed, missed + specificity),
        "mcc": np.where(denominator == 0, 0.0, mcc),
        "cost": miss_cost * false_negatives + false_positives,
    }


def odds(share: Any) -> Any:
    """Return the odds x/(1-x) of a share; infinite for 1."""
    with np.errstate(divide="ignore"):
        return np.divide(share, 1 - np.asarray(share, np.float64))


def cost_without_test(prevalence: float, miss_cost: float) -> float:
    """Return the expected cost of the better of two rules: call everyone positive, or no one."""
    return min(1 - prevalence, miss_cost * prevalence)
