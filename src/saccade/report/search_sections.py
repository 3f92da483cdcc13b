"""Sections about the search: learning curves, the best score over time, hyperparameters, and scores against costs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from saccade.errors import count_of
from saccade.events import EpochDone, JobDone, JobFailed, JobStarted, RunStarted, TrialRestarted
from saccade.report.record import RunRecord
from saccade.report.sections import Section
from saccade.report.style import INK, MUTED, SERIES, name_at_side, new_figure, set_log_scale, time_unit
from saccade.study.objectives import trial_costs
from saccade.study.trial import Status

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NUM_NAMED = 5  # trials that are coloured and named in a figure
NUM_DRAWN = 12  # hyperparameters in a figure; the frame has all
NUM_CHOICES = 12  # choices of a hyperparameter in a figure; the others are drawn as one
MANY_TRIALS = 40  # from which on the marks of unnamed trials are small
MIN_TRIALS, TRIALS_EACH = 10, 3  # trials for importances: at least, and for each hyperparameter
NUM_TREES, MAX_DEPTH = 32, 5  # of the forest of fANOVA, whose time grows with the square of the number of its nodes
NOT_SET = "not set"  # the value of a hyperparameter of another branch of a conditional space
OTHERS = "other values"

MARKS = {
    "linear probe": ("D", "linear probe"),
    "promoted": ("^", "promoted: trained further"),
    Status.PAUSED.value: ("s", "paused"),
    Status.STOPPED.value: ("X", "stopped"),
    Status.COMPLETED.value: ("o", "completed"),
    Status.FAILED.value: ("P", "failed"),
}
"""Marker of what happened to a trial after an epoch, and its text in the legend."""


COST_LABELS = {
    "images_per_s": "throughput (images/s, decoding excluded; right is better)",
    "latency_ms": "latency of one image (ms; left is better)",
    "num_params": "parameters (left is better)",
    "num_bytes": "bytes of the weights (left is better)",
}


def with_metric(frame: pd.DataFrame, record: RunRecord) -> pd.DataFrame:
    """Return the frame with the metric in its ``attrs``; scores of errors are their negatives, higher is better."""
    name = record.metric or "score"
    reports = [report for trial in record.trials for report in trial.reports if report.score]
    frame.attrs["metric"] = name
    is_error = any(report.metrics.get(name) == -report.score for report in reports)
    frame.attrs["lower_is_better"] = is_error if record.tuned is None else record.tuned["mode"] == "min"
    return frame


def in_units(frame: pd.DataFrame) -> pd.Series:
    """Return the scores of a frame in the unit of the metric."""
    return -frame["score"] if frame.attrs.get("lower_is_better") else frame["score"]


def score_label(frame: pd.DataFrame) -> str:
    """Return the label of an axis of scores."""
    return f"{frame.attrs.get('metric', 'score')}{' (lower is better)' if frame.attrs.get('lower_is_better') else ''}"


def curves_frame(record: RunRecord) -> pd.DataFrame | None:
    """Return a row for each report of each trial: its score, when it came in seconds of the run, and what happened.

    The index is the position of the report in the event log.
    ``mark`` is ``promoted`` if the trial was paused after this epoch and trained further, or else the status of a trial
    whose last job ended with it.
    """
    rows: dict[int, dict[int, dict[str, Any]]] = {}  # by trial and epoch
    for position, (event, time_s) in enumerate(zip(record.events, record.times_s, strict=True)):
        of_trial = rows.setdefault(getattr(event, "trial", -1), {})
        last = of_trial[max(of_trial)] if of_trial else None
        match event:
            case EpochDone() if last is None or event.epoch > last["epoch"]:
                of_trial[event.epoch] = {
                    "trial": event.trial,
                    "epoch": event.epoch,
                    "score": event.score,
                    "seconds": event.seconds,
                    "time_s": time_s,
                    "mark": "",
                    "event": position,
                }
            case TrialRestarted():
                rows[event.trial] = {epoch: row for epoch, row in of_trial.items() if epoch <= event.after_epoch}
            case JobStarted() if last is not None and last["mark"] == Status.PAUSED.value:
                last["mark"] = "promoted"
            case JobDone() if last is not None:
                last["mark"] = event.status
            case JobFailed() if last is not None:
                last["mark"] = Status.FAILED.value
    flat = [row for number in sorted(rows) for row in rows[number].values()]
    return with_metric(pd.DataFrame(flat).set_index("event"), record) if flat else None


def named_trials(frame: pd.DataFrame) -> dict[int, str]:
    """Return the colours of the best trials of a frame, the best first."""
    best = frame.groupby("trial")["score"].max().sort_values(ascending=False, kind="stable")
    return {int(trial): color for trial, color in zip(best.index[:NUM_NAMED], SERIES, strict=False)}


def curves_plot(frame: pd.DataFrame) -> Figure:
    """Draw the score of each trial by epoch, the best trials in colour."""
    from matplotlib.lines import Line2D
    from matplotlib.ticker import MaxNLocator

    figure = new_figure(height=4.4)
    axes = figure.add_subplot()
    drawn = frame.assign(value=in_units(frame), color=frame["trial"].map(named_trials(frame)).fillna(MUTED))
    colors = named_trials(frame)
    names = []
    for trial, curve in drawn.groupby("trial"):
        is_named = trial in colors
        width, alpha, layer = (2.0, 1.0, 3) if is_named else (0.8, 0.5, 2)
        axes.plot("epoch", "value", data=curve, color=curve["color"].iloc[0], lw=width, alpha=alpha, zorder=layer)
        if is_named:
            names.append((f"trial {trial}", curve["epoch"].iloc[-1], curve["value"].iloc[-1], colors[int(str(trial))]))
    kinds = drawn["mark"].mask((drawn["mark"] == "") & (drawn["epoch"] == 0), "linear probe")
    sizes = np.where(drawn["trial"].isin(list(colors)), 34, 8 if drawn["trial"].nunique() > MANY_TRIALS else 20)
    handles = []
    for kind, (marker, text) in MARKS.items():
        if (rows := kinds == kind).any():
            points = drawn[rows]
            axes.scatter(points["epoch"], points["value"], sizes[rows], points["color"], marker=marker, lw=0, zorder=4)
            handles.append(Line2D([], [], linestyle="", marker=marker, color=MUTED, label=text))
    axes.set_xlim(frame["epoch"].min() - 0.5, frame["epoch"].max() + 0.5)  # whole epochs, also if there is only one
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_xlabel("epoch (0: linear probe, before any training)" if (frame["epoch"] == 0).any() else "epoch")
    axes.set_ylabel(score_label(frame))
    name_at_side(axes, names)
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


def best_frame(record: RunRecord) -> pd.DataFrame | None:
    """Return a row for each report that was better than all before it; ``end_s`` in ``attrs`` is the end of the run."""
    curves = curves_frame(record)
    if curves is None:
        return None
    by_time = curves.sort_index()
    is_better = by_time["score"] > by_time["score"].cummax().shift(fill_value=-np.inf)
    frame: pd.DataFrame = by_time.loc[is_better, ["time_s", "trial", "epoch", "score"]].reset_index(drop=True)
    frame.attrs = {**curves.attrs, "end_s": record.times_s[-1]}
    return frame


def best_plot(frame: pd.DataFrame) -> Figure:
    """Draw the best score so far over the time of the run."""
    figure = new_figure()
    axes = figure.add_subplot()
    end_s = max(frame.attrs.get("end_s", 0.0), frame["time_s"].iloc[-1])
    unit_s, unit = time_unit(end_s)
    times, values = frame["time_s"] / unit_s, in_units(frame)
    axes.step([*times, end_s / unit_s], [*values, values.iloc[-1]], where="post", color=SERIES[0], lw=2)
    axes.plot(times, values, "o", color=SERIES[0])
    last_x = -np.inf
    for x, y, trial in list(zip(times, values, frame["trial"], strict=True))[::-1]:  # later ones are more important
        if abs(last_x - x) > 0.09 * end_s / unit_s:
            is_low = frame.attrs.get("lower_is_better")
            axes.annotate(
                f"trial {trial}", (x, y), (3, 7 if is_low else -7), textcoords="offset points", color=MUTED, fontsize=8,
                va="bottom" if is_low else "top",
            )  # fmt: skip
            last_x = x
    axes.set_xlim(0, None)
    axes.margins(y=0.15)
    axes.set_xlabel(f"time since the start of the run ({unit})")
    axes.set_ylabel(score_label(frame))
    name_at_side(axes, [(f"{values.iloc[-1]:.4g}", end_s / unit_s, values.iloc[-1], SERIES[0])])
    return figure


def flat_config(config: Mapping[Any, Any], scales: Mapping[str, str] = {}, place: str = "") -> dict[str, Any]:
    """Return the values of a configuration by their places, as `saccade.space.flat_form.scales` names them."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        name = place + str(key).replace("~", "~0").replace("/", "~1")
        members = dict(enumerate(value)) if isinstance(value, list | tuple) else value
        is_one_choice = name in scales and not any(other.startswith(f"{name}/") for other in scales)
        if isinstance(members, Mapping) and members and not is_one_choice:
            found |= flat_config(members, scales, f"{name}/")
        else:
            found[name] = value
    return found


