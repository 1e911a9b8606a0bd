"""The chapter detection: the runs of a study that predict boxes."""
