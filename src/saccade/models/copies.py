"""Networks that this process has built before, to be copied instead of read, or drawn at random, anew."""

from __future__ import annotations

import copy
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from pathlib import Path

import torch
from torch import nn

MAX_BYTES = 256 * 1024**2
"""What all that is kept may take; the least recently used goes first, and what is larger is not kept."""


class Copies:
    """A few networks by what they were built from.

    Parameters
    ----------
    max_bytes : int
        Of all networks together.

    Examples
    --------
    >>> copies = Copies()
    >>> first, again = (copies.get("line", lambda: nn.Linear(2, 1)) for _ in range(2))
    >>> bool((first.weight == again.weight).all()), first.weight is again.weight
    (True, False)
    """

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._kept: OrderedDict[Hashable, nn.Module] = OrderedDict()
        self._generators: dict[Hashable, torch.Tensor] = {}
        self._lock = threading.Lock()

    def get(self, key: Hashable, build: Callable[[], nn.Module]) -> nn.Module:
        """Return a network of one's own: a copy of what is kept, or what `build` returns."""
        with self._lock:
            kept = self._kept.get(key)
            if kept is not None:
                self._kept.move_to_end(key)
                return copy.deepcopy(kept)
        network = build()
        if _num_bytes(network) <= self._max_bytes:
            with self._lock:
                self._kept[key] = copy.deepcopy(network)
                while sum(map(_num_bytes, self._kept.values())) > self._max_bytes:
                    self._kept.popitem(last=False)
        return network

    def get_drawn(self, key: Hashable, build: Callable[[], nn.Module]) -> nn.Module:
        """Return what `build` makes of random numbers: a copy where torch's generator is as it once was before it.

        The generator is left as building leaves it in either case.
        """
        key = (key, torch.get_rng_state().numpy().tobytes())

        def drawn() -> nn.Module:
            network = build()
            self._generators[key] = torch.get_rng_state()
            return network

        network = self.get(key, drawn)
        torch.set_rng_state(self._generators[key])
        self._generators = {known: state for known, state in self._generators.items() if known in self._kept}
        return network


def file_version(path: Path) -> tuple[str, int, int]:
    """Return what changes when a file is written anew: its path, its size, and the time of its last change in ns."""
    status = path.stat()
    return str(path.resolve()), status.st_size, status.st_mtime_ns


def _num_bytes(network: nn.Module) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values())
