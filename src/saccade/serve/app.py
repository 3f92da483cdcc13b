"""The web application: endpoints, errors of one form, keys, security headers and metrics."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import logging
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi.staticfiles import StaticFiles
from PIL import Image
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from pydantic import BaseModel
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from saccade._version import __version__
from saccade.errors import ImageReadError
from saccade.serve.batching import Batcher, QueueFullError
from saccade.serve.models import ModelInfo, ServedModel
from saccade.serve.reference import reference_page
from saccade.serve.settings import ServerSettings
from saccade.serve.uploads import Base64Images, Receiver, RequestError, Upload, busy, unreadable

_log = logging.getLogger("saccade.serve")
PAGE = Path(__file__).with_name("page")
MAX_EXPLAINED = 8  # images that are explained together
PUBLIC = ("/", "/health", "/ready", "/docs", "/openapi.json", "/static/")  # that require no key
SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:; "
        "connect-src 'self'; manifest-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class Prediction(BaseModel):
    """The prediction for an image."""

    name: str
    label: str | float | list[str]  # several names for multilabel problems, the number for regression
    probability: float | None  # calibrated, of the label, where an image has one label
    probabilities: dict[str, float] | None
    set: list[str | float] | None  # the labels that contain the right one with probability `coverage`; an interval
    unknown: bool | None  # whether the image is unlike the training images
    novelty: float | None


class Predictions(BaseModel):
    """The answer of ``POST /predict``."""

    predictions: list[Prediction]


class Embeddings(BaseModel):
    """The answer of ``POST /embed``: a vector of features for each image."""

    embeddings: list[list[float]]


class Neighbour(BaseModel):
    """A training image that is similar to an image."""

    label: str | None
    similarity: float
    thumbnail: str


class Explanation(BaseModel):
    """The explanation of a prediction: a picture to lay over the image, and similar training images."""

    name: str
    label: str | float
    probability: float | None
    heatmap: str
    neighbours: list[Neighbour] | None


class Explanations(BaseModel):
    """The answer of ``POST /explain``."""

    explanations: list[Explanation]


class Status(BaseModel):
    """The answer of ``GET /health`` and ``GET /ready``."""

    status: str


class ErrorContent(BaseModel):
    """What went wrong: a code for programs, a message for people, and the file it is about."""

    code: str
    message: str
    file: str | None


class ErrorAnswer(BaseModel):
    """The form of all errors."""

    error: ErrorContent


_BINARY = {"schema": {"type": "string", "format": "binary"}}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "files": {"type": "array", "items": {"type": "string", "format": "binary"}, "minItems": 1}
                    },
                    "required": ["files"],
                }
            },
            "image/*": _BINARY,
            "application/octet-stream": _BINARY,
            "application/json": {"schema": Base64Images.model_json_schema()},
        },
    }
}


def _errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": ErrorAnswer} for status in statuses}


_OF_IMAGES = _errors(400, 401, 404, 408, 413, 415, 422, 503)


class _Answer(Response):
    """JSON that is already made of plain values: it is not validated again."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return json.dumps(content, separators=(",", ":"), allow_nan=False).encode()


