"""A result as a model folder of the Hugging Face Hub: card, weights and configuration.

``medscale.load`` can read the folder. A search for identifiers
(``medscale.workflow.crate.scan``) precedes its completion; if it finds any, no folder is written.
Without a request nothing is uploaded.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medscale.base.errors import MedscaleError
from medscale.base.files import read_json, write_json, write_text
from medscale.base.paths import INDEX, INFERENCE, data_folder, evaluated_result, workdir_of
from medscale.base.text import markdown_code
from medscale.data.augment import MEAN, STD
from medscale.evaluate.boxes import NAMES as BOX_NAMES
from medscale.evaluate.calibration import CALIBRATED
from medscale.evaluate.metrics import NAMES
from medscale.report.marks import mark
from medscale.report.names import OVER
from medscale.report.result.folder import whole_folder
from medscale.report.result.summary import read_summary
from medscale.serve import bundle
from medscale.serve.bundle import Inference, Weights
from medscale.serve.calibration import SENTENCES, calibration_by
from medscale.serve.networks import network
from medscale.workflow.crate import scan
from medscale.workflow.crate.anonymous import is_index_without_names, refuse_copy

if TYPE_CHECKING:
    from huggingface_hub import ModelCardData

CARD, README, CONFIG, WEIGHTS = "model_card.md", "README.md", "config.json", "model.safetensors"
TASKS = {"classification": "image-classification", "detection": "object-detection"}
REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
REPOSITORY_FORM = "OWNER/NAME"
# Identifiers of licences on the Hub; "unknown" is one of them.
LICENCES = {"synthetic": "mit", "detection": "agpl-3.0", "other": "unknown"}
# Names of metrics on the Hub; other metrics keep their names.
METRICS = {"auroc": "roc_auc", "mcc": "matthews_correlation", "f1_macro": "f1"}
MAIN = ("accuracy", "balanced_accuracy", "auroc", "map50")  # metrics that the text repeats
WARNING = "> **Research only. Not a medical device**: not for diagnosis or treatment.\n"
MARK_WARNING = (
    "> **{mark}.** The figures show that the workflow works, and nothing about patients.\n"
)
USE = """## Use

The Python package medscale loads the folder and runs no code of it. The weights are those of seed
{seed}, {selection}; {single_scores}.

```python
import medscale

# From the Hub: folder = huggingface_hub.snapshot_download("{repository}")
folder = "."
predictor = medscale.load(folder)
prediction = predictor.predict("image.png")  # a file, bytes, a PIL image or an array; DICOM too
{lines}
```

Images are preprocessed as for training; `config.json` has the settings and the classes.
{calibration}{metadata}
"""
CALIBRATION = """{meaning}
`predict(image, calibrated=False)` gives probabilities without a temperature.
"""
LINES = {
    "classification": """print(prediction.label)
