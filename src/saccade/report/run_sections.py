"""Sections about a run: its time, its data, the cost of the model, and the environment."""

from __future__ import annotations

import heapq
import math
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pandas as pd

from saccade.errors import count_of
from saccade.events import (
    DataChecked,
    DataReady,
    EpochDone,
    Event,
    JobDone,
    JobFailed,
    JobStarted,
    PhaseDone,
    RunPlanned,
    RunStarted,
    TrialRestarted,
    WorkerJoined,
    WorkerLost,
)
from saccade.report.record import RunRecord
from saccade.report.search_sections import shortened
from saccade.report.sections import Section
from saccade.report.style import INK, MUTED, SERIES, new_figure, set_log_scale, time_unit
from saccade.study.display.frame import natural_order
from saccade.study.objectives import trial_costs
from saccade.study.time_use import TimeUse

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

E_ = TypeVar("E_", bound=Event)

MANY_CLASSES = 30  # from which on class sizes are a curve
NUM_LANES = 16  # workers in the time line

PARTS = {
    "earlier": "earlier sessions of a resumed run",
    "preparing": "reading arguments and labels, starting workers",
    "decoding": "decoding the images",
    "checking": "the split, and data checks",
    "probes": "features of pretrained networks, and linear probes on them",
    "training": "training steps of trials, loading of batches included",
    "validation": "validation of trials",
    "idle": "worker processes without a job, also before their first one",
    "overhead": "searcher, scheduler, start of trials, checkpoints",
    "refit": "training on all images",
    "folds": "training of folds",
    "selection": "choosing an ensemble",
    "distillation": "training of a student",
    "finishing": "calibration, and writing the predictor",
}
"""What each part of the seconds of a fit is."""


def last_event(record: RunRecord, kind: type[E_]) -> E_ | None:
    """Return the last event of a kind."""
    return next((event for event in reversed(record.events) if isinstance(event, kind)), None)


def seconds_frame(record: RunRecord) -> pd.DataFrame | None:
    """Return where the seconds went; they add up to the run's. These are those of `fit_summary`, if there is one."""
    if record.saved is not None and "seconds" in record.saved.summary:
        seconds: dict[str, float] = dict(record.saved.summary["seconds"])
    elif last_event(record, PhaseDone) is not None:
        use = TimeUse()
        for event, time_s in zip(record.events, record.times_s, strict=True):
            if isinstance(event, RunStarted) and time_s > 0:
                use = TimeUse(time_s)
            use.add(event, time_s)
        seconds = use.seconds(record.times_s[-1])
    else:
        return None
    total_s = seconds.pop("total")
    rows = [(part, value, 100 * value / (total_s or 1.0), PARTS.get(part, "")) for part, value in seconds.items()]
    frame: pd.DataFrame = pd.DataFrame(rows, columns=["part", "seconds", "percent", "what"])
    return frame


def seconds_plot(frame: pd.DataFrame) -> Figure:
    """Draw the seconds of each part as bars, in the order of the run."""
    rows = frame.iloc[::-1]
    figure = new_figure(height=0.7 + 0.27 * len(rows))
    axes = figure.add_subplot()
    unit_s, unit = time_unit(frame["seconds"].sum())
    colors = [MUTED if part in ("idle", "overhead", "earlier") else SERIES[0] for part in rows["part"]]
    bars = axes.barh(rows["part"], rows["seconds"] / unit_s, color=colors)
    texts = [
        f"{seconds / unit_s:.2g} {unit} · {'<1' if part < 0.5 else f'{part:.0f}'} %"
        if seconds < 0.1 * unit_s
        else f"{seconds / unit_s:,.1f} {unit} · {'<1' if part < 0.5 else f'{part:.0f}'} %"
        for seconds, part in zip(rows["seconds"], rows["percent"], strict=True)
    ]
    axes.bar_label(bars, texts, padding=3, color=INK)
    axes.margins(x=0.2)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(f"time ({unit})")
    return figure


