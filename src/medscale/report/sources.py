"""Paths of the inputs of chapters, relative to the folder of a configuration's outputs."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from medscale.base.code import ROOT
from medscale.config.configuration import Config
from medscale.engine.plan import replicate_name

REPORTED = ROOT / "reported.yaml"
PERSONAL = "folder"  # dataset kind of a person's own images


def index(study: str) -> str:
    """Return the path of a study's index."""
    return f"data/{study}/index.parquet"


def audit(study: str) -> str:
    """Return the path of the counts of a study's audit."""
    return f"data/{study}/audit.json"


def shards(study: str, folder: str = "shards") -> str:
    """Return the file that is written last of a shard set."""
    return f"data/{study}/{folder}/meta.json"


def reference(study: str) -> str:
    """Return the path of the scores of a study's linear reference."""
    return f"measured/{study}/reference.json"


def reported(config: Config, study: str) -> Path | list[str]:
    """Return the file of published figures; nothing for a person's own images, which have none.

    A person's study can have the name of one in that file, when it changes a study of config.yaml.
    """
    return [] if config.study(study).source.kind == PERSONAL else REPORTED


def classifications(config: Config, study: str) -> list[str]:
    """Return the result folders of the configured classification runs and of the baseline."""
    settings = config.study(study)
    runs = [run for run in settings.runs if run not in settings.detection_runs]
    return results(study, [*runs, settings.baseline])


def detections(config: Config, study: str) -> list[str]:
    """Return the result folders of the configured detection runs."""
    return results(study, config.study(study).detection_runs)


def held_out(config: Config, study: str) -> list[str]:
    """Return the variants of a study that hold out a source as test images."""
    variants = config.variants(study)
    return [name for name in variants if config.study(name).split.mode == "source"]


def settings_variants(config: Config, study: str) -> list[str]:
    """Return the other variants of a study, which change a setting."""
    return [name for name in config.variants(study) if name not in held_out(config, study)]


def results(study: str, runs: Iterable[str]) -> list[str]:
    """Return the result folders of runs, each once."""
    return [f"results/{study}/{run}" for run in dict.fromkeys(runs)]


def by_run(files: Iterable[str]) -> dict[str, list[Path]]:
    """Return the files of run folders, as ``in_replicates`` gives them, by run."""
    paths: dict[str, list[Path]] = {}
    for path in map(Path, files):
        paths.setdefault(path.parents[1].name, []).append(path)
    return paths


def seed_of(file: Path) -> int:
    """Return the seed of the replicate whose run folder a file is in (``replicate_name``)."""
    return int(file.parent.name.removeprefix("seed").partition("_")[0])


def section(config: Config, study: str) -> dict[str, Any]:
    """Return a study's section of the configuration, as a chapter's setting.

    Answers to checklists are left out, as they change one chapter alone.
    """
    return {"section": config.study(study).model_dump(mode="json", exclude={"checklist"})}


def reference_histories(config: Config, study: str) -> list[str]:
    """Return the histories of the baseline's replicates that a target is derived from."""
    return histories(config, study, config.study(study).baseline, config.convergence_seeds(study))


def histories(config: Config, study: str, run: str, seeds: Sequence[int]) -> list[str]:
    """Return the paths of the histories of a run's replicates with these seeds."""
    names = [replicate_name(*replicate) for replicate in config.replicates_of(study, seeds)]
    return [f"runs/{study}/{run}/{name}/history.csv" for name in names]


def target(config: Config, study: str) -> dict[str, Any]:
    """Return the settings of a study's target, as a chapter's setting."""
    settings = config.study(study).convergence
    return {"metric": settings.metric, "value": settings.target, "share": settings.share}


def predictions(config: Config, study: str) -> dict[str, str | list[str]]:
    """Return the index, the results of classifications, and the predictions of their replicates."""
    results = classifications(config, study)
    return {
        "index": index(study),
        "results": results,
        "predictions": in_replicates(config, study, results, "predictions.parquet"),
    }


def in_replicates(config: Config, study: str, folders: Iterable[str], file: str) -> list[str]:
    """Return the paths of a file in the run folders of all replicates of some results."""
    return [
        f"runs/{study}/{Path(folder).name}/{replicate_name(*replicate)}/{file}"
        for folder in folders
        for replicate in config.replicates_of(study)
    ]
