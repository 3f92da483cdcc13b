"""Sections of the report about predictions for the validation images, except those that show images.

Frames are functions of a problem, its class names and the arrays of a `ValidationRecord`; figures, of frames alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from saccade.errors import SaccadeError, count_of
from saccade.inference.calibration import NUM_BINS, Calibration, bin_numbers, calibration_error
from saccade.inference.evaluation import classification_report, confusion_matrix, evaluation, wilson_interval
from saccade.inference.saved import SavedPredictor
from saccade.inference.validation import ValidationRecord
from saccade.report.sections import Section
from saccade.report.style import BAD, GOOD, GRID, INK, MUTED, SERIES, new_figure
from saccade.tasks.metrics import make_metric
from saccade.tasks.problem import Problem

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from saccade.report.record import RunRecord

CONFIDENCE = 0.95  # of the intervals
BOOTSTRAP_S = 3.0  # seconds for the resamples; few metrics take longer
MAX_HEAT = 30  # classes of a confusion matrix that is drawn as a whole
NUM_GROUPS = 20  # groups in which more classes are drawn
MAX_BARS = 15  # pairs of classes, and labels, in a figure
MAX_CLASSES = 25  # in the figure of precision, recall and F1 score
MAX_CURVES = len(SERIES)  # one for each colour; of more labels the mean and the worst
NUM_WORST = 5
NUM_POINTS = 200  # of a curve as it is drawn
MAX_DOTS = 1000  # from which on points are drawn as pixels, not as shapes
MAX_LETTERS = 26  # of a name in a figure
HEAT_OPACITY = 0.5  # of the darkest cell: its number is readable in a light and in a dark page

MadeFrame = Callable[[Problem, Sequence[str], np.ndarray, np.ndarray, np.ndarray], "pd.DataFrame | None"]
"""From problem, class names, targets, predictions and adjusted predictions to a table."""


def short_name(name: object, length: int = MAX_LETTERS) -> str:
    r"""Return a name for a figure: one line of printable letters; a long one is shortened in the middle.

    Examples
    --------
    >>> short_name("a very long name of a class\nwith two lines", 20)
    'a very long …o lines'
    """
    text = " ".join(str(name).split())
    text = "".join(each if each.isprintable() or each == "\u200d" else "\ufffd" for each in text)
    end = (length - 1) * 2 // 5
    return text if len(text) <= length else f"{text[: length - 1 - end]}…{text[-end:]}"


def as_objects(names: Sequence[object]) -> pd.Series:
    """Return names as a column: as strings of Arrow, names of bytes that are not UTF-8 would be an error."""
    column: pd.Series = pd.Series(list(names), dtype=object)
    return column


# Metrics


def validation_scores(
    saved: SavedPredictor, record: ValidationRecord, bootstrap_s: float = BOOTSTRAP_S
) -> dict[str, Any]:
    """Return the metrics of the stored predictions with their intervals, as `ImagePredictor.evaluate` does."""
    given = record.targets, record.predictions, record.adjusted, saved.problem
    options: dict[str, Any] = {"detailed": True, "interval": CONFIDENCE, "bootstrap_s": bootstrap_s}
    try:
        metric = None if saved.eval_metric is None else make_metric(saved.eval_metric, saved.problem)
        return evaluation(*given, metric, **options)
    except SaccadeError:  # the metric is a function of the user's, or is not defined on these images
        return evaluation(*given, **options)


def metrics_frame(record: RunRecord) -> pd.DataFrame | None:
    """Return each metric with the ends of its interval; without time, without intervals."""
    if record.saved is None or record.validation is None:
        return None
    bootstrap_s = min(BOOTSTRAP_S, record.seconds_left() / 4)
    scores = validation_scores(record.saved, record.validation, bootstrap_s)
    rows = [(name, value, *scores.get(f"{name}_interval", (np.nan,) * 2)) for name, value in scores.items()]
    kept, columns = [row for row in rows if not row[0].endswith("_interval")], ["metric", "value", "low", "high"]
    frame: pd.DataFrame = pd.DataFrame(kept, columns=columns)
    return frame


# Confusions


def confusion_frame(
    problem: Problem, names: Sequence[str], targets: np.ndarray, _: np.ndarray, adjusted: np.ndarray
) -> pd.DataFrame | None:
    """Return the counts by true (rows) and predicted class; of multilabel problems tn, fp, fn and tp of each label."""
    return confusion_matrix(targets, adjusted, problem, names) if problem.has_classes else None


def pairs_frame(
    problem: Problem, names: Sequence[str], targets: np.ndarray, _: np.ndarray, adjusted: np.ndarray
) -> pd.DataFrame | None:
    """Return the pairs of classes that are confused, the most frequent first; None if all predictions are right."""
    if not problem.has_one_class or problem.are_right(adjusted, targets).all():
        return None
    counts = confusion_matrix(targets, adjusted, problem, names).to_numpy()
    true, predicted = np.nonzero(counts * ~np.eye(len(counts), dtype=bool))
    num = counts[true, predicted]
    part = num / counts.sum(1)[true]
    order = np.lexsort((-part, -num))
    of_true, of_predicted = (as_objects([names[row] for row in rows.tolist()]) for rows in (true, predicted))
    columns = {"true": of_true, "predicted": of_predicted, "num": num, "part_of_true": part}
    frame: pd.DataFrame = pd.DataFrame(columns).iloc[order].reset_index(drop=True)
    return frame


def plot_confusion(frame: pd.DataFrame) -> Figure:
    """Draw the matrix; of many classes the errors between groups of them, of labels what was missed."""
    if frame.index.name != "true":
        return _plot_label_errors(frame)
    counts = frame.to_numpy()
    if len(counts) <= MAX_HEAT:
        names = [short_name(name) for name in frame.index]
        return _heat_map(counts, counts / np.maximum(counts.sum(1, keepdims=True), 1), names, has_numbers=True)
    errors = counts * ~np.eye(len(counts), dtype=bool)
    groups = np.array_split(_similar_first(errors), NUM_GROUPS)
    sums = np.array([[errors[np.ix_(row, column)].sum() for column in groups] for row in groups])
    most = [max(group, key=lambda row: errors[row].sum() + errors[:, row].sum()) for group in groups]
    names = [
        f"{short_name(frame.index[row], 18)} and {len(group) - 1} more" for row, group in zip(most, groups, strict=True)
    ]
    return _heat_map(sums, np.sqrt(sums / max(1, sums.max())), names, has_numbers=False)


def _similar_first(errors: np.ndarray) -> np.ndarray:
    """Return an order of classes in which those that are confused are near each other."""
    from scipy.cluster.hierarchy import leaves_list, linkage  # type: ignore[import-untyped]  # slow to import
    from scipy.spatial.distance import squareform  # type: ignore[import-untyped]

    num = np.sqrt(np.maximum(1, errors.sum(0) + errors.sum(1)))
    similar = (errors + errors.T) / np.outer(num, num)
    return np.asarray(leaves_list(linkage(squareform(similar.max() - similar, checks=False), "average")))


def _heat_map(counts: np.ndarray, heat: np.ndarray, names: Sequence[str], *, has_numbers: bool) -> Figure:
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Rectangle

    num = len(counts)
    side = 0.55 if num <= 4 else max(0.27, 0.5 - 0.02 * num)
    figure = new_figure(2.2 + side * num, 1.9 + side * num)
    axes = figure.add_subplot()
    rows, columns = np.nonzero(counts)
    cells = [Rectangle((column - 0.5, row - 0.5), 1, 1) for row, column in zip(rows, columns, strict=True)]
    # Cells of one opacity are one collection, since the page replaces colours, but not opacities.
    collection = PatchCollection(cells, facecolor=SERIES[2], alpha=HEAT_OPACITY * heat[rows, columns], linewidth=0)
    axes.add_collection(collection)
    if has_numbers:
        for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
            text, weight = f"{counts[row, column]:,}", "bold" if row == column else "normal"
            size = min(9.0, side * 72 / (0.75 * len(text)))
            axes.text(column, row, text, ha="center", va="center", fontsize=size, weight=weight)
    axes.set_xlim(-0.5, num - 0.5)
    axes.set_ylim(num - 0.5, -0.5)
    axes.set_aspect("equal")
    axes.set_xticks(range(num), names, rotation=90)
    axes.set_yticks(range(num), names)
    axes.tick_params(length=0, colors=INK)
    axes.set_xlabel("predicted", color=MUTED)
    axes.set_ylabel("true", color=MUTED)
    axes.grid(visible=False)
    axes.hlines(np.arange(num + 1) - 0.5, -0.5, num - 0.5, color=GRID, linewidth=0.5)
    axes.vlines(np.arange(num + 1) - 0.5, -0.5, num - 0.5, color=GRID, linewidth=0.5)
    axes.spines[:].set_visible(False)
    return figure


def _plot_label_errors(frame: pd.DataFrame) -> Figure:
    most = frame.assign(errors=frame["fp"] + frame["fn"]).nlargest(MAX_BARS, "errors")
    figure, axes = _bars(len(most))
    places, left = np.arange(len(most)), np.zeros(len(most))
    parts = {"tp": ("found", GOOD, 0.9), "fn": ("missed", BAD, 0.9), "fp": ("given, but not true", SERIES[1], 0.6)}
    for column, (title, color, opacity) in parts.items():
        axes.barh(places, most[column], left=left, color=color, alpha=opacity, label=title, height=0.7)
        left += most[column].to_numpy()
    _name_bars(axes, most.index)
    axes.set_xlabel("images")
    figure.legend(loc="outside upper center", ncols=3)
    return figure


def plot_pairs(frame: pd.DataFrame) -> Figure:
    """Draw the most frequent confusions as bars."""
    most = frame.head(MAX_BARS)
    figure, axes = _bars(len(most))
    axes.barh(range(len(most)), most["num"], color=SERIES[2], alpha=0.6, height=0.7)
    largest = most["num"].max()
    for place, (num, name) in enumerate(zip(most["num"], most["predicted"], strict=True)):
        axes.text(num + largest * 0.02, place, f"{num:,} as {short_name(name)}", va="center")
    _name_bars(axes, most["true"])
    axes.set_xlim(0, largest * 1.9)
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)
    return figure


def _bars(num: int, more: float = 0.6) -> tuple[Figure, Axes]:
    figure = new_figure(height=more + 0.26 * num)
    return figure, figure.add_subplot()


def _name_bars(axes: Axes, names: Sequence[Any]) -> None:
    axes.set_yticks(range(len(names)), [short_name(name) for name in names])
    axes.tick_params(axis="y", length=0, colors=INK)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")


# Classes


def classes_frame(
    problem: Problem, names: Sequence[str], targets: np.ndarray, _: np.ndarray, adjusted: np.ndarray
) -> pd.DataFrame | None:
    """Return precision, recall and F1 score of each class with 95 % intervals, the lowest F1 score first.

    The index is the number of the class. A ratio without images is NaN. The interval of an F1 score is that of the
    Jaccard index, of which it is a function.
    """
    if not problem.has_classes:
        return None
    report = classification_report(targets, adjusted, problem, names)
    support = report["support"].to_numpy().astype(np.int64)
    true = problem.perfect_predictions(targets) > 0
    given = problem.perfect_predictions(adjusted.argmax(1)) > 0 if problem.has_one_class else adjusted >= 0.5
    num_given, num_right = given.sum(0), (given & true).sum(0)
    of_either = num_given + support - num_right
    jaccard = wilson_interval(num_right, of_either, CONFIDENCE)
    columns: dict[str, Any] = {"class": as_objects(names), "images": support, "predicted": num_given}
    for name, column, num, (low, high) in (
        ("precision", "precision", num_given, wilson_interval(num_right, num_given, CONFIDENCE)),
        ("recall", "recall", support, wilson_interval(num_right, support, CONFIDENCE)),
        ("f1", "f1-score", of_either, 2 * jaccard / (1 + jaccard)),
    ):
        columns |= {name: np.where(num > 0, report[column], np.nan), f"{name}_low": low, f"{name}_high": high}
    order = np.lexsort((-of_either, columns["f1"]))  # of equal ones, first those of more images; NaN last
    frame: pd.DataFrame = pd.DataFrame(columns).iloc[order]
    return frame


def plot_classes(frame: pd.DataFrame) -> Figure:
    """Draw the three numbers of the classes with the lowest F1 scores, with intervals."""
    worst = frame[frame["f1"].notna()].head(MAX_CLASSES)
    figure = new_figure(height=0.8 + 0.24 * max(2, len(worst)))
    for axes, name, color in zip(
        figure.subplots(1, 3, sharey=True), ("f1", "precision", "recall"), SERIES, strict=False
    ):
        places = np.arange(len(worst))
        axes.hlines(places, worst[f"{name}_low"], worst[f"{name}_high"], color=color, alpha=0.45, linewidth=3)
        axes.plot(worst[name], places, "o", color=color, markersize=4.5)
        axes.set_title({"f1": "F1 score"}.get(name, name))
        axes.set_xlim(-0.03, 1.03)
        axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
        _name_bars(axes, list(worst["class"]))
    return figure


# Curves


def _curves(
    problem: Problem, names: Sequence[str], targets: np.ndarray, predictions: np.ndarray
) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Return name, truth and probability of each label that some images have and others have not."""
    columns = problem.threshold_columns(predictions) if problem.has_classes else None
    if columns is None:
        return []
    num = columns.shape[1]
    true = problem.perfect_predictions(targets)[:, -num:] > 0
    labels = zip(names[-num:], true.T, columns.T, strict=True)
    return [(name, is_true, p) for name, is_true, p in labels if 0 < is_true.sum() < len(is_true)]


