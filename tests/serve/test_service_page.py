"""The service's web page in a browser, used by mouse, by keyboard and by screen reader."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from playwright import sync_api

import hostile
from medscale.base.text import visible
from page_scripts import CONTRASTS, DROP, WIDER
from service_process import CLASSES, Service, make_result, make_results, picture, running_service

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
pytestmark = pytest.mark.browser
ODD_RUN = "serial_1cpu_bs8"  # whose classes have these names
ODD = ['=1+1, "x"', "<img src=x onerror=alert(1)>", "\x1b[31m\u202ered", "{{x}} $y$ &lt; 😀"]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("page")
    results = make_results(folder / "results")
    make_result(results / "odd" / ODD_RUN, ODD_RUN, ODD, 3, [], None)
    with running_service(results, folder, "--rate", "0", "--decoders", "1") as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    assert CHROMIUM, "Chromium is missing: `make setup-test` installs it"
    with sync_api.sync_playwright() as playwright:
        # root, as in containers, needs it without a sandbox; only this service's page is opened
        options = ["--no-sandbox"] if os.geteuid() == 0 else []
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Browser, service: Service, request: pytest.FixtureRequest) -> Iterator[Page]:
    """The page, opened; whatever it loads from elsewhere or complains of fails the test."""
    options: dict[str, Any] = getattr(request, "param", {})
    context = browser.new_context(reduced_motion="reduce", **options)
    new_page, messages, requests = context.new_page(), [], []
    new_page.on("console", lambda message: messages.append(message.text))
    new_page.on("pageerror", lambda error: messages.append(str(error)))
    new_page.on("request", lambda browser_request: requests.append(browser_request.url))
    new_page.on(
        "filechooser", lambda _: None
    )  # taken from now on; at the time of a key it would be too late
    new_page.goto(service.address)
    new_page.wait_for_selector("#ask:not([hidden])")
    yield new_page
    assert all(url.startswith((service.address, "data:", "blob:")) for url in requests)
    assert [
        text for text in messages if "the server responded with a status of 4" not in text
    ] == []
    context.close()


def save_screenshot(page: Page, name: str) -> None:
    """A picture of the whole page, where a person wants to look at it."""
    if folder := os.environ.get("SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


def choose(page: Page, *images: tuple[str, bytes]) -> None:
    page.set_input_files(
        "#files", [{"name": n, "mimeType": "image/jpeg", "buffer": data} for n, data in images]
    )


def wait_for_answer(page: Page) -> None:
    page.wait_for_selector("#results:not([hidden])")


def test_names_of_classes_are_text_whatever_their_letters_are(page: Page) -> None:
    page.get_by_role("combobox", name="Model").select_option(f"odd/{ODD_RUN}")
    choose(page, ("photo.jpg", picture((64, 40))))
    wait_for_answer(page)
    labels = page.locator(".bars .label").all_inner_texts()
    assert sorted(labels) == sorted(map(visible, ODD))
    assert page.locator(".bars img").count() == 0
    assert page.is_hidden("#examples")  # its kind of dataset is not known,
    assert page.is_hidden("#operating")  # nor are thresholds


@pytest.mark.parametrize(
    "page",
    [
        {"color_scheme": "light", "viewport": {"width": 1100, "height": 900}},
        {"color_scheme": "dark", "viewport": {"width": 1100, "height": 900}},
        {"color_scheme": "light", "viewport": {"width": 320, "height": 700}},
    ],
    indirect=True,
    ids=["light", "dark", "narrow"],
)
def test_it_shows_what_the_api_says_legibly(
    page: Page, service: Service, request: pytest.FixtureRequest
) -> None:
    image, name = picture((640, 400)), request.node.callspec.id
    assert "Not a medical device" in page.inner_text("body")
    save_screenshot(page, f"{name}-begin")
    choose(page, ("photo.jpg", image))
    wait_for_answer(page)
    save_screenshot(page, f"{name}-answer")
    probabilities = service.post(image).json()["results"][0]["probabilities"]
    expected = sorted(
        ((f"{100 * p:.1f} %", n) for n, p in probabilities.items()),
        key=lambda pair: -probabilities[pair[1]],
    )
    bars = [bar.inner_text().split("\n") for bar in page.locator(".bars li").all()]
    assert [(value, label) for label, value in bars] == expected
    assert page.inner_text("#answer-name") == f"{expected[0][1]}, {expected[0][0]}"
    widths = page.eval_on_selector_all(
        ".fill", "fills => fills.map((f) => f.offsetWidth / f.parentElement.offsetWidth)"
    )
    assert widths == pytest.approx(sorted(probabilities.values(), reverse=True), abs=0.02)
    assert "about 80 % should belong" in page.inner_text("#calibration")
    first, second = (page.locator(f"#{name}").bounding_box() for name in ("original", "picture"))
    assert first
    assert second
    if name == "narrow":
        assert first["x"] == second["x"]
        assert first["y"] + first["height"] <= second["y"]
    else:
        assert first["y"] == second["y"]
        assert first["x"] + first["width"] <= second["x"]
    assert "not show that the answer is right" in page.inner_text("#limits-of-map")
    assert page.evaluate("document.querySelector('.heat').naturalWidth") == 256
    assert page.evaluate(WIDER) == []
    lowest = page.evaluate(CONTRASTS)[0]
    assert lowest["share"] >= 1, lowest
    choose(page, ("harmful.png", hostile.png(65_535, 65_535, hostile.zeros(100))))
    page.wait_for_selector("#alert:not([hidden])")
    assert "harmful.png" in page.inner_text("#alert")
    assert "megapixels" in page.inner_text("#alert")
    assert page.is_hidden("#results")
    lowest = page.evaluate(CONTRASTS)[0]
    assert lowest["share"] >= 1, lowest
    save_screenshot(page, f"{name}-refused")


def test_it_is_used_with_the_keyboard_alone(page: Page) -> None:
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to choosing images"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "files"
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    images = [("one.jpg", picture()), ("two.jpg", picture(seed=1)), ("three.jpg", b"nothing")]
    chooser.value.set_files([{"name": n, "mimeType": "image/jpeg", "buffer": d} for n, d in images])
    wait_for_answer(page)
    first = page.inner_text("#answer-name")
    focus_order = []
    for _ in range(12):
        page.keyboard.press("Tab")
        focus_order.append(
            page.evaluate("document.activeElement.id || document.activeElement.textContent")
        )
        if focus_order[-1] == "two.jpg":
            page.keyboard.press("Enter")
            assert (
                page.evaluate("document.activeElement.textContent") == "two.jpg"
            )  # focus stays where it was
        if focus_order[-1] == "layer":
            assert page.is_visible(".heat")
            page.keyboard.press("Space")
            assert page.is_hidden(".heat")
            page.keyboard.press("Space")
        if focus_order[-1] == "strength":
            page.keyboard.press("ArrowLeft")
    assert {"one.jpg", "two.jpg", "three.jpg", "layer", "strength"} <= set(focus_order)
    assert page.inner_text("#answer-name") != first
    assert page.evaluate("document.querySelector('.heat').style.opacity") == "0.79"
    outlined = "getComputedStyle(document.activeElement).outlineStyle"
    page.focus("#layer")
    page.keyboard.press("Tab")
    assert page.evaluate(outlined) == "solid"
    page.get_by_role("button", name="three.jpg").press("Enter")
    assert "not an image" in page.inner_text("#alert")
    page.get_by_role("button", name="one.jpg").press("Enter")
    assert page.is_hidden("#alert")
    assert page.inner_text("#answer-name") == first


def test_it_can_be_heard(page: Page) -> None:
    for role, name in (
        ("combobox", "Model"),
        ("link", "API"),
        ("combobox", "sex"),
        ("group", "Try an example (synthetic)"),
        ("button", "Example 1"),
        ("spinbutton", "age"),
    ):
        assert page.get_by_role(role, name=name).is_visible(), name  # type: ignore[arg-type]
    assert page.get_by_label("Choose images").count() == 1
    assert page.get_attribute("html", "lang") == "en"
    choose(page, ("photo.jpg", picture()))
    wait_for_answer(page)
    status = page.locator("[role=status]")
    assert status.get_attribute("aria-live") == "polite"
    assert page.inner_text("#answer-name") in status.inner_text()
    assert page.get_by_role("switch", name="Heat map").is_checked()
    assert page.get_by_role("slider", name="Strength").is_visible()
    assert page.get_by_role("img", name="photo.jpg", exact=True).is_visible()
    assert page.get_by_role("img", name="Heat map over photo.jpg").is_visible()
    assert page.get_by_role("list", name="Yes or no, by a threshold").is_visible()
    assert page.get_by_role("img").count() == 2  # what only decorates is not read out
    assert page.locator("[role=alert]").count() == 1
    assert (
        page.evaluate("getComputedStyle(document.querySelector('.fill')).transitionDuration")
        == "0s"
    )
    levels = page.eval_on_selector_all(
        "h1, h2, h3", "all => all.filter((h) => h.checkVisibility()).map((h) => h.tagName)"
    )
    assert levels == ["H1", "H2"]


def test_images_are_dropped_models_changed_and_facts_reported(page: Page) -> None:
    page.evaluate(DROP, ["dropped.jpg", "image/jpeg", list(picture((200, 120)))])
    wait_for_answer(page)
    unknown = page.text_content(".bars") or ""
    page.get_by_role("spinbutton", name="age").fill("85")
    page.keyboard.press("Tab")
    sync_api.expect(page.locator(".bars")).not_to_have_text(unknown)
    wait_for_answer(page)
    page.get_by_role("combobox", name="Model").select_option("made/ensemble")
    sync_api.expect(page.locator("#calibration")).to_contain_text("Not calibrated")
    wait_for_answer(page)
    assert "mean of 2 networks" in page.inner_text("#about")
    page.get_by_role("combobox", name="Model").select_option("made/serial_1cpu")
    page.wait_for_selector("#metadata", state="hidden")
    wait_for_answer(page)
    assert page.get_by_role("img", name="dropped.jpg", exact=True).is_visible()
    assert "dashed line" in page.inner_text("#caption")
    choose(page, *((f"{number}.jpg", b"x") for number in range(17)))
    assert "At most 16 images" in page.inner_text("#alert")


def test_its_description_is_read_from_the_service(page: Page, service: Service) -> None:
    page.get_by_role("link", name="API").click()
    page.wait_for_selector("h2 code")
    assert page.get_by_role("heading", name="/v1/predict").is_visible()
    text = page.inner_text("body")
    assert service.address in text
    assert all(code in text for code in ("413", "429", "503"))
    lowest = page.evaluate(CONTRASTS)[0]
    assert lowest["share"] >= 1, lowest
    save_screenshot(page, "api")


def test_models_have_names_for_people_and_examples(page: Page) -> None:
    model = page.get_by_role("combobox", name="Model")
    names = model.locator("option").all_inner_texts()
    assert names[0] == "Made of random weights: DDP, 2 CPU"
    assert "Made of random weights: ensemble of 2 runs" in names
    assert model.input_value() == page.inner_text("#model-id") == "made/ddp_2cpu"
    page.get_by_role("button", name="Example 2").press("Enter")
    wait_for_answer(page)
    assert "synthetic example 2.jpg" in page.inner_text("#original-caption")
    model.select_option("made/serial_1cpu")
    wait_for_answer(page)
    assert page.is_hidden("#examples")


def test_a_threshold_says_what_it_decides_and_what_it_costs(page: Page) -> None:
    choose(page, ("photo.jpg", picture()))
    wait_for_answer(page)
    label = page.inner_text("#answer-name").split(",")[0]
    points = [text.replace("\xa0", " ") for text in page.locator("#points li").all_inner_texts()]
    assert len(points) == 1  # of the most probable class
    limit, counts = ("100.0 %", "does not count") if label == CLASSES[0] else ("0.0 %", "counts")
    assert f"bove {limit}: this image {counts} as “{label}”" in points[0]
    assert "exceeded by at most 10 % of the validation images without" in points[0]
    assert "finds 88 % (95 % interval 77 % to 97 %) of 34" in points[0]
    assert "passes 85 % of 54 without" in points[0]  # an interval is not known


def test_the_answer_is_a_file_for_programs_and_for_spreadsheets(
    page: Page, service: Service
) -> None:
    page.get_by_role("combobox", name="Model").select_option(f"odd/{ODD_RUN}")
    image = picture()
    choose(page, ('=cmd|"a", b.jpg', image), ("damaged.jpg", b"nothing"))
    wait_for_answer(page)
    row, damaged = csv.DictReader(downloaded(page, "CSV").splitlines())
    expected = service.post(image, model=f"odd/{ODD_RUN}").json()["results"][0]
    assert row["path"] == """'=cmd|"a", b.jpg"""
    label = expected["label"]
    assert row["label"] == (f"'{label}" if label.startswith("=") else label)
    shares = {name: float(row[f"p_{name}"]) for name in ODD}
    assert shares == pytest.approx(expected["probabilities"])
    assert "synthetic" in row["mark"]
    assert row["calibration"] == "none"
    assert damaged["path"] == "damaged.jpg"
    assert "not an image" in damaged["error"]
    answer = json.loads(downloaded(page, "JSON"))
    assert answer["results"][0]["path"] == '=cmd|"a", b.jpg'
    assert answer["results"][0]["probabilities"] == pytest.approx(expected["probabilities"])
    assert "heatmap" not in answer["results"][0]
    assert "not a medical device" in answer["notice"]


