"""The service as a caller sees it: answers, refusals, and no traces of uploads."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

import hostile
import medscale
from medscale.base.files import read_json, write_json
from medscale.data.kind import kind_names, load_kind
from medscale.serve.http.answers import Model
from medscale.serve.http.app import PAGE
from medscale.serve.http.decisions import decisions
from medscale.serve.predict import Prediction
from service_process import CLASSES, Service, make_results, picture, resident, running_service
from slow_images import in_dicom, in_tiff, many_parts, progressive

FORM = f"multipart/form-data; boundary={hostile.BOUNDARY}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("service")
    make_results(folder / "results")
    # The threshold of the first class lies between its probabilities of both kinds.
    result = folder / "results" / "made" / "ddp_2cpu"
    predictor = medscale.load(result, device="cpu")
    raw, calibrated = (
        predictor.predict(picture(), calibrated=c).probabilities[CLASSES[0]] for c in (False, True)
    )
    assert raw + 1e-3 < calibrated
    content = read_json(result / "summary.json")
    content["operating"][0]["threshold_1"] = (raw + calibrated) / 2
    write_json(result / "summary.json", content)
    return folder


@pytest.fixture(scope="module")
def service(folder: Path) -> Iterator[Service]:
    with running_service(folder / "results", folder, "--rate", "0", "--decoders", "1") as running:
        yield running


def test_it_predicts_as_the_package_does(service: Service, folder: Path) -> None:
    for run in ("serial_1cpu", "ddp_2cpu"):
        images = [picture(seed=seed) for seed in range(3)]
        answer = service.post(*images, model=f"made/{run}").json()
        predictor = medscale.load(folder / "results" / "made" / run, device="cpu")
        expected = predictor.predict(images)
        assert [result["number"] for result in answer["results"]] == [1, 2, 3]
        for result, prediction in zip(answer["results"], expected, strict=True):
            assert result["label"] == prediction.label
            assert result["probabilities"] == pytest.approx(prediction.probabilities, abs=1e-6)
        method = expected[0].calibration
        assert method == ("temperature" if run == "ddp_2cpu" else "none")
        assert answer["calibration"]["method"] == method
        assert "synthetic" in answer["mark"]
        assert "not a medical device" in answer["notice"]


def test_models_are_named_with_what_they_take(service: Service) -> None:
    models = {model["id"]: model for model in service.client().get("/v1/models").json()["models"]}
    assert list(models) == ["made/ddp_2cpu", "made/serial_1cpu", "made/ensemble"]
    assert models["made/ddp_2cpu"]["metadata"][1] == {"name": "sex", "words": ["female", "male"]}
    first_prediction, second, ensemble = models.values()
    assert first_prediction["name"] == "Made of random weights: DDP, 2 CPU"
    assert second["name"] == "made: serial, 1 CPU"
    assert ensemble["name"] == "Made of random weights: ensemble of 2 runs"
    assert first_prediction["calibration"]["temperature"] == 1.5
    assert "about 80 %" in first_prediction["calibration"]["meaning"]
    assert first_prediction["examples"] == [
        "/static/examples/skin-1.jpg",
        "/static/examples/skin-2.jpg",
    ]
    assert second["examples"] == second["operating"] == ensemble["operating"] == []
    assert models["made/ensemble"]["members"] == ["made/ddp_2cpu", "made/serial_1cpu"]
    assert all(model["explains"] and model["classes"] == CLASSES for model in models.values())


def test_thresholds_decide_as_before_calibration(service: Service, folder: Path) -> None:
    result = service.post(picture(), model="made/ddp_2cpu").json()["results"][0]
    assert [decision["label"] for decision in result["decisions"]] == CLASSES
    assert [decision["positive"] for decision in result["decisions"]] == [False, True, True]
    assert "decisions" not in service.post(picture(), model="made/serial_1cpu").json()["results"][0]
    predictor = medscale.load(folder / "results" / "made" / "ddp_2cpu", device="cpu")
    raw, calibrated = (predictor.predict(picture(), calibrated=c) for c in (False, True))
    assert isinstance(raw, Prediction)
    assert isinstance(calibrated, Prediction)
    model = next(m for m in service.client().get("/v1/models").json()["models"] if m["operating"])
    point = model["operating"][0]
    for name, probability in raw.probabilities.items():
        for change, positive in ((-1e-4, True), (1e-4, False)):
            limit = {"label": name, "threshold": probability + change}
            changed_model = Model.model_validate(model | {"operating": [point | limit]})
            for prediction, temperature in ((calibrated, 1.5), (raw, None)):
                decided = decisions(prediction.probabilities, changed_model, temperature)
                assert decided is not None
                assert decided[0].positive is positive
    answer = service.post(picture(), model="made/ddp_2cpu", calibrated=False).json()
    assert answer["calibration"]["method"] == "none"
    assert answer["results"][0]["probabilities"] == pytest.approx(raw.probabilities, abs=1e-6)
    assert answer["results"][0]["decisions"] == result["decisions"]


def test_every_kind_with_synthetic_images_has_small_examples() -> None:
    images = {path.stem: path for path in (PAGE / "examples").iterdir()}
    kinds = [kind for kind in kind_names() if load_kind(kind).demo]
    assert sorted(images) == sorted(f"{kind}-{number}" for kind in kinds for number in (1, 2))
    for path in images.values():
        assert path.stat().st_size <= 12_000


def test_an_ensemble_is_the_mean_of_its_members(service: Service) -> None:
    def probabilities(model: str) -> np.ndarray:
        result = service.post(picture(), model=model, calibrated=False).json()["results"][0]
        return np.array([result["probabilities"][name] for name in CLASSES])

    # One member has a temperature and the other none, so none is used for the mean.
    members = [probabilities(f"made/{run}") for run in ("ddp_2cpu", "serial_1cpu")]
    assert not np.allclose(*members, atol=1e-3)
    np.testing.assert_allclose(probabilities("made/ensemble"), np.mean(members, 0), atol=1e-6)


def test_metadata_count_and_come_from_dicom_headers_too(service: Service) -> None:
    def first_prediction(data: bytes, metadata: dict[str, Any] | None = None) -> float:
        metadata_text = None if metadata is None else json.dumps(metadata)
        answer = service.post(data, model="made/ddp_2cpu", metadata=metadata_text)
        return float(answer.json()["results"][0]["probabilities"]["calm"])

    rows = np.tile(np.arange(100, dtype=np.uint8), (80, 1))
    without = hostile.dicom(80, 100, rows.tobytes())
    within = hostile.dicom(80, 100, rows.tobytes(), PatientAge="080Y", PatientSex="F")
    assert first_prediction(within) == pytest.approx(
        first_prediction(without, {"age": 80, "sex": "female"}), abs=1e-6
    )
    assert abs(first_prediction(within) - first_prediction(without)) > 1e-3
    # Facts of the request win over those in the headers.
    assert first_prediction(within, {"age": 20}) == pytest.approx(
        first_prediction(without, {"age": 20, "sex": "female"}), abs=1e-6
    )
    assert first_prediction(within, {"age": None}) == pytest.approx(
        first_prediction(within), abs=1e-6
    )


def test_a_heat_map_lies_over_what_the_network_saw(service: Service) -> None:
    result = service.post(picture((320, 200)), explain=True, preview=True).json()["results"][0]
    assert result["region"] == {
        "x": 85.0,
        "y": 25.0,
        "width": 150.0,
        "height": 150.0,
    }  # 48 of 64 of the middle square
    heat = np.asarray(Image.open(io.BytesIO(content(result["heatmap"]))))
    assert heat.shape == (160, 256, 4)
    alpha = heat[..., 3]
    assert alpha[20:140, 68:188].max() > 150
    alpha = alpha.copy()
    alpha[19:141, 67:189] = 0
    assert not alpha.any()
    preview = Image.open(io.BytesIO(content(result["preview"])))
    assert preview.size == (320, 200)
    assert "heatmap" not in service.post(picture()).json()["results"][0]


def test_the_answer_names_the_frame_that_was_used(service: Service) -> None:
    pages, stream = [Image.open(io.BytesIO(picture(seed=seed))) for seed in (1, 2)], io.BytesIO()
    pages[0].save(stream, "TIFF", save_all=True, append_images=pages[1:])
    several, single = service.post(stream.getvalue(), picture()).json()["results"]
    assert several["note"] == "frame 1 of the file's 2 frames was used"
    assert single.get("note") is None


def content(url: str) -> bytes:
    return base64.b64decode(url.partition(",")[2])


def test_one_unreadable_image_among_others_is_reported_in_its_place(service: Service) -> None:
    answer = service.post(picture(), b"nothing", picture(seed=1))
    assert answer.status_code == 200
    results = answer.json()["results"]
    assert results[1] == {
        "number": 2,
        "error": {"status": 415, "detail": results[1]["error"]["detail"]},
    }
    assert results[0]["label"] in CLASSES
    assert results[2]["label"] in CLASSES


def test_pages_and_state_carry_the_headers_and_load_nothing_from_elsewhere(
    service: Service,
) -> None:
    with service.client() as caller:
        for path in (
            "/",
            "/docs",
            "/static/app.js",
            "/static/style.css",
            "/openapi.json",
            "/healthz",
            "/readyz",
        ):
            answer = caller.get(path)
            assert answer.status_code == 200, path
            assert "default-src 'none'" in answer.headers["content-security-policy"]
            assert answer.headers["x-content-type-options"] == "nosniff"
        described = caller.get("/openapi.json").json()["paths"]["/v1/predict"]["post"]
        assert {"429", "503", "413"} <= set(described["responses"])
        assert "images" in str(described["requestBody"])
        assert caller.get("/healthz").json() == {"status": "ok"}
    for file in (path for path in PAGE.iterdir() if path.is_file()):
        outside = re.findall(
            r"(?:https?:)?//[a-z0-9.]+\.[a-z]{2,}", file.read_text(encoding="utf-8")
        )
        assert set(outside) <= {"http://www.w3.org"}, file  # a namespace, which nothing fetches
    assert "not a medical device" in (PAGE / "index.html").read_text(encoding="utf-8").lower()


@pytest.mark.parametrize(
    ("query", "words"),
    [
        (
            "calibrate=false",
            "unknown option; /v1/predict takes model, explain, preview, ",
        ),
        ("explain=true&explain=false", "an option in the address has two values"),
        ("explain=perhaps", "explain must be true or false"),
    ],
)
def test_an_option_that_would_be_passed_over_is_refused(
    service: Service, query: str, words: str
) -> None:
    with service.client() as client:
        files = [("images", ("photo.jpg", picture()))]
        answer = client.post(f"/v1/predict?{query}", files=files)
    assert answer.status_code == 422
    assert words in answer.json()["detail"]


@pytest.mark.parametrize("name", hostile.damaged())
def test_what_is_no_whole_image_is_refused(service: Service, name: str) -> None:
    answer = service.post(hostile.damaged()[name])
    assert answer.status_code in (415, 422), answer.text
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("name", hostile.NAMES)
def test_names_that_are_more_than_names_are_refused(service: Service, name: str) -> None:
    body = hostile.part(hostile.NAMES[name], picture()) + hostile.END
    assert form(service, body).status_code == 400


@pytest.mark.parametrize("name", hostile.FORMS)
def test_forms_that_are_not_as_they_should_be_are_refused(service: Service, name: str) -> None:
    assert form(service, hostile.FORMS[name]).status_code == 400


def form(service: Service, body: bytes, kind: str = FORM) -> httpx.Response:
    with service.client() as caller:
        return caller.post("/v1/predict", content=body, headers={"Content-Type": kind})


def test_other_requests_are_refused_with_what_to_do(service: Service) -> None:
    assert form(service, b"{}", "application/json").status_code == 415
    assert form(service, b"", "multipart/form-data").status_code == 400
    assert form(service, hostile.END, f"{FORM}; charset=idna").status_code == 415
    with service.client() as caller:
        kind = {"Content-Type": FORM}
        assert (
            caller.post("/v1/predict", content=iter([hostile.END]), headers=kind).status_code == 411
        )
        assert caller.get("/v1/predict").status_code == 405
        assert caller.get("/v1/predict").headers["Allow"] == "POST"
        for path in ("/", "/v1/models", "/metrics", "/readyz", "/static/app.js"):
            answer = caller.head(path)
            assert (answer.status_code, answer.content) == (200, b"")
            assert answer.headers["Content-Type"] == caller.get(path).headers["Content-Type"]
        assert caller.head("/v1/predict").status_code == 405
        assert "/docs" in caller.get("/nothing").json()["detail"]
        assert caller.get("/static/../app.py").status_code == 404
        assert caller.get("/static/%2e%2e/app.py").status_code == 404
        other = caller.get("/", headers={"Host": "attacker.example"})
        assert other.status_code == 400
        assert "--name" in other.json()["detail"]
        assert caller.get("/", headers={"Host": "LOCALHOST:1"}).status_code == 200
        assert caller.get("/v1/models", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
    answer = service.post(picture(), model="made/unknown")
    assert answer.status_code == 404
    assert "made/serial_1cpu" in answer.json()["detail"]
    for metadata in (
        "[]",
        "{",
        '{"age": "old"}',
        '{"age": NaN}',
        '{"sex": 1}',
        '{"site": "x"}',
        "[" * 5000,
    ):
        assert service.post(picture(), model="made/ddp_2cpu", metadata=metadata).status_code in (
            400,
            422,
        ), metadata


def test_a_request_that_is_too_large_is_reported_while_it_is_being_sent(service: Service) -> None:
    answer = service.post(bytes(60_000_000))
    assert answer.status_code == 413
    assert "32,000,000" in answer.json()["detail"]


def test_images_that_take_long_are_refused_at_once(service: Service) -> None:
    """A file of 400 scans, or of 40,000 parts, takes seconds to decode where it has many pixels."""
    files = [progressive(64, 400), in_dicom(progressive(64, 400), 64)]
    files += [in_tiff(progressive(64, 400), 64), *many_parts(40_000).values()]
    for data in files:
        answer = service.post(data)
        assert answer.status_code in (413, 422)
        assert "more than" in answer.json()["detail"]


def test_bombs_and_noise_are_refused_and_leave_no_memory_behind(service: Service) -> None:
    bombs = hostile.bombs()
    assert max(map(len, bombs.values())) < 500_000
    for name, data in bombs.items():  # the first time libraries are loaded
        status = service.post(data).status_code
        harmless = name.startswith(("png with", "gif of"))  # the first frame is of one pixel
        assert 400 <= status < 500 or (status == 200 and harmless), name
    for data in hostile.random_files(70):
        assert service.post(data).status_code in (200, 413, 415, 422)
    lost_before, before = service.counter("medscale_processes_lost_total"), service.resident()
    for _ in range(2):
        for data in bombs.values():
            assert service.post(data).status_code < 500
    assert service.resident() - before < 25
    assert service.counter("medscale_processes_lost_total") == lost_before


def test_nothing_is_written_of_what_was_sent(service: Service, folder: Path) -> None:
    secret = ("very-private-name.bmp", picture((700, 600), kind="BMP"))
    assert len(secret[1]) > 1_200_000  # forms of this size usually go through temporary files
    assert service.post(secret).status_code == 200
    assert service.post(("very-private-name.png", b"private content")).status_code == 415
    assert not list((folder / "tmp").iterdir())
    log = (folder / "serve.log").read_text()
    assert "private" not in log
    assert "Traceback" not in log


def test_its_processes_are_small_where_they_only_decode(service: Service) -> None:
    decoder, predictor = sorted(map(resident, service.workers()))
    assert decoder < 200 < predictor