def roc_frame(
    problem: Problem, names: Sequence[str], targets: np.ndarray, predictions: np.ndarray, _: np.ndarray
) -> pd.DataFrame | None:
    """Return the points of the ROC curves, and the area under each; of the second class of binary problems."""
    from sklearn.metrics import auc, roc_curve  # slow to import

    parts = []
    for name, is_true, p in _curves(problem, names, targets, predictions):
        false_rate, true_rate, thresholds = roc_curve(is_true, p)
        points = {"threshold": thresholds, "false_positive_rate": false_rate, "true_positive_rate": true_rate}
        parts.append(
            pd.DataFrame({"label": as_objects([name] * len(thresholds)), **points, "area": auc(false_rate, true_rate)})
        )
    return pd.concat(parts, ignore_index=True) if parts else None


def precision_recall_frame(
    problem: Problem, names: Sequence[str], targets: np.ndarray, predictions: np.ndarray, _: np.ndarray
) -> pd.DataFrame | None:
    """Return the points of the precision-recall curves by descending threshold, and the average precision of each."""
    from sklearn.metrics import precision_recall_curve  # slow to import

    parts = []
    for name, is_true, p in _curves(problem, names, targets, predictions):
        precision, recall, thresholds = precision_recall_curve(is_true, p, drop_intermediate=True)
        area = -np.sum(np.diff(recall) * precision[:-1])
        points = {"threshold": [*thresholds, np.inf], "recall": recall, "precision": precision}
        areas = {"area": area, "frequency": is_true.mean()}
        parts.append(pd.DataFrame({"label": as_objects([name] * len(recall)), **points, **areas})[::-1])
    return pd.concat(parts, ignore_index=True) if parts else None


