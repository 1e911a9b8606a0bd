"""Claims planned for a configuration: runs, files and targets of each, by its scale."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from medscale.base.code import ROOT
from medscale.base.errors import MedscaleError
from medscale.base.paths import TIMING
from medscale.base.section import Strict
from medscale.config.configuration import Config
from medscale.config.yaml_file import read_yaml
from medscale.engine.plan import replicate_name
from medscale.engine.run import RunSpec
from medscale.report import sources
from medscale.report.claims.measures import MEASURES
from medscale.report.claims.statements import (
    Claim,
    Published,
    accepted,
    published,
    read_claims,
    unknown,
)

PROJECT = Path("claims.yaml")  # claims about the studies of config.yaml
# Fields of a claim that a planned claim takes as they are, and those that are empty where null.
FIELDS = {"statement", "origin", "measure", "metric", "compare", "reason", "minutes", "hardware"}
OPTIONAL = ("figure", "table", "study", "run", "variant", "test")


class Planned(Strict):
    """A claim with all that its measurement needs."""

    name: str
    statement: str
    origin: str
    figure: str  # name of the figure that shows it; empty for a table
    table: str
    study: str
    measure: str
    run: str
    baseline: str
    variant: str
    metric: str
    test: str
    compare: str
    expected: float
    tolerance: float
    lowest: float | None  # accepted value
    highest: float | None  # accepted value
    reason: str
    minutes: float
    hardware: str
    absent: str  # why this configuration does not measure it; empty if it does
    measurable: bool  # whether this scale can measure it, and its studies exist
    targets: list[str]  # targets of Snakemake that make its inputs
    family: list[str]  # runs among which its test is adjusted by Holm's method
    series: list[str]  # runs that a law is fitted to
    # names of the replicates' folders, of the study and of the variant
    replicates: dict[str, list[str]]

    @property
    def files(self) -> list[str]:
        """Return the files and folders without which it is not measured."""
        measure = MEASURES[self.measure]
        files = [pattern.format(study=self.study, run=self.run) for pattern in measure.further]
        for study in self.replicates:
            files += [sources.index(study)] if measure.index else []
            runs = dict.fromkeys(filter(None, [self.run, self.baseline, *self.series]))
            for run in runs if measure.replicates else []:
                files += self.timings(study, run)
        return list(dict.fromkeys(files))

    @property
    def inputs(self) -> list[str]:
        """Return all files that its measurement reads where they exist."""
        family = [path for run in self.family for path in self.timings(self.study, run)]
        return list(dict.fromkeys([*self.files, *family]))

    def timings(self, study: str, run: str) -> list[str]:
        """Return the file of each replicate of a run that training writes last."""
        return [f"runs/{study}/{run}/{name}/{TIMING}" for name in self.replicates[study]]


def claims_file(config: Config) -> Path:
    """Return the path of the file of claims."""
    return ROOT / config.claims


def plan_claims(config: Config) -> list[Planned]:
    """Return the claims about the studies to carry out, in the order of the file.

    Raises MedscaleError for a claim that names a study, run or published figure that does not
    exist; the message names the closest one.
    """
    path, planned = claims_file(config), []
    reported = read_yaml(sources.REPORTED)
    studies = {*config.studies, *read_yaml(ROOT / "config.yaml")["studies"]}
    for name, claim in read_claims(path).items():
        try:
            _check_names(studies, claim)
            if _concerns(config, claim):
                planned.append(_planned(config, name, claim, reported))
        except MedscaleError as error:
            raise MedscaleError(f"{path}: claims.{name}: {error}") from None
    return planned


def shown_by(claim: Planned, output_paths: Mapping[str, Mapping[str, str]]) -> str:
    """Return the path of the figure or table that shows a claim, which is a target of Snakemake.

    Raises MedscaleError for a name that no chapter has; the message names the closest one.

    Args:
        output_paths: pattern of the path by name, for ``figures`` and for ``tables``.
    """
    kind, name = ("figures", claim.figure) if claim.figure else ("tables", claim.table)
    if name not in output_paths[kind]:
        raise MedscaleError(f"claims.{claim.name}: {kind}: {unknown(name, output_paths[kind])}")
    return output_paths[kind][name].format(study=claim.study)


def _concerns(config: Config, claim: Claim) -> bool:
    """Tell whether a claim is about the studies to carry out.

    The project's claims are not about a person's own images, whatever their study's name is.
    """
    if claim.study is None:
        return any(not _personal(config, study) for study in config.active)
    if claim.study not in config.active:
        return False
    return config.claims != PROJECT or not _personal(config, claim.study)


def _personal(config: Config, study: str) -> bool:
    return config.study(study).source.kind == sources.PERSONAL


def _check_names(studies: Collection[str], claim: Claim) -> None:
    for field, study in (("study", claim.study), ("variant", claim.variant)):
        if study is not None and study not in studies:
            raise MedscaleError(f"{field}: {unknown(study, studies)}")
    change = None if isinstance(claim.demo, str) else claim.demo
    for run in (claim.run, claim.baseline, change and change.run, change and change.baseline):
        if run:
            RunSpec.parse(run)


def _at_scale(config: Config, claim: Claim) -> tuple[Claim, str]:
    """Return the claim at the configuration's scale, and why this scale cannot measure it.

    The reason is empty if it can.
    """
    if config.scale != "demo":
        return claim, ""
    if isinstance(claim.demo, str):
        return claim, f"not at demo scale: {claim.demo}"
    return claim.model_copy(update=claim.demo.model_dump(exclude_none=True)), ""


def _planned(config: Config, name: str, claim: Claim, reported: Mapping[str, Any]) -> Planned:
    claim, obstacle = _at_scale(config, claim)
    study, measure = claim.study or "", MEASURES[claim.measure]
    baseline = claim.baseline or (config.study(study).baseline if study else "")
    expected, tolerance = _bounds(config, claim, reported)
    low, high = accepted(claim.compare, expected, tolerance)
    series = _series(config, study, claim.run or "") if measure.series else []
    studies = [member for member in (study, claim.variant) if member and member in config.studies]
    return Planned(
        **claim.model_dump(include=FIELDS),
        **{field: getattr(claim, field) or "" for field in OPTIONAL},
        name=name,
        baseline=baseline if measure.baseline else "",
        expected=expected,
        tolerance=tolerance,
        lowest=low,
        highest=high,
        absent=obstacle or _not_configured(config, claim, baseline),
        measurable=not obstacle and claim.variant in (None, *config.studies),
        targets=_targets(claim, baseline, series),
        family=_family(config, study) if measure.paired else [],
        series=series,
        replicates={
            member: [replicate_name(*replicate) for replicate in config.replicates_of(member)]
            for member in studies
        },
    )


def _bounds(config: Config, claim: Claim, reported: Mapping[str, Any]) -> tuple[float, float]:
    """Return the expected value and the tolerance as numbers."""
    if claim.compare == "equivalent":
        return 0.0, config.study(claim.study or "").evaluate.margin
    expected = claim.expected
    if isinstance(expected, Published):
        expected = published(expected, dict(reported.get(claim.study or "") or {}))
    assert expected is not None
    assert claim.tolerance is not None
    return float(expected), claim.tolerance


def _not_configured(config: Config, claim: Claim, baseline: str) -> str:
    """Return why the configuration does not make a claim's inputs; empty if it does."""
    if claim.study is None:
        return "tests of the software run only where `medscale verify` names the claim"
    section, measure = config.study(claim.study), MEASURES[claim.measure]
    if claim.variant and claim.variant not in config.variants(claim.study):
        return f"the study has no variant {claim.variant}"
    names = [claim.run] if claim.run else []
    names += [baseline] if measure.baseline else []
    runs = {*section.runs, section.baseline}
    if missing := [name for name in names if name not in runs]:
        return f"{', '.join(missing)} not among the runs of the study"
    if claim.variant and claim.run not in config.study(claim.variant).runs:
        return f"{claim.run} not among the runs of {claim.variant}"
    for pattern in measure.further:
        benchmark = Path(pattern).stem
        if pattern.startswith("measured") and getattr(section.benchmarks, benchmark) is None:
            return f"the study has no benchmarks.{benchmark}"
    return ""


