"""Declaration of the chapter inference: ways of running a trained network."""

from medscale.report.benchmark import chapter

CHAPTER = chapter(
    "inference",
    figures={
        "inference": "Inference of *{study}*: latency of one image, and images a second against "
        "the size of a batch, by way."
    },
    facts=True,
)
