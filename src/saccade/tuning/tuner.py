"""The search for a function's best configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from saccade.deadline import Deadline
from saccade.errors import HyperparameterError
from saccade.executor import Executor, use_executor
from saccade.scheduler.base import Scheduler
from saccade.searcher.base import Searcher
from saccade.space import Dict
from saccade.study.function import FunctionTrainable
from saccade.study.trackers import Callback, check_callbacks, connected
from saccade.tuning import arguments
from saccade.tuning.calling import CalledFunction
from saccade.tuning.result import TuneResult
from saccade.tuning.search import Search

if TYPE_CHECKING:
    from os import PathLike


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
    """Search for the configuration with which a function does best.

    The function is called with a configuration, and with a reporter that it calls after each epoch, or whatever its
    steps are. ::

        def train(config, report):
            model = make_model(config)
            if report.checkpoint:  # a folder to continue from, or None
                model.load(report.checkpoint / "model.pt")
            for epoch in range(report.last_epoch + 1, 31):
                accuracy = model.train_epoch()
                report(epoch=epoch, accuracy=accuracy, checkpoint=lambda folder: model.save(folder / "model.pt"))

    The call of `report` does not return when the trial is to end; ``finally`` and ``with`` do their work then.

    Checkpoints are offered, not asked for. Where there are some, unpromising trials are paused, and go on later where
    they were; so they do after a crash, or when the search is resumed. ``checkpoint=`` is a function that writes into
    the folder that it is called with, or the path of a file or folder that is copied: either is kept whole or not at
    all, whatever the function overwrites next. Only the best checkpoints, and those that are needed to go on, stay on
    disk. A function that offers none is never paused: an unpromising trial is stopped for good. Without a time limit,
    trials that do not promise enough stay paused in the end; with one, what is left of the time is used for them.

    A function of the configuration alone returns its score, or a dict of figures with the metric.

    Parameters
    ----------
    train_fn
        ``train_fn(config, report)``, or ``train_fn(config)`` that returns the score. `report` is a `FunctionReporter`.
    space
        Names with spaces and constants.
    metric
        The keyword of the report that holds the score, a finite number.
    mode
        Whether a higher (``"max"``) or a lower (``"min"``) score is better.
    time_limit
        Seconds for the whole search, from the call to its return, those of earlier processes that it resumes included.
        Running trials end in time by themselves, as far as their last epoch tells how long the next will be.
    num_trials
        Configurations to try at most, those of earlier processes included. Without it and a time limit, the space must
        have an end.
    searcher
        What proposes configurations: a name that `make_searcher` knows (``"auto"`` is ``"tpe"``), or a `Searcher`.
    scheduler
        What decides how long each is trained: a name that `make_scheduler` knows (``"auto"`` is asynchronous successive
        halving, with rungs that fit the time limit and the measured cost of an epoch), or a `Scheduler`.
    max_epochs
        The epoch after which every trial is done; None leaves that to the function.
    trial_time_limit
        Seconds of training that one trial may have.
    target_score
        A score that is good enough: the search ends when a trial reaches it.
    starting_configs
        Configurations to try first; what one of them leaves out has its default.
    searcher_options, scheduler_options
        Further arguments of the searcher and the scheduler that are named.
    num_workers
        How many trials run at once. Several run in worker processes, to which the function is sent by cloudpickle.
    executor
        Where the function is called. ``"inline"`` is this process. ``"process"`` is worker processes: a crash costs one
        trial, and a call that hangs is ended after the time limit, which ``"inline"`` cannot do. ``"auto"`` is inline
        for one worker. Or another name in `saccade.executor.EXECUTORS`, or an `Executor`, whose workers stay alive.
    callbacks
        Trackers, functions of one event, or names in `saccade.study.trackers.TRACKERS`. They receive every event of the
        search. An exception of one is a warning and does not end the search.
    path
        Where to keep the journal, which optuna-dashboard can show, the events, and the trials' files. With None nothing
        is kept but checkpoints, for as long as the result lives.
    resume
        Go on with the search in `path`, which may have been killed at any instant; where there is none, begin it. With
        a longer `time_limit`, trials that the last one ended go on from their checkpoints.
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
        When an argument cannot be, nothing would end the search, or the function does not report the metric.
    UnknownNameError
        When there is no such searcher, scheduler, option, mode or executor.
    SpaceError
        When the space cannot be.
    SearchFailedError
        When no trial has a score; it names the reasons, and has the first traceback.
    JournalError
        When the journal cannot be read, or the search goes on in another process.
    TuningInterrupted
        A `KeyboardInterrupt` with the result by then.

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
    time_limit = arguments.seconds("time_limit", time_limit)
    deadline = Deadline(time_limit)
    arguments.check_metric(metric, mode)
    num_trials = arguments.whole("num_trials", num_trials)
    max_epochs = arguments.whole("max_epochs", max_epochs)
    if resume and path is None:
        raise HyperparameterError("resume=True goes on with the search in path, and path is None; give path=…")
    called = CalledFunction(train_fn, metric)
    made_searcher = arguments.searcher_of(searcher, space, seed, searcher_options, starting_configs)
    made_scheduler = arguments.scheduler_of(scheduler, max_epochs, scheduler_options)
    arguments.check_ends(made_searcher, num_trials, time_limit)
    callbacks = check_callbacks(callbacks)
    trial_time_limit = arguments.seconds("trial_time_limit", trial_time_limit)
    made = arguments.executor_of(executor, num_workers, num_trials)
    with use_executor(executor, made) as made_executor, connected(callbacks) as trackers:
        made_executor.trainable = FunctionTrainable(called, metric, is_minimized=mode == "min", max_epochs=max_epochs)
        search = Search(
            made_executor,
            made_searcher,
            made_scheduler,
            metric,
            mode,
            num_trials,
            time_limit,
            trial_time_limit,
            arguments.score("target_score", target_score),
            None if path is None else Path(path).expanduser().absolute(),
            resume,
            verbosity,
            trackers,
        )
        return search.run(deadline)
