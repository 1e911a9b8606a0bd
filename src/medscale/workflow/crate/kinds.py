"""The files of a study that may be published, by kind; files without a pattern are left out.

Weights, images and file names can show or name patients, and are published only if the options
of the same names request them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from medscale.base.files import has_hidden_part
from medscale.report.chapters import CHAPTERS
from medscale.report.profiling.reading import TABLES
from medscale.workflow.restored import RESOLVED

RECORD, WEIGHTS, IMAGES, FILE_NAMES = "record", "weights", "images", "file names"
ON_REQUEST = (WEIGHTS, IMAGES, FILE_NAMES)  # each with an option: --weights, --images, …

PAPER = "paper/paper.pdf"  # shows images of each study
LEFT_OUT = "left_out.json"  # of a crate: page sizes of the figures that it does not have
MODEL = "model.safetensors"
RESULT_TABLES = (
    *("metrics", "per_class", "confusion", "confusions", "roc", "pr", "reliability"),
    *("operating", "subgroups", "curves", "resamples", "boxes", "gradcam"),
    *("decision", "distribution", "gaps", "folds"),
)
RESULT_FIGURES = ("curves", "confusion", "roc", "quality", "pr")
EXTERNAL_FIGURES = ("confusion", "distribution", "quality", "roc")
RESULT_FIGURES_WITH_IMAGES = ("boxes", "gradcam")
REPLICATE = ("spec.json", "environment.json", "history.csv", "timing.json", "predictions.parquet")

# Pattern of a path in the workdir and the kind of such files; ``*`` stands for no ``/``.
PATTERNS: tuple[tuple[str, str], ...] = (
    (RESOLVED, RECORD),
    (PAPER, IMAGES),
    ("data/*/index.parquet", RECORD),  # without names, see ``anonymous``
    ("data/*/audit.json", RECORD),
    ("data/*/datasheet.md", RECORD),
    ("data/*/audit.csv", FILE_NAMES),
    *((f"runs/*/*/seed*/{name}", RECORD) for name in REPLICATE),
    (f"runs/*/*/seed*/{MODEL}", WEIGHTS),
    *((f"results/*/*/{name}.csv", RECORD) for name in RESULT_TABLES),
    *((f"results/*/*/{name}.pdf", RECORD) for name in RESULT_FIGURES),
    *((f"results/*/*/{name}.pdf", IMAGES) for name in RESULT_FIGURES_WITH_IMAGES),
    *((f"results/*/*/{name}", RECORD) for name in ("summary.json", "inference.json")),
    ("results/*/*/model_card.md", RECORD),
    ("results/*/*/gradcam_heat.npy", IMAGES),
    ("results/*/*/gradcam_images.npy", IMAGES),
    ("results/*/*/seed*.safetensors", WEIGHTS),
    *((f"external/*/*/{name}.csv", RECORD) for name in (*RESULT_TABLES, "shift", "predictions")),
    *((f"external/*/*/{name}.pdf", RECORD) for name in EXTERNAL_FIGURES),
    ("external/*/*/summary.json", RECORD),
    *((f"profiled/*/*/{name}.parquet", RECORD) for name in TABLES),
    *((f"profiled/*/*/{name}.json", RECORD) for name in ("profile", "spec")),
    *((f"tables/*.{ending}", RECORD) for ending in ("csv", "json", "tex")),
    *((f"tables/*/*.{ending}", RECORD) for ending in ("csv", "json", "tex")),
    *((f"measured/*/*.{ending}", RECORD) for ending in ("csv", "json")),
    *(
        (
            chapter.figure_path(name).replace("{study}", "*"),
            IMAGES if chapter.shows_images else RECORD,
        )
        for chapter in CHAPTERS
        for name in chapter.figures
    ),
)


def kind_of(path: str) -> str | None:
    """Return the kind of a file by its path in the workdir; None where it is not published.

    Hidden files and the files of hidden folders are not published. A killed evaluation leaves such
    folders.
    """
    if has_hidden_part(PurePosixPath(path)):
        return None
    parts = path.split("/")
    for pattern, kind in PATTERNS:
        names = pattern.split("/")
        if len(names) == len(parts) and all(map(fnmatchcase, parts, names)):
            return kind
    return None


def publishable(workdir: Path, studies: Collection[str]) -> Iterator[tuple[str, str | None]]:
    """Yield path and kind of each file in the folders of the workdir that a crate is made from.

    Hidden files and those of hidden folders are left out.

    Args:
        workdir: of the study.
        studies: names of the studies, with variants and external sets.
    """
    places = ("results", "figures", "tables", "measured", "external", "profiled")
    folders = [workdir / place / study for place in places for study in studies]
    files = [file for folder in folders for file in sorted(folder.rglob("*"))]
    # Chapters about all studies have no folder of a study.
    files += [file for place in places for file in sorted((workdir / place).glob("*.*"))]
    for file in files:
        relative = file.relative_to(workdir)
        if file.is_file() and not has_hidden_part(relative):
            yield relative.as_posix(), kind_of(relative.as_posix())