def _targets(claim: Claim, baseline: str, series: list[str]) -> list[str]:
    """Return the targets of Snakemake that make a claim's inputs."""
    measure, study = MEASURES[claim.measure], claim.study
    further = [
        pattern.format(study=study, run=claim.run)
        for pattern in measure.further
        if pattern.startswith("measured")
    ]
    if not measure.replicates:
        return further
    runs = [claim.run, *([baseline] if measure.baseline else []), *series]
    targets = [f"results/{study}/{run}" for run in runs]
    targets += [f"results/{claim.variant}/{claim.run}"] if claim.variant else []
    return list(dict.fromkeys([*targets, *further]))


def _family(config: Config, study: str) -> list[str]:
    """Return the classification runs of a study, which are all tested against its baseline."""
    return [Path(folder).name for folder in sources.classifications(config, study)]


def _series(config: Config, study: str, run: str) -> list[str]:
    """Return the configured runs that differ from a run in their number of devices alone."""

    def key(name: str) -> RunSpec:
        return RunSpec.parse(name).model_copy(update={"devices": 0})

    runs = [name for name in config.study(study).runs if key(name) == key(run)]
    single = RunSpec.parse(run).model_copy(update={"strategy": "serial", "devices": 1})
    if single.name in config.study(study).runs and not any(
        RunSpec.parse(name).devices == 1 for name in runs
    ):
        runs.insert(0, single.name)
    return sorted(runs, key=lambda name: RunSpec.parse(name).devices)
