"""What is known of a run: its events, its predictor, and the files in its folder."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from saccade.data.examples import Examples, ImageLike
from saccade.errors import DataError
from saccade.events import Event, RunPlanned
from saccade.fit.run_data import read_run_data
from saccade.fit.run_folder import CHECKS, DATA, EVENTS, NEW, RUN, has_predictor, is_run
from saccade.inference.pipeline import InferencePipeline
from saccade.inference.saved import DESCRIPTION, PREDICTOR_FOLDER, SavedPredictor
from saccade.inference.validation import ValidationRecord
from saccade.study.event_log import EventLog
from saccade.study.life import StudyRecord
from saccade.study.run_folder import reading
from saccade.study.trial import Trial
from saccade.study.url_folder import fetched
from saccade.tasks.problem import Problem
from saccade.tuning.folder import ABOUT, read_about


@dataclass(eq=False)
class RunRecord:
    """What the sections of a report read. Any part may be missing: the run failed, still runs, or was not kept."""

    folder: Path
    """The run folder, or the folder of a predictor that was saved elsewhere."""
    is_run_folder: bool
    saved: SavedPredictor | None
    """None for a run that failed or has not finished."""
    events: list[Event] = field(default_factory=list)
    """Configurations in them have text in place of the user's own objects."""
    times_s: list[float] = field(default_factory=list)
    """Of each event: the seconds that the run had used, in all of its sessions."""
    clock: list[float] = field(default_factory=list)
    """Of each event: seconds since 1970."""
    seconds_left: Callable[[], float] = lambda: math.inf
    """Time for the report; slow sections make less of it if it falls to 0."""
    tuned: dict[str, Any] | None = None
    """``metric`` and ``mode`` of a search of `saccade.tune`, which has no predictor; None for a fit."""
    images: Sequence[ImageLike] = ()
    """The images of the fit, by the rows of `validation`, while they are in memory; see `image`."""

    @classmethod
    def read(cls, path: str | Path) -> RunRecord:
        """Read a run folder, or the folder of a saved predictor, or its URL; a DataError if it is neither."""
        folder = fetched(path)
        if is_run(folder):
            if not (folder / RUN).is_file() and (folder / NEW / RUN).is_file():
                folder = folder / NEW  # the first run there still runs
            return cls._of(folder, SavedPredictor.read(folder) if has_predictor(folder) else None)
        if (folder / ABOUT).is_file():
            return replace(cls._of(folder, None), tuned=read_about(folder))
        if not (folder / DESCRIPTION).is_file() and not has_predictor(folder):
            what = "is not a run folder or a saved predictor" if folder.exists() else "does not exist"
            raise DataError(f"{folder} {what}. Pass the folder of a run, or one that predictor.save() wrote")
        return cls._of(folder, SavedPredictor.read(folder))

    @classmethod
    def of(cls, pipeline: InferencePipeline) -> RunRecord:
        """Read what is beside a predictor: its run, if it is in a run folder."""
        saved = pipeline.saved
        is_in_run = saved.folder.name == PREDICTOR_FOLDER and is_run(saved.folder.parent)
        record = cls._of(saved.folder.parent if is_in_run else saved.folder, saved)
        record.pipeline = pipeline
        return record

    @classmethod
    def _of(cls, folder: Path, saved: SavedPredictor | None) -> RunRecord:
        log = EventLog(folder / EVENTS, as_text=True)
        if saved is not None and not log.path.is_file():
            log = saved.history or log
        timed = list(log.timed())
        return cls(
            folder,
            is_run(folder),
            saved,
            events=[event for event, _, _ in timed],
            clock=[time for _, time, _ in timed],
            times_s=[used_s for _, _, used_s in timed],
        )

    @functools.cached_property
    def trials(self) -> list[Trial]:
        """The trials with their reports, by number; [] if the events of the run are not kept."""
        return StudyRecord.load(self.events).trials

    @functools.cached_property
    def validation(self) -> ValidationRecord | None:
        """The predictions for the validation images; None without a predictor, or if it has none."""
        found = None if self.saved is None else self.saved.validation
        return found if found is not None and len(found.targets) else None

    @functools.cached_property
    def pipeline(self) -> InferencePipeline | None:
        """The predictor's networks, loaded when they are used; None without a predictor, or without their code."""
        if self.saved is None or (self.saved.own_network is not None and self.saved.net is None):
            return None
        return InferencePipeline(self.saved)

    @functools.cached_property
    def metric(self) -> str | None:
        """The name of the metric for model selection; None if the run has not got so far."""
        if self.tuned is not None:
            return str(self.tuned["metric"])
        plans = (event.metric for event in reversed(self.events) if isinstance(event, RunPlanned))
        return self.saved.metric if self.saved is not None else next(plans, None)

    def image(self, row: int) -> ImageLike | None:
        """Return an image of the fit by its place in the training data, or after its end in the tuning data."""
        if not self.images and self.data is not None:
            train, tuning = self.data
            self.images = [*train.images, *(() if tuning is None else tuning.images)]
        return self.images[row] if 0 <= row < len(self.images) else None

    @property
    def problem(self) -> Problem | None:
        """The problem; None without a predictor."""
        return None if self.saved is None else self.saved.problem

    @functools.cached_property
    def run(self) -> dict[str, Any]:
        """What the run folder records of the fit: ``arguments``, ``versions``, ``platform``, ``started``; or {}."""
        file = self.folder / RUN
        if not self.is_run_folder or not file.is_file():
            return {}
        with reading(file):
            return dict(json.loads(file.read_text(encoding="utf-8")))

    @functools.cached_property
    def checks(self) -> pd.DataFrame | None:
        """The findings of the data checks, an empty table if there are none; None outside of the run folder."""
        if not self.is_run_folder:
            return None
        file = self.folder / CHECKS
        with reading(file):
            return pd.read_csv(file) if file.is_file() else pd.DataFrame(columns=["code", "title", "message"])

    @functools.cached_property
    def data(self) -> tuple[Examples, Examples | None] | None:
        """The training and tuning images that were given to the fit; None if the run does not have their paths."""
        file = self.folder / DATA
        if not self.is_run_folder or not file.is_file():
            return None
        try:
            return read_run_data(file)
        except DataError:  # images in memory, or labels that JSON cannot hold
            return None
