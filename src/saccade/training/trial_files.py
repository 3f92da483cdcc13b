"""The kinds of files of an image trial; see `saccade.study.trial_files`."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np

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