def hyperparameters_frame(record: RunRecord) -> pd.DataFrame | None:
    """Return a row for each trial with a score and each hyperparameter that differs among these trials.

    ``value`` is a number, or for the scale ``choice`` text; `NOT_SET` if the trial's branch of a conditional space
    lacks the hyperparameter.
    """
    scales: dict[str, str] = {}
    for event in record.events:
        if isinstance(event, RunStarted):
            scales |= event.scales
    trials = [trial for trial in record.trials if trial.best_report is not None and trial.status is not Status.FAILED]
    configs = [flat_config(trial.config, scales) for trial in trials]
    rows = []
    for name in dict.fromkeys(name for config in configs for name in config):
        values = [config.get(name, NOT_SET) for config in configs]
        given = [value for config, value in zip(configs, values, strict=True) if name in config]
        are_numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in given)
        scale = scales.get(name, "linear" if are_numbers else "choice")
        if not are_numbers:  # one of the user's starting configurations may be outside of the space
            scale = "choice"
        elif scale == "log" and min(given) <= 0:
            scale = "linear"
        if scale == "choice":
            values = [value if isinstance(value, str) else _text(value) for value in values]
        if len(set(values)) < 2:
            continue
        for trial, value in zip(trials, values, strict=True):
            assert trial.best_report is not None
            rows.append((trial.number, name, value, scale, trial.best_report.score))
    if not rows:
        return None
    columns = ["trial", "hyperparameter", "value", "scale", "score"]
    return with_metric(pd.DataFrame(rows, columns=columns).astype({"value": object}), record)


