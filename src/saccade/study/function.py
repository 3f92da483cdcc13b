"""Any Python function as a trainable: what it is handed to report epochs by, and how it saves and continues."""

from __future__ import annotations

import contextlib
import operator
import os
import re
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from saccade.deadline import Deadline
from saccade.errors import HyperparameterError, near_names
from saccade.events import EpochDone
from saccade.study.trial import Decision, Job, Reporter, Trainable


class FunctionTrainable(Trainable):
    """Any Python function as a trainable.

    Parameters
    ----------
    function : callable
        ``function(config, report)``; it calls `report`, a `FunctionReporter`, after each epoch. The call does not
        return when the trial is to end: because the study says so, or because another epoch as long as the last one
        would be too long.
    score_name : str
        The keyword that holds the score.
    is_minimized : bool
        Whether a lower figure is better. The score is then the negative figure, which is kept as a metric as well.
    max_epochs : int or None
        The epoch after which every configuration is done; None leaves that to the function.

    Examples
    --------
    >>> trainable = FunctionTrainable(lambda config, report: report(epoch=1, score=config["x"]))
    >>> trainable.train(Job(trial=0, config={"x": 3.0}), lambda report: Decision.CONTINUE)
    ''
    """

    def __init__(
        self,
        function: Callable[..., Any],
        score_name: str = "score",
        *,
        is_minimized: bool = False,
        max_epochs: int | None = None,
    ) -> None:
        self.function = function
        self.score_name = score_name
        self.is_minimized, self.max_epochs = is_minimized, max_epochs

    def train(self, job: Job, report: Reporter) -> str:
        """Call the function; it is left by an exception of ours when the trial is to end."""
        reporter = FunctionReporter(job, report, self)
        with contextlib.suppress(_StopFunction):
            self.function(dict(job.config), reporter)
        return reporter.end or ""


class MissingScoreError(HyperparameterError, TypeError):
    """A function reported something, but not the score that it is tuned for."""


class _StopFunction(BaseException):
    """Leaves a user's function from within its call of the reporter."""


Checkpoint = Callable[[Path], object] | str | os.PathLike[str]
"""What training can continue from: a function that writes it into a folder, or the path of a file or folder."""


