"""The page of the server in Chromium: what it draws for given answers, and with which input it works."""

from __future__ import annotations

import base64
import contextlib
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import saccade.serve
from contracts.servers import Served
from saccade import ImagePredictor

PAGE = Path(saccade.serve.__file__).parent / "page"
ORIGIN = "http://localhost"  # where a browser allows the camera
POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'"
HOSTILE = ['<img src=x onerror="alert(1)">', "שלום עולם", "🦊 \"quoted\" & 'more'", "__proto__", "x" * 300]
MODEL = {
    "name": "clothing <b>",
    "saccade_version": "1.0",
    "problem_type": "multiclass",
    "class_names": ["dress", "hat", "shoes"],
    "metrics": {"accuracy": 0.91},
    "coverage": 0.9,
    "can_embed": True,
    "can_explain": True,
    "has_neighbours": True,
    "has_novelty": True,
}
HAT = {
    "name": "cat.png",
    "label": "hat",
    "probability": 0.9,
    "probabilities": {"dress": 0.08, "hat": 0.9, "shoes": 0.02},
    "set": ["dress", "hat"],
    "unknown": False,
    "novelty": 0.25,
}


def png(side: int = 8, seed: int = 0) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (side, side, 3), np.uint8)).save(file, "PNG")
    return file.getvalue()


def upload(name: str = "cat.png", data: bytes | None = None) -> dict[str, Any]:
    return {"name": name, "mimeType": "image/png", "buffer": png() if data is None else data}


class Answers:
    """Answers the requests of a page from the page's folder, and from `json` by path; all else fails the test."""

    def __init__(self) -> None:
        self.json: dict[str, Any] = {"/model": MODEL, "/predict": {"predictions": [HAT]}}
        self.requests: list[Any] = []
        self.problems: list[str] = []

    def __call__(self, route: Any) -> None:
        request = route.request
        self.requests.append(request)
        path = request.url.removeprefix(ORIGIN)
        answer = self.json.get(path)
        if callable(answer):
            answer = answer(request)
        if isinstance(answer, tuple):
            status, code, message, headers = answer
            body = json.dumps({"error": {"code": code, "message": message, "file": None}})
            route.fulfill(status=status, body=body, content_type="application/json", headers=headers)
        elif answer is not None:
            route.fulfill(json=answer)
        elif path == "/":
            route.fulfill(
                path=PAGE / "index.html", headers={"content-security-policy": POLICY}, content_type="text/html"
            )
        elif path.startswith("/static/") and (PAGE / path.removeprefix("/static/")).is_file():
            route.fulfill(path=PAGE / path.removeprefix("/static/"))
        else:
            self.problems.append(f"request of {request.url}")
            route.abort()


@pytest.fixture
def answers() -> Answers:
    return Answers()


@pytest.fixture
def open_page(browser: Any, answers: Answers) -> Iterator[Callable[..., Any]]:
    contexts = []

    def open_it(width: int = 1280, **options: Any) -> Any:
        context = browser.new_context(viewport={"width": width, "height": 800}, **options)
        contexts.append(context)
        context.set_default_timeout(10_000)
        context.route("**/*", answers)
        page = context.new_page()
        page.on("pageerror", lambda error: answers.problems.append(str(error)))
        page.on("dialog", lambda dialog: answers.problems.append(f"dialog {dialog.message}"))
        page.on("console", lambda line: answers.problems.append(line.text) if "Content Security" in line.text else None)
        page.goto(f"{ORIGIN}/")
        return page

    yield open_it
    for context in contexts:
        context.close()
    assert not answers.problems


def text_of(page: Any, selector: str) -> str:
    return " ".join(page.locator(selector).first.inner_text().split())


