"""The search for a function's best configuration."""

from __future__ import annotations

import contextlib
import inspect
import math
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from saccade.checks import real_number, whole_number
from saccade.deadline import Deadline
from saccade.errors import HyperparameterError, UnknownNameError, count_of, explained_file_errors, suggesting_function
from saccade.events import Event, JobFailed, Listener, RunFinished, RunStarted, Warned
from saccade.executor import EXECUTORS, Executor, WorkerSlot, local_slots, make_executor, num_usable_cpus, use_executor
from saccade.global_state import preserved_global_state
from saccade.remote.urls import place_of
from saccade.scheduler import SCHEDULERS, make_scheduler
from saccade.scheduler.base import Scheduler
from saccade.searcher import GridSearcher, make_searcher
from saccade.searcher.base import Searcher
from saccade.space import Dict
from saccade.space.flat_form import scales
from saccade.study.event_log import EventLog
from saccade.study.function import FunctionTrainable, MissingScoreError
from saccade.study.optuna_tracker import OptunaTracker
from saccade.study.run_folder import environment, locked
from saccade.study.study import Study
from saccade.study.trackers import Callback, check_callbacks, connected
from saccade.study.trial_files import LocalTrialFiles
from saccade.study.url_folder import check_url, urls_in_errors, with_urls_in, working_folder
from saccade.tuning.folder import EVENTS, JOURNAL, TRIALS, FunctionCheckpointKeeper, check_path, start_or_resume
from saccade.tuning.result import TuneResult

if TYPE_CHECKING:
    from os import PathLike

MODES = ("max", "min")
RESERVED = ("epoch", "checkpoint")
"""Keywords of a report that are not metrics."""


@suggesting_function("saccade", ["Bool", "Categorical", "Dict", "Int", "List", "Real", "TuneResult"])
@preserved_global_state()
@urls_in_errors()
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
    address: str | None = None,
    max_workers: int | None = None,
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
        How many trials run at once. Several run in worker processes, to which cloudpickle sends the function. On a
        cluster, a number above 1 is the same as `max_workers`.
    executor
        Where the function is called. ``"inline"`` is this process, ``"process"`` is worker processes, in which a crash
        costs one trial. A call that hangs is ended shortly after its time limit: a worker is killed; inline, the call
        is interrupted by a `JobTimeout`, if it is in the main thread, on POSIX, and not in a library that never
        returns. ``"auto"`` is inline for one worker. ``"ray"`` is a Ray cluster (`saccade.executor.RayExecutor`), with
        as many workers as it has room for. Or another name in `saccade.executor.EXECUTORS`, or an `Executor`, whose
        workers stay alive.
    address
        Of the Ray cluster: ``"host:6379"``, ``"ray://host:10001"``, ``"auto"`` for one that runs on this machine. None
        is that of RAY_ADDRESS, or one that runs here, or else one that is started.
    max_workers
        The most workers on the cluster; None leaves it to the cluster.
    callbacks
        Trackers, functions of one event, or names in `saccade.study.trackers.TRACKERS`. They receive every event of the
        search. An exception of one is a warning and does not end the search.
    path
        Folder for the event log, a journal for optuna-dashboard, and the files of trials, or its URL, such as
        ``s3://bucket/search``. With None, only checkpoints are kept, as long as the result exists.
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
    HyperparameterError, UnknownNameError, SpaceError
        If an argument is invalid, nothing would end the search, or the function does not report the metric.
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
    options = {"address": address, "max_workers": max_workers, "time_limit_s": time_limit}
    made = _executor_of(executor, num_workers, num_trials, options)
    with use_executor(executor, made) as made_executor:
        made_executor.trainable = trainable
        search = _Search(
            made_executor,
            made_searcher,
            made_scheduler,
            metric,
            mode,
            num_trials,
            time_limit,
            trial_time_limit,
            target_score,
            None if path is None else place_of(path),
            resume,
            verbosity,
            callbacks,
        )
        return search.run(deadline)


