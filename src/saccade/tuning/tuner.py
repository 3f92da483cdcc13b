"""The search for a function's best configuration."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from saccade.checks import real_number, whole_number
from saccade.deadline import Deadline
from saccade.errors import HyperparameterError, UnknownNameError, explained_file_errors, suggesting_function
from saccade.executor import EXECUTORS, Executor, WorkerSlot, local_slots, make_executor, num_usable_cpus, use_executor
from saccade.global_state import preserved_global_state
from saccade.scheduler import SCHEDULERS, make_scheduler
from saccade.scheduler.base import Scheduler
from saccade.searcher import GridSearcher, make_searcher
from saccade.searcher.base import Searcher
from saccade.space import Dict
from saccade.study.function import FunctionTrainable
from saccade.study.trackers import Callback, check_callbacks, connected
from saccade.tuning.result import TuneResult
from saccade.tuning.search import Search

if TYPE_CHECKING:
    from os import PathLike

MODES = ("max", "min")
RESERVED = ("epoch", "checkpoint")
"""Keywords of a report that are not metrics."""


@suggesting_function("saccade", ["Bool", "Categorical", "Dict", "Int", "List", "Real", "TuneResult"])
@preserved_global_state()
@explained_file_errors()
def tune(
    train_fn: Callable[..., Any],
    space: Dict | Mapping[Any, Any],
    *,
    metric: str = "score",
    mode: Literal["max", "min"] = "max",
    time_limit: float | None = None,
    num_trials: int | None = None,
    searcher: str | Searcher = "auto",
    scheduler: str | Scheduler = "auto",
    max_epochs: int | None = None,
    trial_time_limit: float | None = None,
    target_score: float | None = None,
    starting_configs: Sequence[Mapping[Any, Any]] | None = None,
    searcher_options: Mapping[str, Any] | None = None,
    scheduler_options: Mapping[str, Any] | None = None,
    num_workers: int = 1,
    executor: str | Executor = "auto",
    callbacks: Sequence[Callback] | None = None,
    path: str | PathLike[str] | None = None,
    resume: bool = False,
    seed: int = 0,
    verbosity: int = 2,
) -> TuneResult:
    """Search for the configuration with which a function has the best score.

    The function is called with a configuration and a reporter, which it calls after each epoch or other step. ::

        def train(config, report):
            model = make_model(config)
            if report.checkpoint:  # a folder to continue from, or None
                model.load(report.checkpoint / "model.pt")
            for epoch in range(report.last_epoch + 1, 31):
                accuracy = model.train_epoch()
                report(epoch=epoch, accuracy=accuracy, checkpoint=lambda folder: model.save(folder / "model.pt"))

    If the trial is to end, the call of `report` does not return; ``finally`` and ``with`` blocks still run.

    Checkpoints are optional. With them, trials that are not among the best are paused and can be resumed where they
    stopped, also after a crash or when the search is resumed. ``checkpoint=`` is a function that writes into the folder
    that it receives, or the path of a file or folder, which is copied; it is saved completely or not at all. Only the
    best checkpoints, and those that are needed to continue, stay on disk. Without checkpoints, a trial is never paused
    but stopped. With a time limit, the time that is left at the end is used to resume paused trials.

    A function of the configuration alone returns its score, or a dict of metrics that contains it.

    Parameters
    ----------
    train_fn
        ``train_fn(config, report)``, or ``train_fn(config)`` that returns the score. `report` is a `FunctionReporter`.
    space
        Spaces and constants by name.
    metric
        The keyword of the report that holds the score, a finite number.
    mode
        Whether a higher (``"max"``) or a lower (``"min"``) score is better.
    time_limit
        Seconds for the whole search, earlier sessions that it resumes included. A running trial ends before the limit
        if another epoch as long as its last one would exceed it.
    num_trials
        The maximum number of configurations, earlier sessions included. It may be None with a time limit or a finite
        space.
    searcher
        The search algorithm: a name in `saccade.searcher.SEARCHERS` (``"auto"`` is ``"tpe"``), or a `Searcher` of the
        same space.
    scheduler
        Decides which trial trains next, and for how long: a name in `saccade.scheduler.SCHEDULERS` (``"auto"`` is
        asynchronous successive halving, with rungs that fit the time limit and the measured cost of an epoch), or a
        `Scheduler`.
    max_epochs
        The last epoch of every trial; None leaves that to the function.
    trial_time_limit
        Maximum training time of one trial in seconds. Its first report may take up to twice as long.
    target_score
        The search ends when a trial reaches this score.
    starting_configs
        Configurations to try first; missing values have the defaults of their spaces.
    searcher_options, scheduler_options
        Further arguments of a searcher or scheduler that is given by name.
    num_workers
        How many trials run at once. Several run in worker processes, to which cloudpickle sends the function.
    executor
        Where the function is called. ``"inline"`` is this process, ``"process"`` is worker processes, in which a crash
        costs one trial. A call that hangs is ended shortly after its time limit: a worker is killed; inline, the call
        is interrupted by a `JobTimeout`, if it is in the main thread, on POSIX, and not in a library that never
        returns. ``"auto"`` is inline for one worker. Or another name in `saccade.executor.EXECUTORS`, or an `Executor`,
        whose workers stay alive.
    callbacks
        Trackers, functions of one event, or names in `saccade.study.trackers.TRACKERS`. They receive every event of the
        search. An exception of one is a warning and does not end the search.
    path
        Folder for the event log, a journal for optuna-dashboard, and the files of trials. With None, only checkpoints
        are kept, as long as the result exists.
    resume
        Resume the search in `path`, which may have been killed at any instant; start one if there is none. With a
        longer `time_limit`, trials that the last limit ended continue from their checkpoints.
    seed
        Seed of the searcher.
    verbosity
        0 is silent; 1 shows warnings, failures and the result; 2 shows trials as well; 3 shows every epoch.

    Returns
    -------
    TuneResult
        The best configuration, and all trials.

    Raises
    ------
    HyperparameterError
        If an argument is invalid, nothing would end the search, or the function does not report the metric.
    UnknownNameError
        If there is no such searcher, scheduler, option, mode or executor.
    SpaceError
        If the space is invalid.
    SearchFailedError
        If no trial has a score; the message has the reasons and the first traceback.
    JournalError
        If the event log is damaged, or if another process uses the folder.
    TuningInterrupted
        On Ctrl-C; a `KeyboardInterrupt` with the result so far.

    Examples
    --------
    >>> from saccade.space import Real
    >>> def train(config, report):
    ...     for epoch in range(1, 4):
    ...         report(epoch=epoch, loss=(config["x"] - 0.7) ** 2 + 1 / epoch)
    >>> result = tune(train, {"x": Real(0, 1)}, metric="loss", mode="min", num_trials=30, verbosity=0)
    >>> abs(result.best_config["x"] - 0.7) < 0.2
    True
    """
    expected = "a number of seconds above 0, or None"
    time_limit = None if time_limit is None else real_number("time_limit", time_limit, expected, above=0)
    deadline = Deadline(time_limit)
    if not isinstance(metric, str) or not metric or metric in RESERVED:
        raise HyperparameterError(
            f"metric was given {metric!r}; expected the keyword by which train_fn reports its score, such as "
            "'accuracy' for report(epoch=…, accuracy=…)"
        )
    if mode not in MODES:
        raise UnknownNameError.of("mode", mode, MODES)
    num_trials = None if num_trials is None else whole_number("num_trials", num_trials)
    max_epochs = None if max_epochs is None else whole_number("max_epochs", max_epochs)
    if resume and path is None:
        raise HyperparameterError("resume=True continues the search in path, but path is None. Pass path=…")
    trainable = FunctionTrainable(train_fn, metric, is_minimized=mode == "min", max_epochs=max_epochs)
    starts = {} if starting_configs is None else {"starting_configs": starting_configs}
    made_searcher = make_searcher(searcher, space, seed, **{**(searcher_options or {}), **starts})
    options = dict(scheduler_options or {})
    kind = SCHEDULERS.get(scheduler) if isinstance(scheduler, str) else None
    if kind is not None and max_epochs is not None and "max_epochs" in inspect.signature(kind).parameters:
        options.setdefault("max_epochs", max_epochs)
    made_scheduler = make_scheduler(scheduler, **options)
    is_finite = made_searcher.space.num_configurations < math.inf or isinstance(made_searcher, GridSearcher)
    if num_trials is None and time_limit is None and not is_finite:
        raise HyperparameterError(
            "the search would never end: there is neither time_limit nor num_trials, and the space has infinitely many "
            "configurations. Pass time_limit=… (seconds) or num_trials=…"
        )
    callbacks = check_callbacks(callbacks)
    if trial_time_limit is not None:
        trial_time_limit = real_number("trial_time_limit", trial_time_limit, expected, above=0)
    if target_score is not None:
        finite = "a finite number, or None"
        target_score = real_number("target_score", target_score, finite, above=-math.inf, below=math.inf)
    made = _executor_of(executor, num_workers, num_trials)
    with use_executor(executor, made) as made_executor, connected(callbacks) as trackers:
        made_executor.trainable = trainable
        search = Search(
            made_executor,
            made_searcher,
            made_scheduler,
            metric,
            mode,
            num_trials,
            time_limit,
            trial_time_limit,
            target_score,
            None if path is None else Path(path).expanduser().absolute(),
            resume,
            verbosity,
            trackers,
        )
        return search.run(deadline)


def _executor_of(executor: str | Executor, num_workers: Any, num_trials: int | None) -> Executor:
    """Return the executor that calls the function; the caller sets its trainable.

    ``"auto"`` with one worker is this process, also with a time limit: changes that the function makes to the caller's
    variables are visible, it need not be pickled, and it can be debugged. More than one worker together with
    ``"inline"`` or with an instance is a HyperparameterError.
    """
    executor = EXECUTORS.canonical(executor) if isinstance(executor, str) else executor
    num_workers = 1 if num_workers is None else whole_number("num_workers", num_workers)
    if num_workers > 1 and not isinstance(executor, str):
        raise HyperparameterError(
            f"num_workers is {num_workers}, but executor is an instance with its own workers. Leave one of them out."
        )
    if num_workers > 1 and executor == "inline":
        raise HyperparameterError(
            f"num_workers is {num_workers}, but executor='inline' calls train_fn in this process, which is one worker. "
            "Leave one of them out."
        )
    num = min(num_workers, num_trials or num_workers)
    if executor == "auto":
        executor = "process" if num > 1 else "inline"
    # If there are more workers than cores, each has one thread.
    is_crowded = num > num_usable_cpus()
    slots = [WorkerSlot(num_threads=1)] * num if is_crowded else local_slots(0, num_workers=num)
    return make_executor(executor, workers=slots, num_trials=num_trials)
