"""Settings of the server; the options of ``saccade serve`` are its fields."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from saccade.checks import real_number, whole_number
from saccade.errors import HyperparameterError, explained_file_errors

KEY_VARIABLE = "SACCADE_API_KEY"
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def _option(default: Any, metavar: str, text: str) -> Any:
    return field(default=default, metadata={"metavar": metavar, "help": text})


@dataclass(frozen=True)
class ServerSettings:
    """Where the server listens, how it makes batches, and its limits.

    Raises a HyperparameterError for a value that is out of range, and a DataError if the file of the key cannot be
    read.

    Examples
    --------
    >>> ServerSettings(port=0, max_batch=8).max_batch
    8
    """

    host: str = _option("127.0.0.1", "ADDRESS", "Address to listen on; 0.0.0.0 is all of this machine.")
    port: int = _option(8000, "NUM", "Port to listen on; 0 chooses a free one.")
    api_key_file: Path | None = _option(
        None,
        "FILE",
        f"File with the key that clients must send. {KEY_VARIABLE} in the environment has the same effect.",
    )
    cors: tuple[str, ...] = _option(
        (), "ORIGIN", "Web site whose pages may call this server, such as https://example.org; can be repeated."
    )
    max_batch: int = _option(32, "NUM", "Maximum number of images that are computed together.")
    max_wait_ms: float = _option(10.0, "MS", "How long an image waits for others to be computed together.")
    queue: int = _option(256, "NUM", "Maximum number of images that wait; more are refused with status 503.")
    max_mb: float = _option(32.0, "MB", "Maximum size of a request.")
    max_megapixels: float = _option(50.0, "NUM", "Maximum size of an image in millions of pixels.")
    timeout_s: float = _option(30.0, "S", "Limit for receiving a request, for its answer, and for sending that.")

    def __post_init__(self) -> None:
        whole_number("port", self.port, 0, most=65535)
        whole_number("max_batch", self.max_batch, most=4096)
        whole_number("queue", self.queue, most=1_000_000)
        real_number("max_wait_ms", self.max_wait_ms, "milliseconds, from 0 to 10000", least=0, most=10_000)
        real_number("max_mb", self.max_mb, "megabytes, more than 0 and up to 1000", above=0, most=1000)
        real_number(
            "max_megapixels", self.max_megapixels, "millions of pixels, more than 0 and up to 1000", above=0, most=1000
        )
        real_number("timeout_s", self.timeout_s, "seconds, more than 0 and up to 3600", above=0, most=3600)
        for origin in self.cors:
            if origin != "*" and (not origin.startswith(("http://", "https://")) or origin.count("/") != 2):
                raise HyperparameterError(
                    f"cors was given {origin!r}; expected an origin without a path, such as https://example.org"
                )

    @property
    def max_bytes(self) -> int:
        """Maximum size of a request's body in bytes."""
        return int(self.max_mb * 1e6)

    def api_key(self) -> str | None:
        """Return the key from the file or the environment; None if there is none. An empty one is an error."""
        if self.api_key_file is None:
            key, source = os.environ.get(KEY_VARIABLE), KEY_VARIABLE
        else:
            source = str(self.api_key_file)
            with explained_file_errors(self.api_key_file):
                key = self.api_key_file.read_text(encoding="utf-8", errors="replace")
        if key is None:
            return None
        key = key.strip()
        if not key or not key.isascii() or not key.isprintable():
            raise HyperparameterError(f"{source} has no usable key; expected one line of printable ASCII characters")
        return key