def plot_roc(frame: pd.DataFrame) -> Figure:
    """Draw the ROC curves: of many labels the mean curve and the worst ones."""
    figure, axes = _plot_curves(frame, "false_positive_rate", "true_positive_rate", is_step=False)
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle="--", label="by chance")
    axes.set_xlabel("false positive rate")
    axes.set_ylabel("true positive rate (recall)")
    figure.legend(loc="outside lower center", ncols=2, title="label (area under its curve)")
    return figure


def plot_precision_recall(frame: pd.DataFrame) -> Figure:
    """Draw the precision-recall curves: of many labels the mean curve and the worst ones."""
    figure, axes = _plot_curves(frame, "recall", "precision", is_step=True)
    if len(curve_areas(frame)) == 1:
        axes.axhline(frame["frequency"].iloc[0], color=MUTED, linewidth=1, linestyle="--", label="by chance")
    axes.set_xlabel("recall")
    axes.set_ylabel("precision")
    figure.legend(loc="outside lower center", ncols=2, title="label (area under its curve)")
    return figure


def _plot_curves(frame: pd.DataFrame, x: str, y: str, *, is_step: bool) -> tuple[Figure, Axes]:
    figure = new_figure(5.2, 4.6)
    axes = figure.add_subplot()
    curves = dict(list(frame.groupby("label", sort=False)))
    areas = curve_areas(frame)
    shown = list(curves)
    if len(curves) > MAX_CURVES:
        grid = np.linspace(0, 1, 101)
        mean = np.mean([np.interp(grid, part[x], part[y]) for part in curves.values()], axis=0)
        axes.plot(grid, mean, color=INK, linewidth=2.2, label=f"mean of {len(curves)} labels ({areas.mean():.3f})")
        shown = list(areas.nsmallest(NUM_WORST).index)
    style: dict[str, Any] = {"drawstyle": "steps-pre"} if is_step else {}
    for color, name in zip(SERIES, shown, strict=False):
        part = curves[name]
        part = part.iloc[np.unique(np.linspace(0, len(part) - 1, NUM_POINTS).round().astype(int))]
        axes.plot(part[x], part[y], color=color, label=f"{short_name(name)} ({areas[name]:.3f})", **style)
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    axes.set_aspect("equal")
    return figure, axes


