"""A published model folder is complete, says what it is, can be loaded, and leaves on request."""

from __future__ import annotations

import platform
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pandas as pd
import pytest
from huggingface_hub import ModelCard
from safetensors.torch import load_file
from typer.testing import CliRunner

import medscale
from data_trees import image_bytes, picture
from medscale.base.errors import MedscaleError
from medscale.base.files import read_json, write_json
from medscale.cli import main as cli
from medscale.exchange.hugging_face import LINES, _interval, publish
from medscale.serve.calibration import SENTENCES
from medscale.serve.predict import Box, Prediction

EXAMPLE = re.compile(r"```python\n(.*?)```", re.DOTALL)
FILES = {"README.md", "config.json", "inference.json", "model.safetensors"}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The Hub's interface, replaced by one that lists the calls or raises ``error``."""
    played = SimpleNamespace(calls=[], error=None)

    class Api:
        def create_repo(self, repository: str, **options: object) -> None:
            if played.error:
                raise played.error
            played.calls.append(("create", repository, options))

        def upload_folder(self, *, folder_path: Path, repo_id: str, **options: object) -> str:
            names = {path.name for path in Path(folder_path).iterdir()}
            played.calls.append(("upload", repo_id, names))
            return f"https://hub.invalid/{repo_id}"

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    return played


def test_the_card_has_metrics_with_intervals_and_warnings_on_top(
    result: Path, tmp_path: Path, hub: SimpleNamespace
) -> None:
    folder = tmp_path / "model"
    invocation = CliRunner().invoke(cli.main, ["publish", str(result), "--to", str(folder)])
    assert invocation.exit_code == 0, invocation.output
    assert {path.name for path in folder.iterdir()} == FILES
    assert not hub.calls
    card = ModelCard.load(folder / "README.md")
    assert (card.data.license, card.data.library_name) == ("mit", "medscale")
    network = read_json(result / "inference.json")["model"]["name"]
    assert card.data.tags == ["medical-imaging", network, "research-only", "synthetic"]
    assert card.data.datasets is None
    scores = read_json(result / "summary.json")["metrics"]["test"]
    accuracy = next(r for r in card.data.eval_results if r.metric_type == "accuracy")
    assert accuracy.metric_value == scores["accuracy"]["mean"]
    assert accuracy.dataset_name == "test images of glaucoma (synthetic)"
    low, high = (f"{scores['accuracy'][end]:.3f}" for end in ("low", "high"))
    assert f"mean of 2 replicates, 95 % interval {low} to {high}" in accuracy.metric_name
    assert {r.metric_type for r in card.data.eval_results} >= {"roc_auc", "matthews_correlation"}
    first = next(line for line in card.text.splitlines() if line)
    assert first.startswith("> **demo: synthetic images")
    assert card.text.index("Not a medical device") < card.text.index("## Model details")
    assert "The licence of the weights is not known" not in card.text
    (weights,) = read_json(folder / "inference.json")["replicates"]
    alone = scores["accuracy"]["values"][weights["seed"] - 1]
    assert f"this network alone has: accuracy {alone:.3f}, balanced accuracy" in card.text


