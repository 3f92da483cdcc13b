"""Find pretrained weights: a file, a local folder, the hub's cache, the Hugging Face hub, or an installed package.

``HF_ENDPOINT``, ``HF_HUB_CACHE``, ``HF_HOME``, ``HF_HUB_OFFLINE`` and ``HF_TOKEN`` are read at each call;
huggingface_hub reads most of them once, at import.
"""

from __future__ import annotations

import atexit
import functools
import math
import os
import shutil
import tempfile
import time
import warnings
import zlib
from collections import Counter
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path

import httpx2
import huggingface_hub
import timm
import torch
from filelock import FileLock
from huggingface_hub import constants
from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]
from huggingface_hub.utils import tqdm as HubProgressBar  # type: ignore[attr-defined]  # noqa: N812
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from saccade.data.sources.download import TIME_VARIABLE, in_time, time_limit_s
from saccade.deadline import Deadline
from saccade.errors import WeightsNotFoundError
from saccade.models.catalogue import resolve_name, split_name
from saccade.models.embedded import EMBEDDED, embedded_networks, read_embedded
from saccade.remote.urls import cache_folder

__all__ = [
    "WEIGHTS_FOLDER_VARIABLE",
    "ask_hub_again",
    "available_networks",
    "download_from_hub",
    "find_weights",
    "hub_answers",
    "hub_cache_folder",
    "hub_endpoint",
    "hub_failure",
    "hub_is_offline",
    "networks_in_folder",
    "weights_place",
]

WEIGHTS_FOLDER_VARIABLE = "SACCADE_WEIGHTS"
SUFFIX = ".safetensors"
PICKLES = (".pth", ".pt", ".bin", ".ckpt", ".pkl", ".tar")
"""Suffixes of the files of ``torch.save``, which are never opened."""

HUB_TIMEOUT_S = 3.0
HUB_STALL_S = 300.0  # without progress; huggingface_hub reports it for each 10 MB
LOCK_TIMEOUT_S = 20.0  # for another process that converts the weights of a package, which takes about a second

HUB_FAILURE_VARIABLE, HUB_FAILURE_LASTS_S = "SACCADE_HUB_FAILURE", 600.0
"""Time of the last failure of the hub, its address and the reason; worker processes inherit them.

A hub that cannot be reached, or is too slow, is asked once for each fit, and not for each network or worker.
"""

CHECKSUM = "crc32"


def find_weights(
    name: str, *, file: str | Path | None = None, folder: str | Path | None = None, seconds_left: float = math.inf
) -> Path:
    """Return the first safetensors file with pretrained weights of a network; pickle files are never used.

    1. `file`, if given, and nothing else;
    2. in `folder`, or else the folder named by the environment variable ``SACCADE_WEIGHTS``, a file
       ``<architecture>.<tag>.safetensors`` or ``<architecture>.safetensors``. With a tag in `name`, the file with that
       tag comes first, then the one without a tag; otherwise timm's default tag, no tag, any other tag by name;
    3. the cache of the Hugging Face hub on this machine;
    4. the hub, for at most `seconds_left`, and once unless it can be reached;
    5. an installed package (`saccade.models.embedded`), whose weights are converted once into the cache folder.

    Raises an UnknownModelError if there is no such network; a WeightsNotFoundError, which lists what was tried and what
    to do, if no weights are available.
    """
    timm_name = resolve_name(name)
    if file is not None:
        path = Path(file).expanduser()
        if not path.is_file():
            kind = "is a folder" if path.is_dir() else "does not exist"
            raise WeightsNotFoundError(f"The weights file {str(path)!r} {kind}; expected a {SUFFIX} file.")
        if path.suffix != SUFFIX:  # timm would open it as a pickle
            raise WeightsNotFoundError(
                f"The weights file {str(path)!r} is not a {SUFFIX} file, the only kind used. {how_to_convert(path)}"
            )
        tensor_names(path)
        return path
    tried: list[str] = []
    found = (
        _search_folder(timm_name, folder, tried)
        or _search_hub(timm_name, tried, Deadline(seconds_left))
        or _search_packages(split_name(timm_name)[0], tried)
    )
    if found is not None:
        tensor_names(found)
        return found
    meant = "" if name == timm_name else f" ({timm_name})"
    places = "\n".join(f"  - {place}" for place in tried)
    raise WeightsNotFoundError(
        f"No pretrained weights for {name!r}{meant}. Tried:\n{places}\n"
        f"This machine has weights of {', '.join(available_networks(folder)) or 'no network'}. "
        f"Give a folder with a file '{timm_name}{SUFFIX}' (the option `weights` or the environment variable "
        f"{WEIGHTS_FOLDER_VARIABLE}), or train from random weights with pretrained=False."
    )


