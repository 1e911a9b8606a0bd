"""The predicting process of the service: members, replicates and their thresholds."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

import medscale
from medscale.base.files import read_json, write_json
from medscale.serve import inputs
from medscale.serve.bundle import INFERENCE, Weights
from medscale.serve.http import heatmap, predicting, summary
from medscale.serve.http.messages import DecodedImage, Offer, Task
from service_process import AGE_AND_SEX, CLASSES, make_result, picture
from service_process import summary as written_summary

FACTS = {"age": 61.0, "sex": "female"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two runs, of which the second has another preprocessing and another crop."""
    study = tmp_path_factory.mktemp("predicting") / "made"
    runs = [
        make_result(study / "ddp_2cpu", "ddp_2cpu", CLASSES, 1, AGE_AND_SEX, 1.5),
        make_result(study / "serial_1cpu", "serial_1cpu", CLASSES, 2, [], 0.5),
    ]
    record = read_json(runs[1] / INFERENCE)
    record["preprocess"] |= {"size": 40, "fit": "stretch"}
    write_json(runs[1] / INFERENCE, record | {"crop": {"size": 20}})
    return runs


@pytest.fixture
def offers(runs: list[Path]) -> Iterator[dict[str, Offer]]:
    threads = torch.get_num_threads(), cv2.getNumThreads()
    yield {offer.model.id: offer for offer in predicting.start(0, runs, "best", "cpu", 1)}
    torch.set_num_threads(threads[0])
    cv2.setNumThreads(threads[1])


def decoded(offer: Offer, seed: int) -> DecodedImage:
    data = picture(seed=seed)
    pixels = [inputs.read(data, settings)[0].pixels for settings in offer.preprocessings]
    return DecodedImage(pixels, 320, 200, FACTS)


def test_each_member_of_an_ensemble_has_its_own_images_and_temperature(
    runs: list[Path], offers: dict[str, Offer]
) -> None:
    name = "made/ensemble"
    images = [decoded(offers[name], seed) for seed in range(3)]
    members = [medscale.load(run, device="cpu") for run in runs]
    data = [picture(seed=seed) for seed in range(3)]
    for calibrated in (True, False):
        outputs = predicting.predict(Task(name, explain=False, calibrated=calibrated), images)
        predictions = [
            member.predict(
                data, FACTS if member.inference.metadata else None, calibrated=calibrated
            )
            for member in members
        ]
        expected = np.mean(
            [[list(p.probabilities.values()) for p in of_member] for of_member in predictions], 0
        )
        actual = [list(output.probabilities.values()) for output in outputs]
        np.testing.assert_allclose(actual, expected, atol=1e-6)
        assert [o.label for o in outputs] == [CLASSES[code] for code in expected.argmax(1)]
    assert offers[name].model.calibration.method == "temperature of each network"
    assert offers[name].model.calibration.temperature is None
    assert (offers[name].model.networks, offers[name].model.folds) == (2, 0)


def test_a_heat_map_is_the_mean_of_the_networks_each_within_its_region(
    runs: list[Path], offers: dict[str, Offer]
) -> None:
    image = decoded(offers["made/ensemble"], 0)
    members = [medscale.load(run, device="cpu") for run in runs]
    batches = [pixels[None] for pixels in image.pixels]
    features = [member.features([member.accepted(FACTS)]) for member in members]

    def heat(chosen: slice) -> np.ndarray:
        (png,) = heatmap.heatmaps(
            members[chosen], batches[chosen], features[chosen], np.array([1]), [image]
        )
        return np.asarray(Image.open(io.BytesIO(png)))[..., 3].astype(float)

    alone, together = [heat(slice(n, n + 1)) for n in (0, 1)], heat(slice(2))
    np.testing.assert_allclose(together, np.mean(alone, axis=0), atol=1.5)
    # 48 of 64 of the middle square of 320 x 200, and 20 of 40 of both sides, at 256 x 160.
    for values, (top, bottom, left, right) in zip(
        alone, ((20, 140, 68, 188), (40, 120, 64, 192)), strict=True
    ):
        rows, columns = np.nonzero(values)
        assert top <= rows.min() <= rows.max() < bottom
        assert left <= columns.min() <= columns.max() < right


def test_operating_points_are_those_of_the_replicate_that_predicts(
    runs: list[Path], tmp_path: Path
) -> None:
    inference = medscale.load(runs[0], device="cpu").inference
    first = inference.replicates[0]
    second = Weights.model_validate(first.model_dump() | {"seed": 2})
    inference = inference.model_copy(update={"replicates": [first, second]})
    content = written_summary()
    for row, limits in zip(
        content["operating"], ((None, 0.3), (0.1, 0.7), (0.2, 0.4)), strict=True
    ):
        row["threshold_1"], row["threshold_2"] = limits
    content["operating"][2]["sensitivity"] = None  # of a class without test images
    write_json(tmp_path / "summary.json", content)
    thresholds = []
    for weights in ([first], [second], [first, second]):
        scores, points = summary.read(tmp_path, inference, weights)
        assert [(score.name, score.mean) for score in scores] == [("accuracy", 0.75)]
        thresholds.append({point.label: point.threshold for point in points})
    assert thresholds == [{"odd": 0.1}, {"calm": 0.3, "odd": 0.7}, {}]
