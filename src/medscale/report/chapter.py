"""The declaration of a chapter: its inputs, its outputs, and the studies that have it.

Snakemake reads the declarations of all chapters at each start, so they import nothing heavy. The
function that makes a chapter is ``make`` in the module ``make`` of its folder.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medscale.config.configuration import Config

Inputs = Mapping[str, str | Path | list[str] | list[Path]]
TABLE = "A table of the study *{study}* with every digit; the paper prints it rounded."
UNPRINTED = "A table of the study *{study}* with every digit; the paper does not print it."

FIGURES = "Figures"  # kind of output

WORDS = {  # titles for people; a name that is not here is its own title
    "accuracy": "Accuracy and AUROC",
    "artefact": "Claims: targets, time and hardware",
    "assessment": "Assessment of the baseline",
    "at_what_cost": "At what cost: accuracy against speedup",
    "audit": "Files and images by class",
    "checklist_acm": "Checklist: ACM artefact badges",
    "checklist_claim": "Checklist: CLAIM",
    "checklist_reproducibility": "Checklist: reproducibility of machine learning",
    "checklist_tripod": "Checklist: TRIPOD+AI",
    "confusion": "Confusion of the classes",
    "confusions": "Most frequent confusions",
    "cost": "Time and cost to the target",
    "curves": "Training curves",
    "data": "Images by class and split",
    "detection": "Localization",
    "enhance": "Preprocessing with several Dask workers",
    "ensemble": "Ensemble of the seeds",
    "export": "Export formats",
    "external": "External test sets",
    "external_points": "External test sets: operating points",
    "external_scores": "External test sets: distribution of the probabilities",
    "fold_tests": "Cross-validation: tests",
    "folds": "Cross-validation",
    "formats": "Training in fp32, tf32, bf16 and fp16",
    "gaps": "Sensitivity and specificity by subgroup",
    "gradcam": "Grad-CAM",
    "how_far": "How far: speedup against devices",
    "inference": "Speed of prediction",
    "laws": "Scaling laws",
    "loading": "Loading of images",
    "memory": "Memory of a step",
    "operating": "Operating points",
    "operators": "Operators of a step",
    "parity": "Accuracy against the baseline",
    "per_class": "Scores by class",
    "pr": "Precision and recall",
    "profile": "Time of a step",
    "provenance": "Machines and versions of the code",
    "reported": "Published results",
    "results": "Results of each run",
    "roc": "ROC curves",
    "runs": "Replicates",
    "samples": "Sample images",
    "scaling": "Scaling",
    "speedup": "Speedup",
    "subgroups": "Scores by subgroup",
    "sweep": "Sweep of the learning rate",
    "tests": "Tests of differences",
    "time": "Time of an epoch",
    "timing": "Times of each run",
    "verdicts": "Speedup and accuracy of each run",
    "what_to_buy": "What to buy: time and money to the target",
    "why": "Why: where the time of an epoch goes",
}


def in_words(name: str) -> str:
    """Return the name of a figure, table or document as a title for people."""
    return WORDS.get(name, name.replace("_", " ").capitalize())


@dataclass(frozen=True)
class Chapter:
    """A chapter of a study's report."""

    name: str  # the folder below ``medscale/report``; the rule is ``<name>_report``
    # files by the name of ``make``'s argument; an absolute path is one of the checkout
    inputs: Callable[[Config, str], Inputs]
    # further arguments of ``make``, as JSON can hold them. A change reruns the chapter
    settings: Callable[[Config, str], Mapping[str, Any]] = lambda config, study: {}
    # caption by name, in reStructuredText; ``{study}`` is replaced
    figures: Mapping[str, str] = field(default_factory=dict)
    # whether its figures, which are then all that it has, show the study's images. Such a chapter
    # cannot be made from a crate, and its figures leave the machine only on request
    shows_images: bool = False
    tables: Mapping[str, str] = field(default_factory=dict)  # the same for tables
    # tables that the paper does not print: they have CSV files alone, the others LaTeX too
    unprinted: Collection[str] = ()
    documents: Mapping[str, str] = field(default_factory=dict)  # the same for text files, by path
    # name of the JSON file in which the paper finds the chapter's numbers; empty if none
    facts: str = ""
    # whether a study has the chapter
    present: Callable[[Config, str], bool] = lambda config, study: True
    remedy: str = ""  # the setting that gives a study the chapter
    variants: bool = False  # whether variants of studies have it as well
    spans_studies: bool = False  # whether one chapter is about all studies together
    # whether ``make`` has an argument ``chapters``, the names of the study's
    lists_chapters: bool = False
    # whether ``make`` has an argument ``output_paths``, the paths of all figures and tables
    cites_outputs: bool = False

    def figure_path(self, name: str) -> str:
        """Return the pattern of a figure's file."""
        return f"figures/{self._folder}{name}.pdf"

    def table_path(self, name: str, ending: str) -> str:
        """Return the pattern of a table's file; ``ending`` is tex, csv or json."""
        return f"tables/{self._folder}{name}.{ending}"

    def report_files(self) -> Iterator[tuple[str, str, str, str]]:
        """Yield path, label, kind and caption of each file that ``snakemake --report`` shows."""
        for name, caption in self.figures.items():
            yield self.figure_path(name), in_words(name), FIGURES, caption
        for name, caption in self.tables.items():
            own = UNPRINTED if caption == TABLE and name in self.unprinted else caption
            yield self.table_path(name, "csv"), in_words(name), "Tables", own
        for path, caption in self.documents.items():
            yield path, in_words(Path(path).stem), "Documents", caption

    def paper_files(self) -> list[str]:
        """Return the patterns of the files that only the paper reads: LaTeX tables and facts."""
        tables = [self.table_path(name, "tex") for name in self.printed]
        return tables + ([self.table_path(self.facts, "json")] if self.facts else [])

    @property
    def printed(self) -> list[str]:
        """Return the names of the tables that the paper prints."""
        return [name for name in self.tables if name not in self.unprinted]

    @property
    def _folder(self) -> str:
        return "" if self.spans_studies else "{study}/"