for name, probability in prediction.probabilities.items():
    print(f"{probability:.3f} {name}")""",
    "detection": """for box in prediction.boxes:  # in pixels of the image
    print(box.label, box.confidence, box.x, box.y, box.width, box.height)""",
}


def publish(
    result: Path,
    to: Path,
    *,
    seed: int | None = None,
    data: Path | None = None,
    licence: str | None = None,
    datasets: Sequence[str] = (),
    upload: str | None = None,
) -> list[str]:
    """Write a result as a model folder, upload it on request, and return lines for the user.

    The folder is written completely or not at all.

    Args:
        result: result folder ``results/<study>/<run>``.
        to: the new folder, which replaces an earlier one of this function.
        seed: seed of the replicate; None: the best on the validation split.
        data: folder ``data/<study>`` with the names of patients and files to search for; None: the
            one next to ``results``.
        licence: identifier of the licence on the Hub; None: MIT for synthetic images, AGPL-3.0 for
            detectors, and otherwise unknown.
        datasets: names of the training data on the Hub.
        upload: repository ``OWNER/NAME`` for the upload; None: no upload.

    Raises:
        MedscaleError: when the result is not complete, ``to`` holds other files, the folder would
            contain identifiers of patients or machines, or the upload fails.
    """
    record = bundle.read(result)
    summary = read_summary(evaluated_result(result))
    _check(to, upload)
    names, note = _names(result, record, data)
    networks = record.weights(seed)  # with folds one for each
    for weights in networks:
        network(record, result, weights)  # refuses damaged weights
    licence = licence or _licence(record)
    with whole_folder(to) as new:
        copies = _copy_weights(networks, result, new)
        front_matter = _front_matter(record, summary, licence, datasets)
        text = (result / CARD).read_text(encoding="utf-8")
        scores = _alone(summary, copies[0].seed)
        name = upload or REPOSITORY_FORM
        write_text(new / README, _readme(record, copies, front_matter, text, scores, name))
        published = record.model_copy(update={"replicates": copies, "chosen": copies[0].seed})
        write_json(new / INFERENCE, published.model_dump(mode="json"))
        write_json(new / CONFIG, _config(record, copies))
        scan.refuse(scan.scan(new, [*names, scan.hosts([])]), str(to))
    lines = [f"{to}: {record.model.name} of {record.study}/{record.run}, licence {licence}", *note]
    return [*lines, _upload(to, upload)] if upload else lines


def _copy_weights(networks: Sequence[Weights], result: Path, folder: Path) -> list[Weights]:
    """Copy the weights of networks into a folder; return their records there."""
    copies = [w.model_copy(update={"file": _file(w, networks)}) for w in networks]
    for weights, copy in zip(networks, copies, strict=True):
        shutil.copyfile(result / weights.file, folder / copy.file)
    return copies


def _check(to: Path, upload: str | None) -> None:
    """Check that ``to`` has no other files, and that the repository has owner and name."""
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        earlier = to / CONFIG
        content = read_json(earlier) if earlier.is_file() else None
        if not isinstance(content, dict) or content.get("library_name") != "medscale":
            raise MedscaleError(f"{to} holds other files than a published model; name a new folder")
    if upload is not None and not REPOSITORY.fullmatch(upload):
        raise MedscaleError(f"--upload {upload!r}: name a repository of the Hub, {REPOSITORY_FORM}")


def _names(
    result: Path, record: Inference, data: Path | None
) -> tuple[list[scan.Names], list[str]]:
    """Return the names that must not be published, and a line for the user if there are none."""
    if data is not None:
        refuse_copy(folder := data_folder(data))
        return scan.names_of_studies([folder], file_names=False), []
    folder = workdir_of(result) / "data" / record.study
    index = folder / INDEX
    if index.is_file() and not is_index_without_names(index):
        return scan.names_of_studies([folder], file_names=False), []
    return [], [
        f"names of patients and files were not searched for, since {folder} has no index with such "
        "names; name the study's data folder by --data"
    ]


def _licence(record: Inference) -> str:
    """Return the identifier of the weights' licence that follows from the result."""
    if record.task == "detection":  # ultralytics puts trained weights under its own licence
        return LICENCES["detection"]
    return LICENCES["synthetic" if record.marks["synthetic"] else "other"]


def _file(weights: Weights, networks: Sequence[Weights]) -> str:
    """Return the file name of a network's weights; with several networks it does not change."""
    return WEIGHTS if len(networks) == 1 else weights.file


def _config(record: Inference, networks: Sequence[Weights]) -> dict[str, Any]:
    """Return the content of config.json: architecture, classes and preprocessing."""
    labels, temperatures = dict(enumerate(record.classes)), [w.temperature for w in networks]
    return {
        "library_name": "medscale",
        "architectures": [record.model.name],
        "model": record.model.model_dump(mode="json"),
        "task": TASKS[record.task],
        "num_labels": len(labels),
        "id2label": {str(number): name for number, name in labels.items()},
        "label2id": {name: number for number, name in labels.items()},
        "preprocess": record.preprocess.model_dump(mode="json"),
        "crop": record.crop.model_dump(mode="json") if record.crop else None,
        "image_mean": MEAN,
        "image_std": STD,
        "metadata": [encoding.column for encoding in record.metadata],
        # of one network, or of several in the order of inference.json
        "temperature": temperatures[0] if len(networks) == 1 else temperatures,
        "threshold": networks[0].threshold,
        "marks": dict(record.marks),
    }


