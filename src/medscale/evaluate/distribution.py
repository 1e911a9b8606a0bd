"""Distribution of the predicted probability of each class, by true class."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from medscale.config.sections import positive_classes
from medscale.evaluate.replicates import Predictions

BINS = 20
REST = "all others"  # joint name of the other classes, if there are more than two classes


def score_distribution(test: Predictions, classes: Sequence[str]) -> pd.DataFrame:
    """Count the images by predicted probability of a class, separately by true class.

    Args:
        test: predictions of the test images.
        classes: class names in the order of their codes.

    Returns:
        One row for each class, true class and one of ``BINS`` bins of equal width: ``class`` (the
        class whose probability is binned), ``true`` (the true class; with more than two classes
        the class or ``REST``), ``low, high`` (limits of the bin), ``images`` (mean over
        replicates), ``share`` (of the images of the true class; NaN if it has none).
    """
    edges = np.linspace(0, 1, BINS + 1)
    tables = []
    for code in positive_classes(classes):
        positive = test.labels == code
        other_name = classes[0] if len(classes) == 2 else REST
        for name, part in ((other_name, ~positive), (classes[code], positive)):
            scores = test.probabilities[:, part, code]
            counts = np.histogram(scores.clip(0, 1), edges)[0] / len(test.probabilities)
            images = int(part.sum())
            table = pd.DataFrame({"low": edges[:-1], "high": edges[1:], "images": counts})
            table.insert(0, "class", classes[code])
            table.insert(1, "true", name)
            tables.append(table.assign(share=counts / images if images else np.nan))
    return pd.concat(tables, ignore_index=True)
