"""Images in the body of a request: multipart, one file, or base64 in JSON; with limits of size, number and time."""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from pydantic import BaseModel, Field, ValidationError
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

MAX_NAME = 200  # characters of a file's name in answers
_LARGE_BYTES = 1_000_000  # bodies that are parsed in another thread
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")  # would change how a name is shown
_FIELDS = ("files", "file", "images", "image")
ACCEPTED = "multipart/form-data, image/*, application/octet-stream, application/json"


class RequestError(Exception):
    """An answer with an error: its status, a code for programs, a message for people, and the file it is about."""

    def __init__(
        self, status: int, code: str, message: str, file: str | None = None, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.headers = status, headers or {}
        self.content = {"error": {"code": code, "message": message, "file": file}}


def busy(message: str, code: str = "busy") -> RequestError:
    """Return the error for a request that may succeed later."""
    return RequestError(503, code, message, headers={"Retry-After": "1"})


class Upload(NamedTuple):
    """The file of an image, and its name, which is never used as a path."""

    name: str
    data: bytes


class Base64Images(BaseModel):
    """The JSON form of a request."""

    images: list[str] = Field(min_length=1, description="Image files in base64, or as data: URLs.")


@dataclass
class Receiver:
    """Receives requests within limits; `num_bytes` are in memory now, of all requests together."""

    max_bytes: int  # of a request
    max_images: int  # of a request
    timeout_s: float  # for receiving a request
    max_bytes_in_memory: int
    num_bytes: int = field(default=0, init=False)

    async def receive(self, request: Request) -> list[Upload]:
        """Return the images of a request; a RequestError has what is wrong with it. Call `release` after it."""
        content_type, options = parse_options_header(request.headers.get("content-type"))
        is_multipart, is_json = content_type == b"multipart/form-data", content_type == b"application/json"
        if not (
            is_multipart or is_json or content_type == b"application/octet-stream" or content_type[:6] == b"image/"
        ):
            given = _printable(content_type.decode("latin-1")) or "none"
            raise RequestError(
                415,
                "unsupported_media_type",
                f"The content type is {given}. Send one of: {ACCEPTED}.",
                headers={"Accept-Post": ACCEPTED},
            )
        if request.headers.get("content-encoding", "identity").lower() != "identity":
            raise RequestError(
                415, "unsupported_media_type", "The body is compressed. Send it without Content-Encoding."
            )
        boundary = options.get(b"boundary")
        if is_multipart and not boundary:
            raise RequestError(400, "invalid_request", "The content type multipart/form-data has no boundary.")
        try:
            body = await asyncio.wait_for(self._body(request), self.timeout_s)
        except asyncio.TimeoutError:
            raise RequestError(
                408,
                "timeout",
                f"The request was not received within {self.timeout_s:g} s.",
                None,
                {"Connection": "close"},
            ) from None
        except ClientDisconnect:
            raise RequestError(
                400, "invalid_request", "The connection was closed before the end of the body."
            ) from None
        if not body:
            raise RequestError(400, "no_images", "The body is empty. Send at least one image.")

        def parsed() -> list[Upload]:
            if is_multipart:
                return self._of_multipart(body, boundary or b"")
            return self._of_json(body) if is_json else [Upload("image 1", body)]

        return await asyncio.to_thread(parsed) if len(body) > _LARGE_BYTES and (is_multipart or is_json) else parsed()

    async def _body(self, request: Request) -> bytes:
        """Return the body; its bytes count as `num_bytes` until `request.state.num_bytes` are released."""
        length = request.headers.get("content-length", "")
        if length.isdigit() and (len(length) > 15 or int(length) > self.max_bytes):
            raise self._too_large()
        chunks, num_bytes = [], 0
        async for chunk in request.stream():
            num_bytes += len(chunk)
            if num_bytes > self.max_bytes:
                raise self._too_large()
            if self.num_bytes + len(chunk) > self.max_bytes_in_memory:
                raise busy("The server is receiving too many large requests. Try again later.")
            self.num_bytes += len(chunk)
            request.state.num_bytes += len(chunk)
            chunks.append(chunk)
        return b"".join(chunks)

    def release(self, request: Request) -> None:
        """Count the bytes of a request no longer."""
        self.num_bytes -= request.state.num_bytes
        request.state.num_bytes = 0

    def _too_large(self) -> RequestError:
        return RequestError(
            413,
            "request_too_large",
            f"The request has more than {self.max_bytes / 1e6:g} MB. Send smaller images, or fewer.",
        )

    def too_many_images(self) -> RequestError:
        """Return the error for a request with more images than `max_images`."""
        return RequestError(
            413, "too_many_images", f"The request has more than {self.max_images} images. Send several requests."
        )

    def _of_multipart(self, body: bytes, boundary: bytes) -> list[Upload]:
        form = _Form(self)
        try:
            parser = MultipartParser(boundary, form.callbacks())
            parser.write(body)
            parser.finalize()
        except FormParserError as error:
            text = f"The multipart body is malformed: {_printable(str(error))}"
            raise RequestError(400, "invalid_request", text) from None
        if not form.is_complete:
            raise RequestError(400, "invalid_request", "The multipart body ends before its last boundary.")
        if not form.uploads:
            raise RequestError(400, "no_images", "The form has no files. Send images in fields named files.")
        return form.uploads

    def _of_json(self, body: bytes) -> list[Upload]:
        try:
            given = Base64Images.model_validate_json(body, strict=True).images
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False, include_context=False)[0]
            where = ".".join(map(str, first["loc"]))
            raise RequestError(
                400,
                "invalid_request",
                f"The JSON is invalid ({_printable(': '.join(filter(None, [where, first['msg']])))}). "
                'Send {"images": ["<base64>", …]}.',
            ) from None
        if len(given) > self.max_images:
            raise self.too_many_images()
        uploads = []
        for number, text in enumerate(given, 1):
            name = f"image {number}"
            encoded = text.partition(",")[2] if text.startswith("data:") else text
            try:
                uploads.append(Upload(name, base64.b64decode("".join(encoded.split()), validate=True)))
            except (binascii.Error, ValueError):
                raise RequestError(422, "unreadable_image", f"{name} is not valid base64.", name) from None
        return uploads