def test_several_images_are_drawn_with_label_probabilities_set_and_novelty(
    open_page: Callable[..., Any], answers: Answers
) -> None:
    page = open_page()
    page.set_input_files("#files", [upload("one.png"), upload("two.png")])
    page.locator(".verdict").nth(1).wait_for()
    assert text_of(page, ".verdict") == "hat 90.0 %"
    assert [line.split() for line in page.locator(".bars").first.inner_text().split("%")][:2] == [
        ["hat", "90.0"],
        ["dress", "8.0"],
    ]
    assert page.locator(".track span").first.evaluate("bar => bar.style.width") == "90%"
    assert text_of(page, ".notes") == "90 % prediction set: dress, hat Novelty 0.250"
    assert text_of(page, "#count") == "2 images"
    assert text_of(page, "#title") == "clothing <b>"
    assert page.locator("#live").inner_text() == "2 images are classified."
    assert len([request for request in answers.requests if request.url.endswith("/predict")]) == 2


@pytest.mark.parametrize(
    ("model", "prediction", "verdict", "notes"),
    [
        ({}, {"unknown": True}, "Unknown", "Unlike the training images; the nearest class is hat (90.0 %)."),
        ({}, {"set": []}, "hat 90.0 %", "prediction set: none of the classes"),
        ({"problem_type": "multilabel"}, {"label": ["dress", "hat"], "set": None}, "dress hat", "Novelty"),
        ({"problem_type": "multilabel"}, {"label": [], "unknown": True}, "None of the classes", "Unknown: unlike"),
        (
            {"problem_type": "regression", "class_names": []},
            {"label": -1234.5678, "probability": None, "probabilities": None, "set": [-1300.0, -1200.5]},
            "-1,234.6",
            "90 % interval: -1,300 to -1,200.5",
        ),
    ],
)
def test_each_kind_of_prediction_has_its_form(
    model: dict[str, Any],
    prediction: dict[str, Any],
    verdict: str,
    notes: str,
    open_page: Callable[..., Any],
    answers: Answers,
) -> None:
    answers.json["/model"] = MODEL | model
    answers.json["/predict"] = {"predictions": [HAT | prediction]}
    page = open_page()
    page.set_input_files("#files", upload())
    page.locator(".verdict").wait_for()
    assert text_of(page, ".verdict") == verdict
    assert notes in text_of(page, ".notes")
    assert page.locator(".bars").count() == (model.get("problem_type") != "regression")


def test_names_are_text_and_fit_on_a_phone(open_page: Callable[..., Any], answers: Answers) -> None:
    probabilities = dict.fromkeys(HOSTILE, 0.2)
    answers.json["/model"] = MODEL | {"name": "n" * 300, "class_names": HOSTILE}
    answers.json["/predict"] = {
        "predictions": [HAT | {"label": HOSTILE[0], "set": HOSTILE, "probabilities": probabilities}]
    }
    page = open_page(width=390, color_scheme="dark")
    page.set_input_files("#files", [upload(f"{name[:200]}.png".replace("/", "")) for name in HOSTILE])
    page.locator(".verdict").nth(4).wait_for()
    page.click("#about summary")
    assert page.locator(".verdict strong").first.inner_text() == HOSTILE[0]
    assert page.locator(".head h3").all_inner_texts()[1:4] == [f"{name}.png" for name in HOSTILE[1:4]]
    assert page.evaluate("document.querySelectorAll('#cards img').length") == 5
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert (
        sum(page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3).map(Number)"))
        < 150
    )
    assert page.locator("#problem").is_hidden()


def test_a_thousand_classes_are_shown_by_and_by_and_found_by_name(
    open_page: Callable[..., Any], answers: Answers
) -> None:
    names = [f"class {index}" for index in range(1000)]
    answers.json["/model"] = MODEL | {"class_names": names}
    answers.json["/predict"] = {
        "predictions": [HAT | {"probabilities": {name: 1 / (2 + index) ** 2 for index, name in enumerate(names)}}]
    }
    page = open_page()
    page.set_input_files("#files", upload())
    bars = page.locator(".bars li")
    bars.first.wait_for()
    assert bars.count() == 5
    page.get_by_role("button", name="Show 25 more of 995").click()
    assert bars.count() == 30
    assert "class 5" in page.evaluate("document.activeElement.textContent")
    page.get_by_label("Find a class of cat.png").fill("CLASS 777")
    assert page.locator(".bars").inner_text().split() == ["class", "777", "<", "0.1", "%"]
    page.get_by_label("Find a class of cat.png").fill("other")
    assert page.get_by_text("No class has this text in its name.").is_visible()


