"""Declaration of the chapter enhance: preprocessing images with several Dask workers."""

from medscale.report.benchmark import chapter

CHAPTER = chapter(
    "enhance",
    figures={
        "enhance": "Time, speedup and efficiency of preprocessing the images of *{study}* "
        "against the number of Dask workers, by split."
    },
)
