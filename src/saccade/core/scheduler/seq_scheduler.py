"""Generic tuning as in the API that Saccade revives: any Python function, one trial at a time."""

from __future__ import annotations

import inspect
import logging
import math
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from saccade.checks import real_number, whole_number
from saccade.core.searcher.local_searcher import LocalGridSearcher, LocalRandomSearcher, LocalSearcher
from saccade.deadline import Deadline
from saccade.errors import HyperparameterError, SearchFailedError, UnknownArgumentError
from saccade.events import Event, JobFailed, TrialCreated, Warned
from saccade.executor import InlineExecutor
from saccade.scheduler.fifo import FIFOScheduler
from saccade.searcher import make_searcher
from saccade.searcher.base import Searcher
from saccade.space import Dict
from saccade.space.base import copied, plain
from saccade.study.function import FunctionReporter, FunctionTrainable
from saccade.study.study import Study
from saccade.study.trial import Trial

if TYPE_CHECKING:
    from os import PathLike

    from matplotlib.figure import Figure

_log = logging.getLogger(__name__)

_LOCAL_SEARCHERS: dict[str, type[LocalSearcher]] = {
    "auto": LocalRandomSearcher,
    "random": LocalRandomSearcher,
    "local_random": LocalRandomSearcher,
    "grid": LocalGridSearcher,
    "local_grid": LocalGridSearcher,
}

# Arguments of old scripts for running trials on other machines, or for displaying them.
_WITHOUT_EFFECT = (
    "delay_get_config",
    "dist_ip_addrs",
    "resume",
    "training_history_callback",
    "training_history_callback_delta_secs",
    "visualizer",
)


class StoppingCriterionError(HyperparameterError, AssertionError):
    """A search without a limit; an ``AssertionError`` as well, as in the API that Saccade revives."""