def _text(value: Any) -> str:
    return json.dumps(value, default=str)


def importance_frame(record: RunRecord) -> pd.DataFrame | None:
    """Return the part of the variance of scores that each hyperparameter explains, by Optuna's fANOVA.

    An importance is missing where it would be guesswork; ``note`` says why.
    """
    values = hyperparameters_frame(record)
    if values is None:
        return None
    wide = values.pivot_table("value", "trial", "hyperparameter", "first")
    scales = values.groupby("hyperparameter", sort=False)["scale"].first()
    scores = values.groupby("trial")["score"].first()
    rows = {
        name: {"hyperparameter": name, "importance": np.nan, "num_trials": len(wide), "note": ""}
        for name in scales.index
    }
    for name, scale in scales.items():
        num_set = int((wide[name] != NOT_SET).sum())
        if scale != "choice" and num_set < len(wide):
            rows[name] |= {"num_trials": num_set, "note": f"set in {num_set} of {len(wide)} trials only"}
    used = [name for name, row in rows.items() if not row["note"]]
    least = max(MIN_TRIALS, TRIALS_EACH * len(used))
    note = ""
    if len(wide) < least:
        note = f"{count_of(len(wide), 'trial')} with a score; importances need at least {least}"
        note += f" for {count_of(len(used), 'hyperparameter')}."
    elif scores.min() == scores.max():
        note = "All trials have the same score, so no hyperparameter is more important than another."
    elif used:
        explained, importances = _importances(wide[used], scales[used], scores)
        if explained <= 0:
            note = (
                "The scores of other trials cannot be predicted from the hyperparameters; importances would be noise."
            )
        else:
            note = f"The hyperparameters explain {explained:.0%} of the variance of the scores of other trials."
            for name, importance in importances.items():
                rows[name]["importance"] = importance
    frame: pd.DataFrame = pd.DataFrame(list(rows.values()))
    frame = frame.sort_values("importance", ascending=False, kind="stable", ignore_index=True)
    frame.attrs["note"] = note
    return frame


