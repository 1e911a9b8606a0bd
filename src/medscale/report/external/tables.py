"""Tables of runs on images of another origin, as LaTeX."""

import pandas as pd

from medscale.report.names import label
from medscale.report.result.reading import records
from medscale.report.tables import around, left, right, short_name, table


def external(rows: pd.DataFrame) -> str:
    """Return metrics inside and outside of each external set and held-out source."""
    columns = [
        left("images from", lambda row: short_name(row["set"])),
        left("run", lambda row: short_name(label(row["run"]))),
        right("images", lambda row: str(row["images"])),
        right(r"AUROC\\inside", lambda row: around(row, "auroc_inside", 3)),
        right(r"AUROC\\outside", lambda row: around(row, "auroc_outside", 3)),
        right(r"outside minus\\inside", lambda row: around(row, "auroc_difference", 3)),
        right(
            r"balanced accuracy\\inside (\%)",
            lambda row: around(row, "balanced_accuracy_inside", 1, 100),
        ),
        right(
            r"balanced accuracy\\outside (\%)",
            lambda row: around(row, "balanced_accuracy_outside", 1, 100),
        ),
    ]
    return table(records(rows), columns)
