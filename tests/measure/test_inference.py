"""Measured exports and inference: intervals, latencies, gains, and what is shown of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from figure_texts import printed
from medscale.base.errors import MedscaleError
from medscale.base.files import read_json
from medscale.config.configuration import load
from medscale.measure import exporting, inference
from medscale.measure.record import Marks, write
from medscale.measure.scaling.benchmarks import by_format, by_inference
from medscale.report.writer import write_chapter
from training_runs import ROOT

MARKS = Marks(synthetic=True, stand_in=False, scale="demo")


def test_an_interval_is_of_pairs_and_of_patients() -> None:
    groups = np.repeat(np.arange(50), 4)
    is_correct = np.random.default_rng(0).random(200) < 0.8
    equal, low, high = exporting.accuracy_difference(is_correct, is_correct, groups)
    # Of 50 patients with equal answers: the exact interval (Clopper & Pearson) of 0 of 50.
    exact = 100 * stats.beta.ppf(0.975, 1, 50)
    assert (equal, low, high) == (0, pytest.approx(-exact), pytest.approx(exact))
    better = is_correct.copy()
    better[np.flatnonzero(~is_correct)[:10]] = True
    difference, low, high = exporting.accuracy_difference(better, is_correct, groups)
    assert difference == pytest.approx(5)
    assert 0 < low < 5 < high < 12
    alone = exporting.accuracy_difference(better, is_correct, np.arange(200))
    together = exporting.accuracy_difference(
        np.repeat(better[:50], 4), np.repeat(is_correct[:50], 4), groups
    )
    assert together[2] - together[1] > 1.5 * (alone[2] - alone[1]), (
        "copies of an image count as one patient"
    )


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_outputs_that_are_not_finite_are_no_answers(device) -> None:
    """The largest of values that are not numbers would be the first class."""
    reference = np.array([[0.9, 0.1], [0.2, 0.8]], np.float32)
    outputs = {("eager", "cpu"): reference, ("onnx", device): reference.copy()}
    labels, groups = np.array([0, 0]), np.array(["a", "b"])
    assert exporting._compare(outputs, labels, groups, "run")["onnx", device]["accuracy"] == 50
    outputs["onnx", device][1] = np.nan
    with pytest.raises(MedscaleError, match=r"outputs of run\.onnx\.onnx .*are not finite"):
        exporting._compare(outputs, labels, groups, "run")


def test_what_cannot_be_measured_is_refused_by_the_configuration() -> None:
    for benchmarks, message in (
        ({"inference": {}}, "give benchmarks.export"),
        ({"export": {"runs": ["serial_1gpu_yolov8n"]}}, "is a detector"),
        ({"export": {"runs": ["seral_1gpu"]}}, "benchmarks.export.runs"),
        (
            {"export": {"runs": ["serial_1gpu"]}, "inference": {"ways": ["onnx"]}},
            "ways must have eager",
        ),
    ):
        with pytest.raises(MedscaleError, match=message):
            load(ROOT / "config.yaml", {"studies": {"glaucoma": {"benchmarks": benchmarks}}})


def export_rows() -> pd.DataFrame:
    rows = []
    for repeat in range(2):
        for n, name in enumerate(exporting.WAYS):
            seconds = (1.0, 0.4, 0.41, 0.3)[n] * (1 + 0.02 * repeat)
            about = (
                "serial_1gpu",
                name,
                "cpu",
                repeat,
                300,
                seconds,
                (8e6, 8.1e6, 4.2e6, 2.2e6)[n],
            )
            rows.append(
                (*about, 80 - 0.3 * n, -0.3 * n, -0.3 * n - 0.8, -0.3 * n + 0.7, 0.01 * n, 2 * n)
            )
    return pd.DataFrame(rows, columns=exporting.COLUMNS)


def inference_rows() -> pd.DataFrame:
    cpu = {"eager": 8.0, "compiled": 5.0, "onnx": 3.0, "fp16": 3.2, "int8": 1.8}
    gpu = {"eager": 4.0, "captured": 0.8, "captured_compiled": 0.5}
    formats = {"fp16": "fp16", "int8": "int8"}
    no_times, rows = (np.nan,) * 3, []
    for repeat in range(2):
        for device, threads, times in (("cuda", 0, gpu), ("cpu", 1, cpu), ("cpu", 2, cpu)):
            for way, ms in times.items():
                milliseconds = ms / max(threads, 1) * (1 + 0.03 * repeat)
                about = ("serial_1gpu", way, device, formats.get(way, "fp32"), threads)
                percentiles = milliseconds, 1.3 * milliseconds, 1.9 * milliseconds
                rows.append((*about, "latency", 1, repeat, 50, milliseconds / 20, *percentiles))
                for batch in (1, 8, 32):
                    seconds = 64 * milliseconds / 1e3 / batch**0.3
                    rows.append((*about, "throughput", batch, repeat, 64, seconds, *no_times))
                rows.append(
                    (*about, "decoded", 32, repeat, 64, 64 * (milliseconds + 2) / 1e3, *no_times)
                )
            if threads:
                about = ("serial_1gpu", "decode", "cpu", "uint8", threads, "decode")
                rows.append((*about, 1, repeat, 64, 0.1 / threads, *no_times))
    return pd.DataFrame(rows, columns=inference.COLUMNS)


def test_a_latency_is_of_the_calls_after_the_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, seen = [0.0], []

    def run(pixels: np.ndarray, features: np.ndarray | None) -> np.ndarray:
        seen.append((pixels.tolist(), None if features is None else features.tolist()))
        clock[0] += 100.0 if len(seen) <= inference.WARM_UP else len(seen) - inference.WARM_UP
        return pixels

    monkeypatch.setattr(inference, "perf_counter", lambda: clock[0])
    way = inference.Way("eager", "cpu", "fp32", 1, run)
    images = inference.Images([], np.arange(3), 10 * np.arange(3))
    row = inference._latency(way, images, 101)  # the calls take 1 to 101 seconds
    assert (row["images"], row["seconds"]) == (101, 101 * 102 / 2)
    percentiles = [row[f"p{p}_ms"] for p in (50, 95, 99)]
    assert percentiles == pytest.approx([51_000, 96_000, 100_000])
    timed = seen[inference.WARM_UP :]
    assert timed == [([n % 3], [10 * (n % 3)]) for n in range(101)]


def test_a_gain_is_over_eager_pytorch_of_the_same_run() -> None:
    slow = export_rows().assign(run="serial_1gpu_slow", seconds=lambda t: t["seconds"] ** 2)
    rows = pd.concat([export_rows(), slow])
    gains = by_format(rows[rows["repeat"] == 0]).set_index(["run", "format"])["gain"]
    assert gains["serial_1gpu", "onnx"] == pytest.approx(1 / 0.4)
    assert gains["serial_1gpu_slow", "onnx"] == pytest.approx(1 / 0.4**2)
    rows = inference_rows()
    rows = pd.concat([rows, rows.assign(run="slow", seconds=3 * rows["seconds"] ** 1.5)])
    rows = rows[(rows["repeat"] == 0) & ((rows["device"] == "cpu") | (rows["way"] != "eager"))]
    table = by_inference(rows).set_index(["run", "way", "kind", "device", "threads", "batch"])
    gain = table["gain"]
    # Without eager PyTorch on the GPU, that on most CPU threads is the base: 8 / 2 over 0.8 ms.
    assert gain["serial_1gpu", "captured", "latency", "cuda", 0, 1] == pytest.approx(5)
    assert gain["slow", "captured", "latency", "cuda", 0, 1] == pytest.approx(5**1.5)
    assert gain["serial_1gpu", "onnx", "throughput", "cpu", 1, 8] == pytest.approx(8 / 3)
    assert gain["slow", "onnx", "throughput", "cpu", 1, 8] == pytest.approx((8 / 3) ** 1.5)
    assert np.isnan(gain["serial_1gpu", "decode", "decode", "cpu", 1, 1])
    throughput = table.loc[("serial_1gpu", "onnx", "throughput", "cpu", 2, 1)]
    assert throughput["images_per_second"] == pytest.approx(1e3 / 1.5)


@pytest.mark.parametrize(
    ("name", "rows"), [("export", export_rows()), ("inference", inference_rows())]
)
def test_figure_table_and_numbers_say_what_was_measured(
    name: str, rows: pd.DataFrame, tmp_path: Path
) -> None:
    ways = exporting.WAYS if name == "export" else inference.WAYS
    missing = {"tensorrt": "this ONNX Runtime was built without TensorRT"}
    settings = {"repeats": 2, "batch_size": 32}
    write(tmp_path / "measured", name, rows, settings, MARKS, ways, missing)
    inputs = {"measured": f"{name}.csv", "about": f"{name}.json"}
    inputs = {key: str(tmp_path / "measured" / file) for key, file in inputs.items()}
    inputs["reported"] = str(ROOT / "reported.yaml")
    write_chapter(name, "dermatology", inputs, tmp_path)
    text = printed(tmp_path / "figures" / "dermatology" / f"{name}.pdf")
    assert "demo: synthetic images" in text
    facts = read_json(tmp_path / "tables" / "dermatology" / f"{name}.json")
    gains = {row["way"]: row["gain"] for row in facts["gains"]}
    rows = pd.read_csv(tmp_path / "tables" / "dermatology" / f"{name}.csv")
    if name == "export":
        table = (tmp_path / "tables" / "dermatology" / "export.tex").read_text()
        assert "tensorrt" in table, "what was not measured is named"
        row = rows[rows["format"] == "int8"].iloc[0]
        assert row["bytes"] / 1e6 == pytest.approx(2.2, abs=0.005)
        assert row["difference"] == pytest.approx(-0.9, abs=0.05)
        assert (facts["batch"], facts["images"], facts["repeats"]) == (32, 300, 2)
        assert facts["seconds"] == {"low": 0.3, "high": 1.02}
        assert gains["onnx"] == pytest.approx(2.5)
        assert "accuracy less PyTorch" in text
    else:
        captured = rows[(rows["way"] == "captured") & (rows["kind"] == "latency")]
        assert captured["gain"].item() == pytest.approx(5), "of a GPU, over eager on the GPU"
        int8 = rows[(rows["way"] == "int8") & (rows["kind"] == "throughput")]
        assert int8.sort_values("batch")["gain"].iloc[-1] == pytest.approx(4.44, abs=0.005)
        assert facts["batch"] == rows["batch"].max()
        assert facts["threads"] == 2
        assert gains["int8"] == pytest.approx(4.44, abs=0.005)
        assert "reported: 600 images/s" in text
