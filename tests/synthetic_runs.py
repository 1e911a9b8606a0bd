"""Run folders as docs/files.md describes them, with predictions of known quality, untrained."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors.numpy import save_file

from medscale.base.files import read_json, write_csv, write_json, write_parquet
from medscale.config.configuration import Config, load
from medscale.config.planning import plan
from medscale.data import patients
from medscale.data.folds import PREFIX, of_fold
from medscale.data.shards import Shards, seal, write_chunk
from medscale.engine.plan import replicate_name
from medscale.evaluate.evaluation import evaluate
from medscale.evaluate.reference import reference
from medscale.report import sources
from medscale.report.chapters import CHAPTERS, outputs, settings_of
from medscale.report.checklists import chapter as checklists
from medscale.report.checklists import items
from medscale.report.claims import chapter as claims
from medscale.report.claims.planned import Planned, plan_claims
from medscale.report.result.folder import write_result
from medscale.report.synthesis import chapter as synthesis
from medscale.report.writer import write_chapter
from undrawn_figures import undrawn

ROOT = Path(__file__).parent.parent
CPU = "Made CPU @ 2 GHz"


def configuration(
    study: str = "glaucoma",
    runs: Sequence[str] = ("serial_1cpu",),
    scale: str = "demo",
    **settings: Any,
) -> Config:
    """The configuration of a scale with one study of these runs."""
    return load(ROOT / "config.yaml", changes(study, runs, scale, **settings))


def changes(
    study: str = "glaucoma",
    runs: Sequence[str] = ("serial_1cpu",),
    scale: str = "demo",
    **settings: Any,
) -> dict[str, Any]:
    """The settings of a made study that differ from config.yaml."""
    raw = {"kind": "folder", "path": "raw", "synthetic": False, "options": {}}
    study_changes: dict[str, Any] = (
        {"like": "glaucoma", "source": raw} if study != "glaucoma" else {}
    )
    study_changes["evaluate"] = {"gradcam": "none"}  # made runs have no weights
    study_changes["external"] = []  # nor can they predict other images
    study_changes["benchmarks"] = {"formats": None}  # and nothing is measured
    study_changes["convergence"] = {"runs": None, "seeds": None}
    study_changes["sweep"] = None
    return {
        "scale": scale,
        "only": [study],
        "studies": {
            study: {**study_changes, "runs": list(runs), **settings},
            "glaucoma_published": None,
        },
    }


def make_index(
    folder: Path,
    classes: Sequence[str],
    images: int = 300,
    per_group: int = 2,
    seed: int = 0,
    metadata: Mapping[str, Sequence[Any]] | None = None,
) -> pd.DataFrame:
    """Write index.parquet, audit.csv and audit.json.

    The last fifth of the patients is the test split, the tenth before it the validation split.
    """
    rng = np.random.default_rng(seed)
    group = np.arange(images) // per_group
    split = np.where(
        group < 0.7 * group.max(), "train", np.where(group < 0.8 * group.max(), "val", "test")
    )
    codes = rng.integers(0, len(classes), images)
    index = pd.DataFrame({"id": np.arange(images), "path": [f"a/{i}.png" for i in range(images)]})
    index["label"] = pd.Categorical.from_codes(codes, categories=list(classes), ordered=True)
    index["split"], index["split_published"], index["group"] = split, None, [f"g{g}" for g in group]
    index["patient"] = index["group"]
    index["width"], index["height"], index["sha256"], index["source"] = 64, 64, "0" * 64, "made"
    for name, values in (metadata or {}).items():
        index[name] = [values[i // per_group % len(values)] for i in range(images)]
    write_parquet(folder / "index.parquet", index)
    audit = [
        ("x/1.png", "excluded", "unreadable", ""),
        ("x/2.png", "excluded", "duplicate", "of a/1.png"),
    ]
    audit += [
        ("x/3.png", "excluded", "duplicate", "of a/2.png"),
        ("a/5.png", "kept", "EXIF rotated", ""),
    ]
    write_csv(
        folder / "audit.csv", pd.DataFrame(audit, columns=["path", "action", "reason", "detail"])
    )
    counts = index.groupby(["label", "split"], observed=False).size().unstack(fill_value=0)
    write_json(
        folder / "audit.json",
        {
            "found": images + 3,
            "used": images,
            "excluded": 3,
            "counts": json.loads(counts.to_json(orient="index")),
            "by_reason": {"duplicate": 2, "unreadable": 1},
            "counts_by_source": {"made": index["label"].value_counts().to_dict()},
            "groups": int(index["group"].nunique()),
            "patients": patients.summary(index["patient"], "column patient of index.csv"),
            "notes": ["Two classes & one note: 100 % made."],
        },
    )
    return index


def make_shards(folder: Path, index: pd.DataFrame, size: int = 32) -> None:
    """Write a shard set of smooth coloured images for the index."""
    rng = np.random.default_rng(0)
    codes = index["label"].cat.codes.to_numpy(np.int64)
    yy, xx = np.mgrid[:size, :size] / size
    images = (
        120
        + 60 * np.sin(3 * xx + codes[:, None, None])
        + 40 * np.cos(4 * yy + rng.random((len(codes), 1, 1)))
    )
    write_chunk(folder, 0, np.repeat(images[..., None], 3, axis=3).clip(0, 255).astype(np.uint8))
    folds = [name for name in index if str(name).startswith(PREFIX)]
    rows = index[["id", "split", "group", *folds]].assign(label=codes)
    seal(folder, rows, list(index["label"].cat.categories), {"preprocess": {"size": size}})


def probabilities(codes: np.ndarray, classes: int, skill: float, seed: int) -> np.ndarray:
    """Return softmax of noise plus ``skill`` at the true class; 0: chance, 5: nearly perfect."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1, (len(codes), classes)) + skill * np.eye(classes)[codes]
    odds = np.exp(logits)
    return (odds / odds.sum(axis=1, keepdims=True)).astype(np.float32)


