"""The time budget of a fit: its limit divided into phases, the seconds of each, and the reserve for what ends it."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Hashable, Sequence
from typing import Literal

from saccade.deadline import Deadline
from saccade.events import EpochDone, Event, JobDone, JobStarted, Listener, PhaseDone, TrialCreated
from saccade.selection.folds import FoldCosts
from saccade.selection.summary import trial_rows
from saccade.study.objectives import cost_names, same_costs
from saccade.study.study import Study
from saccade.study.time_use import TimeUse
from saccade.study.trial import Trial

Phase = Literal[
    "preparing", "decoding", "checking", "search", "refit", "folds", "selection", "distillation", "finishing", "report"
]

DECODING_FRACTION, LEAST_DECODING_S = 0.2, 1.0  # of the limit, for decoding; but some images must be there

# Measuring the speed of networks takes up to 4 % of the limit, at most 2 s; on a short limit up to 8 %, at most 0.8 s,
# in which a few small networks can be timed on two cores.
SPEED_FRACTION, SHORT_SPEED_FRACTION, FEW_NETWORKS_S, LONGEST_SPEED_S = 0.04, 0.08, 0.8, 2.0

SELECTION_FRACTION, SELECTION_S = 0.05, 0.8  # the choice of an ensemble takes up to 0.8 s, and at most 5 % of the limit

DISTILLATION_FRACTION = 0.3  # of the limit, to train a student of the selected networks

# Seconds to stop workers, to calibrate, to remove files and to write the summary: 1 % of the limit, .2 s to 1 s.
LEAST_FINISHING_S, FINISHING_FRACTION, MAX_FINISHING_S = 0.2, 0.01, 1.0

# Fraction of the limit for features of the training images, which are stored with the predictor. On shorter limits the
# backbone is usually frozen, and its features are known.
FEATURES_FRACTION, FEATURES_FROM_S = 0.02, 120.0

# On shorter limits CPU threads are adapted to other busy programs: their number follows from a measurement, and those
# of workers sleep early. Results depend on time anyway.
ADAPTED_BELOW_S = 600.0


REPORT_TRIALS = 200  # that double the time of the report


def too_short(deadline: Deadline) -> str:
    """Return the warning for a time limit that is used up before training."""
    return (
        f"time_limit={deadline.limit_s:g} is over before training, since the start took {deadline.elapsed_s():.1f} s. "
        "The fit ends with the first network that it can train. Increase time_limit for a better one"
    )


class TimeBudget:
    """Divides the time limit of a fit into phases, and measures how long each takes.

    It listens to the events of the run. The phases of a fit follow one another: `begin` ends one and begins the next,
    and `notify` gets a `PhaseDone`. The clock of the `deadline` includes `used_s`, the time of earlier processes.
    """

    def __init__(self, deadline: Deadline, used_s: float, notify: Listener) -> None:
        self.deadline, self.notify = deadline, notify
        self.reserve = FinishingReserve(deadline)
        self._use = TimeUse(used_s)

    def part(self, phase: Phase | Literal["measuring speed"]) -> Deadline:
        """Return when a phase must end, so that time is left for those that follow."""
        limit_s, left_s = self.deadline.limit_s, self.deadline.seconds_left()
        match phase:
            case "decoding":
                return Deadline(max(DECODING_FRACTION * limit_s - self.deadline.elapsed_s(), LEAST_DECODING_S))
            case "measuring speed":
                least_s = min(SHORT_SPEED_FRACTION * limit_s, FEW_NETWORKS_S)
                return self.deadline.within(min(LONGEST_SPEED_S, max(SPEED_FRACTION * limit_s, least_s)))
            case "refit" | "folds" | "selection":
                return Deadline(left_s - self.reserve.finishing_s - self.reserve.distillation_s)
            case "distillation":
                return Deadline(left_s - self.reserve.finishing_s)
            case _:
                return self.deadline

    def begin(self, phase: Phase) -> None:
        """End the current phase, and begin the next."""
        now_s, use = self.deadline.elapsed_s(), self._use
        done = PhaseDone(use.phase, use.start_s, now_s - use.start_s, phase)
        use.add(done, now_s)
        self.notify(done)

    def __call__(self, event: Event) -> None:
        """Measure the run and what must be reserved after the search, by an event."""
        self.reserve(event)
        if not isinstance(event, PhaseDone):
            self._use.add(event, self.deadline.elapsed_s())

    def seconds(self) -> dict[str, float]:
        """Return the seconds of each phase so far; they add up to the last one, ``total``.

        ``earlier`` is the time of earlier processes of the run. The search is divided into ``probes`` (linear probes),
        ``training``, ``validation``, ``idle`` (worker processes without a job) and ``overhead``: searcher and
        scheduler, set-up of trials, checkpoints. With several workers, these are averages over them. Phases that did
        not take place are left out.
        """
        return self._use.seconds(self.deadline.elapsed_s())


class FinishingReserve:
    """The seconds before the deadline at which training must end, by what the run has measured so far.

    Copying the best weights (of `max_members`, or of each network with costs as `objectives`) takes no longer than
    writing checkpoints. A refit takes as long as the best trial up to its best epoch, times `refit_ratio`, the ratio of
    their images (0 without a refit); `folds` take its place. Because any trial may become the best, each gets only so
    much time that its own refit still fits into the limit. The report at the end takes `report_s`.
    """

    def __init__(
        self,
        deadline: Deadline,
        refit_ratio: float = 0.0,
        objectives: Sequence[str] = (),
        max_members: int = 1,
        folds: FoldCosts | None = None,
        *,
        distills: bool = False,
        report_s: float = 0.0,
    ) -> None:
        self._deadline, self._folds = deadline, folds
        is_limited = distills and not math.isinf(deadline.limit_s)
        self.distillation_s = DISTILLATION_FRACTION * deadline.limit_s if is_limited else 0.0
        self._report_s = report_s
        self._refit_ratio = refit_ratio if folds is None else folds.ratio
        self._has_costs = bool(cost_names(objectives))
        self._max_members = max_members
        self._networks: set[Hashable] = set()
        self._write_s = self._setup_s = self._row_s = 0.0
        self._sent_s: dict[int, float] = {}  # when the running job of a trial was submitted
        self._seconds: dict[int, float] = {}  # of each trial so far
        self._best_score, self._best_s = -float("inf"), 0.0
        self._num_trials = 0

    @property
    def finishing_s(self) -> float:
        """Seconds for what follows search and refit."""
        num_others = len(self._networks) if self._has_costs else min(self._max_members, self._num_trials) - 1
        num_copies = max(1 + max(0, num_others), 0 if self._folds is None else self._folds.num_members)
        limit_s = 0.0 if math.isinf(self._deadline.limit_s) else self._deadline.limit_s
        others_s = min(max(LEAST_FINISHING_S, FINISHING_FRACTION * limit_s), MAX_FINISHING_S)
        others_s += FEATURES_FRACTION * limit_s if limit_s >= FEATURES_FROM_S else 0.0
        report_s = self._report_s * (1 + self._num_trials / REPORT_TRIALS)
        return report_s + others_s + num_copies * self._write_s + self._num_trials * self._row_s

    @property
    def selection_s(self) -> float:
        """Seconds for the choice of an ensemble, which comes before that."""
        if self._max_members == 1 or not self._num_trials:
            return 0.0
        return min(SELECTION_S, SELECTION_FRACTION * self._deadline.limit_s)

    def seconds(self) -> float:
        """Return the seconds to reserve."""
        ratio = self._refit_ratio
        if not ratio or self._deadline.seconds_left() == float("inf"):
            return self.finishing_s + self.selection_s + self.distillation_s
        fixed_s = self.finishing_s + self._setup_s
        if self._folds is not None:
            fixed_s += (self._folds.num_rounds - 1) * self._setup_s
        # The time t that a trial may still take satisfies t + ratio * (best_s + t) = left_s.
        left_s = max(0.0, self._deadline.seconds_left() - fixed_s)
        return fixed_s + ratio * (left_s + self._best_s) / (1 + ratio)

    def recall(self, study: Study) -> None:
        """Measure by the reports of earlier processes, which the study was restored from."""
        self._num_trials = len(study.trials)
        for trial in study.trials:
            self._networks.add(same_costs(trial.config))
            for report in trial.reports:
                self(report)

    def __call__(self, event: Event) -> None:
        """Measure by an event."""
        match event:
            case TrialCreated():
                self._num_trials = max(self._num_trials, event.trial + 1)
                self._networks.add(same_costs(event.config))
            case JobStarted():
                self._sent_s[event.trial] = time.monotonic()
            case EpochDone():
                self._write_s = max(self._write_s, event.metrics.get("write_s", 0.0))
                if (sent_s := self._sent_s.pop(event.trial, None)) is not None:
                    self._setup_s = max(self._setup_s, time.monotonic() - sent_s - event.seconds)
                trial_s = self._seconds[event.trial] = self._seconds.get(event.trial, 0.0) + event.seconds
                if event.score > self._best_score:
                    self._best_score, self._best_s = event.score, trial_s
            case JobDone() if not self._row_s:
                # How long it takes to write the row of a trial in the summary.
                example = Trial(event.trial, {"a hyperparameter": 0.12345}, reports=[EpochDone(event.trial, 1, 0.5)])
                start_s = time.perf_counter()
                json.dumps([trial_rows([example]), example.config], indent=2, default=repr)
                self._row_s = time.perf_counter() - start_s
