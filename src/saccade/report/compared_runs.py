"""Runs on the same images: predictions in one order of images and classes, and what was left out of a comparison."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

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
from saccade.inference.pipeline import InferencePipeline
from saccade.inference.saved import INTERRUPTED, SPLIT, SavedPredictor
from saccade.report.record import RunRecord
from saccade.study.trial import Status
from saccade.tasks.labels import some
from saccade.tasks.metrics import EvalMetric, Metric, is_metric_name, make_metric
from saccade.tasks.problem import Problem

SHOWN_NAMES = 5  # runs that a message lists


@dataclass(frozen=True, eq=False)
class ComparedRun:
    """A run, and its predictions for the images of the comparison."""

    name: str
    record: RunRecord
    status: str  # "finished", or why there is no predictor
    pipeline: InferencePipeline | None = None
    probabilities: np.ndarray | None = None  # (num_images, num_outputs); None for a run that is not compared
    adjusted: np.ndarray | None = None  # the same after thresholds

    @property
    def saved(self) -> SavedPredictor | None:
        """The predictor of the run, if it has one."""
        return self.record.saved


@dataclass(frozen=True, eq=False)
class ComparedRuns:
    """Runs in the order in which they were given; the first one with predictions is the baseline of all differences."""

    runs: list[ComparedRun]
    problem: Problem  # that of the baseline, whose order of classes all predictions have
    class_names: list[str]
    metric: Metric
    interval: float  # confidence of all intervals
    targets: np.ndarray  # (num_images, ...), as `Problem.encode` returns them
    images: list[str]  # names or paths; empty if they are not known
    what: str  # which images these are
    warnings: list[str] = field(default_factory=list)

    @property
    def compared(self) -> list[ComparedRun]:
        """The runs with predictions; the first one is the baseline."""
        return [run for run in self.runs if run.adjusted is not None]

    def given(self, run: ComparedRun) -> np.ndarray:
        """Return the predictions of a run that the metric is computed from."""
        assert run.probabilities is not None
        assert run.adjusted is not None
        return predictions_for(self.metric, run.probabilities, run.adjusted)

    @cached_property
    def scores(self) -> Scores:
        """The metric of each compared run, by name."""
        return {run.name: self.metric(self.targets, self.given(run), self.problem) for run in self.compared}

    @cached_property
    def samples(self) -> dict[str, np.ndarray]:
        """The metric of each compared run on the same bootstrap samples of the images."""
        reported = {run.name: (self.metric, self.given(run)) for run in self.compared}
        return resampled_scores(reported, self.targets, self.problem) if len(self.targets) else {}

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
        raise DataError(f"compare was given {runs!r:.80}; pass a list of at least two runs: paths, or fitted predictors")
    found = []
    for run in runs:
        if isinstance(run, str | Path):
            record = RunRecord.read(Path(run).expanduser().absolute())
        elif hasattr(run, "pipeline"):  # an `ImagePredictor`, which is in a higher layer
            record = RunRecord.of(run.pipeline.saved)
        else:
            raise DataError(f"compare was given {run!r:.80} as a run; pass the path of a run folder, or a predictor")
        pipeline = None if isinstance(run, str | Path) else run.pipeline
        found.append(ComparedRun("", record, "", pipeline))
    names = _short_names([_parts(run.record.folder) for run in found])
    return [replace(run, name=name, status=_status(run.record)) for run, name in zip(found, names, strict=True)]


def _status(record: RunRecord) -> str:
    if record.saved is not None:
        return "interrupted, with a predictor" if record.saved.summary.get(INTERRUPTED) else "finished"
    failures = [event.reason for event in record.events if isinstance(event, JobFailed)]
    if failures and all(trial.status is Status.FAILED for trial in record.trials):
        return f"failed: {failures[-1]}"
    return f"not finished, {count_of(len(record.trials), 'trial')}"


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
    usable = [run for run in found if run.saved is not None]
    if not usable:
        reasons = "; ".join(f"{run.name}: {run.status}" for run in found[:SHOWN_NAMES])
        raise DataError(f"None of the {len(found)} runs has a predictor ({reasons}). Finish one: saccade resume RUN")
    _check_problems(usable)
    first = usable[0].saved
    assert first is not None
    chosen, notes = _metric(usable, metric, first.problem)
    read = _on_data if data is not None else _on_shared_validation
    predicted, targets, images, what, warnings = read(usable, data)
    by_name = {run.name: run for run in predicted}
    return ComparedRuns(
        [by_name.get(run.name, run) for run in found],
        first.problem,
        first.names_of_classes,
        chosen,
        interval,
        targets,
        images,
        what,
        [*notes, *warnings],
    )


def _check_problems(usable: Sequence[ComparedRun]) -> None:
    """Raise a DataError unless all runs have the same problem type and classes."""
    first, *others = usable
    assert first.saved is not None
    names = set(_composed(first.saved))
    for run in others:
        assert run.saved is not None
        here, there = run.saved.problem.type, first.saved.problem.type
        if here != there:
            raise DataError(
                f"{run.name} is a {here} problem, and {first.name} a {there} problem. Compare runs of one problem type"
            )
        own = set(_composed(run.saved))
        if own != names:
            parts = [f"{what} {some(sorted(these))}" for what, these in (("lacks", names - own), ("adds", own - names)) if these]
            raise DataError(
                f"{run.name} has other classes than {first.name}: it {' and '.join(parts)}. Compare runs of the same classes"
            )


def _composed(saved: SavedPredictor) -> list[str]:
    return [unicodedata.normalize("NFC", name) for name in saved.names_of_classes]


def _metric(usable: Sequence[ComparedRun], given: EvalMetric, problem: Problem) -> tuple[Metric, list[str]]:
    """Return the given metric; else the one by which all runs were selected, or the default with a note."""
    if given is not None:
        return make_metric(given, problem), []
    names = list(dict.fromkeys(run.saved.metric for run in usable if run.saved is not None))
    if len(names) == 1 and is_metric_name(names[0], problem):
        return make_metric(names[0], problem), []
    why = "were selected by different metrics" if len(names) > 1 else "were selected by a function of yours"
    chosen = make_metric(None, problem)
    return chosen, [f"The runs {why} ({some(names)}); they are compared by {chosen.name}. Pass metric=… for another one."]


def _order_of_classes(saved: SavedPredictor, first: SavedPredictor) -> list[int]:
    """Return the outputs of a predictor in the order of the classes of the first one."""
    own = _composed(saved)
    return [own.index(name) for name in _composed(first)] or [0]


def _true_labels(problem: Problem, targets: np.ndarray, order: Sequence[int]) -> np.ndarray:
    """Return targets as they are compared between runs: outputs in the order of the first run, or numbers."""
    if problem.has_one_class:
        return np.asarray(np.argsort(order)[targets])
    values = problem.perfect_predictions(targets)
    return values[:, list(order)] if problem.has_classes else values


Read = tuple[list[ComparedRun], np.ndarray, list[str], str, list[str]]


def _on_data(usable: Sequence[ComparedRun], data: Any) -> Read:
    """Predict labelled images with each run, and leave out those that are unreadable or that a run was trained on."""
    found: list[tuple[ComparedRun, Any]] = []
    warnings: list[str] = []
    first = usable[0].saved
    assert first is not None
    examples = first.match_classes(read_labelled_examples(data, first.label))
    keep = np.ones(len(examples), np.bool_)
    keys = image_keys(examples.images, [""] * len(examples))
    for run in usable:
        assert run.saved is not None
        split = run.saved.earlier_split
        seen = np.zeros(len(keys), np.bool_) if split is None else split.sides(keys) == FITTED
        if seen.any():
            warnings.append(
                f"{run.name} was trained on {seen.sum()} of the {count_of(len(keys), 'image')}; they are left out."
            )
        keep &= ~seen
    if not keep.any():
        raise DataError(
            f"No image is left to compare on. {' '.join(warnings)} Pass test images that no run was trained on"
        )
    rows = np.flatnonzero(keep)
    for run in usable:
        assert run.saved is not None
        pipeline = run.pipeline or InferencePipeline(run.saved)
        predicted = pipeline.predict([examples.images[row] for row in rows], verbosity=0)
        keep[rows[list(predicted.errors)]] = False
        found.append((run, predicted))
    if num := int((~keep[rows]).sum()):
        warnings.append(f"{count_of(num, 'image')} cannot be read, and {'is' if num == 1 else 'are'} left out.")
    kept = keep[rows]
    compared = []
    for run, predicted in found:
        assert run.saved is not None
        order = _order_of_classes(run.saved, first)
        compared.append(
            replace(run, probabilities=predicted.predictions[kept][:, order], adjusted=predicted.adjusted[kept][:, order])
        )
    assert examples.labels is not None
    targets = first.problem.encode(examples.labels.iloc[np.flatnonzero(keep)])
    names = [str(image_name(examples.images[row], row)) for row in np.flatnonzero(keep)]
    where = f" of {data}" if isinstance(data, str | Path) else ""
    return compared, targets, names, f"{count_of(len(names), 'test image')}{where}", warnings


def _on_shared_validation(usable: Sequence[ComparedRun], _: Any) -> Read:
    """Take the stored predictions for the validation images that the runs have in common."""
    having = [run for run in usable if (own := run.record.validation) is not None and len(own.keys)]
    none = (list(usable), np.zeros(0), [], "no image", [])
    warnings = [
        f"{run.name} has no stored predictions for its validation images: its predictor is of an earlier version, or "
        "was chosen from a Pareto front. Pass test images to compare it."
        for run in usable
        if run not in having
    ]
    if not having:
        return (*none[:-1], warnings)
    base, *others = having
    assert base.saved is not None
    first = base.record.validation
    assert first is not None
    rows_of = {base.name: np.arange(len(first.keys))}
    in_all = ~_are_seen(base, first.keys, own=True)
    for run in others:
        validation = run.record.validation
        assert validation is not None
        rows = matching_rows(first.keys, validation.keys)
        are_shared = (rows >= 0) & ~_are_seen(run, first.keys, own=True)
        num_seen = int(_are_seen(run, first.keys[rows < 0]).sum())
        if num_seen:
            warnings.append(
                f"{run.name} was trained on {num_seen} of the {len(rows)} validation images of {base.name}; they are "
                "left out."
            )
        if not are_shared.any():
            warnings.append(f"{run.name} has no validation image in common with {base.name}, and is not compared.")
            continue
        rows_of[run.name] = rows
        in_all &= are_shared
    kept = np.flatnonzero(in_all)
    if len(rows_of) < 2 or not len(kept):
        warnings.append("No validation images are common to the runs. Pass test images: --data DIR, or data=….")
        return (*none[:-1], warnings)
    compared, num_other_labels = list[ComparedRun](), 0
    reference = base.saved
    targets = first.targets[kept]
    for run in usable:
        if run.name not in rows_of:
            compared.append(run)
            continue
        assert run.saved is not None
        validation, order = run.record.validation, _order_of_classes(run.saved, reference)
        assert validation is not None
        rows = rows_of[run.name][kept]
        own = _true_labels(run.saved.problem, validation.targets[rows], order)
        same = np.isclose(own, _true_labels(reference.problem, targets, range(len(order))), rtol=1e-4)
        num_other_labels += int((~same.reshape(len(same), -1).all(1)).sum())
        compared.append(
            replace(run, probabilities=validation.predictions[rows][:, order], adjusted=validation.adjusted[rows][:, order])
        )
    if num_other_labels:
        raise DataError(
            f"{count_of(num_other_labels, 'shared validation image')} of {len(kept)} have another label in one run than "
            f"in {base.name}. Pass test images with the labels to compare by: --data DIR, or data=…"
        )
    counts = ", ".join(str(len(run.record.validation.keys)) for run in having if run.name in rows_of)  # type: ignore[union-attr]
    what = f"{count_of(len(kept), 'validation image')} that all compared runs held out (they have {counts})"
    warnings.append(
        "Networks and epochs were selected on these images, so scores are somewhat too high, and more so for runs with "
        "more trials. Test images give unbiased differences: --data DIR, or data=…."
    )
    names = first.names or []
    return compared, targets, [names[row] for row in kept] if names else [], what, warnings


def _are_seen(run: ComparedRun, keys: Keys, *, own: bool = False) -> np.ndarray:
    """Return which images a run was trained on; with `own`, before it predicted them as validation images."""
    assert run.saved is not None
    split = EarlierSplit.load(run.saved.folder / SPLIT) if own else run.saved.earlier_split
    if split is None or (own and run.saved.summary.get("num_folds")):  # out-of-fold predictions
        return np.zeros(len(keys), np.bool_)
    return np.asarray(split.sides(keys) == FITTED)
