"""The chapter gradcam: which parts of an image speak for the predicted class."""

from pathlib import Path

from medscale.base.files import read_json
from medscale.report.marks import marks_of
from medscale.report.result.gallery import read_gallery, some_cases
from medscale.report.writer import Pages


def make(study: str, *, result: str) -> Pages:
    """Return the chapter's figure from the result folder of the baseline.

    Raises MedscaleError when the folder has no Grad-CAM.
    """
    summary = read_json(Path(result) / "summary.json")
    figure = some_cases(read_gallery(Path(result), summary))
    return Pages(marks=[marks_of(summary)], figures={"gradcam": figure})
