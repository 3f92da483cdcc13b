"""The files in a trial's folder: weights, outputs and states by the epoch that they are of.

A file is named after its epoch, and goes only when the study has taken note of a later one. So what the study knows of
a trial can always be continued, or used, as it was, at whatever instant the process that trained it was killed.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

import numpy as np

BLUEPRINT = "blueprint.json"
"""The network without its weights."""

Kind = Literal["last", "best", "end"]

_NAME = re.compile(r"(?P<kind>last|best|end)-(?P<epoch>\d+)\.(safetensors|outputs\.npy|json)")


def state_file(folder: Path, epoch: int) -> Path:
    """Return the file of all that training must have to continue after an epoch."""
    return _file(folder, "last", epoch)


def judgement_file(state: Path) -> Path:
    """Return the file of what is known only when the epoch of a state has been judged; it is there before the state.

    Examples
    --------
    >>> judgement_file(state_file(Path("trials/0007"), 3)).name
    'last-0003.json'
    """
    return state.with_suffix(".json")


def weights_file(folder: Path, epoch: int) -> Path:
    """Return the file of the weights after an epoch that was the best so far.

    Examples
    --------
    >>> weights_file(Path("trials/0007"), 3).name
    'best-0003.safetensors'
    """
    return _file(folder, "best", epoch)


def end_files(folder: Path, epoch: int) -> tuple[Path, Path]:
    """Return the files of weights and outputs after an epoch at the end of the schedule that was not the best one.

    On few validation images chance has its say in which epoch was the best, and a training is worth most at its end.
    """
    return _file(folder, "end", epoch), folder / f"end-{epoch:04d}.outputs.npy"


def last_end(folder: Path) -> int | None:
    """Return the last epoch of which there are `end_files`; None where there are none."""
    names = [name for path in folder.glob("end-*.safetensors") if (name := _NAME.fullmatch(path.name))]
    return max((int(name["epoch"]) for name in names), default=None)


def outputs_file(folder: Path, epoch: int) -> Path:
    """Return the file of what the network said of the validation images after an epoch that was the best so far.

    It holds an array, float32 of shape (num_valid, num_outputs): raw outputs, as `Problem.activate` takes them, of the
    validation images in the order of their split; those that the score was computed from. (Where a deadline came in
    between, that is only the first images.) It is there before the weights are.

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
    """Write outputs to a file that is whole, or not there."""
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
