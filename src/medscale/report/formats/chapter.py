"""Declaration of the chapter formats: the same training in fp32, tf32, bf16 and fp16."""

from medscale.report.benchmark import chapter

CHAPTER = chapter(
    "formats",
    figures={
        "formats": "Images of *{study}* a second in training, and accuracy on the test "
        "images, by number format."
    },
    printed=True,
)
