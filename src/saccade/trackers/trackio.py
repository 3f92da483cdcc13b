"""Trackio: one run in a local file, with a curve for each trial and a table of them."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from saccade.trackers.base import flat, printing_to_stderr
from saccade.trackers.wandb import WandbTracker, uniform


class TrackioTracker(WandbTracker):
    """Records a run with Trackio, in the project ``TRACKIO_PROJECT`` (default: saccade); ``trackio show`` opens it.

    Runs are on this machine, in the folder ``TRACKIO_DIR``, unless ``TRACKIO_SPACE_ID`` or ``TRACKIO_SERVER_URL`` is
    set. Each has the name of the run folder and a random suffix. Values are logged as by `WandbTracker`, the result as
    ``result/NAME``.

    Parameters
    ----------
    close_timeout_s
        Seconds for which the end of the run waits for values to be stored.
    """

    library = "trackio"

    def open(self, folder: Path | None) -> None:
        """Prepare for a run."""
        super(WandbTracker, self).open(folder)

    def start(self, name: str, earlier: str | None) -> str:
        """Start a run, or continue the one of that name."""
        import trackio

        self._library = trackio
        with printing_to_stderr():
            self._run = trackio.init(
                os.environ.get("TRACKIO_PROJECT", "saccade"),
                name=earlier or f"{name}-{secrets.token_hex(3)}",
                resume="allow",
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )
        return str(self._run.name)

    def configure(self, values: Mapping[str, Any]) -> None:
        """Add values to the run's config, which is stored with the first epoch."""
        self._run.config.update(values)

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Record the result, the best configuration, and the table of trials."""
        best = {} if self.best is None else flat(self.trials[self.best.trial].config, "best_config.")
        table = self._library.Table(dataframe=uniform(self.leaderboard()))
        self._run.log(
            {**{f"result/{name}": value for name, value in {**summary, **best}.items()}, "leaderboard": table}
        )

    def end(self, *, is_finished: bool) -> None:
        """Store what is not stored yet."""
        del is_finished
        with printing_to_stderr():
            self._run.finish()