def make_run(
    folder: Path,
    config: Config,
    run: str,
    index: pd.DataFrame,
    *,
    seconds: float = 2.0,
    skill: float = 2.0,
    epochs: int = 6,
) -> list[Path]:
    """Write a run folder for each seed and fold; ``seconds``: of an epoch after the first."""
    study = config.active[0]
    folders = []
    for seed, fold in config.replicates_of(study):
        replicate = folder / study / run / replicate_name(seed, fold)
        folders.append(replicate)
        run_plan = plan(config, study, run, seed, fold)
        rows = of_fold(index, fold)
        rng = np.random.default_rng([seed, len(run)])
        write_json(replicate / "spec.json", run_plan.model_dump(mode="json"))
        epoch_seconds = seconds * (1 + 0.03 * rng.random(epochs))
        epoch_seconds[0] *= 1.6
        train_images = int((rows["split"] == "train").sum())
        devices = {"processes": run_plan.run.devices, "hardware": CPU}
        history = _history(rng, epoch_seconds, train_images).assign(**devices)
        write_csv(replicate / "history.csv", history)
        write_json(replicate / "timing.json", _timing(run_plan, history, train_images))
        predicted_rows = rows[rows["split"] != "train"]
        codes = predicted_rows["label"].cat.codes.to_numpy(np.int64)
        table = pd.DataFrame(
            {"id": predicted_rows["id"], "split": predicted_rows["split"], "label": codes}
        )
        odds = probabilities(
            codes, len(index["label"].cat.categories), skill, seed + 100 * (fold or 0)
        )
        for code in range(odds.shape[1]):
            table[f"p_{code}"] = odds[:, code]
        write_parquet(replicate / "predictions.parquet", table)
        write_json(replicate / "environment.json", _environment(run_plan))
        save_file({"norm.running_mean": np.zeros(1, np.float32)}, replicate / "model.safetensors")
    return folders


def _history(
    rng: np.random.Generator, epoch_seconds: np.ndarray, train_images: int
) -> pd.DataFrame:
    epochs = len(epoch_seconds)
    epoch = np.arange(1, epochs + 1)
    loss = 0.7 * np.exp(-epoch / 4) + 0.02 * rng.random(epochs)
    shares = {"data_s": 0.1, "compute_s": 0.7, "communication_s": 0.2}
    return pd.DataFrame(
        {
            "epoch": epoch,
            "train_loss": loss,
            "train_accuracy": 1 - loss / 1.4,
            "val_loss": loss + 0.1,
            "val_accuracy": 0.95 - loss / 1.4,
            "lr": 1e-3 * np.cos(epoch / epochs),
            "seconds": epoch_seconds,
            "images_per_second": train_images / epoch_seconds,
            **{name: share * epoch_seconds for name, share in shares.items()},
            "checkpoint_s": 0.02 * epoch_seconds,
            "validation_s": 0.1 * epoch_seconds,
        }
    )


