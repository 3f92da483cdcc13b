"""The first sections of the report: what was asked, what came out, and the leaderboard."""

from __future__ import annotations

import pandas as pd
from markupsafe import Markup

from saccade.events import RunPlanned, Warned
from saccade.report.record import RunRecord
from saccade.report.sections import Section
from saccade.selection.summary import leaderboard, trial_rows
from saccade.tuning.result import TuneResult


def summary_frame(record: RunRecord) -> pd.DataFrame:
    """Return what was asked and what came out."""
    plan = next((event for event in reversed(record.events) if isinstance(event, RunPlanned)), None)
    rows = {
        "asked": "" if plan is None else f"{plan.problem}, metric {plan.metric}",
        "result": "the run has no predictor" if record.saved is None else record.saved.result,
        "warnings": "\n".join(dict.fromkeys(event.text for event in record.events if isinstance(event, Warned))),
        "folder": str(record.folder),
    }
    found = [(name, text) for name, text in rows.items() if text]
    frame: pd.DataFrame = pd.DataFrame(found, columns=["what", "value"])
    return frame


def _summary_html(_: RunRecord, frame: pd.DataFrame) -> Markup:
    item = Markup('<dt>{}</dt><dd dir="auto">{}</dd>')
    return Markup("<dl>{}</dl>").format(Markup().join(item.format(*row) for row in frame.itertuples(index=False)))


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
