from __future__ import annotations

import asyncio
import base64
import io
import json
import struct
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from contracts.servers import Served, check_answers, photo, png, serving, variants
from saccade import ImagePredictor
from saccade.serve.app import create_app
from saccade.serve.models import ServedPredictor


def error_of(response: Any, status: int, code: str) -> dict[str, Any]:
    assert response.status_code == status, response.text
    content = response.json()
    assert set(content) == {"error"}
    assert set(content["error"]) == {"code", "message", "file"}
    assert content["error"]["code"] == code
    assert response.headers["content-security-policy"].startswith("default-src 'none'")
    return content["error"]


def post_files(served: Served, files: dict[str, bytes], path: str = "/predict") -> Any:
    return served.client.post(path, files=[("files", (name, data)) for name, data in files.items()])


def test_files_of_all_kinds_get_the_labels_of_predict(served: Served, predictor: ImagePredictor) -> None:
    files = variants()
    answers = post_files(served, files).json()["predictions"]
    assert [answer["name"] for answer in answers] == list(files)
    check_answers(predictor, answers, list(files.values()))
    sets = predictor.predict_set(list(files.values()), as_pandas=False)
    assert [answer["set"] for answer in answers] == list(sets)
    unknown = predictor.predict(list(files.values()), unknown="?", as_pandas=False) == "?"
    assert [answer["unknown"] for answer in answers] == unknown.tolist()
    novelty = predictor.novelty(list(files.values()), as_pandas=False)
    assert [answer["novelty"] for answer in answers] == pytest.approx(novelty.tolist(), abs=1e-4)


def test_the_three_forms_of_a_request_get_the_same_answer(served: Served) -> None:
    data = variants()["turned.jpg"]
    encoded = base64.b64encode(data).decode()
    forms = [
        served.client.post("/predict", files={"files": ("turned.jpg", data)}),
        served.client.post("/predict", files={"image": ("turned.jpg", data, "image/jpeg")}, data={"other": "1"}),
        served.client.post("/predict", content=data, headers={"Content-Type": "image/jpeg"}),
        served.client.post("/predict", content=data, headers={"Content-Type": "application/octet-stream"}),
        served.client.post("/predict", json={"images": [encoded]}),
        served.client.post("/predict", json={"images": [f"data:image/jpeg;base64,{encoded}"]}),
        served.client.post("/predict", content=iter([data[:99], data[99:]]), headers={"Content-Type": "image/x"}),
    ]
    answers = [form.json()["predictions"][0] for form in forms]
    assert answers[0]["name"] == "turned.jpg"
    assert answers[2]["name"] == "image 1"
    for answer in answers:
        assert {**answer, "name": ""} == {**answers[0], "name": ""}


