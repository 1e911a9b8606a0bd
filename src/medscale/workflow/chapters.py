"""The chapters of the report as Snakemake's rules see them: inputs, outputs, parameters."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medscale.base.code import code_digest
from medscale.base.files import read_table, write_text
from medscale.config.configuration import Config
from medscale.engine.run import RunSpec
from medscale.report.chapter import FIGURES, Chapter, in_words
from medscale.report.chapters import CHAPTERS, chapters_of, refuse_mistakes, settings_of
from medscale.workflow.graph import Graph, or_end
from medscale.workflow.headings import ALL_STUDIES, Headings, safe
from medscale.workflow.stages import code_files

if TYPE_CHECKING:
    from medscale.workflow.pictures import Figure


class Report:
    """The chapters of all studies of a configuration."""

    def __init__(self, graph: Graph) -> None:
        """Take the configuration and the folders from ``graph``."""
        self.graph, self.config = graph, graph.config
        self._refuse_mistakes = cache(partial(or_end, partial(refuse_mistakes, self.config)))
        # Figures with images are sources of a restored study; the crate has them, or says so.
        restored = graph.restored is not None
        self.chapters = [c for c in CHAPTERS if not (restored and c.shows_images)]
        # Snakemake reads captions from files, and only to make a report.
        reporting = any(argument.startswith("--report") for argument in sys.argv[1:])
        self._captions = tempfile.TemporaryDirectory(prefix="captions-") if reporting else None
        self.headings = Headings(self.config)

    def first_page(self) -> dict[str, Any]:
        """Return the content of the first page of Snakemake's report; empty without a report.

        ``sections`` are heading and pictures of all studies, then of each study; ``is_scaled``
        tells whether a study compares several devices with one.
        """
        if self._captions is None:
            return {}
        from medscale.workflow.pictures import are_possible, pictures

        studies = ["", *self.config.active]
        sections = [
            {
                "title": safe(self.config.study(study).title) if study else ALL_STUDIES,
                "pictures": pictures(self._drawn(study), self.graph.workdir),
            }
            for study in studies
        ]
        is_scaled = any(
            {RunSpec.parse(run).devices > 1 for run in self.config.study(name).runs}
            == {False, True}
            for name in self.config.active
        )
        return {"sections": sections, "are_possible": are_possible(), "is_scaled": is_scaled}

    def _drawn(self, study: str) -> list[Figure]:
        """Return the figures of a study, or for an empty name those about all studies."""
        from medscale.workflow.pictures import Figure

        spanning = [chapter for chapter in CHAPTERS if chapter.spans_studies]
        title = safe(self.config.study(study).title) if study else ALL_STUDIES
        return [
            Figure(
                in_words(name),
                caption.replace("*{study}*", f"*{title}*").replace("{study}", study),
                chapter.figure_path(name).format(study=study),
                vector=not study,
            )
            for chapter in (chapters_of(self.config, study) if study else spanning)
            for name, caption in chapter.figures.items()
        ]

    def inputs(self, chapter: Chapter, wildcards: Any) -> list[str]:
        """Return the files that a chapter reads."""
        inputs = self._inputs(chapter, wildcards).values()
        return [path for paths in inputs for path in ([paths] if isinstance(paths, str) else paths)]

    def arguments(self, chapter: Chapter, wildcards: Any) -> str:
        """Return the arguments of a chapter's ``make`` as JSON."""
        settings = settings_of(chapter, self.config, _study(wildcards))
        return json.dumps({**self._inputs(chapter, wildcards), **settings}, sort_keys=True)

    def outputs(self, chapter: Chapter) -> list[Any]:
        """Return the files that a chapter writes; those that a report lists have a caption."""
        from snakemake.io import report

        # Figures are pictures on the report's first page.
        files = [
            path
            if kind == FIGURES or self._is_empty(path)
            else report(
                path,
                caption=self._caption(path, caption),
                category=self.headings.category,
                subcategory=partial(self.headings.subcategory, kind),
                labels=partial(self.headings.labels, title),
            )
            for path, title, kind, caption in chapter.report_files()
        ]
        return [*files, *chapter.paper_files()]

    def _is_empty(self, path: str) -> bool:
        """Return whether a table has a header alone in each study; no report lists it then."""
        if self._captions is None or not path.endswith(".csv"):
            return False
        tables = {path.format(study=study) for study in ["", *self.config.studies]}
        files = [file for name in tables if (file := self.graph.workdir / name).is_file()]
        return bool(files) and all(len(read_table(file)) == 0 for file in files)

    def code(self, chapter: Chapter) -> str:
        """Return the digest of the code that makes a chapter, without other chapters' code."""
        return code_digest(*code_files("chapter.py", chapter.name))

    def study_option(self, wildcards: Any) -> list[str]:
        """Return the option that names the study, if the chapter is about one."""
        return ["--study", study] if (study := _study(wildcards)) else []

    def final_outputs(self) -> list[str]:
        """Return the outputs of the default target.

        Results, figures and tables are named, although the paper needs them: a removed one is made
        again. In a restored study the results are sources.
        """
        restored = self.graph.restored is not None
        results = [] if restored else [*self.graph.results(), *self.graph.references()]
        report = [*self.figures(), *self.tables(), "paper/paper.pdf", "config.resolved.json"]
        return results + report

    def figures(self) -> list[str]:
        """Return the figures of all studies to carry out, and those about all studies."""
        return [
            chapter.figure_path(name).format(study=study)
            for study, chapter in _reports(self.config)
            for name in chapter.figures
        ]

    def tables(self) -> list[str]:
        """Return the tables of all studies to carry out, and those about all studies.

        Those that the paper prints are named by their LaTeX, the others by their CSV files.
        """
        return [
            chapter.table_path(name, "tex" if name in chapter.printed else "csv").format(
                study=study
            )
            for study, chapter in _reports(self.config)
            for name in chapter.tables
        ]

    def documents(self) -> list[str]:
        """Return the documents of all studies to carry out and, where they have some, variants."""
        return [
            path.format(study=study)
            for study, chapter in _reports(self.config, variants=True)
            for path in chapter.documents
        ]

    def shared_options(self) -> list[str]:
        """Return the options of the paper's script that name the facts about all studies."""
        return [part for path in self.facts(shared=True) for part in ("--shared", path)]

    def facts(self, *, shared: bool) -> list[str]:
        """Return the files of facts about each study or, if ``shared``, about all together."""
        return [
            chapter.table_path(chapter.facts, "json").format(study=study)
            for study, chapter in _reports(self.config)
            if chapter.facts and chapter.spans_studies == shared
        ]

    def _inputs(self, chapter: Chapter, wildcards: Any) -> dict[str, str | list[str]]:
        """Return a chapter's inputs; files of the checkout are named from the working folder.

        Claims and answers to checklists that name what does not exist end Snakemake, if a planned
        job needs them: a single result does not.
        """

        def from_workdir(path: str | Path) -> str:
            return self.graph.relative(path) if isinstance(path, Path) else path

        if chapter.spans_studies:
            self._refuse_mistakes()
        # A run that cannot be planned ends Snakemake with one sentence.
        inputs = or_end(partial(chapter.inputs, self.config, _study(wildcards)))
        return {
            name: [from_workdir(path) for path in paths]
            if isinstance(paths, list)
            else from_workdir(paths)
            for name, paths in inputs.items()
        }

    def _caption(self, path: str, caption: str) -> str | None:
        """Return a file with a caption, written where Snakemake makes a report."""
        if self._captions is None:
            return None
        file = Path(self._captions.name) / path.replace("{study}/", "").replace("/", "_")
        write_text(f"{file}.rst", caption.replace("{study}", "{{ snakemake.wildcards.study }}"))
        return f"{file}.rst"


