"""Declaration of the chapter enhance: preprocessing images with several Dask workers."""

from medscale.report.benchmark import chapter

CHAPTER = chapter(
    "enhance",
    figures={
        "enhance": "Time and speedup of preprocessing the images of *{study}* against the number "
        "of Dask workers, by split."
    },
)