class Metrics:
    """Prometheus metrics of one application."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        registry = self.registry
        self.requests = Counter("saccade_requests", "Requests by status.", ["endpoint", "status"], registry=registry)
        self.seconds = Histogram(
            "saccade_request_seconds",
            "Time from the headers of a request to its answer.",
            ["endpoint"],
            registry=registry,
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
        )
        self.batches = Histogram(
            "saccade_batch_images",
            "Images that are computed together.",
            registry=registry,
            buckets=(1, 2, 4, 8, 16, 32, 64, 128),
        )
        self.images = Counter("saccade_images", "Images that were predicted, embedded or explained.", registry=registry)
        self.queue = Gauge("saccade_queue_images", "Images that wait for their result.", registry=registry)


class _Gate:
    """What concerns every request: the key, security headers, and metrics."""

    def __init__(self, app: ASGIApp, api_key: str | None, metrics: Metrics, endpoints: frozenset[str]) -> None:
        self._app, self._metrics, self._endpoints = app, metrics, endpoints
        self._key = None if api_key is None else api_key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start_s, path, status = time.perf_counter(), scope["path"], 0

        async def send_counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(raw=message["headers"])
                for name, value in SECURITY_HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        try:
            if self._is_allowed(path, Headers(scope=scope)):
                await self._app(scope, receive, send_counted)
            else:
                error = RequestError(
                    401,
                    "unauthorized",
                    "The key is missing or wrong. Send it as a header: Authorization: Bearer KEY.",
                    headers={"WWW-Authenticate": "Bearer"},
                )
                await _response(error)(scope, receive, send_counted)
        except Exception:
            if status:  # the client is gone, or the answer was too short: the server logs it
                raise
            _log.exception("%s %s failed", scope["method"], path)
            error = RequestError(500, "internal_error", "The server failed. Its log has the reason.")
            await _response(error)(scope, receive, send_counted)
        except asyncio.CancelledError:  # the server stops, and the request takes too long
            if not status:
                await _response(busy("The server stops.", "stopping"))(scope, receive, send_counted)
            raise
        finally:
            endpoint = path if path in self._endpoints else "other"
            self._metrics.requests.labels(endpoint, str(status)).inc()
            self._metrics.seconds.labels(endpoint).observe(time.perf_counter() - start_s)

    def _is_allowed(self, path: str, headers: Headers) -> bool:
        if self._key is None or path in PUBLIC or path.startswith("/static/"):
            return True
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        given = bearer.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
        return hmac.compare_digest(given.encode("latin-1", "replace"), self._key)


class _Service:
    """The endpoints, and the state that they share."""

    def __init__(self, model: ServedModel, settings: ServerSettings) -> None:
        self.model, self.settings, self.metrics = model, settings, Metrics()
        self.receiver = Receiver(
            settings.max_bytes, settings.queue, settings.timeout_s, max(8 * settings.max_bytes, 256_000_000)
        )
        self.batchers: dict[str, Batcher] = {}  # while the application runs
        self.metrics.queue.set_function(lambda: sum(each.num_waiting for each in self.batchers.values()))

    @contextlib.asynccontextmanager
    async def lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        """Start the threads, and stop them."""
        model, max_batch = self.model, self.settings.max_batch

        def batcher(decode: Any, compute: Any, num_threads: int, max_batch: int) -> Batcher:
            return Batcher(
                decode,
                compute,
                max_batch=max_batch,
                max_wait_s=self.settings.max_wait_ms / 1e3,
                max_images=self.settings.queue,
                num_threads=num_threads,
                initialize=model.initialize_thread,
                on_batch=self.metrics.batches.observe,
            )

        before = Image.MAX_IMAGE_PIXELS
        # Pillow raises an error from twice this number on, also for a picture inside of an icon.
        Image.MAX_IMAGE_PIXELS = int(self.settings.max_megapixels * 1e6 / 2)
        # Half of the cores: more threads would hold up those of the networks (`benchmarks.serving`).
        num_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 2
        num_threads = max(1, num_cores // 2)
        self.batchers["predict"] = batcher(model.decode, model.predict, num_threads, max_batch)
        if model.info.can_embed:
            self.batchers["embed"] = batcher(model.decode, model.embed, 1, max_batch)
        if model.info.can_explain:
            self.batchers["explain"] = batcher(lambda data: (data, model.decode(data)), model.explain, 1, MAX_EXPLAINED)
        app.state.is_ready = True
        try:
            yield
        finally:
            app.state.is_ready = False
            for each in self.batchers.values():
                each.close()
            self.batchers.clear()
            Image.MAX_IMAGE_PIXELS = before

    async def predict(self, request: Request) -> Response:
        """Return the label of each image, and its probabilities."""
        uploads, found = await self._results(request, "predict")
        named = [{"name": upload.name, **each} for upload, each in zip(uploads, found, strict=True)]
        return _Answer({"predictions": named})

    async def embed(self, request: Request) -> Response:
        """Return a vector of features for each image, for search and clustering."""
        _, found = await self._results(request, "embed")
        return _Answer({"embeddings": found})

    async def explain(self, request: Request) -> Response:
        """Return the regions that determine each label as a picture, and the most similar training images."""
        uploads, found = await self._results(request, "explain")
        named = [{"name": upload.name, **each} for upload, each in zip(uploads, found, strict=True)]
        return _Answer({"explanations": named})

    async def describe(self) -> ModelInfo:
        """Return the classes of the model, its metrics, and what it can do."""
        return self.model.info

    async def health(self) -> Status:
        """Return status 200 while the process runs."""
        return Status(status="ok")

    async def ready(self, request: Request) -> Response:
        """Return status 200 while images are accepted, and 503 when the server starts or stops."""
        state = request.app.state
        if state.is_stopping or not state.is_ready:
            raise busy("The server stops." if state.is_stopping else "The server starts.", "not_ready")
        return _Answer({"status": "ready"})

    async def prometheus(self) -> Response:
        """Return metrics for Prometheus."""
        text = generate_latest(self.metrics.registry)
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    async def reference(self, request: Request) -> Response:
        """Return the page that describes the endpoints."""
        return HTMLResponse(reference_page(request.app.openapi()))

    async def page(self) -> Response:
        """Return the page for people."""
        return FileResponse(PAGE / "index.html", headers={"Cache-Control": "no-cache"})

    async def _results(self, request: Request, what: str) -> tuple[list[Upload], list[Any]]:
        """Return the images of a request, and the result of each."""
        request.state.num_bytes = 0
        try:
            if what not in self.batchers:
                raise RequestError(404, "not_available", f"This model cannot {what} images.")
            if request.app.state.is_stopping:
                raise busy("The server stops.", "stopping")
            uploads = await self.receiver.receive(request)
            files = [upload.data for upload in uploads]
            found = await self.batchers[what].submit(files, self.settings.timeout_s)
        except QueueFullError:
            raise busy("Too many images are waiting. Try again later.") from None
        except asyncio.TimeoutError:
            raise busy(f"The answer was not ready within {self.settings.timeout_s:g} s. Try again later.") from None
        finally:
            self.receiver.release(request)
        if any(isinstance(each, Exception) for each in found):
            _raise(uploads, found)
        self.metrics.images.inc(len(found))
        return uploads, found


def create_app(model: ServedModel, settings: ServerSettings | None = None) -> FastAPI:
    """Return the web application of a model.

    ``app.state.is_stopping`` is True when no more images are accepted. While the application runs, Pillow's limit on
    the pixels of an image is that of the settings.

    Parameters
    ----------
    model : ServedModel
        As `saccade.serve.models.open_model` returns it.
    settings : ServerSettings or None
        None are the defaults; `ServerSettings.host` and `ServerSettings.port` have no effect here.

    Examples
    --------
    >>> app = create_app(open_model(Path("run")), ServerSettings(max_batch=8))    # doctest: +SKIP
    """
    settings = settings or ServerSettings()
    service = _Service(model, settings)
    app = FastAPI(
        title=f"Saccade: {model.info.name}",
        version=__version__,
        description="Classifies images." if model.info.class_names else "Predicts a number for each image.",
        lifespan=service.lifespan,
        docs_url=None,
        redoc_url=None,
    )
    app.state.is_ready = app.state.is_stopping = False
    of_images: dict[str, Any] = {"responses": _OF_IMAGES, "openapi_extra": _BODY}
    app.post("/predict", response_model=Predictions, **of_images)(service.predict)
    app.post("/embed", response_model=Embeddings, **of_images)(service.embed)
    app.post("/explain", response_model=Explanations, **of_images)(service.explain)
    app.get("/model", responses=_errors(401))(service.describe)
    app.get("/health")(service.health)
    app.get("/ready", response_model=Status, responses=_errors(503))(service.ready)
    as_text: dict[int | str, dict[str, Any]] = {200: {"content": {"text/plain": {}}}}
    app.get("/metrics", responses={**as_text, **_errors(401)}, response_class=Response)(service.prometheus)
    app.get("/docs", include_in_schema=False)(service.reference)
    app.get("/", include_in_schema=False)(service.page)
    app.mount("/static", StaticFiles(directory=PAGE))
    app.exception_handler(RequestError)(_refused)
    app.exception_handler(HTTPException)(_unknown)
    endpoints = frozenset(app.openapi()["paths"])
    app.add_middleware(_Gate, api_key=settings.api_key(), metrics=service.metrics, endpoints=endpoints)
    if settings.cors:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.cors),
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type", "X-API-Key"],
        )
    return app


async def _refused(request: Request, error: RequestError) -> Response:  # noqa: ARG001  FastAPI passes both
    return _response(error)


async def _unknown(request: Request, error: HTTPException) -> Response:
    text = {
        404: f"There is no {request.url.path[:200]!r} here. See /docs.",
        405: f"{request.url.path[:200]} does not accept {request.method[:20]}. See /docs.",
    }.get(error.status_code, str(error.detail))
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "invalid_request")
    return _response(RequestError(error.status_code, code, text, headers=dict(error.headers or {})))


def _response(error: RequestError) -> Response:
    return JSONResponse(error.content, error.status, error.headers)


def _raise(uploads: list[Upload], found: list[Any]) -> None:
    """Raise the error for results of which some are exceptions: one of the server first, then the client's."""
    failures = [each for each in found if isinstance(each, Exception)]
    for each in failures:
        if not isinstance(each, ImageReadError):
            raise each
    is_bomb = [isinstance(each.__cause__, Image.DecompressionBombError) for each in failures]
    reasons = [str(each) if isinstance(each, Exception) else None for each in found]
    if any(is_bomb):
        raise unreadable(uploads, reasons, 413, "too_many_pixels")
    raise unreadable(uploads, reasons, 422, "unreadable_image")
