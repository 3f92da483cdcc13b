"""The report of several runs: scores with paired differences, costs, and where their predictions differ."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from saccade.checks import fraction
from saccade.inference.evaluation import NUM_RESAMPLES, classification_report
from saccade.report.compared_runs import ComparedRuns, compared_runs
from saccade.report.report import Report
from saccade.report.sections import Section
from saccade.report.style import BAD, GOOD, GRID, INK, MUTED, SERIES, new_figure, set_log_scale
from saccade.tasks.metrics import EvalMetric

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COMPARISON = "compare.html"  # name of the file
MAX_BARS = 25  # runs or classes in a figure
MAX_DISAGREEMENTS = 500  # rows of the table of images
MAX_LETTERS = 36  # of a name in a figure


def _meaning(runs: ComparedRuns) -> str:
    better = "higher" if runs.metric.greater_is_better else "lower"
    return (
        f"Intervals are {runs.interval:.0%} bootstrap intervals: {NUM_RESAMPLES:,} times, as many images are drawn "
        f"with replacement, and all runs are scored on the same draw. {runs.metric.name}: {better} is better. If the "
        "interval of a difference excludes 0, the difference is larger than the choice of these images explains; if it "
        "includes 0, the images do not show which run is better, which does not mean that the runs are equal. The "
        "intervals do not cover what another random seed of the fits would change. p-values are not corrected for "
        "several comparisons: of 20 equal pairs, about one has p < 0.05."
    )


def summary_frame(runs: ComparedRuns) -> pd.DataFrame:
    """Return what was compared, and what its intervals mean."""
    rows = {"images": runs.what, "metric": runs.metric.name}
    if runs.baseline is not None:
        rows["baseline"] = runs.baseline
        rows["intervals"] = _meaning(runs)
    if runs.warnings:
        rows["warnings"] = "\n".join(runs.warnings)
    return _frame({"what": list(rows), "value": list(rows.values())})


def _summary_html(_: Any, frame: pd.DataFrame) -> Markup:
    item = Markup('<dt>{}</dt><dd dir="auto">{}</dd>')
    return Markup("<dl>{}</dl>").format(Markup().join(item.format(*row) for row in frame.itertuples(index=False)))


def runs_frame(runs: ComparedRuns) -> pd.DataFrame:
    """Return a row for each run: its score, its difference to the baseline, and its costs."""
    rows = []
    for run in runs.runs:
        row: dict[str, Any] = {"run": run.name, "status": run.status}
        row |= dict.fromkeys(("score", "score_low", "score_high", "difference"), math.nan)
        row |= dict.fromkeys(("difference_low", "difference_high", "p_value"), math.nan)
        row["verdict"] = "baseline" if run.name == runs.baseline else "not compared"
        if run.name in runs.scores:
            row |= dict(zip(("score", "score_low", "score_high"), runs.score(run.name), strict=True))
        if run.name in runs.scores and runs.baseline not in (None, run.name):
            row |= runs.difference(run.name, runs.baseline)
        saved = run.record.saved
        summary = {} if saved is None else saved.summary
        row["images_per_s"] = summary.get("images_per_s")
        row["num_bytes"] = None
        row["seconds"] = summary.get("total_time") or max(run.record.times_s, default=None)
        row["networks"] = ""
        if saved is not None:
            files = [saved.folder / member.weights for member in saved.members]
            row["num_bytes"] = sum(file.stat().st_size for file in files if file.is_file())
            row["networks"] = ", ".join(dict.fromkeys(member.blueprint.name for member in saved.members))
        rows.append(row)
    types = {"images_per_s": float, "num_bytes": "Int64", "seconds": float}
    frame: pd.DataFrame = pd.DataFrame(rows).astype(types)
    return frame


def scores_frame(runs: ComparedRuns) -> pd.DataFrame | None:
    """Return the scores of the compared runs with their intervals; None if no run is compared."""
    frame: pd.DataFrame = runs_frame(runs)[["run", "score", "score_low", "score_high"]].dropna(subset=["score"])
    return frame.reset_index(drop=True) if len(frame) else None


def differences_frame(runs: ComparedRuns) -> pd.DataFrame | None:
    """Return the paired difference of each pair of runs; the pairs with the baseline come first."""
    pairs = list(itertools.combinations(runs.predictions, 2))
    rows = [{"run": run, "other": other, **runs.difference(run, other)} for other, run in pairs]
    return _frame(rows) if rows else None


def _frame(columns: Any) -> pd.DataFrame:
    made: pd.DataFrame = pd.DataFrame(columns)
    return made


def per_class_frame(runs: ComparedRuns) -> pd.DataFrame | None:
    """Return the recall of each class by each run (F1 score of each label), the largest spread first."""
    if not runs.problem.has_classes or len(runs.predictions) < 2:
        return None
    measure = "recall" if runs.problem.has_one_class else "f1-score"
    scores = _frame({"class": runs.class_names})
    for name, (_, adjusted) in runs.predictions.items():
        report = classification_report(runs.targets, adjusted, runs.problem, runs.class_names)
        scores["images"] = report["support"].to_numpy()
        # Without images it is not defined.
        scores[f"{name}: {measure}"] = np.where(report["support"] > 0, report[measure], np.nan)
    values = scores.iloc[:, 2:]
    spread = (values.max(axis=1) - values.min(axis=1)).sort_values(ascending=False, kind="stable", na_position="last")
    found: pd.DataFrame = scores.loc[spread.index].reset_index(drop=True)
    return found


def _are_right(runs: ComparedRuns) -> dict[str, np.ndarray]:
    return {name: runs.problem.are_right(each.adjusted, runs.targets) for name, each in runs.predictions.items()}


AGREEMENT = ("both right", "only this run right", "only the baseline right", "both wrong")


def agreement_frame(runs: ComparedRuns) -> pd.DataFrame | None:
    """Return how many images a run and the baseline get right, both or one of them."""
    if not runs.problem.has_classes or len(runs.predictions) < 2:
        return None
    right = _are_right(runs)
    base, *others = right
    rows = []
    for name in others:
        here, there = right[name], right[base]
        counts = [here & there, here & ~there, ~here & there, ~here & ~there]
        rows.append({"run": name, **{what: int(each.sum()) for what, each in zip(AGREEMENT, counts, strict=True)}})
    return _frame(rows)


def disagreements_frame(runs: ComparedRuns) -> pd.DataFrame | None:
    """Return the images that only some runs get right; for regression those whose predictions differ most."""
    if len(runs.predictions) < 2:
        return None
    problem, given = runs.problem, runs.predictions
    if problem.has_classes:
        right = np.stack(list(_are_right(runs).values()))
        confidence = np.stack([problem.confidence(*each) for each in given.values()])
        # Images on which runs disagree with high confidence come first.
        rank = np.where(right.any(0) & ~right.all(0), 1 + confidence.min(0), 0.0)
        predicted = {name: _text(problem.names(each.adjusted, runs.class_names)) for name, each in given.items()}
        true = _text(problem.names(problem.perfect_predictions(runs.targets), runs.class_names))
    else:
        values = np.stack([each.adjusted[:, 0] for each in given.values()])
        rank = np.ptp(values, axis=0)
        predicted = {name: each.adjusted[:, 0].tolist() for name, each in given.items()}
        true = problem.true_labels(runs.targets).tolist()
    rows = np.argsort(-rank, kind="stable")
    rows = rows[rank[rows] > 0][:MAX_DISAGREEMENTS]
    names = runs.images or [f"image {row}" for row in range(len(runs.targets))]
    columns = {"image": names, "true": true, **{f"{name}: predicted": values for name, values in predicted.items()}}
    return _frame({name: [values[row] for row in rows] for name, values in columns.items()})


def _text(names: list[list[str]]) -> list[str]:
    return [", ".join(each) or "none" for each in names]


def costs_frame(runs: ComparedRuns) -> pd.DataFrame | None:
    """Return score and throughput of the compared runs; None if fewer than two have a throughput."""
    frame = runs_frame(runs)[["run", "score", "images_per_s", "num_bytes", "seconds"]].dropna(
        subset=["score", "images_per_s"]
    )
    return frame.reset_index(drop=True) if len(frame) > 1 else None


def settings_frame(runs: ComparedRuns) -> pd.DataFrame | None:
    """Return arguments of the fits and chosen hyperparameters that differ; a column for each run."""
    columns = {}
    for run in runs.runs:
        arguments = run.record.run.get("arguments", {})
        found = {name: value for name, value in arguments.items() if name != "hyperparameters"}
        found |= {f"space: {name}": value for name, value in arguments.get("hyperparameters", {}).items()}
        if run.record.saved is not None:
            found |= {f"chosen: {name}": value for name, value in run.record.saved.config.items()}
        columns[run.name] = {name: str(value) for name, value in found.items()}
    names = list(dict.fromkeys(name for column in columns.values() for name in column))
    rows = [{"setting": name, **{run: column.get(name, "") for run, column in columns.items()}} for name in names]
    rows = [row for row in rows if len(set(list(row.values())[1:])) > 1]
    return _frame(rows) if rows else None


def _short(name: str) -> str:
    return name if len(name) <= MAX_LETTERS else f"…{name[1 - MAX_LETTERS :]}"


def _intervals_figure(
    names: Sequence[str], middle: Any, low: Any, high: Any, colors: Sequence[str]
) -> tuple[Figure, Any]:
    """Return a figure with a point and an interval for each name, the first one at the top, and its axes."""
    figure = new_figure(height=1.0 + 0.3 * len(names))
    axes = figure.subplots()
    for place, color in enumerate(colors):
        axes.plot([low[place], high[place]], [place, place], color=color, linewidth=2)
        axes.plot(middle[place], place, "o", color=color, markersize=6)
    axes.set_yticks(range(len(names)), [_short(name) for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    return figure, axes


def scores_plot(frame: pd.DataFrame) -> Figure:
    """Draw the score of each run with its interval."""
    some = frame.head(MAX_BARS)
    colors = [SERIES[place % len(SERIES)] for place in range(len(some))]
    figure, axes = _intervals_figure(some["run"], some["score"], some["score_low"], some["score_high"], colors)
    axes.set_xlabel("score")
    return figure


def differences_plot(frame: pd.DataFrame) -> Figure:
    """Draw the difference of each run to the baseline with its interval."""
    base = frame["other"].iloc[0]
    some = frame[frame["other"] == base].head(MAX_BARS).reset_index(drop=True)
    color_of = {"better": GOOD, "worse": BAD}
    colors = [color_of.get(verdict, MUTED) for verdict in some["verdict"]]
    ends = some["difference_low"], some["difference_high"]
    figure, axes = _intervals_figure(some["run"], some["difference"], *ends, colors)
    axes.axvline(0, color=INK, linewidth=1)
    axes.set_xlabel(f"score less that of {_short(base)}")
    return figure


def per_class_plot(frame: pd.DataFrame) -> Figure:
    """Draw the scores of the classes with the largest spread, a mark for each run."""
    some = frame.head(MAX_BARS)
    runs = list(frame.columns[2:])[: len(SERIES)]
    figure = new_figure(height=1.2 + 0.26 * len(some))
    axes = figure.subplots()
    places = np.arange(len(some))
    values = some[runs].to_numpy(float)
    axes.hlines(places, values.min(1), values.max(1), color=GRID, linewidth=4)
    for number, run in enumerate(runs):
        axes.plot(values[:, number], places, "osD^vPX*"[number], color=SERIES[number], label=_short(run))
    axes.set_yticks(places, [_short(str(name)) for name in some["class"]])
    axes.set_ylim(len(some) - 0.5, -0.5)
    axes.set_xlim(-0.03, 1.03)
    axes.set_xlabel("recall, or F1 score of a label")
    figure.legend(loc="outside upper left", ncols=2)
    return figure


def agreement_plot(frame: pd.DataFrame) -> Figure:
    """Draw bars with the images that a run and the baseline get right."""
    some = frame.head(MAX_BARS)
    figure = new_figure(height=1.5 + 0.32 * len(some))
    axes = figure.subplots()
    left = np.zeros(len(some))
    for what, color in zip(AGREEMENT, (GRID, GOOD, BAD, MUTED), strict=True):
        axes.barh(range(len(some)), some[what], left=left, color=color, label=what, height=0.7)
        left += some[what].to_numpy()
    axes.set_yticks(range(len(some)), [_short(name) for name in some["run"]])
    axes.set_ylim(len(some) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("images")
    figure.legend(loc="outside upper left", ncols=2)
    return figure


def costs_plot(frame: pd.DataFrame) -> Figure:
    """Draw score by throughput."""
    figure = new_figure()
    axes = figure.subplots()
    for number, row in enumerate(frame.head(MAX_BARS).itertuples()):
        axes.plot(row.images_per_s, row.score, "o", color=SERIES[number % len(SERIES)])
        axes.annotate(_short(row.run), (row.images_per_s, row.score), (6, 4), textcoords="offset points")
    set_log_scale(axes, "x")
    axes.margins(x=0.2, y=0.15)
    axes.set_xlabel("throughput, images/s without decoding")
    axes.set_ylabel("score")
    return figure


def _scores_summary(frame: pd.DataFrame) -> str:
    return ", ".join(f"{row.run} {row.score:.4g}" for row in frame.head(8).itertuples())


def _differences_summary(frame: pd.DataFrame) -> str:
    rows = frame[frame["other"] == frame["other"].iloc[0]].head(8).itertuples()
    return "; ".join(f"{r.run} {r.difference:+.3g} ({r.difference_low:+.3g} to {r.difference_high:+.3g})" for r in rows)


COMPARED_GROUPS: tuple[tuple[str, tuple[Section, ...]], ...] = (
    (
        "Result",
        (
            Section("summary", "Summary", "What was compared.", summary_frame, html=_summary_html),
            Section(
                "runs",
                "Runs",
                "The score of each run with its interval, the paired difference to the baseline, and the costs of the "
                "predictor: throughput without decoding, bytes of weights, and seconds of the fit.",
                runs_frame,
                shown_rows=100,
            ),
            Section(
                "scores",
                "Scores",
                "The score of each run with its interval. Compare runs by the paired differences below: intervals of "
                "two runs on the same images may overlap although the difference is clear.",
                scores_frame,
                scores_plot,
                summary=_scores_summary,
            ),
            Section(
                "differences",
                "Paired differences",
                "The score of a run less that of the baseline, on the same images. An interval that crosses the "
                "line at 0 does not show which run is better. The table has all pairs.",
                differences_frame,
                differences_plot,
                summary=_differences_summary,
                max_rows=500,
            ),
        ),
    ),
    (
        "Predictions",
        (
            Section(
                "per_class",
                "Classes",
                "Recall of each class (F1 score of each label), for the classes in which the runs differ most. Of few "
                "images, differences are mostly chance.",
                per_class_frame,
                per_class_plot,
            ),
            Section(
                "agreement",
                "Agreement with the baseline",
                "Images that a run and the baseline get right. Only the two parts in the middle, where one of them is "
                "right, make the difference in accuracy.",
                agreement_frame,
                agreement_plot,
                shown_rows=100,
            ),
            Section(
                "disagreements",
                "Images with different results",
                "Images that some runs get right and others wrong, those with high confidence first; for regression "
                "those whose predictions differ most.",
                disagreements_frame,
                shown_rows=20,
            ),
        ),
    ),
    (
        "Cost and settings",
        (
            Section(
                "costs",
                "Score and throughput",
                "Runs at the top right are better and faster.",
                costs_frame,
                costs_plot,
            ),
            Section(
                "settings",
                "Settings that differ",
                "Arguments of the fits, search spaces, and the hyperparameters of the first network of each predictor.",
                settings_frame,
                shown_rows=30,
                max_rows=300,
            ),
        ),
    ),
)


def compare(runs: Sequence[Any], data: Any = None, *, metric: EvalMetric = None, interval: float = 0.95) -> Comparison:
    """Compare runs on the same images, with paired bootstrap intervals of their differences.

    Images that a run was trained on are left out, as are those that cannot be read; `Comparison.warnings` says so. The
    interval of a difference is over the images: it includes 0 where the difference is not larger than the choice of
    the test images explains. It does not cover what another random seed of the fits would change.

    Parameters
    ----------
    runs : list of str, Path or ImagePredictor
        At least two run folders, folders of saved predictors, or fitted predictors. The first one that has a predictor
        is the baseline. Runs that failed or have not finished get a row without scores.
    data : ImageDataset, DataFrame, str, Path or None
        Labelled test images, as in `ImagePredictor.evaluate`. None takes the predictions that the runs have stored for
        the validation images that all of them held out. These also selected the networks, so scores on them are
        somewhat too high.
    metric : str, callable or None
        As `eval_metric` of `ImagePredictor`. None is the metric by which all runs were selected, or the default of the
        problem type if these differ.
    interval : float
        Confidence of the intervals, between 0 and 1.

    Returns
    -------
    Comparison
        Notebooks show it. ``frames["runs"]`` has the scores, ``save`` writes the page.

    Raises
    ------
    DataError
        If no run has a predictor; or the runs have different problem types, classes, or labels of an image; or no image
        is left.
    UnknownNameError
        For a metric that does not exist or does not suit the problem.

    Examples
    --------
    >>> found = saccade.compare(["run-a", "run-b"], "photos/test")      # doctest: +SKIP
    >>> found.frames["runs"][["run", "score", "difference", "p_value"]] # doctest: +SKIP
         run  score  difference  p_value
    0  run-a   0.91         NaN      NaN
    1  run-b   0.94        0.03    0.012
    >>> found.save("compare.html")                                      # doctest: +SKIP
    PosixPath('/home/me/compare.html')
    """
    fraction("interval", interval)
    return Comparison(compared_runs(runs, data, metric, interval))


class Comparison(Report):
    """The report of several runs, as `saccade.compare` returns it.

    Attributes
    ----------
    frames : Mapping of str to DataFrame
        The tables by the names of the sections: ``runs``, ``scores``, ``differences``, ``per_class``,
        ``agreement``, ``disagreements``, ``costs``, ``settings``, those that apply.
    warnings : list of str
        What limits the comparison, such as images that were left out.
    """

    groups = COMPARED_GROUPS

    def __init__(self, runs: ComparedRuns) -> None:
        super().__init__(runs)  # type: ignore[arg-type]  # its own sections read it
        self.warnings = runs.warnings

    @property
    def _default_file(self) -> Path:
        return Path(COMPARISON).absolute()

    @property
    def title(self) -> str:
        """The title of the page."""
        return f"Saccade comparison of {len(self.record.runs)} runs"

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {', '.join(run.name for run in self.record.runs)}>"
