"""Predictors on the Hugging Face hub: a push is one commit, and a download is checked as a saved predictor is.

Files go over HTTP (Git LFS), which every hub has, rather than Xet, so that a transfer without progress is noticed.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import httpx2
import huggingface_hub
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, ModelInfo
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoSibling
from huggingface_hub.utils import logging as hub_logging

from saccade._version import __version__
from saccade.checks import bytes_from_environment
from saccade.data.sources.download import SIZE_VARIABLE, TIME_VARIABLE, in_time, time_limit_s
from saccade.deadline import Deadline
from saccade.errors import DataWarning, HubError, SavedPredictorError, explained_file_errors
from saccade.inference.description import MAX_BYTES, Description
from saccade.inference.saved import BESIDE, DESCRIPTION, SavedPredictor
from saccade.models.weights import download_from_hub, hub_cache_folder, hub_endpoint, hub_is_offline
from saccade.report.model_card import README, is_generated, make_card

STALL_S = 120.0  # of a push: the time after which a request without progress is given up
ANSWER_S = 30.0  # for the list of a repository's files
MAX_DOWNLOAD_BYTES = 100 * 10**9  # of a predictor, unless SACCADE_MAX_DOWNLOAD_GB is set

_OURS = re.compile(r"(weights|(members|choices)/\d{1,9})(-\d{1,9})?\.safetensors")


def push(
    saved: SavedPredictor,
    repo: str,
    *,
    private: bool | None = None,
    token: str | None = None,
    revision: str | None = None,
    commit_message: str | None = None,
    dataset: str | None = None,
    license: str | None = None,  # noqa: A002
) -> str:
    """Write a predictor with its model card to a repository, in one commit; return the address of the repository.

    The arguments and errors are those of `ImagePredictor.push_to_hub`.
    """
    if hub_is_offline():
        raise HubError(f"{repo} cannot be pushed, because HF_HUB_OFFLINE is set. Unset it")
    api = _api(token)
    if api.token is None:
        raise HubError(
            "A push requires a token that may write. Make one on the hub's settings page, and pass token=…, set "
            "HF_TOKEN, or run: hf auth login"
        )
    # huggingface_hub reports that Xet is not used, and how it calls httpx2; the caller restores both settings.
    hub_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    warnings.filterwarnings("ignore", "Use 'content=", DeprecationWarning)
    with tempfile.TemporaryDirectory(prefix="saccade-push-") as temporary, contextlib.ExitStack() as opened:
        folder = Path(temporary) / "predictor"
        rows = [{**row, "traceback": ""} for row in saved.trials]
        card = make_card(saved, repo, dataset=dataset, license=license)
        replace(saved, trials=rows).copy_to(folder, is_public=True)
        card.save(folder)
        names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        num_done = 0

        def progress(num: int) -> None:
            nonlocal num_done
            num_done += num

        def run() -> tuple[str, bool]:
            created = api.create_repo(repo, private=private, exist_ok=True)
            progress(1)
            if revision is not None and revision != "main":
                api.create_branch(created.repo_id, branch=revision, exist_ok=True)
                progress(1)
            info = api.model_info(created.repo_id, revision=revision, files_metadata=True)
            progress(1)
            if private and not info.private:
                raise HubError(f"{repo} exists and is public. Make it private in its settings, or pass another name")
            there = {sibling.rfilename for sibling in info.siblings or ()}
            if DESCRIPTION not in there and (taken := sorted({*names} - {README} & there)):
                raise HubError(
                    f"{repo} has no Saccade predictor, but files of the same names: {', '.join(taken)}. Pass another "
                    "name"
                )
            kept = README in there and not is_generated(_text_of(api, created.repo_id, info, README))
            files = [opened.enter_context(_CountingFile(folder / name, progress)) for name in names]
            added = [
                CommitOperationAdd(name, file)
                for name, file in zip(names, files, strict=True)
                if not (kept and name == README)
            ]
            stale = [name for name in there - {*names} if _OURS.fullmatch(name) or name in BESIDE]
            api.create_commit(
                created.repo_id,
                [*added, *(CommitOperationDelete(name) for name in sorted(stale))],
                commit_message=commit_message or f"Saccade predictor: {saved.result}"[:200],
                revision=revision,
                parent_commit=info.sha,  # a push of somebody else in the meantime is not undone
            )
            return f"{hub_endpoint()}/{created.repo_id}", kept

        with _explained(repo, revision, f"Nothing of the push is visible in {repo}"):
            address, is_readme_kept = in_time(run, time_limit_s(), lambda: num_done, STALL_S)
    if is_readme_kept:
        text = (
            f"README.md of {repo} was edited, and is kept. saccade card, or predictor.model_card(), makes the new one"
        )
        warnings.warn(DataWarning(text), stacklevel=2)
    return address


def fetch(repo: str, revision: str | None = None, token: str | None = None) -> Path:
    """Download the predictor of a repository into the hub's cache, and return its folder.

    Only the files of a saved predictor are downloaded, each compared with the hub's digest. Without a connection, a
    predictor that was downloaded before is found in the cache. Raises the errors of `ImagePredictor.from_hub`.
    """
    api = _api(token)
    with _explained(repo, revision):
        if hub_is_offline():
            return _from_cache(repo, revision, "HF_HUB_OFFLINE is set")
        try:
            ask = partial(api.model_info, repo, revision=revision, files_metadata=True, timeout=ANSWER_S)
            info = in_time(ask, ANSWER_S)
        except (httpx2.TransportError, TimeoutError) as error:
            return _from_cache(repo, revision, f"the hub {hub_endpoint()} cannot be reached ({error})")
        siblings = {sibling.rfilename: sibling for sibling in info.siblings or ()}
        if DESCRIPTION not in siblings:
            some = ", ".join(sorted(siblings)[:5]) or "no files"
            raise SavedPredictorError(
                f"{repo} contains no Saccade predictor: it has {some}, and no {DESCRIPTION}. Pass a repository that "
                "predictor.push_to_hub() has written"
            )
        if (siblings[DESCRIPTION].size or 0) > MAX_BYTES:
            raise SavedPredictorError(f"{DESCRIPTION} of {repo} is too large. Push the predictor again")
        path = _download(api, info, siblings[DESCRIPTION])
        names = _weights_of(Description.read(path))
        if missing := [name for name in names if name not in siblings]:
            raise SavedPredictorError(
                f"{repo} lacks {', '.join(missing[:5])}, which its {DESCRIPTION} names. Push the predictor again"
            )
        names += [name for name in BESIDE if name in siblings]
        limit = bytes_from_environment(SIZE_VARIABLE) or MAX_DOWNLOAD_BYTES
        if (size := sum(siblings[name].size or 0 for name in names)) > limit:
            raise HubError(f"The predictor of {repo} has {size:,} bytes, more than {limit:,}. Set {SIZE_VARIABLE}")
        for name in names:
            _download(api, info, siblings[name])
    return path.parent


def _api(token: str | None) -> HfApi:
    # The environment is read at each call; huggingface_hub would read some of it once.
    token = token or huggingface_hub.get_token()
    return HfApi(endpoint=hub_endpoint(), token=token, library_name="saccade", library_version=__version__)


class _CountingFile(io.BufferedReader):
    """A file that reports how many bytes are read."""

    def __init__(self, path: Path, progress: Callable[[int], None]) -> None:
        super().__init__(io.FileIO(path))
        self._progress = progress

    def read(self, size: int | None = -1, /) -> bytes:
        content = super().read(size)
        self._progress(len(content))
        return content


def _weights_of(description: Description) -> list[str]:
    names = [*(member.weights for member in description.members), *(choice.weights for choice in description.choices)]
    return list(dict.fromkeys(names))


def _from_cache(repo: str, revision: str | None, reason: str) -> Path:
    """Return the folder of a predictor that was downloaded before."""
    found = huggingface_hub.try_to_load_from_cache(
        repo, DESCRIPTION, cache_dir=hub_cache_folder(), revision=revision or "main"
    )
    if not isinstance(found, str):
        raise HubError(f"{repo} is not in the cache {hub_cache_folder()}, and {reason}")
    folder = Path(found).parent
    if missing := [name for name in _weights_of(Description.read(Path(found))) if not (folder / name).is_file()]:
        raise HubError(f"{repo} is in the cache {folder} without {', '.join(missing[:5])}, and {reason}")
    return folder


def _download(api: HfApi, info: ModelInfo, file: RepoSibling) -> Path:
    """Download a file unless it is in the cache, and compare it with its digest; retry once."""
    assert info.sha is not None
    for is_retry in (False, True):
        path = download_from_hub(
            info.id, file.rfilename, info.sha, Deadline(None), token=api.token or False, force=is_retry
        )
        with explained_file_errors(path, HubError):
            found, expected = _digests(path, file)
            if expected in (None, found):
                return path
            path.resolve().unlink()  # of the hub's cache
            path.unlink(missing_ok=True)
    raise HubError(
        f"{file.rfilename} of {info.id} is damaged: its digest is {found}, and the hub's list of files has {expected}. "
        "Try again later, or push the predictor again"
    )


def _digests(path: Path, file: RepoSibling) -> tuple[str, str | None]:
    """Return the digest of a file, and the one that the hub lists: of Git LFS, or of Git."""
    expected = file.lfs.sha256 if file.lfs else file.blob_id
    git = b"blob %d\0" % path.stat().st_size
    digest = hashlib.sha256() if file.lfs else hashlib.sha1(git, usedforsecurity=False)
    with path.open("rb") as content:
        while block := content.read(2**20):
            digest.update(block)
    return digest.hexdigest(), expected


def _text_of(api: HfApi, repo: str, info: ModelInfo, name: str) -> str:
    assert info.sha is not None
    path = download_from_hub(repo, name, info.sha, Deadline(None), token=api.token or False)
    return path.read_text(encoding="utf-8", errors="replace")


@contextlib.contextmanager
def _explained(repo: str, revision: str | None, state: str = "") -> Iterator[None]:
    """Raise the errors of the hub as a `HubError` with what to do; `state` is what is left of a push."""
    where = f"{hub_endpoint()}/{repo}"
    meanings: dict[type[Exception], str] = {
        GatedRepoError: f"{where} is gated. Ask for access on its page, and pass a token of that account",
        RevisionNotFoundError: f"{where} has no revision {revision!r}. Pass a branch, tag or commit of it",
        RepositoryNotFoundError: f"{where} does not exist, or it is private and the token has no access. Check the "
        "name; for a private repository pass token=…, or set HF_TOKEN",
        HFValidationError: f"{repo!r} is not a name of a repository. Pass a name such as 'user/shoes'",
    }
    try:
        yield
    except TimeoutError as error:
        advice = f"; increase {TIME_VARIABLE}" if "answer" in str(error) else ""
        last = ". Look at the repository before you push again: the last request may still complete" if state else ""
        raise HubError(f"{where} is too slow: {error}{advice}{last}") from None
    except (httpx2.HTTPError, httpx2.InvalidURL, RuntimeError, ValueError, OSError) as error:
        if isinstance(error, HubError | SavedPredictorError):
            raise
        # huggingface_hub's errors of one file have a cause.
        cause = error.__cause__ if type(error) is RuntimeError and error.__cause__ else error
        text = next((text for kind, text in meanings.items() if isinstance(cause, kind)), "")
        if not text and isinstance(cause, HfHubHTTPError):
            text = _refused(where, cause)
        elif not text and isinstance(cause, httpx2.HTTPError | httpx2.InvalidURL):
            text = f"{where} cannot be reached: {cause}. Check the connection and HF_ENDPOINT"
        text = text or f"{where}: {type(cause).__name__}: {cause}"[:500]
        raise HubError(". ".join(filter(None, (text, state)))) from error


def _refused(where: str, error: HfHubHTTPError) -> str:
    status = error.response.status_code
    advice = {
        401: "the token is missing, wrong or expired. Pass token=…, or set HF_TOKEN",
        403: "the token may not do this. Pass a token that may write to this repository",
        409: "somebody else has changed it in the meantime. Try again",
        412: "somebody else has changed it in the meantime. Try again",
        429: "there were too many requests. Try again later",
    }.get(status, "Try again later" if status >= 500 else "")
    said = f" ({error.server_message})" if error.server_message else ""
    return f"{where} answers HTTP {status}{said}{': ' if advice else ''}{advice}"