class LocalSequentialScheduler:
    """Tune any Python function: run it with one configuration at a time, in this process.

    A trial that raises does not end the search, unless the first ten all do with the same error. Its traceback is
    logged at once and kept in `training_history`. The reward of a trial is the highest one that it reports. Without a
    limit a StoppingCriterionError is raised, with an invalid one a HyperparameterError, and an UnknownNameError for
    unknown searchers, search options and arguments.

    Parameters
    ----------
    train_fn : callable
        ``train_fn(args, reporter)``. `args` is a dict of the configuration, whose values are attributes as well
        (``args.lr``), with the number of the trial as `task_id`. It calls ``reporter(epoch=1, reward=0.9)`` after each
        epoch; further metrics are kept, and `epoch` may be omitted. The call does not return if the trial ends there,
        because `max_reward` is reached, or because another epoch as long as the last one would exceed the time limit.
    search_space : saccade.space.Dict or mapping
        Spaces and constants by name.
    train_fn_kwargs : mapping or None
        Further keyword arguments of `train_fn`.
    searcher : str or Searcher
        ``"random"`` (``"auto"`` is the same), ``"grid"``, a name of `saccade.searcher.make_searcher`, or one.
    reward_attr : str
        The keyword of the reporter that holds the reward; higher is better.
    resource : mapping or None
        Has no effect: trials run in this process, with all its resources.
    search_options : mapping or None
        Further arguments of a searcher given by name.
    time_attr : str
        The keyword of the reporter for the x-axis of training curves.
    num_trials : int or None
        Maximum number of trials.
    time_out : float or None
        Time limit of the search, in seconds.
    max_reward : float or None
        The search ends when a trial reports at least this reward; None means no limit.
    checkpoint : object
        Has no effect except a warning: nothing is saved.
    **options
        Arguments of old scripts that have no effect here; each causes a warning.

    Attributes
    ----------
    training_history : dict of int to list of dict
        The reports of each trial, by its number: the metrics, with ``trial``, ``time_this_iter`` and
        ``time_since_start`` (seconds). The last entry of a failed trial has its ``traceback``.
    config_history : dict of int to dict
        The configurations by trial number.
    study : saccade.study.study.Study or None
        The last search; None before the first.

    Examples
    --------
    >>> from saccade.space import Real
    >>> def train_fn(args, reporter):
    ...     reporter(epoch=1, reward=1 - (args.x - 0.5) ** 2)
    >>> scheduler = LocalSequentialScheduler(train_fn, {"x": Real(0, 1)}, searcher="grid", num_trials=3)
    >>> scheduler.run()
    >>> scheduler.get_best_config()
    {'x': 0.3333333333333333}
    """

    def __init__(
        self,
        train_fn: Callable[..., Any],
        search_space: Dict | Mapping[Any, Any],
        train_fn_kwargs: Mapping[str, Any] | None = None,
        searcher: str | Searcher = "auto",
        reward_attr: str = "reward",
        resource: Mapping[str, Any] | None = None,
        *,
        search_options: Mapping[str, Any] | None = None,
        time_attr: str = "epoch",
        num_trials: int | None = None,
        time_out: float | None = None,
        max_reward: float | None = None,
        checkpoint: object = None,
        **options: Any,
    ) -> None:
        if num_trials is None and time_out is None:
            raise StoppingCriterionError("Need stopping criterion: Either num_trials or time_out")
        if num_trials is not None:
            num_trials = whole_number("num_trials", num_trials)
        if time_out is not None:
            time_out = real_number("time_out", time_out, "a number of seconds above 0, or None", above=0)
        known = set(inspect.signature(LocalSequentialScheduler).parameters) - {"options"}
        for name in options if checkpoint is None else {**options, "checkpoint": checkpoint}:
            if name not in known and name not in _WITHOUT_EFFECT:
                raise UnknownArgumentError.of("argument", name, known)
            _log.warning("LocalSequentialScheduler: %s has no effect.", name)
        self.train_fn = train_fn
        self.train_fn_kwargs = dict(train_fn_kwargs or {})
        self.search_space = search_space
        self.searcher = self._make_searcher(searcher, reward_attr, dict(search_options or {}))
        self.reward_attr, self.time_attr = reward_attr, time_attr
        self.resource = resource
        self.num_trials, self.time_out, self.max_reward = num_trials, time_out, max_reward
        self.training_history: dict[int, list[dict[str, Any]]] = {}
        self.config_history: dict[int, dict[Any, Any]] = {}
        self.study: Study | None = None

    def run(self) -> None:
        """Search until the limit of trials, time or reward is reached, or the space is exhausted.

        Each call starts a new search with the same searcher, which keeps its observations. If every trial raised, a
        SearchFailedError has the reasons and the first traceback.
        """
        self.training_history, self.config_history = {}, {}
        self.study = Study(
            InlineExecutor(FunctionTrainable(self._train)),
            self.searcher,
            FIFOScheduler(),
            num_trials=self.num_trials,
            deadline=Deadline(self.time_out),
            max_score=self.max_reward,
            listeners=[self._listen],
        )
        try:
            self.study.run()
        except SearchFailedError as failed:
            # The study treats a trial without a report as failed; here it only has no reward.
            if all(trial.failure and trial.failure.traceback for trial in self.study.trials):
                raise
            _log.warning("No trial has a reward. %s", failed)

    def run_with_config(self, config: Mapping[Any, Any]) -> Any:
        """Call the function once with a configuration, outside the search, and return what it returns.

        Its reports are ignored, and its exceptions are raised.
        """
        return self._call(Arguments(copied(dict(config))), lambda **metrics: None)  # noqa: ARG005

    def join_jobs(self, timeout: float | None = None) -> None:
        """Return at once: when `run` has returned, all trials have ended."""

    def get_best_task_id(self) -> int | None:
        """Return the number of the trial with the highest reward; None if no trial has one."""
        best = self._best_trial
        return None if best is None else best.number

    def get_best_config(self) -> dict[Any, Any]:
        """Return the configuration of the trial with the highest reward; {} if no trial has one."""
        best = self._best_trial
        config: dict[Any, Any] = {} if best is None else copied(best.config)
        return config

    def get_best_reward(self) -> float:
        """Return the highest reward; -inf if no trial has one."""
        best = self._best_trial
        return -math.inf if best is None or best.best_report is None else best.best_report.score

    def get_training_curves(
        self, filename: str | PathLike[str] | None = None, plot: bool = False, use_legend: bool = True
    ) -> Figure | None:
        """Draw the reward of each trial over its epochs.

        Returns the figure, which is written to the file `filename`, if any, in the format of its extension. With `plot`
        it is shown, in a window or in the notebook, and None is returned, so that a notebook does not show it twice.
        """
        if plot:
            from matplotlib import pyplot  # lazily, as it is slow to import; and only here, as it has global state
        from matplotlib.figure import Figure  # lazily

        from saccade.data.gallery import use_fonts_for  # as well

        figure: Figure = pyplot.figure(layout="constrained") if plot else Figure(layout="constrained")
        axes = figure.add_subplot(xlabel=self.time_attr, ylabel=self.reward_attr)
        use_fonts_for([axes.xaxis.label, axes.yaxis.label])
        for number, history in self.training_history.items():
            reports = [report for report in history if self.reward_attr in report]
            times = [report.get(self.time_attr, count) for count, report in enumerate(reports, start=1)]
            axes.plot(times, [report[self.reward_attr] for report in reports], ".-", label=f"task {number}")
        if use_legend and axes.lines:
            axes.legend()
        if filename is not None:
            figure.savefig(filename)
        if not plot:
            return figure
        pyplot.show()
        pyplot.close(figure)
        return None

    @staticmethod
    def get_average_trial_time_(
        i: int, avg_trial_run_time: float | None, trial_start_time: float, time_end: float
    ) -> float:
        """Return the mean duration in seconds of trials after trial `i` (from 0), which ran between the two times."""
        trial_time = time_end - trial_start_time
        return trial_time if i == 0 or avg_trial_run_time is None else (avg_trial_run_time * i + trial_time) / (i + 1)

    @staticmethod
    def has_enough_time_for_trial_(
        time_out: float,
        time_start: float,
        trial_start_time: float,  # noqa: ARG004
        trial_end_time: float,
        avg_trial_run_time: float | None,
        fill_factor: float = 0.95,
    ) -> bool:
        """Return whether another trial would end within the time limit: `fill_factor` times the mean duration is left.

        All times are in seconds. `run` does not use it, because it ends a trial at the time limit and keeps its
        reports.
        """
        time_left = time_start + time_out - trial_end_time
        return time_left > (avg_trial_run_time or 0.0) * fill_factor

    def _make_searcher(self, searcher: str | Searcher, reward_attr: str, options: dict[str, Any]) -> Searcher:
        local = _LOCAL_SEARCHERS.get(searcher.lower()) if isinstance(searcher, str) else None
        if local is None:
            return make_searcher(searcher, self.search_space, **options)
        known = set(inspect.signature(local).parameters) - {"search_space", "reward_attr"}
        for option in options:
            if option not in known:
                raise UnknownArgumentError.of(f"search option of {local.__name__}", option, known)
        return local(self.search_space, reward_attr=reward_attr, **options)

    @property
    def _best_trial(self) -> Trial | None:
        return None if self.study is None else self.study.best_trial

    def _call(self, args: Arguments, reporter: Callable[..., None]) -> Any:
        try:
            inspect.signature(self.train_fn).bind(args, reporter=reporter, **self.train_fn_kwargs)
        except TypeError:  # its reporter has another name
            return self.train_fn(args, reporter, **self.train_fn_kwargs)
        return self.train_fn(args, reporter=reporter, **self.train_fn_kwargs)

    def _train(self, config: dict[Any, Any], report: FunctionReporter) -> None:
        """Call `train_fn` with a reporter that appends to the training history of the trial."""
        history, name = self.training_history.setdefault(report.trial, []), self.reward_attr
        start_s = last_s = time.perf_counter()

        def reporter(**metrics: Any) -> None:
            nonlocal last_s
            if name not in metrics:
                raise TypeError(
                    f"reporter() was called with {sorted(metrics)}, without the reward {name!r}; "
                    f"write reporter(epoch=…, {name}=…), or give the scheduler another reward_attr"
                )
            reward, now_s = float(metrics[name]), time.perf_counter()
            times = {"time_this_iter": now_s - last_s, "time_since_start": now_s - start_s}
            history.append({key: plain(value) for key, value in metrics.items()} | {"trial": report.trial} | times)
            last_s = now_s
            # Epochs are counted here, because old scripts number them in different ways.
            report(score=reward)

        self._call(Arguments({"task_id": report.trial, **config}), reporter)

    def _listen(self, event: Event) -> None:
        searcher = self.searcher if isinstance(self.searcher, LocalSearcher) else None
        match event:
            case TrialCreated():
                self.config_history[event.trial] = copied(event.config)
            case JobFailed():
                if searcher:
                    searcher.evaluation_failed(self.config_history[event.trial])
                if event.traceback:
                    self.training_history[event.trial].append({"trial": event.trial, "traceback": event.traceback})
                    _log.warning("Trial %d failed: %s\n%s", event.trial, event.reason, event.traceback.rstrip())
                else:
                    example = f"reporter(epoch=…, {self.reward_attr}=…)"
                    _log.warning("Trial %d has no reward: train_fn did not call %s.", event.trial, example)
            case Warned():
                _log.warning("%s", event.text)


class Arguments(dict[Any, Any]):
    """A configuration as a dict whose values are attributes as well, those of inner dicts too."""

    def __init__(self, config: Mapping[Any, Any]) -> None:
        super().__init__({key: Arguments(part) if type(part) is dict else part for key, part in config.items()})

    def __getattr__(self, name: str) -> Any:
        if name in self:
            return self[name]
        raise AttributeError(f"the configuration has no {name!r}; it has {list(self)}")

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value
