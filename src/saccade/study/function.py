"""Any Python function as a trainable, and the reporter with which it reports epochs and saves checkpoints."""

from __future__ import annotations

import contextlib
import inspect
import operator
import os
import re
import shutil
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

from saccade.deadline import Deadline
from saccade.errors import HyperparameterError, near_names
from saccade.events import EpochDone
from saccade.space.base import plain
from saccade.study.life import TIME_LIMIT
from saccade.study.trial import Decision, Job, Reporter, Trainable
from saccade.study.trial_files import parse_name, without_part

CHECKPOINT = "checkpoint"  # the kind of a function's checkpoints, which are folders

Checkpoint = Callable[[Path], object] | str | os.PathLike[str]
"""A checkpoint: a function that writes it into the given folder, or the path of a file or folder."""

REPORTER_NAMES = ("report", "reporter")
"""Names of a parameter that receives the reporter although it has a default or is keyword-only."""


class FunctionTrainable(Trainable):
    """Any Python function as a trainable.

    `function` is called as ``function(config, report)``, and calls `report`, a `FunctionReporter`, after each epoch;
    or as ``function(config)``, and returns the score or a dict of metrics, which is its only report. A second parameter
    with a default gets the reporter only if its name is ``report`` or ``reporter``. The call of `report` does not
    return if the trial is to end: by a decision of the study, or because another epoch as long as the last one would
    exceed the time limit. `score_name` is the keyword of the score. If lower values are better (`is_minimized`), the
    score is the negative value, and the value itself is kept as a metric. `max_epochs` is the last epoch of every
    configuration; None leaves that to the function. A function that cannot be called so is a HyperparameterError.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        score_name: str = "score",
        *,
        is_minimized: bool = False,
        max_epochs: int | None = None,
    ) -> None:
        self.function, self.score_name = function, score_name
        self.is_minimized, self.max_epochs = is_minimized, max_epochs
        self._reporter = _reporter_place(function)

    def train(self, job: Job, report: Reporter) -> str:
        """Call the function, and end it with an exception if the trial is to end."""
        reporter, config = FunctionReporter(job, report, self), dict(job.config)
        with contextlib.suppress(_StopFunction):
            if self._reporter is None:
                returned = self.function(config)
            elif self._reporter == "":
                returned = self.function(config, reporter)
            else:
                returned = self.function(config, **{self._reporter: reporter})
            if returned is not None and not reporter.has_reported and reporter.last_epoch == 0:
                if not isinstance(returned, Mapping):
                    if not isinstance(plain(returned), (bool, int, float)):
                        raise HyperparameterError(
                            f"the function returned {returned!r} ({type(returned).__name__}); expected its "
                            f"{self.score_name} as a number, or a dict of metrics such as "
                            f"{{{self.score_name!r}: 0.9}}, or reports of epochs"
                        )
                    returned = {self.score_name: returned}
                reporter.send(returned, is_last=True)
        return reporter.end or ""


class MissingScoreError(HyperparameterError, TypeError):
    """A function has reported without the score that it is tuned for."""


class _StopFunction(BaseException):
    """Ends a user's function from within its call of the reporter."""


