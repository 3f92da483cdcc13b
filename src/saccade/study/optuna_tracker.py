"""A copy of a study in Optuna's own format, for optuna-dashboard.

Completed and stopped trials are COMPLETE, with the best score as the value; failed ones are FAIL. Paused ones are
RUNNING: they may continue, and WAITING ones would be claimed by other programs.
"""

from __future__ import annotations

import itertools
import json
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from saccade.errors import SpaceError
from saccade.events import Event
from saccade.space import Dict, encode, to_optuna
from saccade.study.event_log import to_json_value
from saccade.study.trial import Status, Trial

if TYPE_CHECKING:
    from optuna.storages import JournalStorage
    from typing_extensions import Self

STUDY_NAME = "saccade"  # name of the study in Optuna's storage
INTERVAL_S = 1.0  # least seconds between two updates of the file, so that many short trials need few writes
OVERHEAD = 0.05  # updates take at most this part of the time


class OptunaTracker:
    """A listener of a study that writes its trials to a file that ``optuna-dashboard PATH`` opens.

    The file, of Optuna's ``JournalFileBackend``, follows the study with a delay, and is complete at the end of the
    context. A resumed study continues it. A damaged file is renamed, and written again. Another error is a warning, and
    ends the tracker alone. `trials` are those of the study, by number.
    """

    def __init__(self, path: Path, trials: Sequence[Trial], space: Dict) -> None:
        self.path, self.space = path, space
        self._trials = trials
        self._storage: JournalStorage | None = None
        self._study_id = 0
        self._ids: list[int] = []  # Optuna's ids of the trials in the file, by number
        self._changed: set[int] = set(range(len(trials)))
        self._next_s = 0.0
        self._has_failed = False

    def __call__(self, event: Event) -> None:
        """Note which trial an event is about, and update the file if the last time is long enough ago."""
        number = getattr(event, "trial", None)
        if number is not None:
            self._changed.add(number)
            if time.monotonic() >= self._next_s:
                self.update()

    def update(self) -> None:
        """Write what has changed since the last time."""
        if self._has_failed or not self._changed:
            return
        start_s = time.monotonic()
        try:
            if self._storage is None:
                self._open()
            for number in sorted({*self._changed, *range(len(self._ids), len(self._trials))}):
                self._update(self._trials[number])
            self._changed.clear()
        except Exception as error:
            self._has_failed = True
            text = f"{self.path}, the copy of the study for optuna-dashboard, is no longer updated"
            warnings.warn(f"{text}: {type(error).__name__}: {error}", stacklevel=2)
        end_s = time.monotonic()
        self._next_s = end_s + max(INTERVAL_S, (end_s - start_s) / OVERHEAD)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.update()

    def _open(self) -> None:
        """Read what the file has of the trials; a damaged one is written again, since all of it is in the event log."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            if self.path.exists() and not self.path.is_file():
                raise ValueError("it is not a regular file")
            self._read()
        except OSError:
            raise
        except Exception as error:  # whatever optuna raises for lines that it did not write
            names = (f"{self.path.name}.damaged{number or ''}" for number in itertools.count())
            damaged = next(path for name in names if not (path := self.path.with_name(name)).exists())
            self.path.rename(damaged)
            warnings.warn(
                f"{self.path}, the copy of the study for optuna-dashboard, is damaged ({type(error).__name__}: "
                f"{str(error)[:200]}). It is written again; the damaged file is now {damaged.name}",
                stacklevel=2,
            )
            self._ids.clear()
            self._read()

    def _read(self) -> None:
        """Open the storage; raise an error if the file is damaged, or is not of this study."""
        import optuna  # slow to import
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
        from optuna.study import StudyDirection

        content = self.path.read_bytes() if self.path.exists() else b""
        if content:  # optuna ignores a last line that was cut short, and appends to it
            json.loads(content[content.rfind(b"\n", 0, -1) + 1 :])
            if not content.endswith(b"\n"):
                raise ValueError("the last line is cut short")
        # The lock of a process that was killed is ignored after 3 s, not after 30 s as by default.
        lock = JournalFileOpenLock(str(self.path), grace_period=3)
        storage = JournalStorage(JournalFileBackend(str(self.path), lock))
        try:
            self._study_id = storage.get_study_id_from_name(STUDY_NAME)
        except KeyError:
            verbosity = optuna.logging.get_verbosity()
            optuna.logging.set_verbosity(optuna.logging.WARNING)  # or it prints that there is a new study
            try:
                self._study_id = storage.create_new_study([StudyDirection.MAXIMIZE], STUDY_NAME)
            finally:
                optuna.logging.set_verbosity(verbosity)
        for number in range(storage.get_n_trials(self._study_id)):
            self._ids.append(storage.get_trial_id_from_study_id_trial_number(self._study_id, number))
            written = storage.get_trial(self._ids[-1])
            ours = self._trials[number] if number < len(self._trials) else None
            if ours is None or written.user_attrs.get("config") != to_json_value(ours.config):
                raise ValueError(f"trial {number} is not of this study")
            if written.state.is_finished() and not _is_finished(ours):
                raise ValueError(f"trial {number} has not finished")
        self._storage = storage

    def _update(self, trial: Trial) -> None:
        """Write one trial; trials are created in the order of their numbers."""
        from optuna.trial import TrialState, create_trial

        storage = self._storage
        assert storage is not None
        reason = trial.note if trial.failure is None else trial.failure.reason
        status = f"{trial.status.value}: {reason}" if reason else trial.status.value
        is_finished = _is_finished(trial)
        best = trial.best_report
        value = float(best.score) if best is not None and trial.status in (Status.COMPLETED, Status.STOPPED) else None
        state = TrialState.RUNNING if not is_finished else TrialState.FAIL if value is None else TrialState.COMPLETE
        scores = {int(report.epoch): float(report.score) for report in trial.reports}
        if trial.number == len(self._ids):
            try:
                params = encode(self.space, trial.config)
            except SpaceError:  # a configuration of the user's that is outside the space
                params = {}
            distributions = to_optuna(self.space)
            template = create_trial(
                state=state,
                value=value,
                params=params,
                distributions={name: distributions[name] for name in params},
                user_attrs={"config": to_json_value(trial.config), "status": status},
                intermediate_values=scores,
            )
            self._ids.append(storage.create_new_trial(self._study_id, template))
            return
        trial_id = self._ids[trial.number]
        written = storage.get_trial(trial_id)
        if written.state.is_finished():
            return
        for epoch, score in scores.items():
            if written.intermediate_values.get(epoch) != score:
                storage.set_trial_intermediate_value(trial_id, epoch, score)
        if written.user_attrs.get("status") != status:
            storage.set_trial_user_attr(trial_id, "status", status)
        if is_finished:
            storage.set_trial_state_values(trial_id, state, None if value is None else [value])


def _is_finished(trial: Trial) -> bool:
    is_retried = trial.failure is not None and trial.failure.is_disk_full  # by a resumed run
    return trial.status not in (Status.RUNNING, Status.PAUSED) and not is_retried