def curve_areas(frame: pd.DataFrame) -> pd.Series:
    """Return the area under the curve of each label."""
    areas: pd.Series = frame.groupby("label", sort=False)["area"].first()
    return areas


def _areas_in_words(frame: pd.DataFrame) -> str:
    areas = curve_areas(frame)
    if len(areas) == 1:
        return f"Area {areas.iloc[0]:.3f}."
    return f"Areas of {len(areas)} labels: mean {areas.mean():.3f}, lowest {areas.min():.3f}."


# Calibration


def reliability_frame(
    problem: Problem, targets: np.ndarray, predictions: np.ndarray, calibration: Calibration
) -> pd.DataFrame | None:
    """Return how often predictions of each probability are right, before and after calibration.

    Predictions before are found by inverting the calibration. The calibration error `ece` is as in `evaluate`; of
    multilabel problems it is a mean over labels, while the bins are those of all labels together.
    """
    if not problem.has_classes:
        return None
    stages = {"predictions": predictions}
    if calibration.temperature != 1 or calibration.class_prior:
        stages = {"before calibration": calibration.undo(predictions, problem), "after calibration": predictions}
    edges, parts = np.linspace(0, 1, NUM_BINS + 1), []
    for stage, given in stages.items():
        confidence, is_right = problem.confidences(given).ravel(), problem.outcomes(given, targets).ravel()
        bins = bin_numbers(confidence)
        num, sums, right = (np.bincount(bins, each, NUM_BINS) for each in (None, confidence, is_right))
        low, high = wilson_interval(right, num, CONFIDENCE)
        table = pd.DataFrame(
            {
                "stage": stage,
                "from": edges[:-1],
                "to": edges[1:],
                "num": num.astype(np.int64),
                "probability": sums / np.maximum(num, 1),
                "observed": right / np.maximum(num, 1),
                "observed_low": low,
                "observed_high": high,
                "ece": calibration_error(given, targets, problem),
            }
        )
        parts.append(table[table["num"] > 0])
    frame: pd.DataFrame = pd.concat(parts, ignore_index=True)
    return frame