def test_the_example_of_the_card_runs_and_predicts_as_the_result(
    result: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    publish(result, tmp_path / "model")
    (tmp_path / "model" / "image.png").write_bytes(image_bytes(picture(0, (40, 40))))
    (code,) = EXAMPLE.findall((tmp_path / "model" / "README.md").read_text())
    assert len(code.splitlines()) <= 20
    monkeypatch.chdir(tmp_path / "model")
    exec(compile(code, "README.md", "exec"), {})
    expected = medscale.load(result).predict("image.png")
    text = (tmp_path / "model" / "README.md").read_text()
    assert f"{SENTENCES[expected.calibration]}\n`predict(image, calibrated=False)`" in text
    output = capsys.readouterr().out.splitlines()
    assert output[0] == expected.label
    assert output[1:] == [f"{p:.3f} {name}" for name, p in expected.probabilities.items()]


def test_the_example_of_a_detector_lists_boxes(capsys) -> None:
    prediction = Prediction("image.png", boxes=[Box("opacity", 1.0, 2.0, 3.0, 4.0, 0.5)])
    exec(compile(LINES["detection"], "README.md", "exec"), {"prediction": prediction})
    assert capsys.readouterr().out == "opacity 0.5 1.0 2.0 3.0 4.0\n"


def test_the_configuration_lists_classes_and_preprocessing(result: Path, tmp_path: Path) -> None:
    publish(result, tmp_path / "model", seed=2)
    record, config = (
        read_json(f) for f in (result / "inference.json", tmp_path / "model" / "config.json")
    )
    assert config["id2label"] == {"0": "normal", "1": "glaucoma"}
    assert config["preprocess"] == record["preprocess"]
    assert config["marks"] == record["marks"]
    weights = load_file(tmp_path / "model" / "model.safetensors")
    assert weights.keys() == load_file(result / "seed2.safetensors").keys()
    assert [r["seed"] for r in read_json(tmp_path / "model" / "inference.json")["replicates"]] == [
        2
    ]


def test_an_unknown_licence_is_reported_and_a_stated_one_is_used(
    result: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "results" / "glaucoma" / "serial_1cpu"
    shutil.copytree(result, copy)
    record = read_json(copy / "inference.json")
    record["marks"]["synthetic"] = False
    write_json(copy / "inference.json", record)
    lines = publish(copy, tmp_path / "unknown")
    assert ModelCard.load(tmp_path / "unknown" / "README.md").data.license == "unknown"
    assert "licence of the weights is not known" in (tmp_path / "unknown" / "README.md").read_text()
    assert "names of patients and files were not searched for" in lines[1]
    publish(copy, tmp_path / "stated", licence="cc-by-4.0", datasets=["owner/images"])
    data = ModelCard.load(tmp_path / "stated" / "README.md").data
    assert (data.license, data.datasets) == ("cc-by-4.0", ["owner/images"])
    assert {r.dataset_type for r in data.eval_results} == {"owner/images"}


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("a/12345678.png of g12345", "a patient id"),
        ("1.2.826.0.1.3680043.8.498.11111111", "a DICOM id"),
        ("ada@example.org", "an e-mail address"),
    ],
)
def test_identifiers_refuse_the_folder(
    result: Path, tmp_path: Path, hub: SimpleNamespace, text: str, kind: str
) -> None:
    shutil.copytree(result.parents[2], tmp_path / "study")
    copy = tmp_path / "study" / result.relative_to(result.parents[2])
    index = tmp_path / "study" / "data" / "glaucoma" / "index.parquet"
    table = pd.read_parquet(index).assign(patient="g12345", group="g12345")
    table.to_parquet(index, index=False)
    card = copy / "model_card.md"
    card.write_text(card.read_text() + f"\n{text}\n")
    with pytest.raises(MedscaleError, match=kind):
        publish(copy, tmp_path / "model", upload="owner/name")
    assert not (tmp_path / "model").exists()
    assert not list(tmp_path.glob(".model*"))
    assert not hub.calls


def test_the_folder_is_uploaded_on_request_alone_and_privately(
    result: Path, tmp_path: Path, hub: SimpleNamespace
) -> None:
    lines = publish(result, tmp_path / "model", upload="owner/name")
    create, upload = hub.calls
    assert create == ("create", "owner/name", {"private": True, "exist_ok": True})
    assert upload == ("upload", "owner/name", FILES)
    assert "https://hub.invalid/owner/name" in lines[-1]
    assert 'snapshot_download("owner/name")' in (tmp_path / "model" / "README.md").read_text()
    hub.error = OSError("401 Unauthorized\nlong text")
    with pytest.raises(MedscaleError, match=r"not uploaded to owner/name: 401 Unauthorized; log"):
        publish(result, tmp_path / "model", upload="owner/name")
    assert {path.name for path in (tmp_path / "model").iterdir()} == FILES
    with pytest.raises(MedscaleError, match="name a repository of the Hub, OWNER/NAME"):
        publish(result, tmp_path / "model", upload="name")


def test_other_files_and_damaged_weights_are_refused(result: Path, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter.txt").write_text("dear")
    with pytest.raises(MedscaleError, match="holds other files than a published model"):
        publish(result, tmp_path / "home")
    assert (tmp_path / "home" / "letter.txt").read_text() == "dear"
    copy = tmp_path / "copy"
    shutil.copytree(result, copy)
    for file in copy.glob("seed*.safetensors"):
        data = bytearray(file.read_bytes())
        data[-1] ^= 1
        file.unlink()
        file.write_bytes(data)
    with pytest.raises(MedscaleError, match="SHA-256 differs"):
        publish(copy, tmp_path / "model", data=result.parents[2] / "data" / "glaucoma")
    assert not (tmp_path / "model").exists()
    (copy / "summary.json").write_text("{}")
    with pytest.raises(MedscaleError, match="is no summary of this version"):
        publish(copy, tmp_path / "model")


def test_the_name_of_this_machine_stays_here(result: Path, tmp_path: Path, monkeypatch) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(result, copy)
    monkeypatch.setattr(platform, "node", lambda: "gpu-node7.clinic")
    (copy / "model_card.md").write_text("trained on gpu-node7.clinic\n")
    with pytest.raises(MedscaleError, match="a host"):
        publish(copy, tmp_path / "model", data=result.parents[2] / "data" / "glaucoma")


def test_a_score_of_a_cross_validation_is_one_of_out_of_fold_predictions() -> None:
    summary = {"seeds": [1], "patients": "known", "folds": {"count": 5}}
    score = {"mean": 0.8, "low": 0.7, "high": 0.85}
    assert _interval(score, summary) == (
        "out-of-fold predictions of 5 folds, one seed, 95 % interval 0.700 to 0.850 over patients"
    )
    text = _interval(score | {"low": None}, summary | {"seeds": [1, 2]})
    assert text == "out-of-fold predictions of 5 folds, mean of 2 seeds, interval not defined"
