"""Weights & Biases: one run, with a curve for each trial and a table of them."""

from __future__ import annotations

import os
import re
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from saccade.events import EpochDone
from saccade.study.trial import Trial
from saccade.trackers.base import LibraryTracker, flat


class WandbTracker(LibraryTracker):
    """Records a run in Weights & Biases.

    A run that is active is used, and stays active. Otherwise there is a new one in the project ``WANDB_PROJECT``
    (default: saccade), with the name of the run folder, and its files are in the run folder, unless ``WANDB_DIR`` is
    set. Without an API key, or with ``WANDB_MODE=offline``, it is kept in these files, which ``wandb sync`` uploads.
    Each epoch logs ``score``, ``best_score``, ``trial``, ``epoch``, further metrics, and ``trials/N`` with the score
    of trial N by epoch. The result is in the summary, the trials are the table ``leaderboard``, and the predictor is an
    artifact of type ``model``.

    Parameters
    ----------
    close_timeout_s
        Seconds for which the end of the run waits for uploads.
    """

    library = "wandb"

    def open(self, folder: Path | None) -> None:
        """Find the run that is active."""
        super().open(folder)
        wandb = sys.modules.get("wandb")  # slow to import; before, no run can be active
        self._own_run = None if wandb is None else wandb.run

    def start(self, name: str, earlier: str | None) -> str:
        """Start a run, or continue one; nothing asks for an API key."""
        import wandb

        self._library: Any = wandb
        self._run: Any = self._own_run
        if self._own_run is None:
            mode: Literal["offline"] | None = None
            if os.environ.get("WANDB_MODE") is None and not wandb.login(prompt=False):
                mode = "offline"
                warnings.warn(
                    "Weights & Biases has no API key, so the run is only recorded in files, which wandb sync uploads. "
                    "Run wandb login, or set WANDB_MODE=offline.",
                    stacklevel=2,
                )
            self._run = wandb.init(
                project=os.environ.get("WANDB_PROJECT", "saccade"),
                name=name,
                dir=os.environ.get("WANDB_DIR") or self.folder,
                id=earlier,
                resume="allow",
                mode=mode,
                job_type="automl",
                settings=wandb.Settings(console="off"),
            )
        self._run.define_metric("trials/*", step_metric="epoch")  # the curves of trials are by epoch
        return str(self._run.id)

    def configure(self, values: Mapping[str, Any]) -> None:
        """Add values to the run's config."""
        self._run.config.update(dict(values), allow_val_change=True)

    def log_epoch(self, trial: Trial, report: EpochDone, values: Mapping[str, float], *, is_best: bool) -> None:
        """Record the metrics of an epoch, in the order in which epochs ended."""
        del is_best
        assert self.best is not None
        others = {"trial": trial.number, "epoch": report.epoch, "best_score": self.best.score}
        self._run.log({**values, **others, f"trials/{trial.number}": report.score})

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Record the result, the best configuration, and the table of trials."""
        best = {} if self.best is None else flat(self.trials[self.best.trial].config, "best_config.")
        self._run.log({"leaderboard": self._library.Table(dataframe=uniform(self.leaderboard()))})
        self._run.summary.update({**summary, **best})

    def log_predictor(self, folder: Path) -> None:
        """Record the predictor as an artifact."""
        artifact = self._library.Artifact(re.sub(r"[^\w.-]", "-", f"predictor-{self._run.id}", flags=re.ASCII), "model")
        artifact.add_dir(str(folder))
        self._run.log_artifact(artifact)

    def end(self, *, is_finished: bool) -> None:
        """Finish the run, with an exit code that marks failed ones."""
        if self._own_run is None:
            self._run.finish(exit_code=0 if is_finished else 1)


def uniform(table: Any) -> Any:
    """Return a table whose columns have one type each, as tables of Weights & Biases require."""
    is_mixed = [len({type(value) for value in table[name].dropna()}) > 1 for name in table.columns]
    return table.astype({name: str for name, mixed in zip(table.columns, is_mixed, strict=True) if mixed})
