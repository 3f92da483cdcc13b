"""The cost of coordination: studies whose trials do nothing, with an event log.

    python -m benchmarks.coordination [--trials 100 1000 10000] [--searcher auto gp tpe] [--json OUT] [--ray]

A *report* is all work of the study between a worker's report and the decision; a *proposal* is all work to find and
record the next job of a worker, including the searcher's suggestion. Both are timed in the coordinating process. `auto`
is the searcher with the learned portfolio, which also computes in reports, with a day for the search; `auto-any` is
"auto" for any function; the Gaussian process is the slowest of the others. The column ms/trial is the time of the whole
search divided by the number of trials, including executor and trainable. If it grows with the number of trials,
coordination grows faster than linearly. The next column is the fraction of the wall time that this is in a search whose
trials take 3 s. The last is the time to resume a search with all of these trials: the event log is read, and searcher
and scheduler observe it.

The targets: at most 5 ms a report and 25 ms a proposal at 1,000 trials, below 1 % of the wall time for trials of 3 s,
and a search of ten times as many trials takes about ten times as long.
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from saccade.autosearch.features import DatasetDescription, Description, NetworkDescription
from saccade.autosearch.search import AutoSearch
from saccade.deadline import Deadline
from saccade.errors import UnknownNameError
from saccade.events import EpochDone, Event, JobDone, JobFailed
from saccade.executor import Executor, InlineExecutor, ProcessExecutor
from saccade.scheduler import make_scheduler
from saccade.searcher import make_searcher
from saccade.searcher.base import Searcher
from saccade.space import Categorical, Dict, Int, Real
from saccade.study.event_log import EventLog
from saccade.study.optuna_tracker import OptunaTracker
from saccade.study.study import Study
from saccade.study.trial import Decision, Job, Reporter, Trainable
from saccade.study.trial_files import LocalTrialFiles

SPACE = Dict(
    model=Categorical("resnet18", "mobilenetv3_small_100", "vit_tiny_patch16_224"),
    lr=Real(1e-4, 1e-1, log=True),
    weight_decay=Real(1e-6, 1e-1, log=True),
    batch_size=Categorical(16, 32, 64),
    warmup=Int(0, 3),
    epochs=3,
)
EXECUTORS: dict[str, Callable[[Trainable], Executor]] = {"inline": InlineExecutor, "process": ProcessExecutor}
PAIRS = [("random", "fifo"), ("random", "asha"), ("gp", "fifo"), ("auto", "auto")]
"""Searchers and schedulers that are measured unless others are asked for."""

MAX_TRIALS = 1000
"""More would tell nothing new of a worker process, and take minutes with a Gaussian process, unless asked for."""

TRIAL_S = 3.0
"""Length of a trial for which coordination is reported as a fraction of its time."""

NETWORKS = {
    "resnet18": NetworkDescription(11.7e6, top1=0.70),
    "mobilenetv3_small_100": NetworkDescription(2.5e6, top1=0.68),
    "vit_tiny_patch16_224": NetworkDescription(5.7e6, top1=0.75, pretraining=1, kind="transformer"),
}


class Nothing(Trainable):
    """Reports three epochs without training; the file that it names as a checkpoint is itself."""

    def train(self, job: Job, report: Reporter) -> str:
        """Report."""
        epoch = int(Path(job.checkpoint).suffix[1:]) if job.checkpoint else 0
        while epoch < min(job.until_epoch or 3, 3):
            epoch += 1
            score = job.config["lr"] * epoch
            event = EpochDone(job.trial, epoch, score, 0.001, {"loss": 1.0}, f"last.{epoch}", epoch == 3)
            if report(event) is not Decision.CONTINUE:
                return "told to end"
        return ""


@dataclass
class Cost:
    """The cost of one search, in milliseconds."""

    executor: str
    searcher: str
    scheduler: str
    num_trials: int
    num_reports: int
    report_ms: float
    report_p99_ms: float
    proposal_ms: float
    proposal_p99_ms: float
    trial_ms: float
    resume_s: float

    @property
    def share(self) -> float:
        """The fraction of the wall time for coordination, in a search whose trials take `TRIAL_S`."""
        trial_s = self.trial_ms / 1000
        return trial_s / (TRIAL_S + trial_s)


class TimedStudy(Study):
    """Records the time to answer reports and to find jobs."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.report_s: list[float] = []
        self.proposal_s: list[float] = []

    def _handle(self, event: Event) -> Decision:
        start_s = time.perf_counter()
        decision = super()._handle(event)
        took_s = time.perf_counter() - start_s
        if isinstance(event, EpochDone):
            self.report_s.append(took_s)
        elif isinstance(event, JobDone | JobFailed):
            self.proposal_s.append(took_s)
        return decision


def _make_searcher(name: str) -> Searcher:
    if name != "auto":
        return make_searcher(name.removesuffix("-any"), SPACE)
    describe = lambda config: Description(NETWORKS[config["model"]], config, config["epochs"])  # noqa: E731
    return AutoSearch(SPACE, describe=describe, data=DatasetDescription(2000, 10))


