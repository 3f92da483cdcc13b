"""Nested states on disk without pickle: tensors in safetensors, the rest as JSON in its header."""

from __future__ import annotations

import json
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
    save_file(tensors, temporary, metadata={"state": skeleton})
    temporary.replace(path)


def load_state(path: Path, device: torch.device | str = "cpu") -> Any:
    """Read what `save_state` wrote, its tensors placed on `device`."""
    with safe_open(path, framework="pt", device=str(device)) as file:
        return _put_together(json.loads(file.metadata()["state"]), file.get_tensor)


def _take_apart(state: Any, tensors: dict[str, torch.Tensor]) -> Any:
    match state:
        case torch.Tensor():
            name = str(len(tensors))
            # A copy: safetensors refuses tensors that share memory, or that are in another memory order.
            tensors[name] = state.detach().clone(memory_format=torch.contiguous_format)
            return {"tensor": name}
        case dict():
            return {"items": [[key, _take_apart(value, tensors)] for key, value in state.items()]}
        case list() | tuple():
            return [_take_apart(item, tensors) for item in state]
        case None | bool() | int() | float() | str():
            return state
    raise TypeError(f"a state may hold tensors, numbers, strings, dicts and lists; this holds {type(state).__name__}")


def _put_together(skeleton: Any, tensor: Any) -> Any:
    match skeleton:
        case {"tensor": name}:
            return tensor(name)
        case {"items": items}:
            return {key: _put_together(value, tensor) for key, value in items}
        case list():
            return [_put_together(item, tensor) for item in skeleton]
    return skeleton
