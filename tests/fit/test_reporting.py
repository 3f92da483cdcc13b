"""The report at the end of a fit: when there is one, its time, and that its failure is a warning."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from saccade.deadline import Deadline
from saccade.events import Event, Warned
from saccade.fit import reporting
from saccade.fit.reporting import FinalReport
from saccade.fit.run_folder import REPORT


class Writer:
    """Takes 4 s, or fails."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error, self.written = error, list[Path]()

    def prepare(self) -> float:
        return 4.0

    def write(self, saved: Any, images: Any, path: Path, seconds_left: Callable[[], float]) -> None:
        assert seconds_left() > 0
        if self.error is not None:
            raise self.error
        self.written.append(path)


@pytest.mark.parametrize(
    ("option", "limit_s", "left_s", "reserve_s", "is_written"),
    [
        ("auto", 100.0, 5.0, 4.0, True),
        ("auto", 30.0, 5.0, 3.0, True),
        ("auto", 29.0, 5.0, 0.0, False),
        ("auto", None, math.inf, 0.0, True),
        ("auto", 100.0, 0.0, 4.0, False),
        (True, 10.0, 1.0, 1.0, True),
        (False, 100.0, 50.0, 0.0, False),
        (False, None, math.inf, 0.0, False),
    ],
)
def test_long_fits_have_a_report_and_reserve_its_time(
    option: Any, limit_s: float | None, left_s: float, reserve_s: float, is_written: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(reporting, "REPORT_FROM_S", 30.0)
    writer, began, events = Writer(), list[int](), list[Event]()
    report = FinalReport(writer, option, Path("run"), Deadline(limit_s), events.append)
    assert report.reserve_s() == reserve_s
    report.write(None, [], lambda: began.append(1), lambda: left_s)  # type: ignore[arg-type]
    assert writer.written == [Path("run") / REPORT] * is_written
    assert began == [1] * is_written
    assert not events


def test_a_report_that_fails_is_a_warning() -> None:
    events: list[Event] = []
    report = FinalReport(Writer(OSError("disk full")), True, Path("run"), Deadline(None), events.append)
    report.write(None, [], lambda: None, lambda: 1.0)  # type: ignore[arg-type]
    assert events == [Warned("no report was written (OSError: disk full). Write it: saccade report run")]
