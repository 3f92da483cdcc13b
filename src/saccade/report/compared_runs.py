"""Runs on the same images: predictions in one order of images and classes, and what was left out of a comparison."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from saccade.data.earlier_split import FITTED, EarlierSplit, Keys, image_keys, matching_rows
from saccade.data.examples import image_name, read_labelled_examples
from saccade.errors import DataError, count_of
from saccade.events import JobFailed
from saccade.inference.evaluation import (
    Scores,
    difference_p_value,
    percentiles,
    predictions_for,
    resampled_scores,
    score_interval,
)
from saccade.inference.pipeline import Predictions
from saccade.inference.saved import INTERRUPTED, SPLIT, SavedPredictor
from saccade.inference.validation import ValidationRecord
from saccade.report.record import RunRecord
from saccade.study.trial import Status
from saccade.tasks.labels import some
from saccade.tasks.metrics import EvalMetric, Metric, is_metric_name, make_metric
from saccade.tasks.problem import Problem

SHOWN_NAMES = 5  # runs that a message lists


class RunPredictions(NamedTuple):
    """The predictions of a run for the images of a comparison, each of shape (num_images, num_outputs)."""

    probabilities: np.ndarray
    adjusted: np.ndarray  # after thresholds


@dataclass(frozen=True, eq=False)
class ComparedRun:
    """A run with a short name."""

    name: str
    record: RunRecord

    @property
    def status(self) -> str:
        """``"finished"``, or why the run has no predictor."""
        record = self.record
        if record.saved is not None:
            return "interrupted, with a predictor" if record.saved.summary.get(INTERRUPTED) else "finished"
        failures = [event.reason for event in record.events if isinstance(event, JobFailed)]
        if failures and all(trial.status is Status.FAILED for trial in record.trials):
            return f"failed: {failures[-1]}"
        return f"not finished, {count_of(len(record.trials), 'trial')}"


@dataclass(frozen=True, eq=False)
class ComparedRuns:
    """Runs in the order in which they were given; the first one with predictions is the baseline of all differences."""

    runs: list[ComparedRun]
    predictions: dict[str, RunPredictions]  # of the runs that are compared, by name
    problem: Problem  # that of the baseline, whose order of classes all predictions have
    class_names: list[str]
    metric: Metric
    interval: float  # confidence of all intervals
    targets: np.ndarray  # (num_images, ...), as `Problem.encode` returns them
    images: list[str]  # names or paths; empty if they are not known
    what: str  # which images these are
    warnings: list[str] = field(default_factory=list)
    seconds_left: Callable[[], float] = lambda: math.inf  # to write the page, as of a `RunRecord`

    @property
    def baseline(self) -> str | None:
        """The name of the first run with predictions."""
        return next(iter(self.predictions), None)

    @cached_property
    def _reported(self) -> dict[str, tuple[Metric, np.ndarray]]:
        return {name: (self.metric, predictions_for(self.metric, *each)) for name, each in self.predictions.items()}

    @cached_property
    def scores(self) -> Scores:
        """The metric of each compared run, by name."""
        return {name: metric(self.targets, given, self.problem) for name, (metric, given) in self._reported.items()}

    @cached_property
    def samples(self) -> dict[str, np.ndarray]:
        """The metric of each compared run on the same bootstrap samples of the images."""
        return resampled_scores(self._reported, self.targets, self.problem) if len(self.targets) else {}

    def score(self, name: str) -> tuple[float, float, float]:
        """Return the metric of a run, and the ends of its interval."""
        score = self.scores[name]
        ends = score_interval(self.metric.name, score, self.samples.get(name), len(self.targets), self.interval)
        return (score, *ends)

    def difference(self, name: str, other: str) -> dict[str, Any]:
        """Return the metric of a run less that of another one, its paired interval, p-value, and which is better."""
        difference, low, high, p = self.scores[name] - self.scores[other], np.nan, np.nan, np.nan
        if self.samples:
            differences = self.samples[name] - self.samples[other]
            (low, high), p = percentiles(differences, self.interval), difference_p_value(differences)
        verdict = "no clear difference"
        if low > 0 or high < 0:
            verdict = "better" if (low > 0) == self.metric.greater_is_better else "worse"
        return {
            "difference": difference,
            "difference_low": low,
            "difference_high": high,
            "p_value": p,
            "verdict": verdict,
        }


def read_runs(runs: Sequence[Any]) -> list[ComparedRun]:
    """Return runs from paths or fitted predictors, with short names that differ; nothing is predicted yet."""
    if isinstance(runs, str | Path) or not isinstance(runs, Sequence) or len(runs) < 2:
        raise DataError(
            f"compare was given {runs!r:.80}; pass a list of at least two runs: paths, or fitted predictors"
        )
    found = []
    for run in runs:
        if isinstance(run, str | Path):
            record = RunRecord.read(run)
        elif hasattr(run, "pipeline"):  # an `ImagePredictor`, which is in a higher layer
            record = RunRecord.of(run.pipeline)
        else:
            raise DataError(f"compare was given {run!r:.80} as a run; pass the path of a run folder, or a predictor")
        found.append(ComparedRun("", record))
    names = _short_names([_parts(run.record.folder) for run in found])
    return [replace(run, name=name) for run, name in zip(found, names, strict=True)]


def _parts(folder: Path) -> list[str]:
    parts = list(folder.absolute().parts)
    return parts[:-1] if parts[-1] == "predictor" and len(parts) > 1 else parts


def _short_names(paths: list[list[str]]) -> list[str]:
    """Return the shortest ends of paths that differ; equal paths are numbered."""
    longest = max(map(len, paths))
    ends = ([str(Path(*parts[-num:])) for parts in paths] for num in range(1, longest + 1))
    names = next((each for each in ends if len(set(each)) == len({tuple(parts) for parts in paths})), None)
    names = names or [str(Path(*parts)) for parts in paths]
    counts = [names[:place].count(name) for place, name in enumerate(names)]
    return [f"{name} ({count + 1})" if count else name for name, count in zip(names, counts, strict=True)]


def compared_runs(
    runs: Sequence[Any], data: Any = None, metric: EvalMetric = None, interval: float = 0.95
) -> ComparedRuns:
    """Return runs with their predictions for `data`, or else for the validation images that they have in common."""
    found = read_runs(runs)
    usable = {run.name: run.record.saved for run in found if run.record.saved is not None}
    if not usable:
        reasons = "; ".join(f"{run.name}: {run.status}" for run in found[:SHOWN_NAMES])
        raise DataError(f"None of the {len(found)} runs has a predictor ({reasons}). Finish one: saccade resume RUN")
    _check_problems(usable)
    first = next(iter(usable.values()))
    chosen, notes = _metric(usable, metric, first.problem)
    records = {run.name: run.record for run in found if run.name in usable}
    read = _on_shared_validation(records) if data is None else _on_data(records, data)
    return ComparedRuns(
        found,
        read.predictions,
        first.problem,
        first.names_of_classes,
        chosen,
        interval,
        read.targets,
        read.images,
        read.what,
        [*notes, *read.warnings],
    )


def _check_problems(usable: Mapping[str, SavedPredictor]) -> None:
    """Raise a DataError unless all runs have the same problem type and classes."""
    (first_name, first), *others = usable.items()
    expected = set(_composed(first))
    for name, saved in others:
        here, there = saved.problem.type, first.problem.type
        if here != there:
            raise DataError(
                f"{name} is a {here} problem, and {first_name} a {there} problem. Compare runs of one problem type"
            )
        own = set(_composed(saved))
        parts = [
            f"{verb} {some(sorted(these))}"
            for verb, these in (("lacks", expected - own), ("adds", own - expected))
            if these
        ]
        if parts:
            raise DataError(
                f"{name} has other classes than {first_name}: it {' and '.join(parts)}. Their classes must be the same"
            )


def _composed(saved: SavedPredictor) -> list[str]:
    return [unicodedata.normalize("NFC", name) for name in saved.names_of_classes]


def _order_of_classes(saved: SavedPredictor, first: SavedPredictor) -> np.ndarray:
    """Return the outputs of a predictor in the order of the classes of the first one, int64 of shape (num_outputs,)."""
    own = {name: number for number, name in enumerate(_composed(saved))}
    return np.array([own[name] for name in _composed(first)] or [0], np.int64)


def _metric(usable: Mapping[str, SavedPredictor], given: EvalMetric, problem: Problem) -> tuple[Metric, list[str]]:
    """Return the given metric; else the one by which all runs were selected, or the default one with a note."""
    if given is not None:
        return make_metric(given, problem), []
    names = list(dict.fromkeys(saved.metric for saved in usable.values()))
    if len(names) == 1 and is_metric_name(names[0], problem):
        return make_metric(names[0], problem), []
    why = "different metrics" if len(names) > 1 else "a function of yours"
    chosen = make_metric(None, problem)
    return chosen, [f"The runs were selected by {why} ({some(names)}); they are compared by {chosen.name}."]


class _Read(NamedTuple):
    """Predictions for the same images, and what was left out."""

    predictions: dict[str, RunPredictions]
    targets: np.ndarray
    images: list[str]
    what: str
    warnings: list[str]


def _on_data(records: Mapping[str, RunRecord], data: Any) -> _Read:
    """Predict labelled images with each run, without those that cannot be read or that a run was trained on."""
    first = _saved(next(iter(records.values())))
    examples = first.match_classes(read_labelled_examples(data, first.label))
    assert examples.labels is not None
    warnings: list[str] = []
    keys = image_keys(examples.images, [""] * len(examples))  # by path: pixels are not decoded as in the fit
    kept = np.ones(len(examples), np.bool_)
    for name, record in records.items():
        split = _saved(record).earlier_split
        is_seen = np.zeros(len(keys), np.bool_) if split is None else split.sides(keys) == FITTED
        if is_seen.any():
            warnings.append(
                f"{name} was trained on {is_seen.sum()} of the {count_of(len(keys), 'image')}; they are left out."
            )
        kept &= ~is_seen
    rows = np.flatnonzero(kept)
    if not len(rows):
        raise DataError(
            f"No image is left to compare on. {' '.join(warnings)} Pass test images that no run was trained on"
        )
    found: dict[str, Predictions] = {}
    for name, record in records.items():
        if record.pipeline is None:
            raise DataError(
                f"{name} has a network of your own, without its code. Compare predictors: "
                "saccade.compare([ImagePredictor.load(path, net=…), …], data)"
            )
        found[name] = record.pipeline.predict([examples.images[row] for row in rows])
    errors = {row for each in found.values() for row in each.errors}
    readable = np.setdiff1d(np.arange(len(rows)), list(errors))
    if errors:
        warnings.append(f"{count_of(len(errors), 'image')} cannot be read, and left out.")
    predictions = {
        name: RunPredictions(*(part[np.ix_(readable, order)] for part in (each.predictions, each.adjusted)))
        for name, each in found.items()
        for order in [_order_of_classes(_saved(records[name]), first)]
    }
    rows = rows[readable]
    names = [str(image_name(examples.images[row], row)) for row in rows.tolist()]
    of_folder = f" of {data}" if isinstance(data, str | Path) else ""
    targets = first.problem.encode(examples.labels.iloc[rows])
    return _Read(predictions, targets, names, f"{count_of(len(rows), 'test image')}{of_folder}", warnings)


def _on_shared_validation(records: Mapping[str, RunRecord]) -> _Read:
    """Take the stored predictions for the validation images that all runs held out which have any in common."""
    warnings: list[str] = []
    known: dict[str, ValidationRecord] = {}
    for name, record in records.items():
        if record.validation is not None and len(record.validation.keys):
            known[name] = record.validation
        else:
            warnings.append(
                f"{name} has no stored predictions for its validation images, as it is of an earlier version, of "
                "choose() or of add_classes(). Test images compare it: --data DIR, or data=…."
            )
    if not known:
        return _Read({}, np.zeros(0), [], "none", warnings)
    base = next(iter(known))
    first, given = _saved(records[base]), known[base]
    is_shared = ~_are_fitted(first, given.keys)
    rows_of = {base: np.arange(len(given.keys))}
    for name, validation in list(known.items())[1:]:
        saved, rows = _saved(records[name]), matching_rows(given.keys, validation.keys)
        lacking = given.keys[rows < 0]
        if num_seen := int((saved.earlier_split.sides(lacking) == FITTED).sum()) if saved.earlier_split else 0:
            warnings.append(
                f"{name} was trained on {num_seen} of the {len(rows)} validation images of {base}; they are left out."
            )
        is_held_out = (rows >= 0) & ~_are_fitted(saved, given.keys)
        if not is_held_out.any():
            warnings.append(f"{name} has no validation image in common with {base}, and is not compared.")
            continue
        rows_of[name] = rows
        is_shared &= is_held_out
    shared = np.flatnonzero(is_shared)
    if len(rows_of) < 2 or not len(shared):
        warnings.append("No validation images are common to the runs. Pass test images: --data DIR, or data=….")
        return _Read({}, np.zeros(0), [], "none", warnings)
    predictions, labels = {}, _labels(first.problem, given.targets[shared])
    for name, rows in rows_of.items():
        saved, validation, chosen = _saved(records[name]), known[name], rows[shared]
        order = _order_of_classes(saved, first)
        own = _labels(saved.problem, validation.targets[chosen], order)
        if num := int((~np.isclose(own, labels, rtol=1e-4)).reshape(len(own), -1).any(1).sum()):
            raise DataError(
                f"{num} of the {count_of(len(shared), 'validation image')} in common have another label in {name} than "
                f"in {base}. Pass test images with the labels to compare by: --data DIR, or data=…"
            )
        parts = (part[np.ix_(chosen, order)] for part in (validation.predictions, validation.adjusted))
        predictions[name] = RunPredictions(*parts)
    warnings.append(
        "Networks and epochs were selected on these images, so that scores are somewhat too high, and more so for runs "
        "with more trials. Test images give unbiased differences: --data DIR, or data=…."
    )
    counts = ", ".join(str(len(known[name].keys)) for name in rows_of)
    what = f"{count_of(len(shared), 'validation image')} that all compared runs held out (of {counts})"
    images = [given.paths[row] for row in shared] if given.paths else []
    return _Read(predictions, given.targets[shared], images, what, warnings)


def _saved(record: RunRecord) -> SavedPredictor:
    assert record.saved is not None
    return record.saved


def _are_fitted(saved: SavedPredictor, keys: Keys) -> np.ndarray:
    """Return which validation images a network had been fitted to before it predicted them, as after ``warm_start``."""
    split = EarlierSplit.load(saved.folder / SPLIT)
    if split is None or saved.summary.get("num_folds"):  # predictions of folds are out of fold
        return np.zeros(len(keys), np.bool_)
    return np.asarray(split.sides(keys) == FITTED)


def _labels(problem: Problem, targets: np.ndarray, order: np.ndarray | None = None) -> np.ndarray:
    """Return targets as they are compared between runs: class numbers, labels or numbers, in the order of the first."""
    if not problem.has_classes:
        return problem.true_labels(targets)
    if problem.has_one_class:
        return targets if order is None else np.argsort(order)[targets]
    return targets if order is None else targets[:, order]