def plot_reliability(frame: pd.DataFrame) -> Figure:
    """Draw the reliability diagram, and below how many predictions have each probability."""
    figure = new_figure(5.2, 5.4)
    axes, counts_axes = figure.subplots(2, 1, sharex=True, height_ratios=(3.2, 1))
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle="--", label="perfect calibration")
    stages = list(frame.groupby("stage", sort=False))
    for number, (stage, part) in enumerate(stages):
        is_last = number == len(stages) - 1
        color, marker = (SERIES[0], "o") if is_last else (SERIES[1], "s")
        label = f"{stage}: calibration error {part['ece'].iloc[0]:.3f}"
        axes.vlines(part["probability"], part["observed_low"], part["observed_high"], color=color, alpha=0.5)
        style: dict[str, Any] = {} if is_last else {"markerfacecolor": "none"}
        axes.plot(part["probability"], part["observed"], marker, color=color, markersize=5.5, label=label, **style)
        width = (part["to"] - part["from"]) / len(stages)
        left = part["from"] + number * width
        counts_axes.bar(left, part["num"], width * 0.9, align="edge", color=color, alpha=0.7)
    axes.set_ylabel("part that is right")
    axes.set_xlim(0, 1)
    axes.set_ylim(-0.02, 1.02)
    counts_axes.set_ylabel("predictions")
    counts_axes.set_xlabel("predicted probability")
    figure.legend(loc="outside upper center")
    return figure


