"""Declaration of the chapter loading: ways of loading images for training."""

from medscale.report.benchmark import chapter

CHAPTER = chapter(
    "loading",
    figures={"loading": "Images of *{study}* a second by way of loading and number of processes."},
)
