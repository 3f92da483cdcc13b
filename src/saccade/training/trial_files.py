"""The files in a trial's folder: weights, outputs and checkpoints, named after their epochs.

A file is deleted only when the event log has a later epoch. So at whatever instant the training process is killed, the
last logged epoch can be continued from, or used.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

import numpy as np

BLUEPRINT = "blueprint.json"
"""The network without its weights."""

Kind = Literal["last", "best", "end"]

_NAME = re.compile(r"(?P<kind>last|best|end)-(?P<epoch>\d+)\.(safetensors|outputs\.npy)")


def state_file(folder: Path, epoch: int) -> Path:
    """Return the checkpoint file of an epoch."""
    return _file(folder, "last", epoch)


def weights_file(folder: Path, epoch: int) -> Path:
    """Return the file of the weights of an epoch that was the best so far.

    Examples
    --------
    >>> weights_file(Path("trials/0007"), 3).name
    'best-0003.safetensors'
    """
    return _file(folder, "best", epoch)


def end_files(folder: Path, epoch: int) -> tuple[Path, Path]:
    """Return the files of weights and outputs at the end of the schedule, where an earlier epoch was the best.

    With few validation images, the choice of the best epoch is partly noise.
    """
    return _file(folder, "end", epoch), folder / f"end-{epoch:04d}.outputs.npy"


def last_end(folder: Path) -> int | None:
    """Return the last epoch with `end_files`; None without any."""
    names = [name for path in folder.glob("end-*.safetensors") if (name := _NAME.fullmatch(path.name))]
    return max((int(name["epoch"]) for name in names), default=None)


def outputs_file(folder: Path, epoch: int) -> Path:
    """Return the file of the outputs for the validation images after an epoch that was the best so far.

    It holds a float32 array of shape (num_valid, num_outputs): raw outputs, as `Problem.activate` takes them, in the
    order of the split; only the first images if a deadline interrupted validation. It is written before the weights.

    Examples
    --------
    >>> outputs_file(Path("trials/0007"), 3).name
    'best-0003.outputs.npy'
    """
    return folder / f"best-{epoch:04d}.outputs.npy"


def probe_file(folder: Path) -> Path:
    """Return the file with the results of the linear probe: see `saccade.training.probes.final_probe`."""
    return folder / "probe.npz"


def save_outputs(path: Path, outputs: np.ndarray) -> None:
    """Write outputs atomically."""
    temporary = path.with_name(path.name + ".part")
    with temporary.open("wb") as file:
        np.save(file, outputs.astype(np.float32, copy=False), allow_pickle=False)
    temporary.replace(path)


def drop_files(folder: Path, kind: Kind, before_epoch: int | None = None) -> None:
    """Remove a trial's files of a kind: those of earlier epochs, or all."""
    for path in folder.glob(f"{kind}-*"):
        name = _NAME.fullmatch(path.name)
        if before_epoch is None or (name is not None and int(name["epoch"]) < before_epoch):
            path.unlink(missing_ok=True)


def _file(folder: Path, kind: Kind, epoch: int) -> Path:
    return folder / f"{kind}-{epoch:04d}.safetensors"