def downloaded(page: Page, kind: str) -> str:
    with page.expect_download() as download:
        page.get_by_role("button", name=f"Download {kind}").click()
    assert download.value.suggested_filename == f"medscale-prediction.{kind.lower()}"
    return Path(download.value.path()).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "page",
    [
        {"color_scheme": "dark", "viewport": {"width": 1100, "height": 900}},
        {"color_scheme": "light", "viewport": {"width": 320, "height": 700}},
    ],
    indirect=True,
    ids=["dark", "narrow"],
)
def test_the_api_is_tried_on_its_page(
    page: Page, service: Service, request: pytest.FixtureRequest
) -> None:
    image = picture()
    page.goto(f"{service.address}/docs")
    page.wait_for_selector("h2 code")
    file = {"name": "it's.jpg", "mimeType": "image/jpeg", "buffer": image}
    page.get_by_label("Image").set_input_files(file)
    page.get_by_role("combobox", name="Model").select_option("made/serial_1cpu")
    page.get_by_role("checkbox", name="Heat map").check()
    page.get_by_role("button", name="Send").press("Enter")
    page.wait_for_selector("#tried:not([hidden])")
    address = f"{service.address}/v1/predict?model=made%2Fserial_1cpu&explain=true"
    assert page.inner_text("#request") == f"curl -F 'images=@it'\\''s.jpg' '{address}'"
    answer = json.loads(page.inner_text("#answer"))["results"][0]
    expected = service.post(image, model="made/serial_1cpu").json()["results"][0]
    assert answer["probabilities"] == pytest.approx(expected["probabilities"])
    assert answer["heatmap"].endswith("letters)")
    assert page.evaluate(WIDER) == []
    lowest = page.evaluate(CONTRASTS)[0]
    assert lowest["share"] >= 1, lowest
    save_screenshot(page, f"{request.node.callspec.id}-api")


def test_the_example_in_python_runs(page: Page, service: Service, tmp_path: Path) -> None:
    page.goto(f"{service.address}/docs")
    page.wait_for_selector("h2 code")
    (tmp_path / "photo.jpg").write_bytes(picture())
    program = page.locator("pre", has_text="import httpx").inner_text()
    process = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout.split()[0] in CLASSES