def _timing(run_plan: Any, history: pd.DataFrame, train_images: int) -> dict[str, Any]:
    epoch_seconds = history["seconds"].tolist()
    per_epoch = float(np.median(epoch_seconds[1:] or epoch_seconds))
    kinds = ("data", "compute", "communication", "checkpoint", "validation")
    return {
        "world_size": run_plan.run.devices,
        "threads_per_rank": 1,
        "global_batch": run_plan.global_batch,
        "train_images": train_images,
        "hardware": history["hardware"][0],
        "epochs": len(epoch_seconds),
        "best_epoch": len(epoch_seconds),
        "epoch_seconds": epoch_seconds,
        "first_epoch_seconds": epoch_seconds[0],
        "seconds_per_epoch": per_epoch,
        "images_per_second": train_images / per_epoch,
        "images_per_second_first_epoch": train_images / epoch_seconds[0],
        "wall_seconds": sum(epoch_seconds) * 1.2,
        "device_seconds": sum(epoch_seconds) * 1.2 * run_plan.run.devices,
        "seconds": {kind: float(history[f"{kind}_s"].sum()) for kind in kinds},
        "peak_memory_mb": {"host": [500.0] * run_plan.run.devices, "device": None},
        "energy_joules": None,
        "gpu_use_percent": None,
        "restarts": 0,
        "stopped": "epochs",
        "communication_measured": True,
    }


def _environment(run_plan: Any) -> dict[str, Any]:
    return {
        "plan_digest": run_plan.digest,
        "seed": run_plan.seed,
        **({} if run_plan.fold is None else {"fold": run_plan.fold}),
        "inputs": {"shards": "1" * 64, "weights": None},
        "code": "2" * 64,
        "started": "2026-01-01T11:59:00+00:00",
        "finished": "2026-01-01T12:00:00+00:00",
        "stand_in": run_plan.stand_in,
        "synthetic": run_plan.synthetic,
        "python": "3.11",
        "versions": {"medscale": "0.1.0", "torch": "2.14.0", "snakemake": "9.27.1"},
        "system": "Linux",
        "cpu": CPU,
        "cpus": 2,
        "gpus": [],
        "format": "bf16" if run_plan.run.amp else "fp32",
        "cuda": None,
        "container": None,
        "slurm_job": None,
        "commit": "0" * 40,
        "dirty": False,
    }


def make_study(
    folder: Path,
    study: str,
    classes: Sequence[str],
    runs: Sequence[str],
    *,
    images: int = 240,
    metadata: Mapping[str, Sequence[Any]] | None = None,
    index: pd.DataFrame | None = None,
    drawn: bool = False,
    **settings: Any,
) -> list[Path]:
    """Write a study below ``folder`` as the workflow does; return its result folders.

    Args:
        index: that of the study's data folder, if it is made already.
        drawn: draw the figures of the result folders, instead of pages with a text.
    """
    config = configuration(study, runs, **settings)
    if index is None:
        index = make_index(folder / "data" / study, classes, images=images, metadata=metadata)
    make_shards(folder / "data" / study / "shards", index)
    shards = Shards.open(folder / "data" / study / "shards")
    summary, resamples = reference(study, shards, index, resamples=100)
    write_json(folder / "measured" / study / "reference.json", summary)
    write_csv(folder / "measured" / study / "reference.csv", resamples)
    write_json(folder / f"{study}.resolved.json", config.model_dump(mode="json"))
    results = []
    for number, run in enumerate(runs):
        folders = make_run(
            folder / "runs", config, run, index, seconds=4.0 / (1 + number), skill=2 - 0.2 * number
        )
        results.append(folder / "results" / study / run)
        evaluation = evaluate(folders, folder / "data" / study / "index.parquet", resamples=100)
        with nullcontext() if drawn else undrawn():
            write_result(evaluation, results[-1])
        for seed, fold in config.replicates_of(study):
            save_file(
                {"norm.running_mean": np.zeros(1, np.float32)},
                results[-1] / f"{replicate_name(seed, fold)}.safetensors",
            )
    return results