class FunctionReporter:
    """What a function is handed besides its configuration: it reports by it, and continues by it.

    ``report(epoch=3, accuracy=0.9)`` reports an epoch: without `epoch`, reports are counted; further keywords are kept
    as metrics. With ``checkpoint=…`` training can be left there and continued later: a function that writes into the
    folder it is called with, or a file or folder that is copied. A job that continues has `checkpoint` and
    `last_epoch`; where these are not heeded, the next report is an error.

    Attributes
    ----------
    trial : int
        The trial's number.
    last_epoch : int
        The epoch after which training continues; 0 at the beginning.
    end : str or None
        Why the function was left, "" at the end of the job or of the configuration; None before.
    """

    def __init__(self, job: Job, report: Reporter, trainable: FunctionTrainable) -> None:
        self._job, self._report, self._trainable = job, report, trainable
        self._until_epoch = job.until_epoch
        self._checkpoint = None if job.checkpoint is None else Path(job.checkpoint)
        self._has_asked = self._checkpoint is None
        self.trial = job.trial
        self.end: str | None = None
        self.last_epoch = 0 if self._checkpoint is None else _epoch_of(self._checkpoint)
        self._epoch = self.last_epoch
        self._deadline = Deadline(job.seconds_left)
        self._last_s = time.perf_counter()

    @property
    def checkpoint(self) -> Path | None:
        """The folder to continue from, which has what was saved after `last_epoch`; None at the beginning."""
        self._has_asked = True
        return self._checkpoint

    @property
    def has_reported(self) -> bool:
        """Whether the function has reported an epoch in this job."""
        return self._epoch > self.last_epoch

    @property
    def folder(self) -> Path:
        """A folder of the trial's own, for what it likes to keep.

        Raises
        ------
        HyperparameterError
            When the study keeps no files.
        """
        if not self._job.folder:
            raise HyperparameterError("this study keeps no files, so that its trials have no folders; give it a folder")
        return Path(self._job.folder)

    def __call__(self, *, epoch: int | None = None, checkpoint: Checkpoint | None = None, **figures: float) -> None:
        """Report an epoch, and go on or be left."""
        self.send(figures, epoch, checkpoint)

    def send(
        self,
        figures: Mapping[str, float],
        epoch: int | None = None,
        checkpoint: Checkpoint | None = None,
        *,
        is_last: bool = False,
    ) -> None:
        """Report an epoch, figures with odd names too, and whether it is the configuration's last one."""
        if self.end is not None:  # the function held on to our exception
            raise _StopFunction
        self._check(figures)
        self._epoch = self._next_epoch(epoch)
        metrics = {name: float(figure) for name, figure in figures.items()}
        name, max_epochs = self._trainable.score_name, self._trainable.max_epochs
        score = -metrics[name] if self._trainable.is_minimized else metrics.pop(name)
        saved = None if checkpoint is None else str(self._save(checkpoint))
        is_last |= max_epochs is not None and self._epoch >= max_epochs
        seconds = time.perf_counter() - self._last_s
        event = EpochDone(self.trial, self._epoch, score, seconds, metrics, saved, is_last)
        self.end = self._end_after(event, self._report(event))
        if self.end is not None:
            raise _StopFunction
        self._last_s = time.perf_counter()

    def _end_after(self, event: EpochDone, decision: Decision) -> str | None:
        if decision is not Decision.CONTINUE:
            return f"{'paused' if decision is Decision.PAUSE else 'stopped'} by the scheduler"
        if event.is_last or (self._until_epoch is not None and event.epoch >= self._until_epoch):
            return ""
        return "time limit" if self._deadline.seconds_left() < event.seconds else None

    def _check(self, figures: Mapping[str, float]) -> None:
        name = self._trainable.score_name
        if name not in figures:
            near = near_names(name, figures, num=1)
            raise MissingScoreError(
                f"report() was called with {sorted(figures)}, without the score {name!r}; "
                + (f"did you mean {near[0]!r}? " if near else "")
                + f"write report(epoch=…, {name}=…)"
            )
        if not self._has_asked:
            raise HyperparameterError(
                f"the function was called to continue after epoch {self.last_epoch}, where it saved a checkpoint, but "
                "did not look at report.checkpoint. Load what is there, and begin with epoch report.last_epoch + 1"
            )

    def _next_epoch(self, given: int | None) -> int:
        if given is None:
            return self._epoch + 1
        epoch = operator.index(given)
        if epoch <= self._epoch:
            wrong = f"after epoch {self._epoch}, but epochs go up" if self._epoch else "but epochs are counted from 1"
            if self._epoch == self.last_epoch > 0:
                wrong += "; this job continues after report.last_epoch"
            raise ValueError(f"report() was called with epoch={epoch} {wrong}")
        return epoch

    def _save(self, checkpoint: Checkpoint) -> Path:
        """Keep a checkpoint of this epoch in a place of its own, whole or not at all."""
        root = self.folder / CHECKPOINTS
        target, part = root / f"epoch_{self._epoch:04d}", root / "part"
        _remove(part)
        part.mkdir(parents=True)
        if callable(checkpoint):
            checkpoint(part)
            if not any(part.iterdir()):
                raise HyperparameterError("checkpoint=… wrote nothing into the folder that it was called with")
        else:
            _copy(Path(checkpoint), part, without=root)
        _remove(target)
        part.rename(target)
        return target


CHECKPOINTS = "checkpoints"
"""Where a function's checkpoints lie in its trial's folder, each a folder named for its epoch."""


def _epoch_of(checkpoint: Path) -> int:
    found = re.fullmatch(r"epoch_(\d+)", checkpoint.name)
    if found is None:
        raise HyperparameterError(f"{checkpoint} is no checkpoint of a function; expected a folder such as epoch_0003")
    return int(found[1])


def _copy(source: Path, target: Path, without: Path) -> None:
    """Copy a file, or what is in a folder, into a folder that exists."""
    if source.is_dir():
        ours = without.resolve()

        def left_out(folder: str, names: list[str]) -> list[str]:
            return [name for name in names if (Path(folder) / name).resolve() == ours]

        shutil.copytree(source, target, dirs_exist_ok=True, ignore=left_out)
    elif source.exists():
        shutil.copy2(source, target / source.name)
    else:
        raise FileNotFoundError(f"report() was called with checkpoint={str(source)!r}, and there is no such file")


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
