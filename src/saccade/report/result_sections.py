"""The first sections of the report: what was asked, what came out, and the leaderboard."""

from __future__ import annotations

import contextlib
import shlex
from datetime import datetime, timezone

import pandas as pd
from markupsafe import Markup

from saccade.errors import SaccadeError, count_of
from saccade.events import DataReady, RunPlanned, RunStarted, Warned
from saccade.fit.config_file import FitConfig
from saccade.fit.options import FitOptions
from saccade.fit.run_folder import root_of
from saccade.fit.values import from_toml
from saccade.inference.saved import INTERRUPTED
from saccade.report.record import RunRecord
from saccade.report.sections import Section
from saccade.selection.summary import leaderboard, trial_rows
from saccade.study.run_folder import lock_owner
from saccade.study.url_folder import with_urls
from saccade.tuning.result import TuneResult

MAX_SPACE = 400  # letters of hyperparameters; longer ones are in the run folder's fit.toml

MAX_WARNINGS = 5  # that are shown at once

# Rows of the summary that the page shows below another one, so that it has four, and the warnings.
SHOWN_BELOW = {
    "Score measured": "Result",
    "In Python": "Repeat it",
    "Environment": "Run",
    "When": "Run",
    "Run folder": "Run",
}


def summary_frame(record: RunRecord) -> pd.DataFrame:
    """Return what was asked, what came out, how to repeat the run, its warnings and its environment."""
    starts = [event for event in record.events if isinstance(event, RunStarted)]
    plan = next((event for event in reversed(record.events) if isinstance(event, RunPlanned)), None)
    rows = [("Asked", _asked(record, plan)), ("Result", _result(record))]
    if record.saved is not None:
        rows.append(("Score measured", str(record.saved.summary.get("valid_score_how", ""))))
    rows += _how_to_repeat(record)
    rows += [
        ("Warning", text) for text in dict.fromkeys(each.text for each in record.events if isinstance(each, Warned))
    ]
    if starts and plan is not None:
        found = starts[-1].environment
        versions = ", ".join(f"{name} {found[name]}" for name in ("Saccade", "Python", "torch") if name in found)
        rows.append(("Environment", ", ".join(filter(None, (versions, plan.device, f"trials {plan.executor}")))))
    if record.clock:
        began, ended = (datetime.fromtimestamp(time, timezone.utc) for time in (record.clock[0], record.clock[-1]))
        sessions = f", in {len(starts)} sessions" if len(starts) > 1 else ""
        when = f"{began:%Y-%m-%d %H:%M} to {ended:%Y-%m-%d %H:%M} UTC: {record.times_s[-1]:.0f} s{sessions}"
        rows.append(("When", when))
    if record.is_run_folder:
        rows.append(("Run folder", _place(record)))
    frame: pd.DataFrame = pd.DataFrame([row for row in rows if row[1]], columns=["what", "value"])
    return frame


def _asked(record: RunRecord, plan: RunPlanned | None) -> str:
    """Return the task, the data and the limits."""
    data = next((event for event in reversed(record.events) if isinstance(event, DataReady)), None)
    start = next((event for event in reversed(record.events) if isinstance(event, RunStarted)), None)
    parts = [] if plan is None else [f"{plan.problem}, metric {plan.metric}"]
    if data is not None:
        classes = f" of {count_of(data.num_classes, 'class', 'classes')}" if data.num_classes else ""
        parts.append(f"{data.num_train} training images and {data.num_val} validation images{classes}")
    if start is not None:
        limit = "no time limit" if start.time_limit_s is None else f"time limit {start.time_limit_s:g} s"
        trials = "" if start.num_trials is None else f", at most {count_of(start.num_trials, 'trial')}"
        parts.append(limit + trials)
    return "; ".join(parts)


