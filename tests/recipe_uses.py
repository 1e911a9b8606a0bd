"""Use what a recipe of docs/recipes adds, in a patched copy of the checkout.

``python recipe_uses.py RECIPE FOLDER`` writes into FOLDER, which is new. Each function fails with
an AssertionError where what was added does not work.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd

PREPARED = ("dataset_kind", "export_format")


def figure(folder: Path) -> None:
    """Make the chapter that has the new figure from made results."""
    from medscale.report.chapters import chapters_of
    from synthetic_runs import configuration, make_chapter, make_study

    runs = ["serial_1cpu"]
    config = configuration("glaucoma", runs, baseline="serial_1cpu")
    assert any("operating" in chapter.figures for chapter in chapters_of(config, "glaucoma"))
    make_study(folder, "glaucoma", ["normal", "glaucoma"], runs, baseline="serial_1cpu")
    make_chapter(folder, config, "glaucoma", "quality")
    assert (folder / "figures/glaucoma/operating.pdf").read_bytes().startswith(b"%PDF")


def dataset_kind(folder: Path) -> None:
    """Index the folder of raw images that the commands of the recipe have checked."""
    from medscale.data.index import build_index
    from medscale.data.settings import Dask, Source, Split

    source, dask = Source(kind="biopsy", path=Path("raw")), Dask(workers=1)
    division = Split(mode="grouped", train=0.5, val=0.25, test=0.25)
    index = build_index(source, division, None, dask, folder)
    assert list(index["label"].cat.categories) == ["benign", "malignant"]
    assert len(index) == len(list(Path("raw").rglob("*.png")))
    assert index["patient"].nunique() == 6
    assert index.groupby("patient")["split"].nunique().eq(1).all()


def strategy(folder: Path) -> None:
    """Train on two processes; the losses are those of DDP, and the cost model knows the name."""
    from medscale.config.configuration import load
    from medscale.config.planning import plan
    from medscale.report.names import label
    from medscale.resources.cost import estimate

    histories = [_train(folder, run) for run in ("lockstep_2cpu", "ddp_2cpu")]
    np.testing.assert_allclose(*histories, rtol=1e-5)
    assert label("lockstep_2cpu") == "lockstep, 2 CPU"
    config = load("config.yaml", {"scale": "demo"})
    assert estimate(config, plan(config, "glaucoma", "lockstep_2cpu", 1), measured=False).minutes


def export_format(folder: Path) -> None:
    """Predict by the exported file; its probabilities are near those of PyTorch."""
    import medscale
    from medscale.serve.runtime import open_session

    predictor = medscale.load("results/made/serial_1cpu", device="cpu")
    size = predictor.inference.preprocess.size
    pixels = np.random.default_rng(0).integers(0, 256, (4, size, size, 3), np.uint8)
    expected = predictor.probabilities(pixels, None)
    np.testing.assert_allclose(
        open_session(Path("made.int8_dynamic.onnx")).run(None, {"images": pixels})[0],
        expected,
        atol=0.1,
    )


def network(folder: Path) -> None:
    """Build the network by its name, in stages too, and train it through a plan."""
    import torch

    from medscale.engine.models.registry import build, stages
    from medscale.engine.plan import Model

    model = {"name": "plain_cnn", "options": {"width": 4}}
    network_module = build(Model(**model), 3)
    assert network_module(torch.zeros(2, 3, 32, 32)).shape == (2, 3)
    assert len(stages(network_module)) == 9
    assert np.isfinite(_train(folder, "serial_1cpu", model=model)).all()


def training_digest() -> str:
    """The digest of the code of a training; no recipe may change it."""
    from medscale.base.code import ROOT, code_digest
    from medscale.config.configuration import load
    from medscale.config.planning import plan
    from medscale.workflow.stages import code_files, training_code

    trained = plan(load(ROOT / "config.yaml", {"scale": "demo"}), "glaucoma", "ddp_2cpu", 1)
    return code_digest(*code_files("train.py"), **training_code(trained))


def prepare(recipe: str) -> None:
    """Write the files that the commands of a recipe of ``PREPARED`` expect."""
    if recipe == "dataset_kind":
        from data_trees import write

        for number in range(12):
            label = ("benign", "malignant")[number % 2]
            write(Path("raw", label, f"p{number // 4}{label[0]}_{number}.png"), number)
    else:
        from service_process import make_results

        make_results(Path("results"))


def _train(folder: Path, run: str, **changes: object) -> np.ndarray:
    """Train for an epoch; return the training and validation loss."""
    from medscale.data.shards import seal, write_chunk
    from training_runs import TINY, Training

    shards = folder / "shards"
    if not shards.exists():
        shards.mkdir()
        pixels = np.random.default_rng(0).integers(0, 256, (24, 16, 16, 3), np.uint8)
        write_chunk(shards, 0, pixels)
        rows = pd.DataFrame({"id": range(24), "label": np.arange(24) % 2})
        rows["split"], rows["group"] = np.repeat(["train", "val", "test"], 8), rows["id"].map(str)
        seal(shards, rows, ["a", "b"], {"preprocess": {}})
    trained = Training(folder, shards, TINY).fork(run, **changes)
    return pd.read_csv(trained / "history.csv")[["train_loss", "val_loss"]].to_numpy()


if __name__ == "__main__":
    name, place = sys.argv[1], Path(sys.argv[2])
    if name == "prepare":
        prepare(sys.argv[2])
    else:
        place.mkdir()
        globals()[name](place)
        print(training_digest())
