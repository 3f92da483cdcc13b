"""Which numerics were the fastest, remembered by this process and, in the cache folder, by later ones."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import tempfile
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import torch

from saccade.data.sources.download import cache_folder

FILE = "numerics.json"
MAX_CHOICES = 1000
"""Choices that are kept; the oldest go first."""


class NumericsMemory:
    """Choices by what they were made for.

    The file is read when a choice is asked for that this process does not know, and replaced in one step when one is
    added. Two processes that add at the same instant may lose one choice, which is then measured once more. A file that
    cannot be read, or written, costs no more than that either.

    Parameters
    ----------
    path : Path or None
        The file; None is ``numerics.json`` in the cache folder (``$SACCADE_CACHE``, or the platform's own).

    Examples
    --------
    >>> memory = NumericsMemory(Path(tempfile.mkdtemp()) / "numerics.json")
    >>> memory.put("training | resnet18", {"dtype": "float32"})
    >>> NumericsMemory(memory.path).get("training | resnet18")
    {'dtype': 'float32'}
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._known: dict[tuple[Path, str], dict[str, Any]] = {}

    @property
    def path(self) -> Path:
        """Where the choices are kept."""
        return cache_folder() / FILE if self._path is None else self._path

    def get(self, key: str) -> dict[str, Any] | None:
        """Return what was chosen for this; None where nothing was."""
        known = self._known.get((self.path, key))
        if known is None:
            known = self._read().get(key)
            if known is not None:
                self._known[self.path, key] = known
        return known

    def put(self, key: str, choice: dict[str, Any]) -> None:
        """Remember a choice, as JSON has it."""
        self._known[self.path, key] = choice
        choices = self._read()
        choices.pop(key, None)  # the newest is last
        choices = dict([*choices.items(), (key, choice)][-MAX_CHOICES:])
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            descriptor, temporary = tempfile.mkstemp(dir=self.path.parent, prefix=f".{FILE}.")
            try:
                with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                    json.dump({"choices": choices}, file, indent=1)
                Path(temporary).replace(self.path)
            finally:
                Path(temporary).unlink(missing_ok=True)
        except OSError:  # a full disk, a folder of somebody else's: this process remembers it all the same
            return

    def _read(self) -> dict[str, dict[str, Any]]:
        try:
            choices = json.loads(self.path.read_text(encoding="utf-8"))["choices"]
            if isinstance(choices, dict) and all(isinstance(choice, dict) for choice in choices.values()):
                return choices
            fault = "it holds no choices"
        except OSError:  # there is none yet
            return {}
        except (ValueError, KeyError, TypeError) as error:
            fault = f"{type(error).__name__}: {error}"
        warnings.warn(f"{self.path} is damaged and will be written anew ({fault})", stacklevel=3)
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)  # so that this is said once
        return {}


MEMORY = NumericsMemory()
"""Of this process; a worker has it for all of its trials."""


def machine(device: torch.device) -> str:
    """Say what decides how fast arithmetic is here: the processor, its threads, and torch.

    Examples
    --------
    >>> machine(torch.device("cpu")).endswith(f"torch {torch.__version__}")
    True
    """
    threads = f"{torch.get_num_threads()} threads | " if device.type == "cpu" else ""
    return f"{processor(device)} | {threads}torch {torch.__version__}"


def processor(device: torch.device) -> str:
    """Name the hardware of a device; a GPU by its model."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} {_cpu()}"


@cache
def _cpu() -> str:
    try:
        facts = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:  # only Linux has it
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in facts.splitlines() if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
