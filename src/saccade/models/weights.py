"""Where pretrained weights come from: a named file, a local folder, the hub's cache, the hub."""

from __future__ import annotations

import os
from pathlib import Path

import timm
from safetensors import SafetensorError, safe_open

from saccade.errors import WeightsNotFoundError
from saccade.models.catalogue import resolve_name, split_name
from saccade.models.hub import HubFile, download, find_cached, hub_cache_folder, hub_endpoint

__all__ = ["WEIGHTS_FOLDER_VARIABLE", "find_weights", "networks_in_folder", "tensor_names"]

WEIGHTS_FOLDER_VARIABLE = "SACCADE_WEIGHTS"
SUFFIX = ".safetensors"


def find_weights(name: str, *, file: str | Path | None = None, folder: str | Path | None = None) -> Path:
    """Find the pretrained weights of a network.

    They are looked for in this order, and the first that is found is taken:

    1. `file`, if given, and nothing else;
    2. `folder`, or else the folder that the environment variable ``SACCADE_WEIGHTS`` names, which holds files
       ``<architecture>.safetensors`` or ``<architecture>.<tag>.safetensors``. With a tag in `name`, the file
       of that tag, then the one without a tag; otherwise timm's default tag, no tag, any other by name;
    3. the cache of the Hugging Face hub on this machine;
    4. the hub.

    Parameters
    ----------
    name : str
        A name that `resolve_name` knows.
    file : path, optional
        A safetensors file.
    folder : path, optional
        A folder of safetensors files.

    Returns
    -------
    pathlib.Path
        A safetensors file that can be read. (Pickle files, which can run code, are never used.)

    Raises
    ------
    UnknownModelError
        If there is no such network.
    WeightsNotFoundError
        If the weights cannot be had: the message lists what was tried and what to do.
    """
    timm_name = resolve_name(name)
    if file is not None:
        return _named_file(Path(file).expanduser())
    tried: list[str] = []
    for search in (_search_folder, _search_hub):
        found = search(timm_name, folder, tried)
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


def networks_in_folder(folder: str | Path | None = None) -> list[str]:
    """Return the networks that a local folder has weights for, those with the largest files first.

    Parameters
    ----------
    folder : path, optional
        The folder; None is the one that the environment variable ``SACCADE_WEIGHTS`` names, if any.

    Returns
    -------
    list of str
        Architectures that timm knows; empty without a folder.
    """
    given = folder if folder is not None else os.environ.get(WEIGHTS_FOLDER_VARIABLE)
    if not given or not Path(given).expanduser().is_dir():
        return []
    files = sorted(Path(given).expanduser().glob(f"*{SUFFIX}"), key=lambda file: (-file.stat().st_size, file.name))
    architectures = dict.fromkeys(file.name.split(".")[0] for file in files)
    return [architecture for architecture in architectures if timm.is_model(architecture)]


def tensor_names(path: Path) -> list[str]:
    """List the names of the tensors in a safetensors file; only its header is read.

    Raises
    ------
    WeightsNotFoundError
        If the file cannot be read as safetensors.
    """
    try:
        with safe_open(path, framework="numpy") as tensors:
            return list(tensors.keys())
    except (SafetensorError, OSError) as error:
        raise WeightsNotFoundError(
            f"The weights {str(path)!r} cannot be read as safetensors ({error}). The file is damaged or of "
            "another kind: delete it, or fetch it again."
        ) from error


def _named_file(path: Path) -> Path:
    if not path.is_file():
        kind = "is a folder" if path.is_dir() else "does not exist"
        raise WeightsNotFoundError(f"The weights file {str(path)!r} {kind}; expected a {SUFFIX} file.")
    if path.suffix != SUFFIX:  # timm would open it as a pickle
        raise WeightsNotFoundError(f"The weights file {str(path)!r} is not a {SUFFIX} file, the only kind used.")
    tensor_names(path)
    return path


def _search_folder(timm_name: str, given: str | Path | None, tried: list[str]) -> Path | None:
    """Look into the local folder; where nothing fits, add to `tried` why."""
    source = "the given folder"
    if given is None:
        # Read at each call, so that a program can set it after importing Saccade.
        given = os.environ.get(WEIGHTS_FOLDER_VARIABLE) or None
        source = WEIGHTS_FOLDER_VARIABLE
    if given is None:
        tried.append(f"a local folder: none given, and {WEIGHTS_FOLDER_VARIABLE} is not set")
        return None
    folder = Path(given).expanduser()
    if not folder.is_dir():
        kind = "is not a folder" if folder.exists() else "does not exist"
        raise WeightsNotFoundError(f"The folder of weights {str(folder)!r} ({source}) {kind}.")
    architecture, tag = split_name(timm_name)
    candidates = _candidates(folder, architecture, tag)
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    wanted = " or ".join(dict.fromkeys(candidate.name for candidate in candidates))
    if tag is None:
        wanted += f" or any {architecture}.<tag>{SUFFIX}"
    tried.append(f"the folder {str(folder)!r} ({source}): no {wanted}")
    return None


def _candidates(folder: Path, architecture: str, tag: str | None) -> list[Path]:
    """List the files of a folder that would do, best first; those with a fixed name need not exist."""
    untagged = folder / f"{architecture}{SUFFIX}"
    if tag is not None:
        return [folder / f"{architecture}.{tag}{SUFFIX}", untagged]
    config = timm.models.get_pretrained_cfg(architecture)
    default = [folder / f"{architecture}.{config.tag}{SUFFIX}"] if config is not None and config.tag else []
    others = sorted(folder.glob(f"{architecture}.*{SUFFIX}"))
    return [*default, untagged, *others]


def _search_hub(timm_name: str, _: str | Path | None, tried: list[str]) -> Path | None:
    """Look into the hub's cache, then ask the hub; where nothing is had, add to `tried` why."""
    config = timm.models.get_pretrained_cfg(timm_name)
    hub_id = config.hf_hub_id if config is not None else None
    if not hub_id:
        url = config.url if config is not None else None
        detail = f"only a pickle file, which Saccade does not load ({url})" if url else "no pretrained weights"
        tried.append(f"the Hugging Face hub: timm knows {detail} of {timm_name}")
        return None
    repo_id, _, revision = hub_id.partition("@")
    named = config.hf_hub_filename or ""
    file = HubFile(
        repo_id, named if named.endswith(SUFFIX) else f"model{SUFFIX}", revision=revision or HubFile.revision
    )
    cached = find_cached(file)
    if cached is not None:
        return cached
    tried.append(f"the Hugging Face cache {str(hub_cache_folder())!r}: {file} is not there")
    try:
        return download(file)
    except WeightsNotFoundError as error:
        tried.append(f"the Hugging Face hub {hub_endpoint()}: {error}")
        return None
