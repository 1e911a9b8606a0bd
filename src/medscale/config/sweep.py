"""Trainings of a study besides its results': points of its sweep, further seeds."""

from __future__ import annotations

from typing import NamedTuple

from medscale.config.configuration import Config
from medscale.config.planning import plan


class Point(NamedTuple):
    """A run with one learning rate; the configured one is a point of the study itself."""

    study: str  # entry of ``studies``: the study, or one that ``sweep`` makes
    run: str
    seeds: list[int]  # of its replicates in the sweep
    lr: float  # recipe.lr
    lr_scaling: str  # recipe.lr_scaling
    global_batch: int  # images of an optimizer step
    learning_rate: float  # peak, after scaling with the batch


def points(config: Config, study: str) -> list[Point]:
    """Return the points of a study's sweep by run, the configured learning rate first.

    Settings that lead to the same learning rate of a run (to 9 digits, since three times 0.0001 is
    not quite 0.0003) are one training, and one point: the first. The configured one is a point if
    the sweep's values include it.
    """
    sweep = config.study(study).sweep
    if sweep is None:
        return []
    recipe = config.study(study).recipe
    is_included = (sweep.lr is None or recipe.lr in sweep.lr) and (
        sweep.lr_scaling is None or recipe.lr_scaling in sweep.lr_scaling
    )
    entries = [*([study] if is_included else []), *config.points(study)]
    distinct: dict[tuple[str, str], Point] = {}
    for run in sweep.runs:
        for entry in entries:
            planned = plan(config, entry, run, 0)
            point = Point(
                entry,
                run,
                sweep.seeds or config.seeds_of(study),
                planned.recipe.lr,
                planned.recipe.lr_scaling,
                planned.global_batch,
                planned.learning_rate,
            )
            distinct.setdefault((run, f"{planned.learning_rate:.9g}"), point)
    return list(distinct.values())


def trainings(config: Config, study: str) -> list[tuple[str, str, list[int]]]:
    """Return all trainings of a study: entry of ``studies``, run, and seeds.

    They are those of its runs and of those that its report needs besides, with the seeds that the
    comparison of convergence adds, and those of the points of its sweep.
    """
    runs = [*config.study(study).runs, *config.compared_anew(study), *_further_runs(config, study)]
    seeds = {(study, run): config.trained_seeds(study, run) for run in dict.fromkeys(runs)}
    for point in points(config, study):
        point_seeds = seeds.setdefault((point.study, point.run), [])
        point_seeds += [seed for seed in point.seeds if seed not in point_seeds]
    return [(entry, run, numbers) for (entry, run), numbers in seeds.items()]


def _further_runs(config: Config, study: str) -> list[str]:
    """Return the baseline of a study, its exported runs, and those tested on external sets.

    A variant has none of them: its runs alone are trained.
    """
    settings = config.study(study)
    if settings.belongs_to is not None:
        return []
    export = settings.benchmarks.export
    external = [run for name in config.externals(study) for run in config.study(name).runs]
    return [settings.baseline, *(export.runs if export else []), *external]