def _result(record: RunRecord) -> str:
    if record.saved is not None:
        is_open = record.saved.summary.get(INTERRUPTED) and record.is_run_folder
        more = f". The search was interrupted; continue it: saccade resume {_place(record)}" if is_open else ""
        return f"{record.saved.result}{more}"
    scores = [trial.best_report.score for trial in record.trials if trial.best_report is not None]
    best = f"The best score so far is {max(scores):.4g}. " if scores else ""
    if lock_owner(root_of(record.folder)) is not None:
        return f"The run has not ended. {best}".strip()
    return f"The run has no predictor: it failed, or was stopped. {best}Continue it: saccade resume {_place(record)}"


def _place(record: RunRecord) -> str:
    """Return the path or the URL of the run folder."""
    return with_urls(str(root_of(record.folder)))


def _how_to_repeat(record: RunRecord) -> list[tuple[str, str]]:
    """Return the command, and the call of Python with arguments other than the defaults; [] without the run folder."""
    arguments = record.run.get("arguments")
    if not isinstance(arguments, dict):
        return []
    try:
        has_data = FitConfig.read(record.folder).data is not None
    except SaccadeError:  # edited, or of another version
        has_data = False
    command = shlex.join(
        ["saccade", "fit", *([] if has_data else ["DATA"]), "--config", _place(record), "--out", "OTHER"]
    )
    defaults = {"label": "label", "problem_type": None, "eval_metric": None, **FitOptions().to_json()}
    given = {name: value for name, value in arguments.items() if name in defaults and value != defaults[name]}
    made = [f"{name}={given.pop(name)!r}" for name in ("label", "problem_type", "eval_metric") if name in given]
    given["time_limit"] = arguments.get("time_limit")
    called = ["train_data", *(f"{name}={value!r}" for name, value in given.items())]
    spaces = arguments.get("hyperparameters") or {}
    with contextlib.suppress(SaccadeError):  # objects of the user
        spaces = {name: from_toml(value) for name, value in spaces.items()}
    hyperparameters = repr(spaces)
    called.append(f"hyperparameters={hyperparameters if len(hyperparameters) <= MAX_SPACE else '…'}")
    return [("Repeat it", command), ("In Python", f"ImagePredictor({', '.join(made)}).fit({', '.join(called)})")]


def _summary_html(_: RunRecord, frame: pd.DataFrame) -> Markup:
    """Return the rows as a list, related ones together; of many warnings, the first ones."""
    item, code = Markup('<dt>{}</dt><dd dir="auto">{}</dd>'), Markup("<code>{}</code>")
    rows: dict[str, list[str | Markup]] = {}
    for what, value in frame.itertuples(index=False):
        heading = SHOWN_BELOW.get(what, what)
        rows.setdefault(heading, []).append(code.format(value) if heading == "Repeat it" else value)
    if len(warned := rows.get("Warning", [])) > MAX_WARNINGS:
        rest = Markup("<br>").join(warned[MAX_WARNINGS:])
        folded = Markup("<details><summary>{} more</summary>{}</details>").format(len(warned) - MAX_WARNINGS, rest)
        rows["Warning"] = [*warned[:MAX_WARNINGS], folded]
    lines = (item.format(what, Markup("<br>").join(values)) for what, values in rows.items())
    return Markup("<dl>{}</dl>").format(Markup().join(lines))


def leaderboard_frame(record: RunRecord) -> pd.DataFrame | None:
    """Return the leaderboard, as `ImagePredictor.leaderboard` and `TuneResult.leaderboard` do."""
    if record.tuned is not None:
        return TuneResult.of(record.trials, record.tuned["metric"], record.tuned["mode"], record.folder).leaderboard()
    if record.saved is not None:
        return leaderboard(record.saved.trials, record.saved.trial_weights)
    return leaderboard(trial_rows(record.trials), {}) if record.trials else None


RESULT_SECTIONS = (
    Section("summary", "Summary", "What was asked, and what came out.", summary_frame, html=_summary_html),
    Section(
        "leaderboard",
        "Leaderboard",
        "A row for each trial, the best first. A score is that of the validation images, higher is better; weight is "
        "the trial's part in the predictor.",
        leaderboard_frame,
        max_rows=10_000,
        shown_rows=30,
    ),
)
