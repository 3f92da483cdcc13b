"""The report at the end of a fit: whether there is one, and the time that it needs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, Protocol

from saccade.data.examples import ImageLike
from saccade.deadline import Deadline
from saccade.events import Listener, Warned
from saccade.fit.run_folder import REPORT, root_of
from saccade.inference.saved import SavedPredictor

REPORT_FROM_S = 30.0  # a report takes about 3 s, which shorter fits need for training

REPORT_FRACTION = 0.1  # of the limit, at most


class ReportWriter(Protocol):
    """Makes reports; the layers above have it."""

    def prepare(self) -> float:
        """Import what a report needs, and return about how many seconds one takes on this machine."""

    def write(
        self, saved: SavedPredictor, images: Sequence[ImageLike], path: Path, seconds_left: Callable[[], float]
    ) -> None:
        """Write the report of a run, given its images; without time, parts of it are left out."""


class FinalReport:
    """The report that a fit writes at its end; that it cannot be made is a warning.

    With `option` "auto" there is none for limits below `REPORT_FROM_S`.
    """

    def __init__(
        self, writer: ReportWriter, option: bool | Literal["auto"], folder: Path, deadline: Deadline, notify: Listener
    ) -> None:
        self._writer, self._folder, self._limit_s, self._notify = writer, folder, deadline.limit_s, notify
        self._reserve_s: float | None = None
        self._is_wanted = option is True or (option == "auto" and self._limit_s >= REPORT_FROM_S)

    def reserve_s(self) -> float:
        """Return the seconds to reserve, measured on this machine by the first call; 0 without a report or a limit."""
        if self._reserve_s is None:
            self._reserve_s = 0.0
            if self._is_wanted and not math.isinf(self._limit_s):
                try:
                    self._reserve_s = min(self._writer.prepare(), REPORT_FRACTION * self._limit_s)
                except Exception as error:
                    self._give_up(error)
        return self._reserve_s

    def write(
        self,
        saved: SavedPredictor,
        images: Sequence[ImageLike],
        begin: Callable[[], None],
        left: Callable[[], float],
    ) -> None:
        """Write the report into the run folder, after `begin`, if there is to be one and time is `left`."""
        if not self._is_wanted or left() <= 0:
            return
        begin()
        try:
            self._writer.write(saved, images, self._folder / REPORT, left)
        except Exception as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self._is_wanted = False
        reason = f"{type(error).__name__}: {error}"
        self._notify(Warned(f"no report was written ({reason}). Write it: saccade report {root_of(self._folder)}"))