KINDS: dict[str, tuple[dict[str, Any], Callable[[pd.DataFrame], pd.Series]]] = {
    "binary_f1": ({"eval_metric": "f1"}, lambda frame: (frame["is_red"] == "yes").astype(int)),
    "imbalanced": ({"eval_metric": "balanced_accuracy"}, lambda frame: frame["label"]),
    "multilabel": ({}, lambda frame: frame["label"].map({"r": ["warm"], "g": [], "b": ["cold", "blue"]})),
    "regression": ({"problem_type": "regression"}, lambda frame: frame["value"]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_problems_of_all_types_get_the_labels_of_predict(
    kind: str, frame: pd.DataFrame, fit_tiny: Callable[..., ImagePredictor]
) -> None:
    options, labels = KINDS[kind]
    labelled = pd.DataFrame({"image": frame["image"], "label": labels(frame)})
    if kind == "imbalanced":
        labelled = labelled[(labelled["label"] == "r") | (labelled.index % 3 == 0)]
    fitted = fit_tiny(labelled, kind, **options)
    files = variants()
    with serving(ServedPredictor(fitted)) as served:
        answers = post_files(served, files).json()["predictions"]
        info = served.client.get("/model").json()
        explained = post_files(served, {"a": files["plain.png"]}, "/explain")
    check_answers(fitted, answers, list(files.values()))
    assert info["problem_type"] == fitted.pipeline.saved.problem.type
    assert info["class_names"] == fitted.class_names
    assert explained.json()["explanations"][0]["heatmap"].startswith("data:image/png;base64,")
    if kind == "regression":
        low, high = answers[0]["set"]
        assert low < answers[0]["label"] < high


def test_embeddings_and_explanations(served: Served, predictor: ImagePredictor) -> None:
    files = variants()
    vectors = post_files(served, files, "/embed").json()["embeddings"]
    np.testing.assert_allclose(vectors, predictor.embed(list(files.values())), atol=1e-4)
    explanations = post_files(served, {"large.jpg": files["large.jpg"], "turned.jpg": files["turned.jpg"]}, "/explain")
    first, second = explanations.json()["explanations"]
    assert first["name"] == "large.jpg"
    assert first["label"] == predictor.predict([files["large.jpg"]])[0]
    sizes = []
    for explanation in (first, second):
        heatmap = Image.open(io.BytesIO(base64.b64decode(explanation["heatmap"].partition(",")[2])))
        assert heatmap.mode == "RGBA"
        sizes.append(heatmap.size)
    assert sizes == [(329, 512), (100, 200)]  # upright
    nearest = predictor.nearest([files["large.jpg"]], k=4)
    assert [each["label"] for each in first["neighbours"]] == nearest["label"].tolist()
    assert [each["similarity"] for each in first["neighbours"]] == pytest.approx(
        nearest["similarity"].tolist(), abs=1e-3
    )
    assert all(each["thumbnail"].startswith("data:image/webp;base64,") for each in first["neighbours"])


def test_the_model_and_the_state_are_described(served: Served, predictor: ImagePredictor) -> None:
    info = served.client.get("/model").json()
    assert info["name"] == "test_resnet"
    assert info["class_names"] == predictor.class_names
    assert info["metrics"] == {"accuracy": pytest.approx(predictor.fit_summary()["valid_score"])}
    assert info["can_embed"]
    assert info["can_explain"]
    assert info["has_neighbours"]
    assert served.client.get("/health").json() == {"status": "ok"}
    assert served.client.get("/ready").json() == {"status": "ready"}


def test_metrics_count_requests_images_and_batches(served: Served) -> None:
    before = served.client.get("/metrics").text
    assert served.client.post("/predict", files=[("files", png(photo(1)))] * 3).status_code == 200
    assert served.client.post("/predict", content=b"x", headers={"Content-Type": "image/png"}).status_code == 422

    def value(text: str, name: str) -> float:
        return next((float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name)), 0.0)

    after = served.client.get("/metrics").text
    for name, added in {
        'saccade_requests_total{endpoint="/predict",status="200"}': 1,
        'saccade_requests_total{endpoint="/predict",status="422"}': 1,
        "saccade_images_total": 3,
        "saccade_batch_images_sum": 3,
        'saccade_request_seconds_count{endpoint="/predict"}': 2,
    }.items():
        assert value(after, name) - value(before, name) == added, name
    assert "saccade_queue_images 0.0" in after
    assert "process_resident_memory_bytes" in after


def test_the_pages_load_nothing_from_other_servers(served: Served) -> None:
    page, reference = served.client.get("/"), served.client.get("/docs")
    assert "<title>Saccade" in page.text
    for path in ("/predict", "/embed", "/explain", "/model", "/health", "/ready", "/metrics"):
        assert f" {path}</code>" in reference.text
    for response in (page, reference):
        assert response.status_code == 200
        assert response.headers["x-content-type-options"] == "nosniff"
        assert "http://" not in response.text.replace("http://127.0.0.1:8000", "").replace("http://localhost:8000", "")
        assert "https://" not in response.text
    style = served.client.get("/static/reference.css")
    assert style.headers["content-type"].startswith("text/css")
    error_of(served.client.get("/static/../app.py"), 404, "not_found")
    error_of(served.client.get("/static/%2e%2e/app.py"), 404, "not_found")


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb(width: int, height: int) -> bytes:
    """A small PNG file that states a large size, and has the pixels."""
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    row = b"\0" * (1 + (width + 7) // 8)
    pixels = zlib.compress(row * 1000, 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def icon_with(data: bytes) -> bytes:
    """An icon whose directory states 32 pixels, and whose picture is a PNG of another size."""
    return struct.pack("<HHH", 0, 1, 1) + struct.pack("<BBBBHHII", 32, 32, 0, 0, 1, 32, len(data), 22) + data


def scans(num: int) -> bytes:
    """A progressive JPEG whose last scan is repeated."""
    content = png(Image.new("L", (2000, 2000)), "JPEG", progressive=True)
    return content[:-2] + content[content.rindex(b"\xff\xda") : -2] * num + content[-2:]


BAD_IMAGES = {
    "empty": (b"", 422, "unreadable_image"),
    "text": (b"<script>alert(1)</script>", 422, "unreadable_image"),
    "truncated": (variants()["large.jpg"][:2000], 422, "unreadable_image"),
    "eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", 422, "unreadable_image"),
    "pixels": (bomb(20_000, 20_000), 413, "too_many_pixels"),
    "more pixels": (bomb(60_000, 60_000), 413, "too_many_pixels"),
    "scans": (scans(2000), 413, "too_many_pixels"),
    "icon": (icon_with(bomb(20_000, 20_000)), 413, "too_many_pixels"),
}


@pytest.mark.parametrize("kind", BAD_IMAGES)
def test_bad_images_are_refused_by_name(served: Served, kind: str) -> None:
    data, status, code = BAD_IMAGES[kind]
    error = error_of(post_files(served, {"good.png": png(photo(1)), f"{kind}.png": data}), status, code)
    assert error["file"] == f"{kind}.png"
    assert error["message"].startswith(f"1 of 2 images cannot be read: {kind}.png: ")


def test_a_file_that_is_an_image_and_something_else_is_an_image(served: Served, predictor: ImagePredictor) -> None:
    image = png(photo(1))
    for data in (image + b"<script>alert(1)</script>", image + b"PK\x03\x04zip"):
        answer = post_files(served, {"a.html": data})
        assert answer.headers["content-type"] == "application/json"
        check_answers(predictor, answer.json()["predictions"], [data])


@pytest.mark.parametrize(
    "name",
    ["../../etc/passwd", "/etc/passwd", "C:\\x.png", "<img src=x onerror=alert(1)>.png", "ä ö.png", "a\u202egnp.exe"],
)
def test_names_of_files_are_text_and_never_paths(served: Served, name: str) -> None:
    response = post_files(served, {name: png(photo(1))})
    shown = response.json()["predictions"][0]["name"]
    assert shown == name.replace("\u202e", "\N{REPLACEMENT CHARACTER}").replace("C:\\", "")
    assert response.headers["content-type"] == "application/json"
    error = error_of(post_files(served, {name: b"x"}), 422, "unreadable_image")
    assert error["file"] == shown


def multipart(body: bytes, boundary: str = "b") -> dict[str, Any]:
    return {"content": body, "headers": {"Content-Type": f"multipart/form-data; boundary={boundary}"}}


PART = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\n'
BAD_BODIES: dict[str, tuple[dict[str, Any], int, str]] = {
    "nothing": ({}, 415, "unsupported_media_type"),
    "text": ({"content": b"x", "headers": {"Content-Type": "text/plain"}}, 415, "unsupported_media_type"),
    "form": ({"data": {"files": "x"}}, 415, "unsupported_media_type"),
    "gzip": (
        {"content": b"x", "headers": {"Content-Type": "image/png", "Content-Encoding": "gzip"}},
        415,
        "unsupported_media_type",
    ),
    "empty": ({"content": b"", "headers": {"Content-Type": "image/png"}}, 400, "no_images"),
    "no boundary": ({"content": b"x", "headers": {"Content-Type": "multipart/form-data"}}, 400, "invalid_request"),
    "long boundary": (multipart(b"x", "b" * 5000), 400, "invalid_request"),
    "malformed": (multipart(b"hello"), 400, "invalid_request"),
    "unfinished": (multipart(PART + b"data"), 400, "invalid_request"),
    "no files": (multipart(b'--b\r\nContent-Disposition: form-data; name="x"\r\n\r\n1\r\n--b--\r\n'), 400, "no_images"),
    "no parts": (multipart(b"--b--\r\n"), 400, "no_images"),
    "many parts": (multipart((PART + b"1\r\n") * 300 + b"--b--\r\n"), 413, "too_many_images"),
    "no JSON": ({"content": b"{", "headers": {"Content-Type": "application/json"}}, 400, "invalid_request"),
    "deep JSON": ({"content": b"[" * 100_000, "headers": {"Content-Type": "application/json"}}, 400, "invalid_request"),
    "other JSON": ({"json": {"image": "x"}}, 400, "invalid_request"),
    "numbers": ({"json": {"images": [1]}}, 400, "invalid_request"),
    "no images": ({"json": {"images": []}}, 400, "invalid_request"),
    "many images": ({"json": {"images": [""] * 300}}, 413, "too_many_images"),
    "base64": ({"json": {"images": ["%%%"]}}, 422, "unreadable_image"),
}


@pytest.mark.parametrize("kind", BAD_BODIES)
def test_bad_bodies_are_refused(served: Served, kind: str) -> None:
    arguments, status, code = BAD_BODIES[kind]
    response = served.client.post("/predict", **arguments)
    error_of(response, status, code)
    if status == 415:
        assert "multipart/form-data" in response.headers.get("accept-post", "multipart/form-data")


def test_unknown_paths_and_methods(served: Served) -> None:
    error_of(served.client.get("/nothing"), 404, "not_found")
    response = served.client.get("/predict")
    error_of(response, 405, "method_not_allowed")
    assert response.headers["allow"] == "POST"
    error_of(served.client.request("OPTIONS", "/predict"), 405, "method_not_allowed")


def test_limits_of_a_request(model: ServedPredictor) -> None:
    noise = png(np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8))
    with serving(model, max_mb=0.05, max_megapixels=0.01, queue=2) as served:
        error_of(served.client.post("/predict", files={"files": noise}), 413, "request_too_large")
        chunks = iter([noise[:40_000], noise[40_000:]])
        response = served.client.post("/predict", content=chunks, headers={"Content-Type": "image/png"})
        error_of(response, 413, "request_too_large")
        error = error_of(post_files(served, {"a.png": png(np.zeros((101, 100), np.uint8))}), 413, "too_many_pixels")
        assert error["file"] == "a.png"
        assert post_files(served, {"a.png": png(np.zeros((100, 100), np.uint8))}).status_code == 200
        three = {name: png(photo(1)) for name in "abc"}
        error_of(post_files(served, three), 413, "too_many_images")
    assert Image.MAX_IMAGE_PIXELS > 1e6  # as before


def test_a_key_is_required_once_there_is_one(
    model: ServedPredictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "key").write_text("secret\n")
    monkeypatch.setenv("SACCADE_API_KEY", "another")
    data = png(photo(1))
    with serving(model, api_key_file=tmp_path / "key") as served:
        for path in ("/", "/docs", "/health", "/ready", "/openapi.json", "/static/reference.css"):
            assert served.client.get(path).status_code == 200
        for headers in ({}, {"Authorization": "Bearer another"}, {"Authorization": "secret"}, {"X-API-Key": "secre"}):
            response = served.client.post("/predict", files={"files": data}, headers=headers)
            error_of(response, 401, "unauthorized")
            assert response.headers["www-authenticate"] == "Bearer"
            for path in ("/model", "/metrics", "/nothing"):
                error_of(served.client.get(path, headers=headers), 401, "unauthorized")
        for headers in (
            {"Authorization": "Bearer secret"},
            {"authorization": "bearer secret"},
            {"X-API-Key": "secret"},
        ):
            assert served.client.post("/predict", files={"files": data}, headers=headers).status_code == 200


def test_other_sites_may_call_only_if_they_are_named(served: Served, model: ServedPredictor) -> None:
    origin = {"Origin": "https://example.org"}
    assert "access-control-allow-origin" not in served.client.get("/model", headers=origin).headers
    with serving(model, cors=("https://example.org",)) as other:
        assert other.client.get("/model", headers=origin).headers["access-control-allow-origin"] == origin["Origin"]
        asked = {**origin, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-api-key"}
        assert other.client.options("/predict", headers=asked).status_code == 200
        unknown = other.client.get("/model", headers={"Origin": "https://example.com"})
        assert "access-control-allow-origin" not in unknown.headers


def test_a_model_that_lacks_an_ability_answers_404(model: ServedPredictor) -> None:
    class Plain(ServedPredictor):
        def __init__(self) -> None:
            vars(self).update(vars(model))
            self.info = model.info.model_copy(update={"can_embed": False, "can_explain": False})

    with serving(Plain()) as served:
        for path in ("/embed", "/explain"):
            error = error_of(post_files(served, {"a": b"x"}, path), 404, "not_available")
            assert path[1:] in error["message"]


def test_an_error_of_the_server_is_not_shown(model: ServedPredictor, caplog: pytest.LogCaptureFixture) -> None:
    class Broken(ServedPredictor):
        def __init__(self) -> None:
            vars(self).update(vars(model))

        def predict(self, images: list[Any]) -> list[dict[str, Any]]:
            raise RuntimeError("the secret reason")

    with serving(Broken()) as served:
        error = error_of(post_files(served, {"a": png(photo(1))}), 500, "internal_error")
    assert "secret" not in json.dumps(error)
    assert "the secret reason" in caplog.text


def test_an_answer_that_takes_too_long_is_given_up(model: ServedPredictor) -> None:
    class Slow(ServedPredictor):
        def __init__(self) -> None:
            vars(self).update(vars(model))

        def predict(self, images: list[Any]) -> list[dict[str, Any]]:
            time.sleep(1.0)
            return super().predict(images)

    with serving(Slow(), timeout_s=0.5) as served:
        response = post_files(served, {"a": png(photo(1))})
        assert "within 0.5 s" in error_of(response, 503, "busy")["message"]
        assert response.headers["retry-after"] == "1"


def test_a_server_that_stops_is_not_ready_and_refuses_images(model: ServedPredictor) -> None:
    app = create_app(model)

    async def statuses() -> list[tuple[str, int]]:
        found = []
        async with app.router.lifespan_context(app):
            transport = httpx2.ASGITransport(app)
            async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
                for is_stopping in (False, True):
                    app.state.is_stopping = is_stopping
                    for ask in (client.get("/ready"), client.post("/predict", files={"files": png(photo(1))})):
                        answer = await ask
                        found.append((answer.json().get("error", {}).get("code", ""), answer.status_code))
        return found

    assert asyncio.run(statuses()) == [("", 200), ("", 200), ("not_ready", 503), ("stopping", 503)]