def timeline_frame(record: RunRecord) -> pd.DataFrame | None:  # noqa: C901  one case for each event
    """Return when each phase of the run and each job of a trial was: a job has the first row that is free then."""
    rows: list[dict[str, Any]] = []
    open_jobs: dict[int, tuple[float, str, int]] = {}  # by trial: start, node and lane
    free: defaultdict[str, list[int]] = defaultdict(list)  # lanes of each node of a cluster
    num_lanes: Counter[str] = Counter()
    then_s = phase_s = 0.0

    def end_jobs(trials: list[int], end_s: float, outcome: str) -> None:
        for trial in trials:
            if trial in open_jobs:
                start_s, node, lane = open_jobs.pop(trial)
                heapq.heappush(free[node], lane)
                row = {
                    "row": f"{node or 'worker'} {lane}",
                    "what": f"trial {trial}",
                    "start_s": start_s,
                    "end_s": end_s,
                }
                rows.append({**row, "outcome": outcome})

    for event, time_s in zip(record.events, record.times_s, strict=True):
        match event:
            case RunStarted():
                end_jobs(list(open_jobs), then_s, "interrupted")
                phase_s = time_s
            case PhaseDone():
                phase = {"row": "run", "what": event.phase, "start_s": phase_s, "end_s": time_s}
                rows.append({**phase, "outcome": ""})
                phase_s = time_s
                end_jobs(list(open_jobs), time_s, "interrupted")
            case JobStarted():
                end_jobs([event.trial], time_s, "retried")
                if free[event.node]:
                    lane = heapq.heappop(free[event.node])
                else:
                    lane = num_lanes[event.node] = num_lanes[event.node] + 1
                open_jobs[event.trial] = time_s, event.node, lane
            case TrialRestarted():
                end_jobs([event.trial], time_s, "retried")
            case JobDone():
                end_jobs([event.trial], time_s, event.status)
            case JobFailed():
                end_jobs([event.trial], time_s, "failed")
        then_s = time_s
    end_jobs(list(open_jobs), then_s, "running")
    if not num_lanes:
        return None
    ordered: pd.DataFrame = pd.DataFrame(rows).sort_values(["start_s", "row"], kind="stable", ignore_index=True)
    return ordered


def nodes_frame(record: RunRecord) -> pd.DataFrame | None:
    """Return the nodes of the cluster that trained; None for a fit on one machine."""
    nodes: dict[str, dict[str, Any]] = {}
    num_workers: Counter[str] = Counter()
    for event in record.events:
        if not (name := getattr(event, "node", "")):
            continue
        empty = {"workers": 0, "lost": 0, "speed": None, "jobs": 0, "epochs": 0, "epochs_s": 0.0}
        row = nodes.setdefault(name, empty)
        match event:
            case WorkerJoined():
                num_workers[name] += 1
                row["workers"] = max(row["workers"], num_workers[name])
                row["speed"] = event.speed if event.speed is not None else row["speed"]
            case WorkerLost():
                num_workers[name] -= 1
                row["lost"] += 1
            case JobStarted():
                row["jobs"] += 1
            case EpochDone():
                row["epochs"] += 1
                row["epochs_s"] += event.seconds
    if not nodes:
        return None
    rows = [{"node": name, **nodes[name]} for name in sorted(nodes, key=natural_order)]
    frame: pd.DataFrame = pd.DataFrame(rows).dropna(axis="columns", how="all")
    return frame


def timeline_plot(frame: pd.DataFrame) -> Figure:
    """Draw phases and jobs on a time line."""
    lanes = sorted(set(frame["row"]) - {"run"}, key=natural_order)[:NUM_LANES]
    lanes = [*(["run"] if (frame["row"] == "run").any() else []), *lanes]
    figure = new_figure(height=0.9 + 0.42 * len(lanes))
    axes = figure.add_subplot()
    unit_s, unit = time_unit(frame["end_s"].max())
    end = frame["end_s"].max() / unit_s
    for place, lane in enumerate(lanes):
        bars = frame[frame["row"] == lane]
        for number, (what, outcome, start, stop) in enumerate(
            zip(bars["what"], bars["outcome"], bars["start_s"] / unit_s, bars["end_s"] / unit_s, strict=True)
        ):
            color = SERIES[1] if outcome == "failed" else MUTED if lane == "run" else SERIES[0]
            axes.barh(place, stop - start, left=start, height=0.7, color=color, alpha=0.35 if number % 2 else 0.55)
            text = what.removeprefix("trial ")
            if stop - start > 0.013 * end * (len(text) + 1):
                axes.text((start + stop) / 2, place, text, ha="center", va="center", fontsize=8)
    axes.set_yticks(range(len(lanes)), lanes)
    axes.set_ylim(len(lanes) - 0.4, -0.6)
    axes.set_xlim(0, end)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(f"time since the start of the run ({unit}); numbers are trials")
    return figure