def _front_matter(
    record: Inference, summary: dict[str, Any], licence: str, datasets: Sequence[str]
) -> ModelCardData:
    """Return the card's metadata, with the test metrics as model-index."""
    from huggingface_hub import EvalResult, ModelCardData

    words, metrics = NAMES | CALIBRATED | BOX_NAMES, summary["metrics"]["test"]
    marks = record.marks
    tags = ["medical-imaging", record.model.name, "research-only"]
    tags += [name for name in ("synthetic", "stand_in") if marks[name]]
    results = [
        EvalResult(
            task_type=TASKS[record.task],
            dataset_type=datasets[0] if datasets else record.study,
            dataset_name=f"test images of {record.study}"
            + (" (synthetic)" if marks["synthetic"] else ""),
            dataset_split="test",
            metric_type=METRICS.get(name, name),
            metric_name=f"{words.get(name, name)}, {_interval(score, summary)}",
            metric_value=score["mean"],
        )
        for name, score in metrics.items()
        if score["mean"] is not None
    ]
    return ModelCardData(
        license=licence,
        library_name="medscale",
        pipeline_tag=TASKS[record.task],
        tags=tags,
        datasets=list(datasets) or None,
        metrics=[result.metric_type for result in results],
        model_name=f"{record.study}-{record.run}",
        eval_results=results,
    )


def _interval(score: dict[str, Any], summary: dict[str, Any]) -> str:
    """Return a description of a metric's value and its interval."""
    count, over, folds = len(summary["seeds"]), OVER[summary["patients"]], summary.get("folds")
    unit = "replicate" if folds is None else "seed"  # each fold of a seed is a replicate
    mean = f"mean of {count} {unit}s" if count > 1 else f"one {unit}"
    if folds is not None:
        mean = f"out-of-fold predictions of {folds['count']} folds, {mean}"
    if score["low"] is None or score["high"] is None:
        return f"{mean}, interval not defined"
    return f"{mean}, 95 % interval {score['low']:.3f} to {score['high']:.3f} over {over}"


def _alone(summary: dict[str, Any], seed: int) -> str:
    """Return a replicate's main test metrics in words; with folds, of out-of-fold predictions."""
    number, metrics = summary["seeds"].index(seed), summary["metrics"]["test"]
    values = {name: metrics[name]["values"][number] for name in MAIN if name in metrics}
    words = NAMES | BOX_NAMES
    values_text = ", ".join(
        f"{words[name]} {'not defined' if value is None else format(value, '.3f')}"
        for name, value in values.items()
    )
    if (folds := summary.get("folds")) is None:
        return f"on the test images this network alone has: {values_text}"
    return (
        f"there is a network for each of {folds['count']} folds, and predictions are their mean; "
        f"on images that they were not trained on, single networks have: {values_text}"
    )


def _readme(
    record: Inference,
    networks: Sequence[Weights],
    front_matter: ModelCardData,
    card: str,
    single_scores: str,
    repository: str,
) -> str:
    """Return README.md: front matter, warnings, the model card of the result, and use."""
    restrictions, seed = mark([record.marks]), networks[0].seed
    meaning = SENTENCES[calibration_by([weights.temperature for weights in networks])]
    is_classification = record.task == "classification"
    columns = ", ".join(markdown_code(encoding.column) for encoding in record.metadata)
    selection = "the best on the validation images"
    use = USE.format(
        seed=seed,
        selection=selection if seed == record.chosen else "named by who published it",
        single_scores=single_scores,
        repository=repository,
        lines=LINES[record.task],
        calibration=CALIBRATION.format(meaning=meaning) if is_classification else "",
        metadata=f"The network also takes {columns}: `predict(image, metadata={{…}})`.\n"
        if columns
        else "",
    )
    warning = (MARK_WARNING.format(mark=restrictions) + ">\n" if restrictions else "") + WARNING
    terms = "The licence of the weights is not known: the terms of the training images may apply.\n"
    unknown = f"{terms}\n" if front_matter.license == LICENCES["other"] else ""
    return f"---\n{front_matter.to_yaml()}\n---\n\n{warning}\n{unknown}{card.rstrip()}\n\n{use}"


def _upload(folder: Path, repository: str) -> str:
    """Upload a folder with the login of the Hub's tools, and return a line for the user.

    A new repository is private, so that its owner decides on the Hub who can read it.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        api.create_repo(repository, private=True, exist_ok=True)
        address = api.upload_folder(
            folder_path=folder, repo_id=repository, commit_message="Published by medscale"
        )
    except Exception as error:  # of the Hub, or of its HTTP library, whose classes change
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise MedscaleError(
            f"{folder} is complete, but was not uploaded to {repository}: {first_line}; log in with"
            " `hf auth login`, and publish it again"
        ) from None
    return f"uploaded: {address}; a new repository is private until its settings say otherwise"
