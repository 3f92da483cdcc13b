"""Nested states on disk without pickle: tensors in safetensors, the rest as JSON in its header."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file


def save_state(path: Path, state: Any) -> None:
    """Write nested dicts and lists of tensors, numbers, strings and None; the file is complete or absent.

    Parameters
    ----------
    path : Path
        The file; it is replaced when it exists.
    state : nested dict or list
        Keys are strings or integers.
    """
    tensors: dict[str, torch.Tensor] = {}
    skeleton = json.dumps(_take_apart(state, tensors))
    temporary = path.with_name(path.name + ".part")
    save_file(_own_memory(tensors), temporary, metadata={"state": skeleton})
    temporary.replace(path)


def load_state(path: Path, device: torch.device | str = "cpu") -> Any:
    """Read what `save_state` wrote, its tensors placed on `device`."""
    with safe_open(path, framework="pt", device=str(device)) as file:
        return _put_together(json.loads(file.metadata()["state"]), file.get_tensor)


def _take_apart(state: Any, tensors: dict[str, torch.Tensor]) -> Any:
    match state:
        case torch.Tensor():
            return _take_tensor(state.detach(), tensors)
        case dict():
            return {"items": [[key, _take_apart(value, tensors)] for key, value in state.items()]}
        case list() | tuple():
            return [_take_apart(item, tensors) for item in state]
        case None | bool() | int() | float() | str():
            return state
    raise TypeError(f"a state may hold tensors, numbers, strings, dicts and lists; this holds {type(state).__name__}")


def _take_tensor(tensor: torch.Tensor, tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
    """Put a tensor among those for the file, without a copy where that can be, and return what stands for it.

    To lay channels-last tensors out anew takes as long as to write them, so they are written in the order that they
    have, and what training continues with has it as well.
    """
    name = str(len(tensors))
    if tensor.ndim == 4 and not tensor.is_contiguous() and tensor.is_contiguous(memory_format=torch.channels_last):
        tensors[name] = tensor.permute(0, 2, 3, 1)
        return {"tensor": name, "order": "channels last"}
    tensors[name] = tensor.contiguous()
    return {"tensor": name}


def _own_memory(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Copy what shares memory with others, or is a part of something larger: safetensors refuses these."""
    places = Counter(tensor.untyped_storage().data_ptr() for tensor in tensors.values() if tensor.numel())
    own = {}
    for name, tensor in tensors.items():
        storage = tensor.untyped_storage()
        is_whole = storage.nbytes() == tensor.numel() * tensor.element_size()
        own[name] = tensor if is_whole and places[storage.data_ptr()] <= 1 else tensor.clone()
    return own


def _put_together(skeleton: Any, tensor: Any) -> Any:
    match skeleton:
        case {"tensor": name, "order": "channels last"}:
            return tensor(name).permute(0, 3, 1, 2)
        case {"tensor": name}:
            return tensor(name)
        case {"items": items}:
            return {key: _put_together(value, tensor) for key, value in items}
        case list():
            return [_put_together(item, tensor) for item in skeleton]
    return skeleton
