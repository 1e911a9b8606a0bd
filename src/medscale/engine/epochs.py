"""The epochs of a training whose times are those of its run."""

import pandas as pd


def timed_epochs(history: pd.DataFrame, devices: int) -> pd.DataFrame:
    """Return the rows of a replicate's history whose times are those of the run.

    They are the epochs on all devices of the run's name; if there is none, all epochs. Of a
    training that was continued on other hardware, they are those on the hardware of most of these
    epochs, or on the last of several with equally many.

    Args:
        history: history.csv, with the columns ``processes`` and ``hardware``.
        devices: number of devices of the run's name.
    """
    on_all = history[history["processes"] == devices]
    rows = on_all if len(on_all) else history
    counts = rows.groupby("hardware")["hardware"].transform("size")
    return rows[rows["hardware"] == rows["hardware"][counts == counts.max()].iloc[-1]]