def make_chapter(folder: Path, config: Config, study: str, name: str, **arguments: Any) -> None:
    """Write a chapter of a study below ``folder``; ``arguments`` replace what it declares."""
    (chapter,) = [chapter for chapter in CHAPTERS if chapter.name == name]

    def below(path: str | Path) -> str:
        return str(folder / path)  # a path of the checkout is absolute and stays as it is

    inputs = {
        key: below(paths) if isinstance(paths, str | Path) else [below(path) for path in paths]
        for key, paths in chapter.inputs(config, study).items()
    }
    settings = json.loads(json.dumps(settings_of(chapter, config, study)))
    write_chapter(name, study, {**inputs, **settings, **arguments}, folder)


def report(folder: Path, study: str, results: Sequence[Path]) -> Path:
    """Write the chapters that each study has below ``folder``; return the path of facts.json."""
    config = Config.model_validate(read_json(folder / f"{study}.resolved.json"))
    folders = [str(result) for result in results]
    for name in ("quality", "overview", "scaling"):
        make_chapter(folder, config, study, name, results=folders)
    for name in ("datasheet", "samples"):
        make_chapter(folder, config, study, name)
    return folder / "tables" / study / "facts.json"


def report_provenance(folder: Path, results: Sequence[Path]) -> Path:
    """Write the chapter on the origin of results below ``folder``; return provenance.json."""
    titles = {result.parent.name: f"Study {result.parent.name}" for result in results}
    arguments = {"results": [str(result) for result in results], "titles": titles}
    write_chapter("provenance", "", arguments, folder)
    return folder / "tables" / "provenance.json"


def report_shared(folder: Path, results: Sequence[Path]) -> list[Path]:
    """Write the chapters about all studies below ``folder``; return their files of facts."""
    provenance = report_provenance(folder, results)
    titles = dict.fromkeys(result.parent.name for result in results)
    arguments: dict[str, Any] = {"results": [str(result) for result in results]}
    settings: dict[str, Any] = {"studies": {}}
    for study in titles:
        config = Config.model_validate(read_json(folder / f"{study}.resolved.json"))
        of_study = synthesis.settings(config, "")
        settings["studies"][study] = of_study["studies"][study]
        settings["currency"] = of_study["currency"]
    tables = folder / "tables"
    arguments |= {
        "audits": [str(folder / sources.audit(study)) for study in titles],
        "tables": [str(tables / study / f"{t}.csv") for study in titles for t in synthesis.TABLES],
        "variants": [],
        "indexes": [],
        "reported": str(sources.REPORTED),
    }
    write_chapter("synthesis", "", {**arguments, **settings}, folder)
    shared = [provenance, tables / "synthesis.json", report_claims(folder, list(titles))]
    return [*shared, report_checklists(folder, list(titles), shared)]


def report_checklists(folder: Path, studies: Sequence[str], shared: Sequence[Path]) -> Path:
    """Write the chapter of checklists below ``folder``; return its file of facts."""
    settings: dict[str, Any] = {}
    for study in studies:
        config = Config.model_validate(read_json(folder / f"{study}.resolved.json"))
        settings |= checklists.settings(config, "")["studies"]
    tables = [folder / "tables" / study for study in studies]
    facts = [str(table / f"{n}.json") for table in tables for n in ("facts", "quality", "scaling")]
    arguments = {"listings": list(map(str, items.files())), "facts": facts, "studies": settings}
    write_chapter("checklists", "", {**arguments, "shared": list(map(str, shared))}, folder)
    return folder / "tables" / "checklists.json"


def report_claims(folder: Path, studies: Sequence[str]) -> Path:
    """Write the chapter of claims below ``folder``; return its file of facts."""
    planned_claims: list[Planned] = []
    for study in studies:
        config = Config.model_validate(read_json(folder / f"{study}.resolved.json"))
        planned_claims += [claim for claim in plan_claims(config) if claim not in planned_claims]
    files = [str(folder / path) for path in claims.paths(planned_claims)]
    arguments = {"files": files, "claims": [claim.model_dump() for claim in planned_claims]}
    write_chapter("claims", "", {**arguments, "output_paths": outputs()}, folder)
    return folder / "tables" / "claims.json"