def _importances(wide: pd.DataFrame, scales: pd.Series, scores: pd.Series) -> tuple[float, dict[str, float]]:
    """Return the variance of out-of-bag scores that a forest explains, and the importances of fANOVA."""
    import optuna  # slow to import, as the next one
    from optuna.distributions import BaseDistribution, FloatDistribution
    from sklearn.ensemble import RandomForestRegressor

    # Choices are numbered: the time of Optuna's evaluator is exponential in the number of choices of a categorical one.
    numbers = wide.apply(lambda column: column.rank(method="dense") if scales[column.name] == "choice" else column)
    numbers = numbers.astype(float)
    distributions: dict[str, BaseDistribution] = {
        str(name): FloatDistribution(numbers[name].min(), numbers[name].max(), log=scale == "log")
        for name, scale in scales.items()
    }
    forest = RandomForestRegressor(100, oob_score=True, random_state=0).fit(numbers.to_numpy(), scores)
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # or it prints that there is a new study
    try:
        study = optuna.create_study(direction="maximize")
    finally:
        optuna.logging.set_verbosity(verbosity)
    rows = zip(numbers.to_dict("records"), scores, strict=True)
    study.add_trials(
        optuna.create_trial(
            params={str(name): value for name, value in row.items()}, distributions=distributions, value=score
        )
        for row, score in rows
    )
    evaluator = optuna.importance.FanovaImportanceEvaluator(n_trees=NUM_TREES, max_depth=MAX_DEPTH, seed=0)
    return float(forest.oob_score_), optuna.importance.get_param_importances(study, evaluator=evaluator)


def importance_plot(frame: pd.DataFrame) -> Figure:
    """Draw the importances as bars; without any, their names and why."""
    known = frame.dropna(subset="importance").head(NUM_DRAWN).iloc[::-1]
    if known.empty:
        figure = new_figure(height=0.5)
        figure.text(0.01, 0.5, "no importances: see the note", color=MUTED, va="center")
        return figure
    figure = new_figure(height=0.8 + 0.3 * len(known))
    axes = figure.add_subplot()
    bars = axes.barh([shortened(name) for name in known["hyperparameter"]], 100 * known["importance"], color=SERIES[0])
    axes.bar_label(bars, [f"{100 * value:.0f} %" for value in known["importance"]], padding=3, color=INK)
    axes.margins(x=0.12)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("part of the variance of scores (%)")
    return figure


def shortened(text: Any, num: int = 28) -> str:
    """Return a name that fits into a figure; the ends of long names are kept, in which they often differ."""
    line = " ".join(str(text).split())
    return line if len(line) <= num else f"{line[: num // 2 - 1]}…{line[-num // 2 :]}"