def how_to_convert(path: Path) -> str:
    """Return the lines that convert a file of ``torch.save`` to safetensors; "" for other files."""
    if path.suffix.lower() not in PICKLES:
        return ""
    target = path.with_suffix(SUFFIX)
    return (
        f"Convert it with the following lines of Python, and pass {target.name!r}:\n"
        "  import torch; from safetensors.torch import save_file\n"
        f"  state = torch.load({str(path)!r}, map_location='cpu', weights_only=True)\n"
        "  state = state.get('state_dict', state.get('model', state))\n"
        f"  save_file({{k: v.clone().contiguous() for k, v in state.items()}}, {str(target)!r})"
    )


def write_weights(path: Path, tensors: Mapping[str, torch.Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write tensors, with their checksum, to a safetensors file, which is complete or absent.

    Tied weights are written once for each name.
    """
    # safetensors rejects tensors that share memory with others, or are part of a larger one; these are copied.
    ready = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    num_uses = Counter(tensor.untyped_storage().data_ptr() for tensor in ready.values() if tensor.numel())
    for name, tensor in ready.items():
        storage = tensor.untyped_storage()
        is_whole = storage.nbytes() == tensor.numel() * tensor.element_size()
        if not is_whole or num_uses[storage.data_ptr()] > 1:
            ready[name] = tensor.clone()
    temporary = path.with_name(path.name + ".part")
    save_file(ready, temporary, metadata={**(metadata or {}), CHECKSUM: _checksum(ready)})
    temporary.replace(path)


def read_weights(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Return the tensors and the metadata of a safetensors file.

    Raises OSError or SafetensorError if it is not one, or if its tensors differ from their checksum.
    """
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is not a dict)
        metadata = file.metadata() or {}
    if metadata.get(CHECKSUM, known := _checksum(tensors)) != known:  # files that others wrote have none
        raise SafetensorError("its values differ from their checksum")
    return tensors, metadata


def _checksum(tensors: Mapping[str, torch.Tensor]) -> str:
    checksum = 0
    for name in sorted(tensors):
        if tensors[name].numel():
            content = tensors[name].contiguous().view(-1).view(torch.uint8).numpy()
            checksum = zlib.crc32(content.data, zlib.crc32(name.encode(), checksum))
    return f"{checksum:08x}"


def networks_in_folder(folder: str | Path | None = None) -> list[str]:
    """Return the architectures for which a local folder (or ``SACCADE_WEIGHTS``) has weights, largest files first."""
    given = folder if folder is not None else os.environ.get(WEIGHTS_FOLDER_VARIABLE)
    if not given or not Path(given).expanduser().is_dir():
        return []
    files = sorted(Path(given).expanduser().glob(f"*{SUFFIX}"), key=lambda file: (-file.stat().st_size, file.name))
    architectures = dict.fromkeys(file.name.split(".")[0] for file in files)
    return [architecture for architecture in architectures if timm.is_model(architecture)]


def available_networks(folder: str | Path | None = None) -> list[str]:
    """Return the networks whose weights are on this machine: in the folder, the hub's cache, or a package."""
    cached = (path.parts[-4].rpartition("--")[2] for path in _timm_files_in_cache())
    return list(dict.fromkeys([*networks_in_folder(folder), *sorted(cached), *embedded_networks()]))


def weights_place(name: str, folder: str | Path | None = None) -> str:
    """Return where the weights of a network are, without a request; ``"hub"`` if they would be downloaded."""
    timm_name = resolve_name(name)
    if _search_folder(timm_name, folder, []) is not None:
        return "folder"
    file = _hub_file(timm_name)
    if file is not None and _cached(*file) is not None:
        return "hub cache"
    architecture = split_name(timm_name)[0]
    if architecture in EMBEDDED and architecture in embedded_networks():
        return "package"
    return "none" if file is None else "hub"


def tensor_names(path: Path) -> list[str]:
    """List the names of the tensors in a safetensors file by its header; a WeightsNotFoundError if it is damaged."""
    try:
        with safe_open(path, framework="numpy") as tensors:
            return list(tensors.keys())
    except (SafetensorError, OSError) as error:
        raise WeightsNotFoundError(
            f"The weights {str(path)!r} cannot be read as safetensors ({error}). The file is damaged or of "
            "another kind: delete it, or fetch it again."
        ) from error


def _search_folder(timm_name: str, given: str | Path | None, tried: list[str]) -> Path | None:
    """Look into the local folder; without a match, add the reason to `tried`."""
    source = "the given folder"
    if given is None:
        given, source = os.environ.get(WEIGHTS_FOLDER_VARIABLE) or None, WEIGHTS_FOLDER_VARIABLE
    if given is None:
        tried.append(f"a local folder: none given, and {WEIGHTS_FOLDER_VARIABLE} is not set")
        return None
    folder = Path(given).expanduser()
    if not folder.is_dir():
        kind = "is not a folder" if folder.exists() else "does not exist"
        raise WeightsNotFoundError(f"The folder of weights {str(folder)!r} ({source}) {kind}.")
    architecture, tag = split_name(timm_name)
    untagged = folder / f"{architecture}{SUFFIX}"
    if tag is not None:
        candidates = [folder / f"{architecture}.{tag}{SUFFIX}", untagged]
    else:
        config = timm.models.get_pretrained_cfg(architecture)
        default = [folder / f"{architecture}.{config.tag}{SUFFIX}"] if config is not None and config.tag else []
        candidates = [*default, untagged, *sorted(folder.glob(f"{architecture}.*{SUFFIX}"))]
    if (found := next((path for path in candidates if path.is_file()), None)) is not None:
        return found
    wanted = " or ".join(dict.fromkeys(candidate.name for candidate in candidates))
    wanted += f" or any {architecture}.<tag>{SUFFIX}" if tag is None else ""
    pickled = next((path for path in sorted(folder.glob(f"{architecture}*")) if path.suffix in PICKLES), None)
    convert = f"; there is {pickled.name!r}. {how_to_convert(pickled)}" if pickled else ""
    tried.append(f"the folder {str(folder)!r} ({source}): no {wanted}{convert}")
    return None


def _search_hub(timm_name: str, tried: list[str], deadline: Deadline) -> Path | None:
    """Look into the hub's cache, then ask the hub; without a match, add the reasons to `tried`."""
    found = _hub_file(timm_name)
    if found is None:
        config = timm.models.get_pretrained_cfg(timm_name)
        url = config.url if config is not None else None
        detail = f"only a pickle file, which Saccade does not load ({url})" if url else "no pretrained weights"
        tried.append(f"the Hugging Face hub: timm lists {detail} for {timm_name}")
        return None
    if (cached := _cached(*found)) is not None:
        return cached
    repo_id, filename, revision = found
    file = f"{repo_id}{'' if revision == 'main' else f'@{revision}'}/{filename}"
    tried.append(f"the Hugging Face cache {str(hub_cache_folder())!r}: {file} is not there")
    if (left_s := deadline.seconds_left()) <= 0:
        tried.append(f"the Hugging Face hub {hub_endpoint()}: not asked, because the time limit is over")
        return None
    reason = _unavailable(repo_id, filename, revision, file, min(HUB_TIMEOUT_S, left_s))
    if not reason:
        try:
            return download_from_hub(repo_id, filename, revision, deadline)
        except TimeoutError as error:
            name = TIME_VARIABLE if time_limit_s() < deadline.seconds_left() else "time_limit"
            advice = "" if "progress" in str(error) else f"; increase {name}"
            reason = _failed(f"is too slow: the download of {file} was stopped, {error}{advice}")
        except httpx2.TransportError as error:  # after the attempts of huggingface_hub
            reason = _failed(f"does not send {file}: {_first_line(error)}")
        except Exception as error:  # the errors of huggingface_hub and of its transports have no common root
            reason = f"the download of {file} failed: {_first_line(error)}"
    tried.append(f"the Hugging Face hub {hub_endpoint()}: {reason}")
    return None


def download_from_hub(
    repo_id: str,
    filename: str,
    revision: str,
    deadline: Deadline,
    *,
    token: str | bool | None = None,
    force: bool = False,
) -> Path:
    """Return a file of the hub from its cache, or download it; with `force` always.

    Raises a TimeoutError at the deadline, or without progress, and the errors of huggingface_hub and its transports.
    """
    num_bytes = 0

    class CountingBar(HubProgressBar):
        def update(self, n: float | None = 1) -> bool | None:
            nonlocal num_bytes
            num_bytes += int(n or 0)
            return super().update(n)  # type: ignore[no-any-return]

    left_s = deadline.seconds_left()
    download = functools.partial(
        huggingface_hub.hf_hub_download,
        repo_id,
        filename,
        revision=revision,
        cache_dir=hub_cache_folder(),
        endpoint=hub_endpoint(),
        etag_timeout=min(HUB_TIMEOUT_S, left_s),
        library_name="saccade",
        tqdm_class=CountingBar,
        token=token,
        force_download=force,
    )
    return Path(in_time(download, min(time_limit_s(), left_s), lambda: num_bytes, HUB_STALL_S))


def _hub_file(timm_name: str) -> tuple[str, str, str] | None:
    """Return repository, file name and revision of a network's weights on the hub; None if there are none."""
    config = timm.models.get_pretrained_cfg(timm_name)
    if config is None or not config.hf_hub_id:
        return None
    repo_id, _, revision = config.hf_hub_id.partition("@")
    named = config.hf_hub_filename or ""
    return repo_id, named if named.endswith(SUFFIX) else f"model{SUFFIX}", revision or "main"


def _cached(repo_id: str, filename: str, revision: str) -> Path | None:
    cached = huggingface_hub.try_to_load_from_cache(repo_id, filename, cache_dir=hub_cache_folder(), revision=revision)
    return Path(cached) if isinstance(cached, str) else None


def _timm_files_in_cache() -> list[Path]:
    return sorted(hub_cache_folder().glob(f"models--timm--*/snapshots/*/model{SUFFIX}"))


def _unavailable(repo_id: str, filename: str, revision: str, file: str, timeout_s: float) -> str:
    """Return why a file cannot be downloaded, or "": one request, since huggingface_hub retries for minutes."""
    if reason := hub_failure():
        return reason
    url = huggingface_hub.hf_hub_url(repo_id, filename, revision=revision, endpoint=hub_endpoint())
    # Redirects (to the hub's storage) count as an answer; huggingface_hub follows them.
    request = functools.partial(httpx2.head, url, headers=build_hf_headers(library_name="saccade"), timeout=timeout_s)
    try:
        response = in_time(request, timeout_s)  # the timeout of httpx2 does not include the look-up of the name
    except (httpx2.HTTPError, httpx2.InvalidURL, TimeoutError) as error:
        return _failed(f"cannot be reached: {_first_line(error)}")
    status = response.status_code
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return f"refuses {file} (HTTP {status}): the repository is private, gated or missing, or HF_TOKEN is wrong"
    if status == HTTPStatus.NOT_FOUND:
        return f"does not have {file} (HTTP {status})"
    return f"answers HTTP {status} when asked for {file}" if status >= HTTPStatus.BAD_REQUEST else ""


def hub_answers(name: str, seconds_left: float) -> bool:
    """Return whether the hub offers the weights of a network: one request, and none after a recent failure."""
    found = _hub_file(resolve_name(name))
    timeout_s = min(HUB_TIMEOUT_S, seconds_left)
    return found is not None and timeout_s > 0 and not _unavailable(*found, "/".join(found[:2]), timeout_s)


def hub_failure() -> str:
    """Return why the hub is not asked now: offline mode, or a recent request that failed; "" if it is asked."""
    if hub_is_offline():
        return "is not asked, because HF_HUB_OFFLINE is set"
    at_s, _, failure = os.environ.get(HUB_FAILURE_VARIABLE, "0").partition(" ")
    endpoint, _, reason = failure.partition(" ")
    is_recent = abs(time.time() - float(at_s)) < HUB_FAILURE_LASTS_S
    return reason if is_recent and endpoint == hub_endpoint() else ""


def hub_is_offline() -> bool:
    """Return whether ``HF_HUB_OFFLINE`` is set, now or when huggingface_hub was imported, which then sends nothing."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in constants.ENV_VARS_TRUE_VALUES or constants.HF_HUB_OFFLINE


def _failed(reason: str) -> str:
    os.environ[HUB_FAILURE_VARIABLE] = f"{time.time()} {hub_endpoint()} {reason}"
    return reason


def ask_hub_again() -> None:
    """Forget that the hub could not be reached, or was too slow."""
    os.environ.pop(HUB_FAILURE_VARIABLE, None)


def _search_packages(architecture: str, tried: list[str]) -> Path | None:
    """Return the converted weights of an installed package; without them, add the reason to `tried`."""
    if architecture not in EMBEDDED:
        return None
    weights = EMBEDDED[architecture]
    name = f"{architecture}.{weights.tag}{SUFFIX}"
    try:
        weights.verified_path()
        cache = cache_folder()
        folder = cache / "weights" / weights.sha256[:16]
        try:
            if cache not in _private_folders:
                folder.mkdir(parents=True, exist_ok=True)
                with FileLock(folder / "lock", timeout=LOCK_TIMEOUT_S):
                    if not _is_whole(folder / name):
                        write_weights(folder / name, read_embedded(architecture))
        except (OSError, NotImplementedError, SafetensorError) as error:
            _make_private_folder(cache, _first_line(error))
        folder = _private_folders.get(cache, folder)
        if not (folder / name).exists():
            write_weights(folder / name, read_embedded(architecture))
    except WeightsNotFoundError as error:
        tried.append(str(error))
        return None
    return folder / name


def _is_whole(path: Path) -> bool:
    try:
        facts = path.stat()
    except OSError:
        return False
    return _has_right_checksum(path, facts.st_mtime_ns, facts.st_size)


@functools.lru_cache
def _has_right_checksum(path: Path, _modified_ns: int, _num_bytes: int) -> bool:
    try:
        read_weights(path)
    except (OSError, SafetensorError):
        return False
    return True


_private_folders: dict[Path, Path] = {}


def _make_private_folder(cache: Path, reason: str) -> None:
    """Make a folder of this process for converted weights, because the cache cannot be written."""
    warnings.warn(
        f"Pretrained weights are converted again in each process, because the cache folder {cache} cannot be "
        f"written ({reason}). Set SACCADE_CACHE to another folder.",
        stacklevel=2,
    )
    _private_folders[cache] = Path(tempfile.mkdtemp(prefix="saccade-weights-"))
    atexit.register(shutil.rmtree, _private_folders[cache], ignore_errors=True)


def hub_endpoint() -> str:
    """Return the address of the hub: ``HF_ENDPOINT``, or huggingface_hub's default."""
    return (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")


def hub_cache_folder() -> Path:
    """Return the folder of the hub's cache: ``HF_HUB_CACHE``, ``HF_HOME``/hub, or huggingface_hub's default."""
    if cache := os.environ.get("HF_HUB_CACHE"):
        return Path(cache).expanduser()
    if home := os.environ.get("HF_HOME"):
        return Path(home).expanduser() / "hub"
    return Path(constants.HF_HUB_CACHE)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