def _executor_of(
    executor: str | Executor, num_workers: Any, num_trials: int | None, options: Mapping[str, Any]
) -> Executor:
    """Return the executor that calls the function; the caller sets its trainable.

    ``"auto"`` with one worker is this process, also with a time limit: changes of the caller's variables are visible,
    and the function need not be pickled and can be debugged.
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
    if executor == "ray" and num_workers > 1 and options["max_workers"] is None:
        options = {**options, "max_workers": num_workers}
    if executor == "auto" and options["address"] is None:
        executor = "process" if num > 1 else "inline"

    def slots() -> list[WorkerSlot]:
        # If there are more workers than cores, each has one thread.
        is_crowded = num > num_usable_cpus()
        return [WorkerSlot(num_threads=1)] * num if is_crowded else local_slots(0, num_workers=num)

    return make_executor(executor, workers=slots, num_trials=num_trials, **options)


class TuningInterrupted(KeyboardInterrupt):
    """Ctrl-C during `tune`; the attribute `result` is the TuneResult so far."""

    def __init__(self, message: str, result: TuneResult) -> None:
        super().__init__(message)
        self.result = result


@dataclass(frozen=True)
class _Search:
    """The checked arguments of `tune`; see there. The executor has its trainable, and `path` is absolute."""

    executor: Executor
    searcher: Searcher
    scheduler: Scheduler
    metric: str
    mode: str
    num_trials: int | None
    time_limit_s: float | None
    trial_time_limit_s: float | None
    target_score: float | None
    path: Path | str | None  # the folder, or its URL
    resume: bool
    verbosity: int
    callbacks: Sequence[Callback] = ()

    def run(self, deadline: Deadline) -> TuneResult:
        """Run the search, without a path in a temporary folder that is removed together with the result."""
        if self.path is not None:
            space = self.searcher.space
            advice = "Then pass resume=True to continue."
            with working_folder(self.path) as working:
                check_path(working)
                with (
                    explained_file_errors(working, advice=advice),
                    locked(working),
                    EventLog(working / EVENTS, space) as log,
                ):
                    is_resumed = start_or_resume(working, space, self.metric, self.mode, resume=self.resume)
                    deadline = Deadline(self.time_limit_s, used_s=deadline.elapsed_s() + log.seconds_used())
                    return self._search(working, deadline, log, is_resumed)
        folder = Path(tempfile.mkdtemp(prefix="saccade_tune_"))
        try:
            result = self._search(folder, deadline, None, False)
        except TuningInterrupted as interrupted:
            interrupted.result.remove_at_end(folder)
            raise
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        result.remove_at_end(folder)
        return result

    def _search(self, folder: Path, deadline: Deadline, log: EventLog | None, is_resumed: bool) -> TuneResult:
        from saccade.study.display.progress import ProgressDisplay  # slow to import

        sign = -1.0 if self.mode == "min" else 1.0
        with (
            connected(self.callbacks, None if self.path is None else folder) as trackers,
            ProgressDisplay(self.verbosity, self.metric) as display,
            contextlib.ExitStack() as stack,
        ):
            listeners: list[Listener] = [display, *trackers, partial(check_url, folder)]

            def notify(event: Event) -> None:
                event = with_urls_in(event)
                if log is not None:
                    log(event)
                for listener in listeners:
                    listener(event)

            study = Study(
                self.executor,
                self.searcher,
                self.scheduler,
                num_trials=self.num_trials,
                deadline=deadline,
                trial_time_limit_s=self.trial_time_limit_s,
                max_score=None if self.target_score is None else sign * self.target_score,
                files=LocalTrialFiles(folder / TRIALS),
                log=log,
                listeners=listeners,
            )

            def check_metric(event: Event) -> None:
                """End a search whose function does not report the metric."""
                name = f"{MissingScoreError.__name__}: "
                if isinstance(event, JobFailed) and event.reason.startswith(name) and study.best_trial is None:
                    raise MissingScoreError(event.reason.removeprefix(name))

            study.listeners += [FunctionCheckpointKeeper(study.trials), check_metric]
            display.recall(study.trials)
            limits, machine = (self.num_trials, self.time_limit_s), environment("optuna")
            names = scales(self.searcher.space)
            notify(RunStarted(str(self.path or ""), *limits, machine, names, deadline.elapsed_s(), self.metric))
            if self.resume and not is_resumed:
                notify(Warned(f"{self.path} contains no search to resume; a new search starts"))
            if log is not None:
                tracker = OptunaTracker(folder / JOURNAL, study.trials, self.searcher.space)
                study.listeners.append(stack.enter_context(tracker))
            try:
                study.run()
            except KeyboardInterrupt:
                text = f"The search was interrupted after it had started {count_of(len(study.trials), 'trial')}."
                if self.path is None:
                    how = "This exception has their `result`."
                else:
                    path = str(self.path)
                    how = f"Resume it: tune(…, path={path!r}, resume=True). Load its result: TuneResult.load({path!r})."
                result = TuneResult.of(study.trials, self.metric, self.mode, self.path)
                raise TuningInterrupted(f"{text} {how}", result) from None
            best = study.best_trial
            score = None if best is None or best.best_report is None else best.best_report.score
            notify(RunFinished(None if best is None else best.number, score, deadline.elapsed_s()))
            return TuneResult.of(study.trials, self.metric, self.mode, self.path)
