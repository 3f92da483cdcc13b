"""Find pretrained weights: a file, a local folder, the cache of the Hugging Face hub, or the hub itself.

``HF_ENDPOINT``, ``HF_HUB_CACHE``, ``HF_HOME``, ``HF_HUB_OFFLINE`` and ``HF_TOKEN`` are read at each call;
huggingface_hub reads most of them once, at import.
"""

from __future__ import annotations

import functools
import math
import os
import zlib
from collections import Counter
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path

import httpx2
import huggingface_hub
import timm
import torch
from huggingface_hub import constants
from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from saccade.data.sources.download import TIME_VARIABLE, in_time, time_limit_s
from saccade.deadline import Deadline
from saccade.errors import WeightsNotFoundError
from saccade.models.catalogue import resolve_name, split_name

__all__ = ["WEIGHTS_FOLDER_VARIABLE", "find_weights", "hub_cache_folder", "hub_endpoint", "networks_in_folder"]

WEIGHTS_FOLDER_VARIABLE = "SACCADE_WEIGHTS"
SUFFIX = ".safetensors"
PICKLES = (".pth", ".pt", ".bin", ".ckpt", ".pkl", ".tar")
"""Suffixes of the files of ``torch.save``, which are never opened."""

HUB_TIMEOUT_S = 5.0
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
    4. the hub, for at most `seconds_left`.

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
    found = _search_folder(timm_name, folder, tried) or _search_hub(timm_name, tried, Deadline(seconds_left))
    if found is not None:
        tensor_names(found)
        return found
    meant = "" if name == timm_name else f" ({timm_name})"
    places = "\n".join(f"  - {place}" for place in tried)
    raise WeightsNotFoundError(
        f"No pretrained weights for {name!r}{meant}. Tried:\n{places}\n"
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
    if metadata.get(CHECKSUM, known := _checksum(tensors)) != known:  # files of earlier versions have none
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
    config = timm.models.get_pretrained_cfg(timm_name)
    hub_id = config.hf_hub_id if config is not None else None
    if not hub_id:
        url = config.url if config is not None else None
        detail = f"only a pickle file, which Saccade does not load ({url})" if url else "no pretrained weights"
        tried.append(f"the Hugging Face hub: timm lists {detail} for {timm_name}")
        return None
    repo_id, _, revision = hub_id.partition("@")
    named = config.hf_hub_filename or ""
    filename, revision = named if named.endswith(SUFFIX) else f"model{SUFFIX}", revision or "main"
    cached = huggingface_hub.try_to_load_from_cache(repo_id, filename, cache_dir=hub_cache_folder(), revision=revision)
    if isinstance(cached, str):
        return Path(cached)
    file = f"{repo_id}{'' if revision == 'main' else f'@{revision}'}/{filename}"
    tried.append(f"the Hugging Face cache {str(hub_cache_folder())!r}: {file} is not there")
    if (left_s := deadline.seconds_left()) <= 0:
        tried.append(f"the Hugging Face hub {hub_endpoint()}: not asked, because the time limit is over")
        return None
    reason = _unavailable(repo_id, filename, revision, file, min(HUB_TIMEOUT_S, left_s))
    if not reason:
        try:
            download = functools.partial(
                huggingface_hub.hf_hub_download,
                repo_id,
                filename,
                revision=revision,
                cache_dir=hub_cache_folder(),
                endpoint=hub_endpoint(),
                etag_timeout=min(HUB_TIMEOUT_S, left_s),
                library_name="saccade",
            )
            limit_s, name = min((time_limit_s(), TIME_VARIABLE), (deadline.seconds_left(), "time_limit"))
            return Path(in_time(download, limit_s))
        except TimeoutError:
            reason = f"the download of {file} takes longer than {limit_s:.3g} s; increase {name}"
        except Exception as error:  # the errors of huggingface_hub and of its transports have no common root
            reason = f"the download of {file} failed: {_first_line(error)}"
    tried.append(f"the Hugging Face hub {hub_endpoint()}: {reason}")
    return None


def _unavailable(repo_id: str, filename: str, revision: str, file: str, timeout_s: float) -> str:
    """Return why a file cannot be downloaded, or "": one request, since huggingface_hub retries for minutes."""
    # huggingface_hub refuses to work if this variable was set when it was imported.
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in constants.ENV_VARS_TRUE_VALUES or constants.HF_HUB_OFFLINE:
        return "not asked, because HF_HUB_OFFLINE is set"
    url = huggingface_hub.hf_hub_url(repo_id, filename, revision=revision, endpoint=hub_endpoint())
    try:
        # Redirects (to the hub's storage) count as an answer; huggingface_hub follows them.
        response = httpx2.head(url, headers=build_hf_headers(library_name="saccade"), timeout=timeout_s)
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        return f"cannot be reached: {_first_line(error)}"
    status = response.status_code
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return f"refuses {file} (HTTP {status}): the repository is private, gated or missing, or HF_TOKEN is wrong"
    if status == HTTPStatus.NOT_FOUND:
        return f"does not have {file} (HTTP {status})"
    return f"answers HTTP {status} when asked for {file}" if status >= HTTPStatus.BAD_REQUEST else ""


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
