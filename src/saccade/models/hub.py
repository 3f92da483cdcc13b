"""The Hugging Face hub: weights that are in its cache on this machine, and their download.

The environment (``HF_ENDPOINT``, ``HF_HUB_CACHE``, ``HF_HOME``, ``HF_HUB_OFFLINE``, ``HF_TOKEN``) is read at
each call, where huggingface_hub itself reads most of it once, at import.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

import httpx2
import huggingface_hub
from huggingface_hub import constants
from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

from saccade.errors import WeightsNotFoundError

__all__ = ["HubFile", "download", "find_cached", "hub_cache_folder", "hub_endpoint"]

PROBE_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class HubFile:
    """One file of a repository of the hub, at a branch, tag or commit."""

    repo_id: str
    filename: str = "model.safetensors"
    revision: str = "main"

    def __str__(self) -> str:
        """Say the repository and the file."""
        at = "" if self.revision == "main" else f"@{self.revision}"
        return f"{self.repo_id}{at}/{self.filename}"


def hub_endpoint() -> str:
    """Give the address of the hub: ``HF_ENDPOINT``, or huggingface_hub's own."""
    return (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")


def hub_cache_folder() -> Path:
    """Give the folder of the hub's cache: ``HF_HUB_CACHE``, ``HF_HOME``/hub, or huggingface_hub's own."""
    if cache := os.environ.get("HF_HUB_CACHE"):
        return Path(cache).expanduser()
    if home := os.environ.get("HF_HOME"):
        return Path(home).expanduser() / "hub"
    return Path(constants.HF_HUB_CACHE)


def find_cached(file: HubFile) -> Path | None:
    """Look for a file in the hub's cache on this machine, without any network.

    Parameters
    ----------
    file : HubFile
        Which file.

    Returns
    -------
    pathlib.Path or None
        The file, or None if it is not there.
    """
    found = huggingface_hub.try_to_load_from_cache(
        file.repo_id, file.filename, cache_dir=hub_cache_folder(), revision=file.revision
    )
    return Path(found) if isinstance(found, str) else None


def download(file: HubFile) -> Path:
    """Fetch a file from the hub into its cache, and fail promptly where that cannot be.

    The hub is asked once, with a short time limit, before huggingface_hub takes over: its own way of finding
    out that there is no network is minutes of retries.

    Parameters
    ----------
    file : HubFile
        Which file.

    Returns
    -------
    pathlib.Path
        The file in the cache.

    Raises
    ------
    WeightsNotFoundError
        If the hub cannot be reached, does not have the file, or refuses it; the message is the reason.
    """
    endpoint = hub_endpoint()
    if _is_offline():
        raise WeightsNotFoundError("not asked, because HF_HUB_OFFLINE is set")
    _probe(file, endpoint)
    try:
        path = huggingface_hub.hf_hub_download(
            file.repo_id,
            file.filename,
            revision=file.revision,
            cache_dir=hub_cache_folder(),
            endpoint=endpoint,
            etag_timeout=PROBE_TIMEOUT_S,
            library_name="saccade",
        )
    except Exception as error:  # the errors of the hub's library and of its transports have no common root
        raise WeightsNotFoundError(f"the download of {file} failed: {_first_line(error)}") from error
    return Path(path)


def _probe(file: HubFile, endpoint: str) -> None:
    """Ask the hub once for the head of a file; raise with the reason unless it can be downloaded."""
    url = huggingface_hub.hf_hub_url(file.repo_id, file.filename, revision=file.revision, endpoint=endpoint)
    try:
        # Redirects (to the hub's storage) are an answer, not followed: huggingface_hub deals with them.
        response = httpx2.head(url, headers=build_hf_headers(library_name="saccade"), timeout=PROBE_TIMEOUT_S)
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise WeightsNotFoundError(f"cannot be reached: {_first_line(error)}") from error
    status = response.status_code
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        raise WeightsNotFoundError(
            f"refuses {file} (HTTP {status}): the repository is private, gated or missing, or HF_TOKEN is wrong"
        )
    if status == HTTPStatus.NOT_FOUND:
        raise WeightsNotFoundError(f"does not have {file} (HTTP {status})")
    if status >= HTTPStatus.BAD_REQUEST:
        raise WeightsNotFoundError(f"answers HTTP {status} when asked for {file}")


def _is_offline() -> bool:
    # huggingface_hub refuses to work when this was set as it was imported, so that counts as well.
    set_now = os.environ.get("HF_HUB_OFFLINE", "").upper() in constants.ENV_VARS_TRUE_VALUES
    return set_now or bool(constants.HF_HUB_OFFLINE)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
