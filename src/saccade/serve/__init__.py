"""An HTTP server of a predictor, or of an exported ONNX file.

It imports torch only for a predictor.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saccade.errors import DataError
from saccade.remote.urls import is_url
from saccade.serve.settings import ServerSettings
from saccade.study.url_folder import fetched

if TYPE_CHECKING:
    from saccade.predictor import ImagePredictor

__all__ = ["ServerSettings", "serve"]


def serve(
    model: ImagePredictor | str | Path, *, on_start: Callable[[str, str], object] | None = None, **settings: Any
) -> None:
    """Serve a predictor over HTTP until the process receives SIGTERM or SIGINT (Ctrl-C).

    Raises a DataError if the libraries of the extra ``serve`` are missing, or the address is not available, a
    HyperparameterError for an invalid setting, and a SavedPredictorError if no model is found.

    Parameters
    ----------
    model : ImagePredictor, str or Path
        A fitted predictor, or the path or URL of a run folder, a predictor's folder or an exported ONNX file.
    on_start : callable or None
        Called with the model's name and the server's address when it accepts requests.
    **settings
        Fields of `ServerSettings`, such as ``port=8080``.

    Examples
    --------
    >>> serve("run", port=8080)                                         # doctest: +SKIP
    """
    given = ServerSettings(**settings)
    given.api_key()  # raises an error before the model is loaded
    for package in ("fastapi", "uvicorn", "httptools", "python_multipart", "prometheus_client"):
        try:
            importlib.import_module(package)
        except ImportError:
            raise DataError(f'The server needs {package}. Install it: pip install "saccade[serve]"') from None
    from saccade.serve.models import ServedPredictor, open_model  # these import the libraries
    from saccade.serve.server import run_server

    served = open_model(_local(model)) if isinstance(model, str | Path) else ServedPredictor(model)

    def announce(url: str, _: object) -> None:
        sys.stdout.write(f"Serving {served.info.name} at {url} (Ctrl-C stops it)\n")
        sys.stdout.flush()
        if on_start is not None:
            on_start(served.info.name, url)

    run_server(served, given, announce)


def _local(model: str | Path) -> Path:
    """Return the local path of an exported file or a folder, of which a URL is copied."""
    if not is_url(model):
        return Path(model).expanduser()
    from saccade.data.sources.sources import local_file  # an exported file is served without pandas

    return local_file(model) if str(model).lower().endswith(".onnx") else fetched(model)