def _positions(values: pd.DataFrame) -> tuple[pd.Series, list[tuple[float, str]], str]:
    """Return where the values of one hyperparameter are on an axis, its ticks, and the scale.

    Choices are sorted by their mean score, numbers among them by their value; rare ones of many share a place.
    """
    scale, column = values["scale"].iloc[0], values["value"]
    if scale == "choice":
        means = values.groupby("value")["score"].mean().sort_values()
        if len(means) > NUM_CHOICES:
            best = values.groupby("value")["score"].max().sort_values()
            kept = set(best.index[-NUM_CHOICES + 1 :])
            column = column.where(column.isin(kept), OTHERS)
            means = means[[name in kept for name in means.index]]
            names = [OTHERS, *means.index]
        else:
            names = list(means.index)
            if all(_is_number(name) for name in names):
                names.sort(key=float)
        return column.map({name: float(place) for place, name in enumerate(names)}), list(enumerate(names)), scale
    return pd.to_numeric(column, errors="coerce"), [], scale


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def drawn_hyperparameters(frame: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Return the rows of each hyperparameter that a figure has room for, and what it has of more."""
    return [(str(name), rows) for name, rows in frame.groupby("hyperparameter", sort=False)][:NUM_DRAWN]


def slices_plot(frame: pd.DataFrame) -> Figure:
    """Draw the score of each trial against each hyperparameter."""
    from matplotlib.ticker import MaxNLocator

    drawn = drawn_hyperparameters(frame)
    places = [(name, rows, *_positions(rows)) for name, rows in drawn]
    numeric = [place for place in places if place[4] != "choice"]
    choices = [place for place in places if place[4] == "choice"]
    heights = [1.9] * ((len(numeric) + 1) // 2) + [0.75 + 0.24 * len(place[3]) for place in choices]
    figure = new_figure(height=sum(heights) + 0.2)
    grid = figure.add_gridspec(len(heights), 1, height_ratios=heights)
    bands = [figure.add_subfigure(grid[place]) for place in range(len(heights))]
    size = 8 if frame["trial"].nunique() > MANY_TRIALS else 20
    while numeric:
        pair = bands.pop(0).subplots(1, 2, sharey=True)
        for axes, (name, rows, positions, _, scale) in zip(pair, numeric, strict=False):
            axes.scatter(positions, in_units(rows), size, SERIES[0], alpha=0.7, linewidths=0)
            if scale == "log":
                set_log_scale(axes, "x")
            else:
                axes.xaxis.set_major_locator(MaxNLocator(4, integer=bool((positions % 1 == 0).all())))
            axes.set_xlabel(f"{shortened(name)}{' (log scale)' if scale == 'log' else ''}")
        pair[0].set_ylabel(score_label(frame), fontsize=8)
        if len(numeric) == 1:
            pair[1].set_axis_off()
        numeric = numeric[2:]
    for band, (name, rows, positions, ticks, _) in zip(bands, choices, strict=True):
        axes = band.subplots()
        axes.scatter(in_units(rows), positions, size, SERIES[0], alpha=0.7, linewidths=0)
        means = in_units(rows).groupby(positions).mean()
        axes.scatter(means, means.index, 90, INK, marker="|", linewidths=1.6)
        axes.set_yticks([place for place, _ in ticks], [shortened(text) for _, text in ticks])
        axes.set_ylim(-0.6, len(ticks) - 0.4)
        axes.set_title(f"{shortened(name)} (bar: mean)", loc="left")
        axes.set_xlabel(score_label(frame), fontsize=8)
    return figure


def coordinates_plot(frame: pd.DataFrame) -> Figure:
    """Draw each trial as a line through its hyperparameters, one below the other, down to its score."""
    from matplotlib.collections import LineCollection

    scores = frame.assign(value=in_units(frame)).groupby("trial")["value"].first()
    label, colors = score_label(frame), named_trials(frame)
    of_score = pd.DataFrame({"trial": scores.index, "value": scores.to_numpy(), "scale": "linear", "score": scores})
    rows_of = [*drawn_hyperparameters(frame), (label, of_score)]
    figure = new_figure(height=0.5 + 0.72 * len(rows_of))
    axes = figure.add_subplot()
    axes.set_axis_off()
    left, places = 0.1, []  # left of it are hyperparameters that are not set
    for level, (name, rows) in enumerate(rows_of):
        positions, ticks, scale = _positions(rows[rows["value"] != NOT_SET].set_index("trial"))
        if scale != "choice":
            ends = positions.min(), positions.max()
            ticks = [(value, f"{value:.4g}") for value in ends]
        change = np.log if scale == "log" else np.asarray
        low, high = (float(change(place)) for place in (ticks[0][0], ticks[-1][0]))

        def along(value: Any, change: Any = change, low: float = low, high: float = high) -> Any:
            return left + (1 - left) * ((change(value) - low) / (high - low) if high > low else 0.5 + 0 * change(value))

        place = pd.Series(along(positions.to_numpy(float)), positions.index).reindex(scores.index, fill_value=0.0)
        places.append(place)
        axes.plot([left, 1], [level, level], color=MUTED, lw=1, zorder=2)
        axes.text(0, level - 0.16, shortened(name, 48) + " (log scale)" * (scale == "log"), va="bottom", fontsize=9)
        if (place == 0.0).any():
            ticks = [*ticks, (np.nan, NOT_SET)]
        of_best = [float(place[trial]) for trial in colors]
        marks = [(0.0 if np.isnan(value) else float(along(value)), text) for value, text in ticks]
        marks.sort(key=lambda mark: min((abs(mark[0] - x) for x in of_best), default=1.0) > 1e-9)
        taken: list[tuple[float, float]] = []
        for x, text in marks:  # those of the best trials first; without room a choice has no name
            axes.plot([x, x], [level - 0.05, level + 0.05], color=MUTED, lw=1, zorder=2)
            width = 0.0125 * len(shortened(text, 20))
            start = min(max(x - width / 2, 0.0), 1.0 - width)
            if all(start + width < other or start > end for other, end in taken):
                taken.append((start, start + width))
                axes.text(
                    start + width / 2, level + 0.1, shortened(text, 20), color=MUTED, fontsize=8, ha="center", va="top"
                )
    lines = np.stack(
        [np.column_stack([[place[trial] for place in places], range(len(places))]) for trial in scores.index]
    )
    is_named = np.array([trial in colors for trial in scores.index])
    alpha = max(0.06, min(0.4, 16 / len(scores)))
    axes.add_collection(LineCollection(lines[~is_named], colors=MUTED, linewidths=0.8, alpha=alpha, zorder=1))
    of_named = [colors[trial] for trial in scores.index[is_named]]
    axes.add_collection(LineCollection(lines[is_named], colors=of_named, linewidths=1.8, zorder=3))
    for number, (trial, color) in enumerate(colors.items()):
        axes.text(0.2 * number, len(places) - 0.3, f"trial {trial}", color=color, fontsize=9, va="top", weight="bold")
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(len(places) + 0.05, -0.6)
    return figure


def tradeoff_frame(record: RunRecord) -> pd.DataFrame | None:
    """Return the score and the costs of each trial, and whether it is on the Pareto front.

    That is the front of the objectives of the fit, or else of the score and the throughput.
    """
    costs = trial_costs(record.trials, ["image_ms", "latency_ms", "num_params", "num_bytes"])
    trials = [trial for trial in record.trials if trial.best_report is not None and trial.status is not Status.FAILED]
    saved = {
        row["trial"]: row["on_front"] for row in (record.saved.trials if record.saved else []) if "on_front" in row
    }
    rows: list[dict[str, Any]] = []
    for trial in trials:
        assert trial.best_report is not None
        of_trial = dict(costs[trial.number])
        if (image_ms := of_trial.pop("image_ms", None)) is not None:
            of_trial = {"images_per_s": 1000 / image_ms, **of_trial}
        model = shortened(trial.config.get("model", ""), 60)
        rows.append({"trial": trial.number, "model": model, "score": trial.best_report.score, **of_trial})
    frame: pd.DataFrame = pd.DataFrame(rows)
    known = [name for name in COST_LABELS if name in frame]
    if "images_per_s" not in known or all(frame[name].nunique() < 2 for name in known):  # a single network
        return None
    if saved:
        frame["on_front"] = frame["trial"].map(saved).fillna(value=False).astype(bool)
    else:
        order = frame.sort_values(["score", "images_per_s"], ascending=False, kind="stable")
        is_faster = order["images_per_s"] > order["images_per_s"].cummax().shift(fill_value=-np.inf)
        frame["on_front"] = is_faster.reindex(frame.index)
    return with_metric(frame.sort_values("score", ascending=False, kind="stable", ignore_index=True), record)


def tradeoff_plot(frame: pd.DataFrame) -> Figure:
    """Draw the score against each cost; the trials of the Pareto front are filled and named."""
    costs = [name for name in COST_LABELS if name in frame and frame[name].notna().any()]
    figure = new_figure(height=3.1 * len(costs))
    for axes, cost in zip(np.ravel(figure.subplots(len(costs), 1)), costs, strict=True):
        _draw_tradeoff(axes, frame.dropna(subset=cost), cost)
        axes.set_xlabel(COST_LABELS[cost])
        axes.set_ylabel(score_label(frame))
    return figure


def _draw_tradeoff(axes: Axes, frame: pd.DataFrame, cost: str) -> None:
    front = frame[frame["on_front"]].sort_values(cost)
    others = frame[~frame["on_front"]]
    axes.scatter(others[cost], in_units(others), 18, "none", edgecolors=MUTED, linewidths=1, label="other trials")
    axes.plot(front[cost], in_units(front), "o--", color=SERIES[0], lw=1, label="Pareto front")
    if frame[cost].min() > 0 and frame[cost].max() > 5 * frame[cost].min():
        set_log_scale(axes, "x")
    axes.margins(x=0.12, y=0.2)
    axes.legend(loc="best", fontsize=8)
    last = None
    for x, y, trial in zip(front[cost], in_units(front), front["trial"], strict=True):
        point = axes.transData.transform((x, y))
        if last is None or np.abs(point - last).max() > 30:
            axes.annotate(f"trial {trial}", (x, y), (4, 5), textcoords="offset points", fontsize=8, color=INK)
            last = point


def _count_trials(frame: pd.DataFrame) -> str:
    return count_of(int(frame["trial"].nunique()), "trial")


def _best_of(frame: pd.DataFrame) -> str:
    place = int(frame["score"].to_numpy().argmax())
    value = in_units(frame).iloc[place]
    return f"trial {frame['trial'].iloc[place]} with {frame.attrs.get('metric', 'score')} {value:.4g}"


SEARCH_SECTIONS = (
    Section(
        "curves",
        "Learning curves",
        "The score of each trial on the validation images after each epoch. The best five trials are coloured; a "
        "triangle marks where the scheduler trained a paused trial further, a cross where it stopped one.",
        curves_frame,
        curves_plot,
        summary=lambda frame: f"{_count_trials(frame)}, the best is {_best_of(frame)}.",
    ),
    Section(
        "best",
        "Best score over time",
        "The best score that the search had at each time of the run. A long flat end means that more time would "
        "probably have gained little.",
        best_frame,
        best_plot,
        summary=lambda frame: f"{count_of(len(frame), 'improvement')}; in the end {_best_of(frame)}.",
    ),
    Section(
        "importance",
        "Importance of hyperparameters",
        "How much of the differences between trials each hyperparameter explains, alone and together with others "
        "(fANOVA). It is about the values that were tried, and trials that were stopped early count as they stand.",
        importance_frame,
        importance_plot,
        summary=lambda frame: ", ".join(
            f"{name} {value:.0%}"
            for name, value in frame[["hyperparameter", "importance"]].dropna().itertuples(index=False)
        ),
        is_slow=True,
    ),
    Section(
        "slices",
        "Score by hyperparameter",
        "Each point is a trial. Searches try good regions more often, so look at the best trials rather than at the "
        "number of points; hyperparameters that are equal in all trials are left out.",
        hyperparameters_frame,
        slices_plot,
        summary=lambda frame: f"{_count_trials(frame)} by {', '.join(frame['hyperparameter'].unique())}.",
    ),
    Section(
        "coordinates",
        "Parallel coordinates",
        "Each line is a trial: it passes through the values of its hyperparameters down to its score. The best five "
        "are coloured; where they run together, a value matters.",
        hyperparameters_frame,
        coordinates_plot,
        summary=lambda frame: f"{_count_trials(frame)}; the best is {_best_of(frame)}.",
    ),
    Section(
        "tradeoff",
        "Score against cost",
        "Each point is a trial. No other trial is better in one respect without being worse in another than those of "
        "the Pareto front.",
        tradeoff_frame,
        tradeoff_plot,
        summary=lambda frame: f"{int(frame['on_front'].sum())} of {_count_trials(frame)} are on the Pareto front.",
    ),
)
