"""Costs and gains of worker processes, as ratios: seconds differ from machine to machine.

python -m benchmarks.workers [--json OUT] [--rounds 2]

- The time of a report through a worker process, over a call in this process.
- The start of a worker that imports torch, over ``python -c "import torch"``.
- A few small trainings of matrix products on workers that share two cores in several ways. The last one has more
  threads than cores, which plans for workers never have. (How threads wait: `benchmarks.waiting`.)

Alternatives are measured in turns and reported as medians, because other programs may be running.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import platform
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from saccade.events import EpochDone, Event
from saccade.executor import Executor, InlineExecutor, ProcessExecutor, WorkerSlot, num_usable_cpus
from saccade.study.function import FunctionTrainable
from saccade.study.trial import Decision, Job

NUM_JOBS = 4

MAX_S = 8.0
"""No round of measurements of a kind begins after so many seconds."""

SHARINGS = {
    "1 worker with 2 threads": [WorkerSlot("cpu", 2)],
    "1 worker with 1 thread": [WorkerSlot("cpu", 1)],
    "2 workers with 1 thread": [WorkerSlot("cpu", 1)] * 2,
    "2 workers with 2 threads": [WorkerSlot("cpu", 2)] * 2,
}


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="file for the measurements")
    parser.add_argument("--rounds", type=int, default=2, help="number of repetitions")
    args = parser.parse_args()
    figures = {
        "round trip of a report": round_trips_s(args.rounds),
        "start with torch": starts_s(args.rounds),
        f"{NUM_JOBS} trainings on 2 cores": trainings_s(args.rounds),
    }
    print_table(figures)
    if args.json is not None:
        record = {"num_cpus": num_usable_cpus(), "python": platform.python_version(), "median_seconds": figures}
        args.json.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def round_trips_s(num_rounds: int) -> dict[str, float]:
    """Time a report and its answer."""
    with ProcessExecutor() as process:
        process.wait_for_start()
        inline = InlineExecutor()
        return medians_s(
            num_rounds,
            {
                "in this process": lambda: round_trip_s(inline),
                "through a worker": lambda: round_trip_s(process),
            },
        )


def round_trip_s(executor: Executor, num_reports: int = 200) -> float:
    """Return the median of the seconds between two reports of a function that does nothing else."""
    times_s: list[float] = []

    def handle(event: Event) -> Decision:
        if isinstance(event, EpochDone):
            times_s.append(time.perf_counter())
        return Decision.CONTINUE

    def train(config: Mapping[str, Any], report: Callable[..., None]) -> None:
        for _ in range(config["num_reports"]):
            report(score=0.0)

    executor.trainable = FunctionTrainable(train)
    executor.submit(Job(0, {"num_reports": num_reports + 1}))
    executor.run(handle)
    return statistics.median(later - earlier for earlier, later in itertools.pairwise(times_s))


def starts_s(num_rounds: int) -> dict[str, float]:
    """Time the start of a worker until torch is imported."""

    def bare() -> float:
        start_s = time.perf_counter()
        command = [sys.executable, "-c", "import torch; print('imported', flush=True)"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "imported\n"
            return time.perf_counter() - start_s

    def worker() -> float:
        start_s = time.perf_counter()
        with ProcessExecutor(preload=["torch"]) as executor:
            executor.wait_for_start()
            return time.perf_counter() - start_s

    bare()  # from here on the files are in memory
    return medians_s(num_rounds, {"bare interpreter": bare, "worker": worker})


def trainings_s(num_rounds: int) -> dict[str, float]:
    """Time the trainings in each way to share two cores, on workers that are warm."""

    def training(executor: ProcessExecutor) -> Callable[[], float]:
        def measure() -> float:
            start_s = time.perf_counter()
            run_jobs(executor, NUM_JOBS)
            return time.perf_counter() - start_s

        return measure

    with contextlib.ExitStack() as stack:
        measures = {}
        for name, slots in SHARINGS.items():
            executor = stack.enter_context(ProcessExecutor(FunctionTrainable(multiply), ["torch"], slots))
            executor.wait_for_start()
            run_jobs(executor, len(slots))  # torch starts its threads at the first product
            measures[name] = training(executor)
        return medians_s(num_rounds, measures)


def run_jobs(executor: ProcessExecutor, num: int) -> None:
    """Run jobs until they are done."""
    waiting = [Job(trial, {}) for trial in range(num)]

    def submit() -> None:
        while waiting and executor.num_free:
            executor.submit(waiting.pop())

    def handle(event: Any) -> Decision:
        assert event.kind != "job_failed", event
        submit()
        return Decision.CONTINUE

    submit()
    executor.run(handle)


def multiply(_config: Mapping[str, Any], report: Callable[..., None]) -> None:
    """Do the arithmetic of a small network without training: many products in a row."""
    import torch

    x = torch.ones(384, 384)
    for _epoch in range(3):
        for _step in range(8):
            x = torch.relu(x @ x) / x.shape[0]
        report(score=float(x[0, 0]))


def medians_s(num_rounds: int, measures: Mapping[str, Callable[[], float]]) -> dict[str, float]:
    """Measure in turns, and return the median of each; a busy machine may have to do with fewer rounds."""
    seconds = defaultdict(list)
    start_s = time.perf_counter()
    for _ in range(num_rounds):
        if time.perf_counter() - start_s > MAX_S:
            break
        for name, measure in measures.items():
            seconds[name].append(measure())
    return {name: statistics.median(values) for name, values in seconds.items()}


def print_table(figures: Mapping[str, Mapping[str, float]]) -> None:
    """Print the values, each also as a multiple of the first of its kind."""
    for what, seconds in figures.items():
        first = next(iter(seconds.values()))
        print(f"\n{what}")
        for name, median_s in seconds.items():
            print(f"  {name:<26} {1000 * median_s:>10.3f} ms {median_s / first:>9.2f} times")


if __name__ == "__main__":
    main()