def checks_frame(record: RunRecord) -> pd.DataFrame | None:
    """Return a row for each finding of the data checks, with some of its files."""
    event = last_event(record, DataChecked)
    columns = ["code", "severity", "title", "num_images", "message", "what_to_do", "examples"]
    if event is not None:
        rows = [{**finding, "examples": "\n".join(finding["examples"])} for finding in event.findings]
        frame: pd.DataFrame = pd.DataFrame(rows, columns=columns)
    elif record.checks is not None and len(record.checks):  # of an earlier version
        found = record.checks.groupby(["code", "severity", "title"], as_index=False)
        frame = found.agg(num_images=("file", "count"), message=("detail", "first"))
    else:
        return None
    if frame.empty:
        frame.attrs["note"] = "The data checks found nothing."
    return frame


def unreadable_frame(record: RunRecord) -> pd.DataFrame | None:
    """Return how many images are unreadable for each reason; None without any."""
    event = last_event(record, DataReady)
    reasons = {} if event is None else event.unreadable
    if not reasons and record.saved is not None:
        reasons = record.saved.summary.get("left_out", {}).get("reasons", {})
    return pd.DataFrame(list(reasons.items()), columns=["reason", "num_images"]) if reasons else None


def classes_frame(record: RunRecord) -> pd.DataFrame | None:
    """Return the training and validation images of each class; None for regression."""
    event = last_event(record, DataReady)
    if event is None or not event.class_sizes:
        return None
    frame: pd.DataFrame = pd.DataFrame(event.class_sizes, columns=["class", "training", "validation"])
    num_missing = int((frame["validation"] == 0).sum())
    if num_missing:
        what = count_of(num_missing, "class has", "classes have")
        frame.attrs["note"] = f"{what} no validation image, so scores do not include them."
    return frame


def classes_plot(frame: pd.DataFrame) -> Figure:
    """Draw the sizes of the classes: bars, or for many classes a curve from the largest to the smallest."""
    parts = (("training", SERIES[0]), ("validation", SERIES[1]))
    if len(frame) <= MANY_CLASSES:
        figure = new_figure(height=1.0 + 0.42 * len(frame))
        axes = figure.add_subplot()
        places = np.arange(len(frame))
        for shift, (part, color) in zip((-0.2, 0.2), parts, strict=True):
            bars = axes.barh(places + shift, frame[part], 0.38, color=color, label=part)
            axes.bar_label(bars, padding=3, fontsize=8, color=INK)
        axes.set_yticks(places, [shortened(name) for name in frame["class"]])
        axes.set_ylim(len(frame) - 0.4, -0.6)
        axes.margins(x=0.1)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("images")
    else:
        figure = new_figure()
        axes = figure.add_subplot()
        ranked = frame.sort_values("training", ascending=False, kind="stable", ignore_index=True)
        for part, color in parts:
            axes.plot(np.arange(1, len(ranked) + 1), ranked[part], ".", ms=3, color=color, label=part)
        if frame["training"].max() > 30 * max(1, frame["training"].min()):
            axes.set_yscale("symlog", linthresh=1)
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        else:
            axes.set_ylim(0, None)
        for place, side in ((0, "left"), (len(ranked) - 1, "right")):
            row = ranked.iloc[place]
            text = f"{shortened(row['class'])}: {row['training']:,}"
            axes.annotate(text, (place + 1, row["training"]), (0, 6), textcoords="offset points", ha=side, fontsize=8)
        axes.set_xlabel("class, by the number of its training images")
        axes.set_ylabel("images")
    figure.legend(loc="outside upper right", ncols=2)
    return figure


