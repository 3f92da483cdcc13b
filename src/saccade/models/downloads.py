"""Downloads of pretrained weights beside other work."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from saccade.deadline import Deadline
from saccade.errors import WeightsNotFoundError
from saccade.events import Progressed
from saccade.models.catalogue import resolve_name
from saccade.models.ranking import ranked_networks
from saccade.models.weights import find_weights, hub_cache_folder

if TYPE_CHECKING:
    from typing_extensions import Self


class Downloads:
    """Downloads the weights of networks one after another in a thread, until the deadline; a context manager.

    After the context no further download begins. `failures` are the reasons of networks without weights.
    """

    def __init__(self, networks: Sequence[str], deadline: Deadline) -> None:
        self.failures: dict[str, str] = {}
        self.networks, self._deadline = networks, deadline
        self._waiting: Collection[str] = set(networks)
        self._current = ""
        self._is_closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="saccade-weights", daemon=True)

    def __enter__(self) -> Self:
        if self.networks:
            self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Begin no further download; one that runs is not waited for."""
        self._is_closed.set()

    def wait(self) -> None:
        """Wait for all downloads, at most until the deadline."""
        if self._thread.is_alive():
            left_s = self._deadline.seconds_left()
            self._thread.join(None if math.isinf(left_s) else max(left_s, 0.0))

    def has(self, network: str) -> bool:
        """Return whether the weights of a network are there: it needed no download, or that is complete."""
        return network not in self._waiting and network not in self.failures

    def progress(self) -> Progressed | None:
        """Return the megabytes of the download that runs; None without one."""
        if not (name := self._current):
            return None
        table = ranked_networks()
        total_mb = round(table[name].num_bytes / 1e6) if name in table else 0
        num_bytes = 0
        with contextlib.suppress(OSError):  # a file that is renamed meanwhile
            files = hub_cache_folder().glob(f"models--*{name}*/blobs/*.incomplete")
            num_bytes = max((Path(file).stat().st_size for file in files), default=0)
        return Progressed(f"downloading {name} (MB)", min(round(num_bytes / 1e6), total_mb), total_mb)

    def _run(self) -> None:
        for name in self.networks:
            self._current = resolve_name(name)
            try:
                if self._is_closed.is_set() or self._deadline.seconds_left() <= 0:
                    raise WeightsNotFoundError("it was not downloaded in time")
                find_weights(name, seconds_left=self._deadline.seconds_left())
            except WeightsNotFoundError as error:
                lines = str(error).splitlines()
                reasons = [line.strip(" -") for line in lines if "the Hugging Face hub" in line]
                self.failures[name] = (reasons or lines)[-1]
            self._waiting = set(self._waiting) - {name}
        self._current = ""
