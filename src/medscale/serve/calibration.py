"""Calibration of predicted probabilities by the temperatures of a result folder.

A temperature is fitted to a network on the validation split and divides its logits (Guo et al.,
ICML 2017). All ways to predict use it where there is one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

Calibration = Literal["none", "temperature", "temperature of each network"]

# What a calibration means for a reader of the probabilities.
SENTENCES: dict[Calibration, str] = {
    "none": "Not calibrated: of images that are given 80 %, more or fewer than 80 % may belong to"
    " the class.",
    "temperature": "Of images that are given 80 %, about 80 % should belong to the class:"
    " probabilities were calibrated on validation images.",
    "temperature of each network": "Not calibrated as a whole: each network's probabilities are,"
    " but not their mean, which is shown. Of images that are given 80 %, more or fewer than 80 %"
    " may belong to the class.",
}
BOX_SENTENCE = "Confidences of boxes are not calibrated."


def calibration_by(temperatures: Sequence[float | None]) -> Calibration:
    """Return the calibration of the mean probabilities of networks.

    Args:
        temperatures: of each network; None where none was fitted, as to detectors and to runs
            without validation images. Networks with and without one are not mixed: if one is
            None, none is used.
    """
    if None in temperatures:
        return "none"
    return "temperature" if len(temperatures) == 1 else "temperature of each network"
