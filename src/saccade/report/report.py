"""The report of a run: a page, and its tables and figures."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from saccade.errors import DataError, UnknownFrameError, explained_file_errors
from saccade.fit.run_folder import REPORT, root_of
from saccade.inference.pipeline import InferencePipeline
from saccade.remote.urls import output_path
from saccade.report.image_sections import IMAGE_SECTIONS
from saccade.report.prediction_sections import PREDICTION_SECTIONS
from saccade.report.record import RunRecord
from saccade.report.result_sections import RESULT_SECTIONS
from saccade.report.run_sections import DATA_SECTIONS, TIME_SECTIONS
from saccade.report.search_sections import SEARCH_SECTIONS
from saccade.report.sections import Section
from saccade.study.url_folder import send_changes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from saccade.data.examples import ImageLike
    from saccade.inference.saved import SavedPredictor

GROUPS: tuple[tuple[str, tuple[Section, ...]], ...] = (
    ("Result", RESULT_SECTIONS),
    ("Search", SEARCH_SECTIONS),
    ("Predictions", PREDICTION_SECTIONS),
    ("Images", IMAGE_SECTIONS),
    ("Data", DATA_SECTIONS),
    ("Time and cost", TIME_SECTIONS),
)
"""The sections in the order of the page, under their headings."""

NUM_FIGURES = 40  # whose time a report takes

SLOW_IMPORTS = "saccade.report.page", "scipy.stats", "scipy.cluster.hierarchy", "sklearn.metrics", "sklearn.ensemble"
"""Modules that sections import; here, so that no section takes long at the deadline."""


class Report:
    """The report of a run.

    Notebooks show it; `save` writes it as a file.

    Parameters
    ----------
    record : RunRecord
        What is known of the run.

    Examples
    --------
    >>> report = predictor.report()                                     # doctest: +SKIP
    >>> report.frames["leaderboard"]                                    # doctest: +SKIP
    >>> report.save("report.html")                                      # doctest: +SKIP
    PosixPath('/home/me/report.html')
    """

    groups = GROUPS

    def __init__(self, record: RunRecord) -> None:
        self.record: Any = record  # of a subclass, what its sections read
        self.sections = {section.name: section for _, sections in self.groups for section in sections}
        self.frames: Mapping[str, pd.DataFrame] = _Frames(record, self.sections)

    @classmethod
    def read(cls, path: str | Path) -> Report:
        """Return the report of a run folder or a saved predictor; a DataError if it is neither."""
        return cls(RunRecord.read(path))

    @property
    def title(self) -> str:
        """The title of the page."""
        return f"Saccade report: {root_of(self.record.folder).name}"

    @property
    def _default_file(self) -> Path:
        return Path(self.record.folder, REPORT)

    def plot(self, name: str) -> Figure:
        """Return the figure of a section; it is drawn from the frame of the same name alone.

        Raises an UnknownFrameError if the report has no such section, and a DataError if it has no figure.
        """
        from saccade.report.style import report_style

        frame, section = self.frames[name], self.sections[name]
        if section.plot is None:
            drawn = ", ".join(each for each in self.frames if self.sections[each].plot)
            raise DataError(f"{name!r} has no figure, but a table: report.frames[{name!r}]. Figures: {drawn or 'none'}")
        with report_style():
            return section.plot(frame)

    def html(self) -> str:
        """Return the page."""
        from saccade.report.page import render

        return render(self)

    def save(self, path: str | Path | None = None) -> Path:
        """Write the page, one file of HTML that needs no other, and return its path.

        Parameters
        ----------
        path : str, Path or None
            The file; None is ``report.html`` in the folder of the run or the predictor, also at its URL. An existing
            file is replaced.
        """
        file = self._default_file if path is None else output_path(path)
        text = self.html()
        with explained_file_errors(file, advice="Name a file elsewhere: report.save(path), or --out FILE"):
            if file.is_dir():
                file = file / self._default_file.name
            file.parent.mkdir(parents=True, exist_ok=True)
            part = file.with_name(f"{file.name}.part")
            try:
                part.write_text(text, encoding="utf-8", errors="replace")
                part.replace(file)
            finally:
                part.unlink(missing_ok=True)
        send_changes(file)
        return file

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.record.folder}>"

    def _repr_html_(self) -> str:
        from markupsafe import escape

        style = "width: 100%; height: 40rem; border: 1px solid #888"
        return f'<iframe title="{escape(self.title)}" style="{style}" srcdoc="{escape(self.html())}"></iframe>'


class _Frames(Mapping[str, pd.DataFrame]):
    """The tables by the names of the sections, made when they are first used; those that apply to the run."""

    def __init__(self, record: Any, sections: Mapping[str, Section]) -> None:
        self._record, self._sections = record, sections
        self._made: dict[str, pd.DataFrame | None] = {}

    def __getitem__(self, name: str) -> pd.DataFrame:
        found = self._find(name) if name in self._sections else None
        if found is None:
            why = f"The section {name!r} does not apply to this run." if name in self._sections else ""
            raise UnknownFrameError.of("section of the report", name, list(self), why)
        return found

    def get(self, name: str, default: Any = None) -> Any:
        # Without the error of `__getitem__`, for whose suggestions all tables are made.
        found = self._find(name) if name in self._sections else None
        return default if found is None else found

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name in self._sections and self._find(name) is not None

    def __iter__(self) -> Iterator[str]:
        return (name for name in self._sections if self._find(name) is not None)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _find(self, name: str) -> pd.DataFrame | None:
        if name not in self._made:
            self._made[name] = self._sections[name].frame(self._record)
        return self._made[name]


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
