"""The report that a fit writes at its end, within its time limit."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from saccade.data.examples import ImageLike
from saccade.inference.pipeline import InferencePipeline
from saccade.inference.saved import SavedPredictor
from saccade.report.record import RunRecord
from saccade.report.report import Report

NUM_FIGURES = 40  # whose time a report takes


class AutomaticReport:
    """Makes the report of a fit; see `saccade.fit.reporting.ReportWriter`."""

    def prepare(self) -> float:
        """Import what a report needs, and return about how many seconds one takes on this machine."""
        from saccade.report import page  # noqa: F401  slow to import
        from saccade.report.style import new_figure, report_style, svg_of

        figure_s = 0.0
        for _ in range(2):  # the first one loads fonts
            start_s = time.perf_counter()
            with report_style():
                figure = new_figure()
                figure.add_subplot().plot([0, 1], [0, 1])
                svg_of(figure, "figure")
            figure_s = time.perf_counter() - start_s
        return NUM_FIGURES * figure_s

    def write(
        self, saved: SavedPredictor, images: Sequence[ImageLike], path: Path, seconds_left: Callable[[], float]
    ) -> None:
        """Write the report of a run, given its images; without time, parts of it are left out."""
        record = RunRecord.of(InferencePipeline(saved))
        record.seconds_left, record.images = seconds_left, images
        Report(record).save(path)
