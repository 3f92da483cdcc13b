"""Tables for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

WIDE = 200  # columns of the output to a file or a pipe, so that lines are not wrapped

_HEADS = {
    "score_val": "score",
    "epochs_done": "epochs done",
    "best_epoch": "best epoch",
    "images_per_s": "images/s",
    "fit_time_s": "seconds",
    "latency_ms": "ms/image",
    "num_params": "parameters",
    "num_bytes": "bytes",
    "on_front": "on front",
    "reason": "remark",
}
_COSTS = ("latency_ms", "num_params", "num_bytes")
_TRIAL_COLUMNS = (
    *("trial", "status", "score_val", "weight", "images_per_s", *_COSTS, "on_front"),
    *("epochs_done", "best_epoch", "fit_time_s", "reason"),
)


def output_console() -> Console:
    """Return the console of standard output, `WIDE` unless it is a terminal."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=WIDE)


def print_trials(console: Console, leaderboard: pd.DataFrame, summary: Mapping[str, Any] | None = None) -> None:
    """Print a table of trials, the hyperparameters that are equal in all of them, and the result."""
    columns = {str(name): leaderboard[name] for name in leaderboard.columns if name not in _TRIAL_COLUMNS}
    shared: dict[str, Any] = {}
    if len(leaderboard) > 1:
        shared = {name: column.iloc[0] for name, column in columns.items() if len(set(column.map(repr))) == 1}
    console.print(trials_table(leaderboard.drop(columns=list(shared))))
    if shared:
        console.print(Text(f"all trials: {', '.join(f'{name}={value}' for name, value in shared.items())}\n"))
    if summary is not None:
        console.print(Text(f"result: {summary['result']}"), soft_wrap=True)
        if why := summary.get("why_not_best_trial"):
            console.print(Text(f"trial {summary['best_trial']} is not the result: {why}"), soft_wrap=True)


def seconds_line(seconds: Mapping[str, float]) -> str:
    """Return ``fit_summary()["seconds"]``, of a fit and its phases, as text, without phases that round to 0.0 s."""
    parts = [f"{name} {value:.1f}" for name, value in seconds.items() if name != "total" and value >= 0.05]
    return f"{seconds['total']:.1f} s: {', '.join(parts)}"


def trials_table(leaderboard: pd.DataFrame) -> Table:
    """Return a table of trials with a column for each hyperparameter, and one of reasons if there are any."""
    if not leaderboard["reason"].map(bool).any():
        leaderboard = leaderboard.drop(columns="reason")
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in leaderboard.columns:
        is_numeric = pd.api.types.is_numeric_dtype(leaderboard[name])
        table.add_column(_HEADS.get(name, name), justify="right" if is_numeric else "left")
    for position, row in enumerate(leaderboard.to_dict("records")):
        cells = [Text(_cell(str(name), value)) for name, value in row.items()]
        table.add_row(*cells, style="bold" if position == 0 else None)
    return table


def _cell(name: str, value: Any) -> str:
    if value is None or (isinstance(value, float) and pd.isna(value)):
        return ""
    if name == "on_front":
        return "*" if value else ""
    if name == "weight":
        return f"{value:.2f}" if value else ""
    if not isinstance(value, float):
        return str(value)
    if name in ("num_params", "num_bytes") or (name == "images_per_s" and value >= 100):
        return f"{value:,.0f}"
    if name in ("epochs_done", "best_epoch"):  # integers, which pandas converts to float if one is missing
        return f"{value:.0f}"
    digits = {"score_val": 4, "fit_time_s": 1, "latency_ms": 2}
    return f"{value:.{digits[name]}f}" if name in digits else f"{value:.3g}"
