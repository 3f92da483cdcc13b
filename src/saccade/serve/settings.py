"""Settings of the server; the options of ``saccade serve`` are its fields."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from saccade.checks import real_number, whole_number
from saccade.errors import HyperparameterError, explained_file_errors

KEY_VARIABLE = "SACCADE_API_KEY"
LOOPBACK = ("127.0.0.1", "localhost", "::1")


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

    # Each field has its unit or form, and its help, on the command line.
    host: Annotated[str, "ADDRESS", "Address to listen on; 0.0.0.0 is all of this machine."] = "127.0.0.1"
    port: Annotated[int, "NUM", "Port to listen on; 0 chooses a free one."] = 8000
    api_key_file: Annotated[
        Path | None, "FILE", f"File with the key that clients must send; {KEY_VARIABLE} is the same for a key itself."
    ] = None
    cors: Annotated[
        tuple[str, ...], "ORIGIN", "Site whose pages may use this server, such as https://example.org; can be repeated."
    ] = ()
    max_batch: Annotated[int, "NUM", "Maximum number of images that are computed together."] = 64
    max_wait_ms: Annotated[float, "MS", "How long an image waits for others to be computed together."] = 10.0
    queue: Annotated[int, "NUM", "Maximum number of images that wait; more are refused with status 503."] = 256
    max_mb: Annotated[float, "MB", "Maximum size of a request."] = 32.0
    max_megapixels: Annotated[float, "NUM", "Maximum size of an image in millions of pixels."] = 50.0
    timeout_s: Annotated[float, "S", "Limit for receiving a request, for answering it, and for sending that."] = 30.0

    def __post_init__(self) -> None:
        whole_number("port", self.port, 0, most=65535)
        whole_number("max_batch", self.max_batch, most=4096)
        whole_number("queue", self.queue, most=1_000_000)
        real_number("max_wait_ms", self.max_wait_ms, "milliseconds, from 0 to 10000", least=0, most=10_000)
        real_number("max_mb", self.max_mb, "megabytes, more than 0 and up to 1000", above=0, most=1000)
        pixels = "millions of pixels, more than 0 and up to 1000"
        real_number("max_megapixels", self.max_megapixels, pixels, above=0, most=1000)
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
