"""TensorBoard: a curve for each trial, and its hyperparameters."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saccade.events import EpochDone
from saccade.study.trial import Trial
from saccade.trackers.base import LibraryTracker, best_score, flat

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class TensorBoardTracker(LibraryTracker):
    """Writes the folder ``tensorboard`` in the run folder: ``tensorboard --logdir RUN/tensorboard`` shows it.

    Each trial has a folder with its metrics by epoch, and its configuration with the best score for the tab HPARAMS.
    The folder ``run`` has the best score by trial, and what is known of the run as text. A resumed run adds to them.

    Parameters
    ----------
    log_dir
        Another folder. A search without a run folder writes to ``runs/saccade_TIME`` by default.
    close_timeout_s
        Seconds for which the end of the run waits for the files.
    """

    library = "tensorboard"

    def __init__(self, log_dir: str | Path | None = None, close_timeout_s: float = 60.0) -> None:
        super().__init__(close_timeout_s)
        self.log_dir = log_dir

    def start(self, name: str, earlier: str | None) -> None:
        """Open the folder."""
        del name, earlier
        made = Path("runs", f"saccade_{datetime.now():%Y-%m-%d_%H%M%S}")
        self._folder = Path(self.log_dir or (made if self.folder is None else self.folder / "tensorboard"))
        self._writers: dict[str, SummaryWriter] = {}
        self._values: dict[str, Any] = {}

    def configure(self, values: Mapping[str, Any]) -> None:
        """Record a table of what is known of the run."""
        self._values |= values
        rows = "\n".join(
            f"| {name} | {str(value).replace('|', chr(92) + '|')} |" for name, value in self._values.items()
        )
        self._writer("run").add_text("run", f"| | |\n|---|---|\n{rows}")

    def log_epoch(self, trial: Trial, report: EpochDone, values: Mapping[str, float], *, is_best: bool) -> None:
        """Record the metrics of a trial by epoch, and the best score by trial."""
        for name, value in values.items():
            self._writer(_name(trial)).add_scalar(name, value, report.epoch)
        if is_best:
            self._writer("run").add_scalar("best_score", report.score, trial.number)

    def end_job(self, trial: Trial) -> None:
        """Record the configuration with the best score, and close the file: there may be hundreds of trials."""
        writer = self._writer(_name(trial))
        metrics = {"hparam/best_score": best_score(trial), "hparam/epochs": trial.num_epochs}
        writer.add_hparams({**flat(trial.config), "status": trial.status.value}, metrics, run_name=".")
        self._writers.pop(_name(trial)).close()

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Add the result to the table."""
        self.configure(summary)

    def end(self, *, is_finished: bool) -> None:
        """Close all files."""
        del is_finished
        for writer in self._writers.values():
            writer.close()

    def _writer(self, name: str) -> SummaryWriter:
        from torch.utils.tensorboard import SummaryWriter  # slow to import

        if name not in self._writers:
            self._writers[name] = SummaryWriter(str(self._folder / name))
        return self._writers[name]


def _name(trial: Trial) -> str:
    return f"trial-{trial.number:04}"