def sizes_frame(record: RunRecord) -> pd.DataFrame | None:
    """Return the sizes of the images in pixels, and how many have each; of very many different sizes a sample."""
    event = last_event(record, DataReady)
    if event is None or not event.image_sizes:
        return None
    frame: pd.DataFrame = pd.DataFrame(event.image_sizes, columns=["width", "height", "num_images"])
    frame["megapixels"] = frame["width"] * frame["height"] / 1e6
    frame["aspect_ratio"] = frame["width"] / frame["height"]
    num = event.num_train + event.num_val
    if frame["num_images"].sum() < num:
        frame.attrs["note"] = (
            f"Sizes of {frame['num_images'].sum():,} images, spread evenly from the smallest to the largest."
        )
    ordered: pd.DataFrame = frame.sort_values("num_images", ascending=False, kind="stable", ignore_index=True)
    return ordered


def sizes_plot(frame: pd.DataFrame) -> Figure:
    """Draw width and height of the images, and the distributions of size and shape."""
    figure = new_figure(height=3.2)
    grid = figure.add_gridspec(1, 2, width_ratios=(1.25, 1))
    left, right = figure.add_subfigure(grid[0]), figure.add_subfigure(grid[1])
    axes = left.subplots()
    counts = frame["num_images"]
    axes.scatter(frame["width"], frame["height"], 6 + 90 * counts / counts.max(), SERIES[0], alpha=0.45, linewidths=0)
    low, high = frame[["width", "height"]].min().min(), frame[["width", "height"]].max().max()
    axes.plot([low, high], [low, high], color=MUTED, lw=0.8, ls="--")
    axes.annotate("square", (high, high), (-4, -12), textcoords="offset points", ha="right", color=MUTED, fontsize=8)
    if high > 8 * low:
        set_log_scale(axes, "x")
        set_log_scale(axes, "y")
    axes.set_xlabel("width (pixels)")
    axes.set_ylabel("height (pixels)")
    for under, name, label in zip(
        right.subplots(2, 1),
        ("megapixels", "aspect_ratio"),
        ("megapixels", "aspect ratio (width / height)"),
        strict=True,
    ):
        _draw_histogram(under, frame[name], counts)
        under.set_xlabel(label)
        under.set_ylabel("images")
    return figure


def _draw_histogram(axes: Axes, values: pd.Series, counts: pd.Series) -> None:
    from matplotlib.ticker import MaxNLocator

    low, high = values.min(), values.max()
    if high > 8 * low:
        set_log_scale(axes, "x")
        edges = np.geomspace(low, high, 21)
    else:
        middle, half = (low + high) / 2, max((high - low) / 2, 0.05 * high)
        edges = np.linspace(middle - half, middle + half, 21)
        axes.xaxis.set_major_locator(MaxNLocator(3))
    axes.hist(values, edges.tolist(), weights=counts, color=SERIES[0], alpha=0.8)


def _sizes_summary(frame: pd.DataFrame) -> str:
    ranges = (f"{name} {frame[name].min():,} to {frame[name].max():,} pixels" for name in ("width", "height"))
    return f"{int(frame['num_images'].sum()):,} images: {', '.join(ranges)}."