def test_an_error_is_shown_at_its_image_and_a_busy_server_is_asked_again(
    open_page: Callable[..., Any], answers: Answers
) -> None:
    failures = iter(
        [
            (422, "unreadable_image", "notes.txt is not an image <b>.", {}),
            (503, "busy", "Too many images wait.", {"Retry-After": "0.01"}),
        ]
    )
    answers.json["/predict"] = lambda request: next(failures, {"predictions": [HAT]})
    page = open_page()
    page.set_input_files("#files", upload("notes.txt"))
    page.locator(".error").wait_for()
    page.set_input_files("#files", upload("good.png"))  # refused once
    page.locator(".verdict").wait_for()
    assert (
        page.locator(".card", has_text="notes.txt").locator(".error").inner_text() == "notes.txt is not an image <b>."
    )
    assert page.locator(".card", has_text="good.png").locator(".error").count() == 0


def test_a_server_that_is_gone_is_reported(open_page: Callable[..., Any], answers: Answers) -> None:
    page = open_page()
    page.locator("#drop").wait_for()
    page.context.unroute("**/*")
    page.context.route("**/*", lambda route: route.abort())
    page.set_input_files("#files", upload())
    assert text_of(page, ".error").startswith("The server does not answer.")


def test_the_key_is_asked_for_only_if_the_server_requires_one(open_page: Callable[..., Any], answers: Answers) -> None:
    def with_key(answer: Any) -> Callable[[Any], Any]:
        refusal = (401, "unauthorized", "The API key is invalid.", {})
        return lambda request: answer if request.headers.get("authorization") == "Bearer secret" else refusal

    answers.json = {path: with_key(answer) for path, answer in answers.json.items()}
    page = open_page()
    page.get_by_label("The server requires an API key").wait_for()
    page.get_by_label("The server requires an API key").fill("wrong")
    page.keyboard.press("Enter")
    page.get_by_text("The server did not accept this key.").wait_for()
    page.get_by_label("The server requires an API key").fill("secret")
    page.keyboard.press("Enter")
    page.locator("#drop").wait_for()
    page.set_input_files("#files", upload())
    page.locator(".verdict").wait_for()
    assert page.evaluate("[localStorage.length, document.cookie]") == [0, ""]
    page.reload()
    page.locator("#drop").wait_for()
    assert page.locator("#key-form").is_hidden()


def test_the_explanation_has_an_overlay_with_a_slider_and_neighbours(
    open_page: Callable[..., Any], answers: Answers
) -> None:
    picture = f"data:image/png;base64,{base64.b64encode(png()).decode()}"
    neighbours = [{"label": name, "similarity": 0.5, "thumbnail": picture} for name in HOSTILE]
    explanation = {"name": "a.png", "label": "hat", "probability": 0.9, "heatmap": picture, "neighbours": neighbours}
    answers.json["/explain"] = {"explanations": [explanation]}
    page = open_page(width=390)
    page.set_input_files("#files", upload("a.png"))
    page.get_by_role("button", name="Explain a.png").click()
    slider = page.get_by_label("Saliency overlay")
    slider.wait_for()
    assert slider.evaluate("slider => slider === document.activeElement")
    page.keyboard.press("Home")
    assert page.locator(".explained label").inner_text() == "Saliency overlay for hat"
    assert page.locator(".heat").evaluate("heat => getComputedStyle(heat).opacity") == "0"
    assert page.locator(".neighbours span").all_inner_texts() == HOSTILE
    assert page.evaluate("document.documentElement.scrollWidth") == 390

    answers.json["/explain"] = (404, "not_available", "This model cannot explain.", {})
    page.set_input_files("#files", upload("b.png"))
    page.get_by_role("button", name="Explain b.png").click()
    page.get_by_text("This model cannot explain.").wait_for()
    assert page.get_by_role("button", name="Explain b.png").is_enabled()


