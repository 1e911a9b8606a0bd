"""Declaration of the chapter export: exported networks compared with PyTorch."""

from medscale.report.benchmark import chapter

CHAPTER = chapter(
    "export",
    figures={
        "export": "Exported networks of *{study}*: size, images a second, and the paired "
        "difference in accuracy from PyTorch."
    },
    facts=True,
    printed=True,
)