def abstention_frame(
    problem: Problem, _names: Sequence[str], targets: np.ndarray, predictions: np.ndarray, adjusted: np.ndarray
) -> pd.DataFrame | None:
    """Return how accurate predictions are if only those from a probability on are used."""
    if not problem.has_one_class:
        return None
    confidence, is_right = problem.confidence(predictions, adjusted), problem.are_right(adjusted, targets)
    order = np.argsort(-confidence, kind="stable")
    confidence, right = confidence[order], is_right[order].cumsum()
    ends = np.flatnonzero(np.append(confidence[1:] < confidence[:-1], True))  # equal probabilities are used together
    ends = ends[np.unique(np.linspace(0, len(ends) - 1, NUM_POINTS // 2).round().astype(int))]
    num = ends + 1
    low, high = wilson_interval(right[ends], num, CONFIDENCE)
    frame: pd.DataFrame = pd.DataFrame(
        {
            "min_proba": confidence[ends].astype(np.float64),
            "num": num,
            "part_of_images": num / len(confidence),
            "accuracy": right[ends] / num,
            "accuracy_low": low,
            "accuracy_high": high,
        }
    )
    return frame


def plot_abstention(frame: pd.DataFrame) -> Figure:
    """Draw the accuracy by the part of the images that get a label."""
    figure = new_figure()
    axes = figure.add_subplot()
    x = frame["part_of_images"]
    axes.fill_between(x, frame["accuracy_low"], frame["accuracy_high"], color=SERIES[0], alpha=0.18, linewidth=0)
    axes.plot(x, frame["accuracy"], color=SERIES[0], marker="o" if len(frame) < MAX_BARS else "")
    axes.set_xlim(0, 1)
    well_known = frame.loc[x >= 0.1, "accuracy_low"]  # of the first images, the interval is wide
    axes.set_ylim(max(0.0, np.floor(well_known.min() * 10) / 10), 1.005)
    axes.set_xlabel("part of the images that get a label, the most certain first")
    axes.set_ylabel("accuracy of these")
    return figure


# Regression


def residuals_frame(
    problem: Problem, _names: Sequence[str], targets: np.ndarray, predictions: np.ndarray, _: np.ndarray
) -> pd.DataFrame | None:
    """Return true and predicted value of each validation image, by its number, the largest error first."""
    if problem.has_classes:
        return None
    true, predicted = problem.true_labels(targets), predictions[:, 0].astype(np.float64)
    residual = predicted - true
    order = np.argsort(-np.abs(residual), kind="stable")
    columns = {"image": np.arange(len(true)), "true": true, "predicted": predicted, "residual": residual}
    frame: pd.DataFrame = pd.DataFrame(columns).iloc[order].reset_index(drop=True)
    return frame


def plot_residuals(frame: pd.DataFrame) -> Figure:
    """Draw predicted against true values, residuals against predictions, and their distribution."""
    figure = new_figure(height=6.0)
    (axes, hist_axes, by_axes) = figure.subplot_mosaic([["true", "hist"], ["by", "by"]]).values()
    true, predicted, residual = (frame[name] for name in ("true", "predicted", "residual"))
    ends = [min(true.min(), predicted.min()), max(true.max(), predicted.max())]
    dots: dict[str, Any] = {"s": 12, "color": SERIES[0], "alpha": 0.5, "linewidths": 0}
    dots["rasterized"] = len(frame) > MAX_DOTS
    axes.plot(ends, ends, color=MUTED, linewidth=1, linestyle="--")
    axes.scatter(true, predicted, **dots)
    axes.set_xlabel("true")
    axes.set_ylabel("predicted")
    hist_axes.hist(residual, bins=min(40, max(5, int(np.sqrt(len(frame))))), color=SERIES[0], alpha=0.7)
    hist_axes.axvline(0, color=MUTED, linewidth=1, linestyle="--")
    hist_axes.set_xlabel("residual: predicted minus true")
    hist_axes.set_ylabel("images")
    by_axes.axhline(0, color=MUTED, linewidth=1, linestyle="--")
    by_axes.scatter(predicted, residual, **dots)
    by_axes.set_xlabel("predicted")
    by_axes.set_ylabel("residual")
    return figure


# Sections


def _of_record(make: MadeFrame) -> Callable[[RunRecord], pd.DataFrame | None]:
    def frame(record: RunRecord) -> pd.DataFrame | None:
        saved, found = record.saved, record.validation
        if saved is None or found is None:
            return None
        return make(saved.problem, saved.names_of_classes, found.targets, found.predictions, found.adjusted)

    return frame


def _reliability_of(record: RunRecord) -> pd.DataFrame | None:
    saved, found = record.saved, record.validation
    if saved is None or found is None:
        return None
    return reliability_frame(saved.problem, found.targets, found.predictions, saved.postprocessing.calibration)


def _confusion_html(_: RunRecord, frame: pd.DataFrame) -> Markup:
    """Return the figure, and the matrix as a table if it is small: that of many classes has a million cells."""
    from saccade.report.page import figure, table

    drawn = figure(CONFUSION, frame)
    if frame.index.name == "true" and len(frame) > MAX_HEAT:
        return drawn
    return drawn + table(
        frame.reset_index(names="true class, by predicted one" if frame.index.name else "label"), CONFUSION.title
    )


def _confusion_in_words(frame: pd.DataFrame) -> str:
    if frame.index.name != "true":
        missed, given = frame["fn"].sum(), frame["fp"].sum()
        return f"{missed} labels are missed, {given} are given that are not true."
    counts = frame.to_numpy()
    return f"{counts.trace()} of {count_of(int(counts.sum()), 'image')} are right, of {len(counts)} classes."


CONFUSION = Section(
    "confusion",
    "Confusion matrix",
    "Each row is a true class, each column a predicted one; a cell is the number of images, its colour their part of "
    f"the row. With more than {MAX_HEAT} classes, wrong predictions are drawn between groups of classes that are "
    "confused, each named after the class with the most errors. With several labels per image, each has a bar.",
    _of_record(confusion_frame),
    plot_confusion,
    _confusion_html,
    _confusion_in_words,
)

PREDICTION_SECTIONS = (
    Section(
        "metrics",
        "Metrics",
        "Values for the validation images, with 95 % intervals of a bootstrap. They do not include the optimism of "
        "choosing networks, epochs and calibration on these images. ece is the calibration error, ece_by_chance "
        "that of right probabilities on so many images.",
        metrics_frame,
        shown_rows=100,
    ),
    CONFUSION,
    Section(
        "confused_pairs",
        "Most confused classes",
        "How many images of the class on the left were predicted as another one. part_of_true is their part of all "
        "images of the class.",
        _of_record(pairs_frame),
        plot_pairs,
        summary=lambda frame: "Most often {true} as {predicted}: {num}.".format(**frame.iloc[0]),
    ),
    Section(
        "classes",
        "Classes",
        f"Precision, recall and F1 score with 95 % intervals, the lowest F1 score first; the figure has the first "
        f"{MAX_CLASSES}. A long line means that there are too few images to know.",
        _of_record(classes_frame),
        plot_classes,
        summary=lambda frame: "Lowest F1 score: {f1:.3f}, of {class}.".format(**frame.iloc[0]),
        max_rows=1000,
    ),
    Section(
        "roc",
        "ROC curves",
        "How many images with the label get it (recall), and how many without it, at each threshold of its "
        "probability. The nearer to the upper left, the better; an area of 0.5 is chance.",
        _of_record(roc_frame),
        plot_roc,
        summary=_areas_in_words,
    ),
    Section(
        "precision_recall",
        "Precision-recall curves",
        "At each threshold of a label's probability: the part of the images with the label that get it (recall), and "
        "the part of those that get it which have it (precision). The area is the average precision; by chance it is "
        "the frequency of the label.",
        _of_record(precision_recall_frame),
        plot_precision_recall,
        summary=_areas_in_words,
    ),
    Section(
        "reliability",
        "Calibration",
        "Of the predictions with about the same probability, the part that is right, with 95 % intervals. On the "
        "diagonal, probabilities are right; below it, they are too high. The calibration was fitted to these images; "
        "ece_after of fit_summary() is cross-fitted.",
        _reliability_of,
        plot_reliability,
        summary=lambda frame: " ".join(
            f"{stage}: calibration error {error:.3f}."
            for stage, error in frame.groupby("stage", sort=False)["ece"].first().items()
        ),
    ),
    Section(
        "abstention",
        "Accuracy without uncertain images",
        "How accurate predictions are if only the most certain images get a label, and the others are left to a "
        "person: predict(images, unsure=…, min_proba=…). The band is a 95 % interval.",
        _of_record(abstention_frame),
        plot_abstention,
        summary=lambda frame: (
            f"Accuracy of all images {frame['accuracy'].iloc[-1]:.3f}, of the more certain half "
            f"{frame['accuracy'].iloc[(frame['part_of_images'] - 0.5).abs().argmin()]:.3f}."
        ),
    ),
    Section(
        "residuals",
        "Residuals",
        "Predicted against true values, on the dashed line if they agree; the distribution of the errors; and errors "
        "by prediction. The table has the largest errors.",
        _of_record(residuals_frame),
        plot_residuals,
        summary=lambda frame: (
            f"Mean absolute error {frame['residual'].abs().mean():.4g}, largest {frame['residual'].abs().max():.4g}."
        ),
    ),
)