def cost_frame(record: RunRecord) -> pd.DataFrame | None:
    """Return the cost of each network of the predictor, and of all: as the fit measured it, and as its files are."""
    saved = record.saved
    if saved is None:
        return None
    from safetensors import safe_open

    costs = trial_costs(record.trials, ["latency_ms"])
    speeds = {row["trial"]: row.get("images_per_s") for row in saved.trials}
    models = {row["trial"]: row["config"].get("model") for row in saved.trials}
    rows: list[dict[str, Any]] = []
    for member in saved.members:
        file = saved.folder / member.weights
        num_params = None
        if file.is_file():
            with safe_open(file, "numpy") as weights:
                names = [name for name in weights.keys() if not name.endswith(BUFFERS)]  # noqa: SIM118
                num_params = sum(math.prod(weights.get_slice(name).get_shape()) for name in names)
        row = next((row for row in saved.trials if row["trial"] == member.trial), {})
        latency_ms = costs.get(member.trial, row.get("costs", {})).get("latency_ms")
        rows.append(
            {
                "network": f"{shortened(models.get(member.trial) or member.blueprint.name, 60)}",
                "trial": member.trial,
                "weight": member.weight,
                "img_size": member.blueprint.input.img_size,
                "parameters": num_params,
                "bytes": file.stat().st_size if file.is_file() else None,
                "images_per_s": speeds.get(member.trial),
                "latency_ms": latency_ms,
            }
        )
    if len(rows) > 1:
        every: dict[str, Any] = {"network": "all networks", "weight": sum(row["weight"] for row in rows)}
        for name in ("parameters", "bytes", "latency_ms"):
            values = [row[name] for row in rows]
            every[name] = None if None in values else sum(values)
        rows.append({**every, "images_per_s": saved.summary.get("images_per_s")})
    frame: pd.DataFrame = pd.DataFrame(rows).dropna(axis="columns", how="all")
    for name in {"trial", "img_size", "parameters", "bytes"} & set(frame.columns):
        frame[name] = frame[name].astype("Int64")
    return frame


BUFFERS = ("running_mean", "running_var", "num_batches_tracked")
"""Last parts of the names of batch norm tensors that are not parameters."""


def environment_frame(record: RunRecord) -> pd.DataFrame | None:
    """Return versions and machine of the process that ended the run, or last ran it."""
    started, plan = last_event(record, RunStarted), last_event(record, RunPlanned)
    found: dict[str, str] = {} if started is None else dict(started.environment)
    if plan is not None:
        found |= {"device": plan.device, "trials": plan.executor}
    return pd.DataFrame(list(found.items()), columns=["what", "value"]) if found else None


TIME_SECTIONS = (
    Section(
        "seconds",
        "Where the time went",
        "The parts add up to the time of the fit. With several workers those of the search are averages over them; "
        "grey parts trained nothing.",
        seconds_frame,
        seconds_plot,
        summary=lambda frame: ", ".join(
            f"{part} {value:.1f} s" for part, value in zip(frame["part"], frame["seconds"], strict=True)
        ),
    ),
    Section(
        "timeline",
        "Time line",
        "When each phase of the run was, and each job of a trial. A paused trial has several jobs. Gaps in a row are "
        "times without a job.",
        timeline_frame,
        timeline_plot,
        summary=lambda frame: f"{count_of(int((frame['row'] != 'run').sum()), 'job')}.",
    ),
    Section(
        "nodes",
        "Nodes of the cluster",
        "The largest number of workers that each node had at once, how many were lost, and the jobs and epochs that "
        "ran on it, with their seconds in all. Speed is relative to other nodes, as measured when the worker joined.",
        nodes_frame,
        shown_rows=50,
    ),
    Section(
        "cost",
        "Cost of the model",
        "Parameters and bytes are those of the weights; throughput and latency are what the fit measured on its "
        "machine, decoding excluded.",
        cost_frame,
        shown_rows=30,
    ),
    Section("environment", "Environment", "Versions and machine of the fit.", environment_frame, shown_rows=30),
)

DATA_SECTIONS = (
    Section(
        "checks",
        "Data checks",
        "Findings about the images and labels, with what to do. All files are in checks.csv of the run folder.",
        checks_frame,
        shown_rows=20,
    ),
    Section(
        "unreadable",
        "Unreadable images",
        "Images that were left out, by reason.",
        unreadable_frame,
        shown_rows=20,
    ),
    Section(
        "class_balance",
        "Class balance",
        "Images of each class. With very different sizes, look at per-class scores and not at accuracy alone.",
        classes_frame,
        classes_plot,
        summary=lambda frame: (
            f"{count_of(len(frame), 'class', 'classes')} of {frame['training'].min():,} to "
            f"{frame['training'].max():,} training images, {frame['validation'].sum():,} validation images in all."
        ),
        max_rows=1000,
    ),
    Section(
        "image_sizes",
        "Image sizes",
        "Each point is a size, and its area the number of images that have it. Training resizes all of them.",
        sizes_frame,
        sizes_plot,
        summary=_sizes_summary,
    ),
)
