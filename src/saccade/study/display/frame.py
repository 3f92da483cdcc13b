"""The lines of the live display: at most `MAX_LINES`, each cut to the width."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from rich.text import Text

from saccade.errors import count_of
from saccade.study.display.state import RunState, config_text
from saccade.study.trial import Trial

MAX_LINES, MAX_WIDTH = 12, 120
_NUM_ROWS = MAX_LINES - 7  # for workers and tasks
_LABEL = 10  # columns of the words on the left
_NARROW = 76  # columns below which statuses without trials are left out
_SPARKS = "▁▂▃▄▅▆▇█"
_COLOURS = {
    **dict.fromkeys(("earlier", "preparing", "idle", "search"), "bright_black"),
    "decoding": "blue",
    "checking": "bright_blue",
    "probes": "yellow",
    "training": "green",
    "validation": "cyan",
}  # all others are magenta
_STATUS_COLOURS = {"running": "green", "failed": "red"}


def frame(state: RunState, width: int, memory: int | None = None, *, has_colours: bool = True) -> list[Text]:
    """Return the lines that show a run, without ends of lines; `memory` is in bytes, None if it is not known."""
    width = min(width, MAX_WIDTH)
    lines = _lines_of_time(state, width, has_colours=has_colours) if state.is_started else []
    if state.record.trials:
        lines += [_trials(state, width), _best(state, width)]
    if state.is_finished and state.result:
        lines.append(_labelled("result", Text(state.result)))
    elif state.is_started and not state.is_finished:
        speed = state.images_per_s()
        about = Text(f"{speed:,.0f} images/s  " if speed else "")
        if memory is not None:
            size = f"{memory / 1e9:.1f} GB" if memory >= 1e9 else f"{memory / 1e6:.0f} MB"
            about.append(f"{'memory ' if speed else ''}{size}")
        num_workers, num_nodes = count_of(state.nodes.total(), "worker"), count_of(len(state.nodes), "node")
        nodes = Text(f"{num_workers} on {num_nodes}" if state.nodes else "")
        if about or nodes:
            lines.append(_spread(_labelled("speed" if speed else "memory" if about else "", about), nodes, width))
    if state.warnings:
        text = Text(f"{len(state.warnings)}: {state.warnings[-1]}", "yellow")
        lines.append(_labelled("warnings", text))
    if len(state.workers) > _NUM_ROWS and len(state.nodes) > 1:
        rows = [_node(state, name, width) for name in sorted(state.nodes, key=natural_order)]
    else:
        rows = [_worker(state, place, trial, width) for place, trial in enumerate(state.workers)]
    rows += [_task(state, name, width) for name in state.tasks]
    if len(rows) > _NUM_ROWS:
        rows[_NUM_ROWS - 1 :] = [_labelled("", Text(f"and {len(rows) - _NUM_ROWS + 1} more", "dim"))]
    lines += rows
    for line in lines:
        line.plain = line.plain.replace("\n", " ")  # names and messages of the user may have several lines
        line.truncate(width, overflow="ellipsis")
    return lines


def _lines_of_time(state: RunState, width: int, *, has_colours: bool) -> list[Text]:
    """Return what happens and the time left, the bar of the time limit, and the seconds of each phase."""
    elapsed_s, limit_s = state.elapsed_s(), state.time_limit_s
    if state.is_finished:
        time = f"{_clock(elapsed_s)} in all"
    elif limit_s is None:
        time = f"{_clock(elapsed_s)}, no time limit"
    else:
        time = f"{_clock(max(0.0, limit_s - elapsed_s))} left of {_clock(limit_s)}"
    room = max(0, width - len(time) - len(state.phase) - len("saccade    "))
    folder = state.folder if len(state.folder) <= room else "…" + state.folder[len(state.folder) - room + 1 :]
    head = Text.assemble(("saccade", "bold"), " ", (folder if room > 12 else "", "dim"), " ", (state.phase, "bold"))
    seconds = state.seconds()
    total_s = max(elapsed_s, limit_s or 0.0) or 1.0
    bar, end_s = Text(), 0.0
    for place, (name, spent_s) in enumerate(seconds.items()):
        end_s += spent_s
        # Adjacent phases have different signs if the terminal has no colours.
        sign = "━" if has_colours or place % 2 else "═"
        bar.append(sign * (min(width, round(end_s / total_s * width)) - len(bar)), _colour(name))
    bar.append("─" * (width - len(bar)), "dim")
    legend = {name: f"{name} {_short(spent_s)}" for name, spent_s in seconds.items() if spent_s >= 0.5}
    while sum(len(text) + 4 for text in legend.values()) > width + 2:
        del legend[min(legend, key=lambda name: seconds[name])]
    names = Text("  ").join(Text.assemble(("■ ", _colour(name)), (text, "dim")) for name, text in legend.items())
    return [_spread(head, Text(time, "bold"), width), bar, names]


def _trials(state: RunState, width: int) -> Text:
    counts, parts = state.counts(), Text()
    gap = "  " if width >= _NARROW else " "
    for status, num in counts.items():
        if num or width >= _NARROW:
            parts.append(f"{num} {status}{gap}", _STATUS_COLOURS.get(status, "") if num else "dim")
    total = Text(f"of {state.num_trials}" if state.num_trials and width >= _NARROW else "")
    return _spread(_labelled(count_of(len(state.record.trials), "trial"), parts), total, width)


def _best(state: RunState, width: int) -> Text:
    best = state.record.best_trial
    if best is None or best.best_report is None:
        return _labelled("best", Text("no score yet", "dim"))
    text = Text.assemble((f"{state.metric or 'score'} {number(state.value(best.best_report))}", "bold"))
    text.append(f"  trial {best.number}  {_name(best)}  epoch {best.best_report.epoch}")
    room = width - _LABEL - len(text) - 2
    curve = sparkline(state.best, state.elapsed_s(), max(8, min(40, room)))
    return _spread(_labelled("best", text), Text(curve, "green"), width)


def _worker(state: RunState, place: int, trial: int | None, width: int) -> Text:
    if trial is None:
        return _labelled(f"worker {place + 1}", Text("idle", "dim"))
    row = state.record.trials[trial]
    num = state.num_epochs(row)
    if not row.reports:
        epoch = "starting"
    else:  # the epoch that is trained now
        epoch = f"epoch {min(row.num_epochs + 1, num or math.inf):.0f}" + (f" of {num}" if num else "")
    best = "" if row.best_report is None else number(state.value(row.best_report))
    right = Text.assemble(epoch, " ", *_bar(row.num_epochs, num, 12 if width >= _NARROW else 6), " ", f"{best:>7}")
    text = Text(f"trial {trial}{state.where(trial)}  {_name(row)}")
    return _spread(_labelled(f"worker {place + 1}", text), right, width)


def _node(state: RunState, name: str, width: int) -> Text:
    """Return the line of a node of a cluster, if there are too many workers for a line of each."""
    trials = [trial for trial in state.workers if trial is not None and state.node_of.get(trial) == name]
    text = Text(f"trials {', '.join(map(str, sorted(trials)))}" if trials else "idle", "" if trials else "dim")
    busy = Text(f"{len(trials)} of {count_of(state.nodes[name], 'worker')} busy")
    return _spread(Text.assemble((f"{name:<{_LABEL - 1}} ", "dim"), text), busy, width)


def _task(state: RunState, name: str, width: int) -> Text:
    task = state.tasks[name]
    spent_s = state.clock() - task.start_s
    steps_per_s = (task.num_done - task.first_done) / spent_s if spent_s >= 0.5 else 0.0
    speed = f"{steps_per_s:,.0f}/s  " if steps_per_s >= 1 else ""
    bar = _bar(task.num_done, task.total, 24 if width >= _NARROW else 10)
    right = Text.assemble((speed, "dim"), f"{task.num_done:,} of {task.total:,} ", *bar)
    return _spread(Text(name), right, width)


def sparkline(history: Sequence[tuple[float, float]], end_s: float, width: int) -> str:
    """Return the best value over time, from its first one to `end_s`, as `width` bars between its extremes."""
    if not history:
        return ""
    start_s, values = history[0][0], [value for _, value in history]
    low, high = min(values), max(values)
    bars, place = "", 0
    for column in range(width):
        at_s = start_s + (end_s - start_s) * (column + 1) / width
        while place + 1 < len(history) and history[place + 1][0] <= at_s:
            place += 1
        part = (history[place][1] - low) / (high - low) if high > low else 0.0
        bars += _SPARKS[round(part * (len(_SPARKS) - 1))]
    return bars


def number(value: float) -> str:
    """Return a value of a metric as text."""
    return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e4 else f"{value:.4g}"


def _bar(num_done: int, total: int, width: int) -> list[tuple[str, str]]:
    num = min(width, round(width * num_done / total)) if total else 0
    return [("━" * num, "green"), ("─" * (width - num), "dim")] if total else [("", "")]


def _name(trial: Trial) -> str:
    """Return the network of a trial; of other searches the configuration."""
    return str(trial.config["model"]) if "model" in trial.config else config_text(trial.config)


def natural_order(name: str) -> list[tuple[bool, int, str]]:
    """Return the sort key with which ``node-2`` is before ``node-10``."""
    return [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in re.split(r"(\d+)", name)]


def _labelled(label: str, text: Text) -> Text:
    return Text.assemble((f"{label:<{_LABEL - 1}} ", "dim"), text)


def _spread(left: Text, right: Text, width: int) -> Text:
    """Put two texts at the ends of a line; the left one is cut if both do not fit."""
    left = left.copy()
    gap = 1 if right else 0
    left.truncate(max(0, width - right.cell_len - gap), overflow="ellipsis", pad=True)
    return Text.assemble(left, " " * gap, right)


def _colour(phase: str) -> str:
    return _COLOURS.get(phase, "magenta")


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def _short(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 60 else _clock(seconds)