def test_images_are_dropped_pasted_and_taken_by_the_camera(open_page: Callable[..., Any]) -> None:
    page = open_page()
    page.locator("#drop").wait_for()
    transfer = page.evaluate_handle(
        """bytes => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([new Uint8Array(bytes)], "dropped.png", { type: "image/png" }));
            return transfer;
        }""",
        list(png()),
    )
    page.dispatch_event("#title", "drop", {"dataTransfer": transfer})
    page.locator(".card", has_text="dropped.png").locator(".verdict").wait_for()
    page.evaluate("clipboardData => dispatchEvent(new ClipboardEvent('paste', { clipboardData }))", transfer)
    page.locator(".verdict").nth(1).wait_for()
    page.click("#camera")
    page.click("#shoot")
    page.locator(".card", has_text="Photo").locator(".verdict").wait_for()
    assert page.evaluate("document.getElementById('video').srcObject") is None
    assert page.locator(".card").count() == 3
    page.evaluate("dispatchEvent(new DragEvent('drop', { dataTransfer: new DataTransfer() }))")
    assert "contains no file" in text_of(page, "#problem")


def test_the_page_is_used_by_keyboard_alone(open_page: Callable[..., Any]) -> None:
    page = open_page()
    page.on("filechooser", lambda _: None)  # now, since the first listener takes effect with a delay
    page.locator("#drop").wait_for()

    def focus(expected: str) -> None:
        for _ in range(20):
            page.keyboard.press("Tab")
            if (
                page.evaluate("document.activeElement.getAttribute('aria-label') ?? document.activeElement.id")
                == expected
            ):
                return
        raise AssertionError(f"{expected} was not reached")

    focus("files")
    assert page.locator("#files + label").evaluate("label => getComputedStyle(label).outlineStyle") == "solid"
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Space")
    chooser.value.set_files([upload("one.png"), upload("two.png")])
    page.locator(".verdict").nth(1).wait_for()
    focus("Remove one.png")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "Remove two.png"
    page.keyboard.press("Space")
    assert page.evaluate("document.activeElement.id") == "files"
    assert page.locator("#results").is_hidden()


def test_without_a_script_the_page_says_what_it_needs(open_page: Callable[..., Any]) -> None:
    page = open_page(java_script_enabled=False)
    page.locator("#problem").wait_for()
    assert "python -m http.server" in page.locator("#problem").inner_text()


def test_with_the_server_the_page_shows_what_the_predictor_predicts(
    browser: Any, served: Served, predictor: ImagePredictor, frame: pd.DataFrame
) -> None:
    images = list(frame["image"][:3])
    with contextlib.closing(browser.new_context()) as context:
        page = context.new_page()
        requests: list[str] = []
        problems: list[str] = []
        page.on("request", lambda request: requests.append(request.url))
        page.on("console", lambda line: problems.append(line.text) if "Content Security" in line.text else None)
        page.goto(served.url)
        page.set_input_files("#files", images)
        page.locator(".verdict").nth(2).wait_for()
        for card, label in zip(page.locator(".card").all(), predictor.predict(images), strict=True):
            assert card.locator(".given span").first.inner_text() == label
        page.get_by_role("button", name="Explain").first.click()
        page.locator(".neighbours img").first.wait_for()
        assert page.locator(".heat").evaluate("heat => heat.decode().then(() => heat.naturalWidth)") == 60
        page.set_input_files("#files", upload("notes.txt", b"no image"))
        page.locator(".error", has_text="notes.txt").wait_for()
        assert all(url.startswith((served.url, f"blob:{served.url}", "data:")) for url in requests)
        assert not problems