class FunctionReporter:
    """The second argument of a tuned function, with which it reports epochs.

    ``report(epoch=3, accuracy=0.9)`` reports an epoch. Without `epoch`, reports are counted. Further keywords are kept
    as metrics. ``checkpoint=…`` saves a checkpoint from which the trial can continue later: a function that writes into
    the folder it is called with, or a file or folder that is copied. In a job that continues, `checkpoint` and
    `last_epoch` are set; a function that ignores `checkpoint` gets an error from its next report.

    Attributes
    ----------
    trial : int
        The trial's number.
    last_epoch : int
        The epoch after which training continues; 0 at the beginning.
    end : str or None
        Why the function was ended, "" at the end of the job or of the configuration; None before.
    """

    def __init__(self, job: Job, report: Reporter, trainable: FunctionTrainable) -> None:
        self._job, self._report, self._trainable = job, report, trainable
        self.trial = job.trial
        self.end: str | None = None
        self.last_epoch = 0
        self._checkpoint: Path | None = None
        if job.checkpoint is not None:
            self.last_epoch = int(re.findall(r"\d+", job.checkpoint)[-1])
            self._checkpoint = None if job.files is None else job.files.get(job.trial, *parse_name(job.checkpoint))
            if self._checkpoint is None:
                raise FileNotFoundError(f"checkpoint {job.checkpoint} of trial {job.trial} is missing")
        self._has_read_checkpoint = self._checkpoint is None
        self._epoch = self.last_epoch
        self._deadline = Deadline(job.seconds_left)
        self._last_s = time.perf_counter()

    @property
    def checkpoint(self) -> Path | None:
        """The folder with the checkpoint that was saved after `last_epoch`; None at the beginning."""
        self._has_read_checkpoint = True
        return self._checkpoint

    @property
    def has_reported(self) -> bool:
        """Whether the function has reported an epoch in this job."""
        return self._epoch > self.last_epoch

    @property
    def folder(self) -> Path:
        """The trial's own folder, for any files; a HyperparameterError if the study keeps none."""
        folder = None if self._job.files is None else self._job.files.folder(self.trial)
        if folder is None:
            raise HyperparameterError("trials have no folders here; the study has none, or keeps files elsewhere")
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def __call__(self, *, epoch: int | None = None, checkpoint: Checkpoint | None = None, **metrics: float) -> None:
        """Report an epoch; the call does not return if the trial is to end."""
        self.send(metrics, epoch, checkpoint)

    def send(
        self,
        metrics: Mapping[str, float],
        epoch: int | None = None,
        checkpoint: Checkpoint | None = None,
        *,
        is_last: bool = False,
    ) -> None:
        """Report an epoch with metrics of any names, and whether it is the configuration's last one."""
        if self.end is not None:  # the function has caught our exception
            raise _StopFunction
        name, max_epochs, until_epoch = self._trainable.score_name, self._trainable.max_epochs, self._job.until_epoch
        if name not in metrics:
            near = near_names(name, metrics, num=1)
            raise MissingScoreError(
                f"report() was called with {sorted(metrics)}, without the score {name!r}; "
                + (f"did you mean {near[0]!r}? " if near else "")
                + f"write report(epoch=…, {name}=…)"
            )
        if not self._has_read_checkpoint:
            raise HyperparameterError(
                f"the function was called to continue after epoch {self.last_epoch}, where it saved a checkpoint, but "
                "has not read report.checkpoint. Load that checkpoint, and start with epoch report.last_epoch + 1"
            )
        self._epoch = self._next_epoch(epoch)
        values = {key: float(value) for key, value in metrics.items()}
        score = -values[name] if self._trainable.is_minimized else values.pop(name)
        saved = None
        if checkpoint is not None:
            if self._job.files is None:
                raise HyperparameterError("checkpoints cannot be saved, because the study keeps no files")
            # Complete or not at all.
            saved = self._job.files.put(self.trial, CHECKPOINT, self._epoch, partial(_write_checkpoint, checkpoint))
        is_last |= max_epochs is not None and self._epoch >= max_epochs
        seconds = time.perf_counter() - self._last_s
        decision = self._report(EpochDone(self.trial, self._epoch, score, seconds, values, saved, is_last))
        if decision is not Decision.CONTINUE:
            self.end = f"{'paused' if decision is Decision.PAUSE else 'stopped'} by the scheduler"
        elif is_last or (until_epoch is not None and self._epoch >= until_epoch):
            self.end = ""
        elif self._deadline.seconds_left() < seconds:
            self.end = TIME_LIMIT
        if self.end is not None:
            raise _StopFunction
        self._last_s = time.perf_counter()

    def _next_epoch(self, given: int | None) -> int:
        epoch = self._epoch + 1 if given is None else operator.index(given)
        if epoch <= self._epoch:
            wrong = f"after epoch {self._epoch}, but epochs go up" if self._epoch else "but epochs are counted from 1"
            if not self.has_reported and self._epoch:
                wrong += "; this job continues after report.last_epoch"
            raise ValueError(f"report() was called with epoch={epoch} {wrong}")
        return epoch


def _write_checkpoint(checkpoint: Checkpoint, folder: Path) -> None:
    """Fill a new folder: by the user's function, or with a copy of a file or of the contents of a folder."""
    folder.mkdir()
    if callable(checkpoint):
        checkpoint(folder)
        if not any(folder.iterdir()):
            raise HyperparameterError("checkpoint=… wrote nothing into the folder that it was called with")
        return
    source, ours = Path(checkpoint), folder.parent.resolve()

    def earlier_checkpoints(inner: str, names: list[str]) -> list[str]:
        is_ours = Path(inner).resolve() == ours
        return [name for name in names if is_ours and parse_name(without_part(name))[0] == CHECKPOINT]

    if source.is_dir():
        shutil.copytree(source, folder, dirs_exist_ok=True, ignore=earlier_checkpoints)
    elif source.exists():
        shutil.copy2(source, folder / source.name)
    else:
        raise FileNotFoundError(f"report() was called with checkpoint={str(source)!r}, but there is no such file")


def _reporter_place(function: Callable[..., Any]) -> Literal[""] | str | None:  # noqa: PYI051 (the two differ in use)
    """Return the keyword of the parameter for the reporter, "" for the second position; None if there is none."""
    if not callable(function):
        raise HyperparameterError(
            f"train_fn was given {function!r} ({type(function).__name__}); expected a function of (config, "
            "report), or of (config) that returns the score"
        )
    try:
        signature = inspect.signature(function)
    except ValueError:  # some functions that are written in C have no signature
        return ""
    for name, parameter in list(signature.parameters.items())[1:]:
        is_ours = name in REPORTER_NAMES and parameter.kind is not parameter.POSITIONAL_ONLY
        if is_ours and _takes(signature, {name: None}):
            return name
    if _takes(signature, {}):
        # Another parameter with a default is the user's own. *args usually belongs to a wrapper, which passes both on.
        is_any = any(each.kind is each.VAR_POSITIONAL for each in signature.parameters.values())
        return "" if is_any else None
    if _takes(signature, {}, None):
        return ""
    name = getattr(function, "__name__", type(function).__name__)
    raise HyperparameterError(
        f"{name}{signature} cannot be called with a configuration and a reporter, nor with a configuration alone; "
        f"expected {name}(config, report), or {name}(config) that returns the score"
    )


def _takes(signature: inspect.Signature, named: Mapping[str, Any], *rest: Any) -> bool:
    """Return whether a function can be called with a configuration and these arguments."""
    try:
        signature.bind({}, *rest, **named)
    except TypeError:
        return False
    return True
