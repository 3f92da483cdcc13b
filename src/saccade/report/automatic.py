"""The report that a fit writes at its end, within its time limit."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from saccade.data.examples import ImageLike
from saccade.inference.pipeline import InferencePipeline
from saccade.inference.saved import SavedPredictor
from saccade.report.record import RunRecord
from saccade.report.report import Report

NUM_FIGURES = 40  # whose time a report takes

SLOW_IMPORTS = "saccade.report.page", "scipy.stats", "scipy.cluster.hierarchy", "sklearn.metrics", "sklearn.ensemble"
"""Modules that sections import; here, so that no section takes long at the deadline."""


class AutomaticReport:
    """Makes the report of a fit; see `saccade.fit.reporting.ReportWriter`."""

    def prepare(self) -> float:
        """Import what a report needs, and return about how many seconds one takes on this machine."""
        for name in SLOW_IMPORTS:
            importlib.import_module(name)
        from saccade.report.style import new_figure, report_style, svg_of

        seconds = []
        for _ in range(3):  # the first one loads fonts
            start_s = time.perf_counter()
            with report_style():
                figure = new_figure()
                figure.add_subplot().plot([0, 1], [0, 1])
                svg_of(figure, "figure")
            seconds.append(time.perf_counter() - start_s)
        return NUM_FIGURES * min(seconds)

    def write(
        self, saved: SavedPredictor, images: Sequence[ImageLike], path: Path, seconds_left: Callable[[], float]
    ) -> None:
        """Write the report of a run, given its images; without time, parts of it are left out."""
        record = RunRecord.of(InferencePipeline(saved))
        record.seconds_left, record.images = seconds_left, images
        Report(record).save(path)
