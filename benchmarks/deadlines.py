"""How far fits exceed their time limit.

    python -m benchmarks.deadlines [--data DIR] [--weights DIR] [--num-images 1000] [--limits 1 5 10 20 60 300]
        [--loads quiet busy] [--executors inline process] [--caches cold warm] [--rounds 1] [--json OUT]

Each cell is the time of `ImagePredictor.fit` in a new interpreter, minus the limit, in seconds: the largest of the
rounds. An exclamation mark is more than the target, which is 2 s or 2 % of the limit, for limits of 10 s or more.
Negative seconds are time that the fit did not use.

*busy* is beside another program that keeps a core busy. *process* trains in a worker process. *cold* has an empty
cache: images are decoded, and nothing is known of the machine. Without ``--data`` the images are generated photos, and
without ``--weights`` networks start from random weights.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from pathlib import Path
from typing import Any

from benchmarks import measuring
from benchmarks.measuring import arguments_of, busy_core, table, work_folder, write_json
from benchmarks.photos import make_photos, photos_of

LIMITS_S = (1.0, 5.0, 10.0, 20.0, 60.0, 300.0)
LOADS, EXECUTORS, CACHES = ("quiet", "busy"), ("inline", "process"), ("cold", "warm")

LEAST_JUDGED_S = 10.0
"""Shorter limits have no target: the fit returns as soon as it has a predictor."""


def timed_fit(
    photos: str, num_images: int, limit_s: float, executor: str, run: str, options: dict[str, Any]
) -> dict[str, Any]:
    """Return the seconds of a fit, by the clock and by its own phases, and what it found."""
    from saccade import ImagePredictor

    data, predictor = photos_of(photos, num_images), ImagePredictor(path=run, verbosity=0)
    start_s = time.perf_counter()
    predictor.fit(data, time_limit=limit_s, executor=executor, **options)
    wall_s = time.perf_counter() - start_s
    summary = predictor.fit_summary()
    found = {name: summary[name] for name in ("seconds", "num_trials", "valid_score")}
    return {"wall_s": wall_s, "over_s": wall_s - limit_s, **found}


def is_late(limit_s: float, over_s: float) -> bool:
    """Return whether a fit has exceeded its limit by more than the target.

    Examples
    --------
    >>> is_late(10.0, 1.9), is_late(10.0, 2.1), is_late(300.0, 5.9), is_late(1.0, 9.0)
    (False, True, False, False)
    """
    return limit_s >= LEAST_JUDGED_S and over_s > max(2.0, 0.02 * limit_s)


def measure(given: Any, photos: Path, folder: Path) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """Return the fits of each condition, by limit."""
    options: dict[str, Any] = {"hyperparameters": dict(pair.split("=", 1) for pair in given.set)}
    if given.weights is not None:
        options["weights"] = str(given.weights.absolute())
    figures: dict[str, dict[str, list[dict[str, Any]]]] = {}
    number = itertools.count()

    def fit(limit_s: float, executor: str, cache: Path) -> dict[str, Any]:
        return measuring.in_own_process(
            timed_fit, {"SACCADE_CACHE": str(cache)}, photos=str(photos), num_images=given.num_images, limit_s=limit_s,
            executor=executor, run=str(folder / f"run-{next(number)}"), options=options,
        )  # fmt: skip

    if "warm" in given.caches:
        fit(max(given.limits), "inline", folder / "warm")
    for executor, cache, load in itertools.product(given.executors, given.caches, given.loads):
        found = figures[f"{executor}, {cache}, {load}"] = {}
        for limit_s in given.limits:
            with busy_core() if load == "busy" else contextlib.nullcontext():
                found[f"{limit_s:g}"] = [
                    fit(limit_s, executor, folder / ("warm" if cache == "warm" else f"cold-{next(number)}"))
                    for _ in range(given.rounds)
                ]
    return figures


def rows_of(figures: dict[str, dict[str, list[dict[str, Any]]]]) -> list[list[str]]:
    """Return the rows of the table: the condition, and seconds over each limit."""
    rows = []
    for name, by_limit in figures.items():
        overs = [(float(limit), max(one["over_s"] for one in fits)) for limit, fits in by_limit.items()]
        rows.append([name, *(f"{over_s:+.1f}{'!' if is_late(limit_s, over_s) else ''}" for limit_s, over_s in overs)])
    return rows


def main(argv: list[str] | None = None) -> None:
    """Measure, and print the table."""
    parser = arguments_of(__doc__ or "")
    parser.set_defaults(rounds=1)
    parser.add_argument("--data", type=Path, help="folder of photos, or one with train/")
    parser.add_argument("--weights", type=Path, help="folder of pretrained weights")
    parser.add_argument("--num-images", type=int, default=1000)
    parser.add_argument("--limits", nargs="+", type=float, default=LIMITS_S, metavar="S", help="seconds")
    parser.add_argument("--loads", nargs="+", choices=LOADS, default=LOADS)
    parser.add_argument("--executors", nargs="+", choices=EXECUTORS, default=EXECUTORS)
    parser.add_argument("--caches", nargs="+", choices=CACHES, default=CACHES)
    parser.add_argument("--set", nargs="+", default=[], metavar="NAME=TEXT", help="hyperparameters, such as a model")
    given = parser.parse_args(argv)
    with work_folder() as folder:
        photos = given.data or make_photos(folder / "photos", given.num_images)
        figures = measure(given, photos, folder)
    write_json(given.json, given, figures)
    print(table(["seconds over the limit", *(f"{limit_s:g} s" for limit_s in given.limits)], rows_of(figures)))


if __name__ == "__main__":
    main()
