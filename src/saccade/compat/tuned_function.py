"""A function to be tuned as the API that Saccade revives calls it: its arguments, its reporter, its history."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from saccade.space.constants import plain
from saccade.study.function import FunctionTrainable
from saccade.study.trial import Job, Reporter, Trainable


class Arguments(dict[Any, Any]):
    """A configuration as a dict whose values are attributes as well.

    Examples
    --------
    >>> args = Arguments({"lr": 0.1, "optimizer": {"name": "sgd"}})
    >>> args["lr"], args.optimizer.name
    (0.1, 'sgd')
    """

    def __init__(self, config: Mapping[Any, Any]) -> None:
        super().__init__({key: Arguments(part) if type(part) is dict else part for key, part in config.items()})

    def __getattr__(self, name: str) -> Any:
        if name in self:
            return self[name]
        raise AttributeError(f"the configuration has no {name!r}; it has {list(self)}")

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value


class TunedFunction(Trainable):
    """A function as a trainable that also keeps all that was reported.

    Parameters
    ----------
    call : callable
        ``call(args, reporter)``, with `Arguments`.
    reward_attr : str
        The keyword of the reporter that holds the reward.
    training_history : dict of int to list of dict
        Where the reports of each trial are put, by its number.
    """

    def __init__(
        self, call: Callable[..., Any], reward_attr: str, training_history: dict[int, list[dict[str, Any]]]
    ) -> None:
        self.call = call
        self.reward_attr = reward_attr
        self.training_history = training_history

    def train(self, job: Job, report: Reporter) -> str:
        """Call the function, and let a `FunctionTrainable` end it in time."""
        history = self.training_history.setdefault(job.trial, [])

        def function(config: dict[Any, Any], report_score: Callable[..., None]) -> None:
            reporter = _Reporter(job.trial, history, self.reward_attr, report_score)
            self.call(Arguments({"task_id": job.trial, **config}), reporter)

        return FunctionTrainable(function).train(job, report)


class _Reporter:
    def __init__(
        self, trial: int, history: list[dict[str, Any]], reward_attr: str, report_score: Callable[..., None]
    ) -> None:
        self._trial, self._history = trial, history
        self._reward_attr, self._report_score = reward_attr, report_score
        self._start_s = self._last_s = time.perf_counter()

    def __call__(self, **figures: Any) -> None:
        if self._reward_attr not in figures:
            raise TypeError(
                f"reporter() was called with {sorted(figures)}, without the reward {self._reward_attr!r}; "
                f"write reporter(epoch=…, {self._reward_attr}=…), or give the scheduler another reward_attr"
            )
        reward = float(figures[self._reward_attr])
        now_s = time.perf_counter()
        times = {"time_this_iter": now_s - self._last_s, "time_since_start": now_s - self._start_s}
        self._history.append({name: plain(figure) for name, figure in figures.items()} | {"trial": self._trial} | times)
        self._last_s = now_s
        # Reports are counted, because old scripts number their epochs as they like.
        self._report_score(score=reward)