def sources(config: Config) -> list[str]:
    """Return the inputs of chapters without images that no chapter makes, below the workdir.

    From these files and folders the report can be made again, besides figures with images.
    """
    outputs: set[str] = set()
    read: list[str] = []
    for study, chapter in _reports(config, variants=True):
        if chapter.shows_images:
            continue
        patterns = [path for path, *_ in chapter.report_files()] + chapter.paper_files()
        outputs |= {pattern.format(study=study) for pattern in patterns}
        for paths in chapter.inputs(config, study).values():
            listed = [paths] if isinstance(paths, str | Path) else paths
            # absolute paths are files of the checkout
            read += [str(path) for path in listed if not Path(path).is_absolute()]
    return [path for path in dict.fromkeys(read) if path not in outputs]


def image_figures(config: Config) -> list[str]:
    """Return the figures of the active studies that show images."""
    return [
        chapter.figure_path(name).format(study=study)
        for study, chapter in _reports(config)
        if chapter.shows_images
        for name in chapter.figures
    ]


def _reports(config: Config, *, variants: bool = False) -> Iterator[tuple[str, Chapter]]:
    """Yield study and chapter of each report; the study is "" for chapters about all studies.

    ``variants``: also the variants of studies, with the chapters that variants have.
    """
    for study in config.active:
        yield from ((study, chapter) for chapter in chapters_of(config, study))
        for variant in config.variants(study) if variants else ():
            yield from ((variant, c) for c in chapters_of(config, variant) if c.variants)
    yield from (("", chapter) for chapter in CHAPTERS if chapter.spans_studies)


def _study(wildcards: Any) -> str:
    return str(getattr(wildcards, "study", ""))