def measure(executor: str, searcher: str, scheduler: str, num_trials: int) -> Cost:
    """Run one search."""
    with tempfile.TemporaryDirectory() as name, EXECUTORS[executor](Nothing()) as workers:
        folder = Path(name)

        def run() -> tuple[TimedStudy, float]:
            start_s = time.perf_counter()
            made = _make_searcher(searcher)
            is_auto = isinstance(made, AutoSearch) and scheduler == "auto"  # one object, as in a fit
            with EventLog(folder / "events.jsonl", SPACE) as log:
                study = TimedStudy(
                    workers,
                    made,
                    made if is_auto else make_scheduler(scheduler),
                    num_trials=num_trials,
                    deadline=Deadline(86_400 if searcher == "auto" else None),
                    files=LocalTrialFiles(folder / "trials"),
                    log=log,
                )
                with OptunaTracker(folder / "journal.log", study.trials, SPACE) as tracker:
                    study.listeners.append(tracker)
                    study.run()
                took_s = time.perf_counter() - start_s
            assert len(study.trials) == num_trials
            return study, took_s

        study, took_s = run()
        _, resume_s = run()
    report_ms = [1000 * seconds for seconds in study.report_s]
    proposal_ms = [1000 * seconds for seconds in study.proposal_s]
    return Cost(
        executor,
        searcher,
        scheduler,
        num_trials,
        len(report_ms),
        statistics.fmean(report_ms),
        statistics.quantiles(report_ms, n=100)[-1],
        statistics.fmean(proposal_ms),
        statistics.quantiles(proposal_ms, n=100)[-1],
        1000 * took_s / num_trials,
        resume_s,
    )


def measure_ray(num_trials: int = 8) -> float:
    """Return the seconds of Ray Tune for a trial of an empty function, without its start."""
    import ray
    from ray import tune

    def nothing(config: dict[str, Any]) -> dict[str, Any]:
        return {"score": config["lr"]}

    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        with tempfile.TemporaryDirectory() as name:
            run = tune.RunConfig(storage_path=name, verbose=0)
            config = tune.TuneConfig(num_samples=num_trials, max_concurrent_trials=1)
            start_s = time.perf_counter()
            tune.Tuner(
                nothing, param_space={"lr": tune.loguniform(1e-4, 1e-1)}, tune_config=config, run_config=run
            ).fit()
            return (time.perf_counter() - start_s) / num_trials
    finally:
        ray.shutdown()


def print_costs(costs: list[Cost]) -> None:
    """Show a table."""
    heads = ["executor", "searcher", "scheduler", "trials", "ms/report", "p99", "ms/proposal", "p99", "ms/trial"]
    heads += [f"% of {TRIAL_S:g} s", "s to resume"]
    print("".join(f"{head:>12}" for head in heads))
    for cost in costs:
        texts = [cost.executor, cost.searcher, cost.scheduler, str(cost.num_trials)]
        figures = [cost.report_ms, cost.report_p99_ms, cost.proposal_ms, cost.proposal_p99_ms, cost.trial_ms]
        figures += [100 * cost.share, cost.resume_s]
        print("".join(f"{text:>12}" for text in [*texts, *(f"{figure:.3f}" for figure in figures)]))


def growth(costs: list[Cost]) -> dict[str, float]:
    """Return the cost of a trial in the longest search over that in one of 1,000 trials, or the shortest."""
    ratios = {}
    for key in dict.fromkeys((cost.executor, cost.searcher, cost.scheduler) for cost in costs):
        series = [cost for cost in costs if (cost.executor, cost.searcher, cost.scheduler) == key]
        first = min(series, key=lambda cost: abs(cost.num_trials - 1000))
        last = max(series, key=lambda cost: cost.num_trials)
        if last.num_trials > first.num_trials:
            ratios[" + ".join(key) + f", {first.num_trials} to {last.num_trials}"] = last.trial_ms / first.trial_ms
    return ratios


def main() -> None:
    """Measure, print and write the results."""
    parser = argparse.ArgumentParser(description="What coordination costs, with trials that do nothing.")
    parser.add_argument("--trials", type=int, nargs="+", default=[100, 1000, 10_000], help="numbers of trials")
    parser.add_argument("--searcher", nargs="+", help="searchers, each with each scheduler; default: some pairs")
    parser.add_argument("--scheduler", nargs="+", default=["fifo", "asha"])
    parser.add_argument("--executor", nargs="+", default=list(EXECUTORS), choices=list(EXECUTORS))
    parser.add_argument("--json", type=Path, help="file for the measurements")
    parser.add_argument("--ray", action="store_true", help="time Ray Tune as well, if it is installed")
    given = parser.parse_args()
    pairs = PAIRS
    if given.searcher:
        pairs = list(itertools.product(given.searcher, filter(_is_known, given.scheduler)))
    costs = [
        measure(executor, searcher, scheduler, num_trials)
        for executor in given.executor
        for searcher, scheduler in pairs
        for num_trials in given.trials
        if given.searcher or num_trials <= MAX_TRIALS or (executor != "process" and searcher != "gp")
    ]
    print_costs(costs)
    ratios = growth(costs)
    for name, ratio in ratios.items():
        print(f"cost of a trial, {name}: {ratio:.2f} times as much (1 is linear growth of the whole)")
    ray_s = measure_ray() if given.ray else None
    if ray_s is not None:
        print(f"Ray Tune on an empty function: {ray_s:.3f} s a trial")
    if given.json:
        result = {
            "python": platform.python_version(),
            "machine": platform.machine(),
            "costs": [asdict(cost) for cost in costs],
            "growth": ratios,
            "ray_tune_s_per_trial": ray_s,
        }
        given.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def _is_known(scheduler: str) -> bool:
    try:
        make_scheduler(scheduler)
    except UnknownNameError as error:
        print(error)
        return False
    return True


if __name__ == "__main__":
    main()
