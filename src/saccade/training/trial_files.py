"""The files of an image trial: their kinds (see `saccade.study.trial_files`), and checkpoints without pickle."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from saccade.models.weights import read_weights, write_weights

BLUEPRINT = "blueprint.json"  # the network without its weights
LAST = "last.safetensors"  # the checkpoint of an epoch

# Weights of an epoch that was the best so far, and outputs for the validation images.
# The outputs are a float32 array of shape (num_valid, num_outputs): raw outputs, as `Problem.activate` takes them, in
# the order of the split; only the first images if a deadline interrupted validation. They are written before the
# weights.
BEST, BEST_OUTPUTS = "best.safetensors", "best.outputs.npy"

# The same at the end of the schedule, where an earlier epoch was the best.
# With few validation images, the choice of the best epoch is partly noise.
END, END_OUTPUTS = "end.safetensors", "end.outputs.npy"

PROBE = "probe.npz"  # the results of the linear probe: see `saccade.training.probes.final_probe`


def origin(trial: int, epoch: int, blueprint: dict[str, Any], outputs: np.ndarray | None = None) -> dict[str, str]:
    """Return the metadata of weights, from which other files are recognised; of the outputs it has a checksum."""
    of_outputs = {} if outputs is None else {"outputs": f"{zlib.crc32(outputs.astype(np.float32, order='C').data):08x}"}
    return {"trial": str(trial), "epoch": str(epoch), "blueprint": json.dumps(blueprint), **of_outputs}


def save_outputs(path: Path, outputs: np.ndarray) -> None:
    """Write outputs."""
    with path.open("wb") as file:
        np.save(file, outputs.astype(np.float32, copy=False), allow_pickle=False)


def save_state(path: Path, state: Any) -> None:
    """Write nested dicts (with keys of text or integers) and lists of tensors, numbers, strings and None."""
    tensors: dict[str, torch.Tensor] = {}
    write_weights(path, tensors, {"state": json.dumps(_take_apart(state, tensors))})


def load_state(path: Path, device: torch.device | str = "cpu") -> Any:
    """Read what `save_state` wrote, with its tensors on `device`; errors are those of `read_weights`."""
    tensors, metadata = read_weights(path)
    return _put_together(json.loads(metadata["state"]), lambda name: tensors[name].to(device))


def _take_apart(state: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """Move the tensors of a state into `tensors`, and return the rest with their names."""
    match state:
        case torch.Tensor():
            tensor, name = state.detach(), str(len(tensors))
            # Converting channels-last tensors takes as long as writing them, so their memory format is kept.
            is_last = tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last)
            if is_last and not tensor.is_contiguous():
                tensors[name] = tensor.permute(0, 2, 3, 1)
                return {"tensor": name, "order": "channels last"}
            tensors[name] = tensor.contiguous()
            return {"tensor": name}
        case dict():
            return {"items": [[key, _take_apart(value, tensors)] for key, value in state.items()]}
        case list() | tuple():
            return [_take_apart(item, tensors) for item in state]
        case None | bool() | int() | float() | str():
            return state
    raise TypeError(
        f"a state may contain tensors, numbers, strings, dicts and lists; this one contains {type(state).__name__}"
    )


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