class _Form:
    """Collects the files of a form from the calls of a `MultipartParser`."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self.uploads: list[Upload] = []
        self.is_complete = False
        self._headers: dict[bytes, bytes] = {}
        self._name, self._value, self._data = bytearray(), bytearray(), bytearray()

    def callbacks(self) -> MultipartCallbacks:
        """Return what the parser calls."""

        def adder(target: bytearray) -> Callable[[bytes, int, int], None]:
            return lambda chunk, start, stop: target.extend(memoryview(chunk)[start:stop])

        def end_all() -> None:
            self.is_complete = True

        return {
            "on_header_field": adder(self._name),
            "on_header_value": adder(self._value),
            "on_header_end": self._end_header,
            "on_part_data": adder(self._data),
            "on_part_end": self._end_part,
            "on_end": end_all,
        }

    def _end_header(self) -> None:
        self._headers[bytes(self._name).lower()] = bytes(self._value)
        self._name.clear()
        self._value.clear()

    def _end_part(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b"").decode("latin-1"))
        data, file = bytes(self._data), options.get(b"filename")
        self._headers.clear()
        self._data.clear()
        if file is None and options.get(b"name", b"").decode("latin-1") not in _FIELDS:
            return  # a field of another kind, such as a button of a form
        if len(self.uploads) == self._receiver.max_images:
            raise self._receiver.too_many_images()
        shown = _printable((file or b"").decode("utf-8", "replace"))
        self.uploads.append(Upload(shown or f"image {len(self.uploads) + 1}", data))


def unreadable(uploads: Sequence[Upload], reasons: Sequence[str | None], status: int, code: str) -> RequestError:
    """Return the error for images of which some have a reason why they are not read."""
    named = [(upload.name, reason) for upload, reason in zip(uploads, reasons, strict=True) if reason is not None]
    shown = "; ".join(f"{name}: {_printable(reason)}" for name, reason in named[:10])
    more = f"; and {len(named) - 10} more" if len(named) > 10 else ""
    return RequestError(
        status, code, f"{len(named)} of {len(uploads)} images cannot be read: {shown}{more}", named[0][0]
    )


def _printable(text: str) -> str:
    text = _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)
    return text if len(text) <= MAX_NAME else f"{text[:MAX_NAME]}…"
