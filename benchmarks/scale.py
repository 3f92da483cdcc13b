"""Data sets of many files: seconds and memory per file of all steps before training.

    python -m benchmarks.scale [--nums 10000 100000 1000000] [--most-decoded 100000] [--folder DIR] [--json OUT]

The files are tiny pictures, all different, in ten classes; a million of them take 4 GB on most disks. Each step runs in
its own process for each number of files: its inputs are prepared, then it is timed; its memory is the increase over
before. *x time* is the time per file over that of the fewest files: 1 is linear.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import measuring
from benchmarks.measuring import Meter, arguments_of, table, work_folder, write_json

NUM_CLASSES = 10
_PER_FOLDER = 100


def make_files(folder: Path, num_files: int) -> Path:
    """Write tiny pictures, all different, into a folder for each class; each has folders of a hundred files."""
    import numpy as np

    pixels = np.random.default_rng(0).integers(0, 256, (num_files, 16), dtype=np.uint8)
    for number in range(num_files):
        group = number // _PER_FOLDER
        place = folder / f"class_{group % NUM_CLASSES}" / f"{group:05}"
        if number % _PER_FOLDER == 0:
            place.mkdir(parents=True)
        with (place / f"{number:07}.pgm").open("wb") as file:
            file.write(b"P5 4 4 255\n" + pixels[number].tobytes())
    return folder


def step(name: str, folder: str, num_files: int, scratch: str) -> dict[str, Any]:
    """Do one step in this process; return its seconds, and the megabytes that it took."""
    work = STEPS[name](Path(folder), num_files, Path(scratch))
    with Meter(with_memory=True) as meter:
        kept = work()  # what comes of it counts
    del kept
    grown_mb = (meter.peak_own_mb - meter.start_own_mb) or (meter.peak_mb - meter.start_mb)
    return {"wall_s": meter.wall_s, "grown_mb": grown_mb}


def _scan(folder: Path, _num_files: int, _scratch: Path) -> Callable[[], Any]:
    from saccade import ImageDataset

    return lambda: ImageDataset.from_folder(folder)


def _examples(folder: Path, _num_files: int, _scratch: Path) -> Callable[[], Any]:
    from saccade import ImageDataset
    from saccade.data.examples import read_labelled_examples

    dataset = ImageDataset.from_folder(folder)
    return lambda: read_labelled_examples(dataset, "label")


def _labels(_folder: Path, num_files: int, _scratch: Path) -> Callable[[], Any]:
    import numpy as np
    import pandas as pd

    from saccade.tasks.problem import Problem

    labels = pd.Series([f"class {number}" for number in np.arange(num_files) % NUM_CLASSES], dtype=object)

    def work() -> Any:
        problem = Problem.of(labels)
        return problem, problem.encode(labels)

    return work


def _fingerprint(folder: Path, num_files: int, _scratch: Path) -> Callable[[], Any]:
    from saccade.data.store.decoded_images import fingerprint

    paths = _paths(folder, num_files)
    return lambda: fingerprint(paths, "256 3")


def _run_data(folder: Path, num_files: int, scratch: Path) -> Callable[[], Any]:
    import pandas as pd

    from saccade.data.examples import Examples
    from saccade.fit.run_data import fingerprint, read_run_data, write_run_data

    labels = pd.Series([number % NUM_CLASSES for number in range(num_files)])
    examples = Examples(list(_paths(folder, num_files)), pd.RangeIndex(num_files), labels)

    def work() -> Any:
        write_run_data(scratch / "data.json", examples, None)
        return fingerprint(read_run_data(scratch / "data.json")[0], None)

    return work


def _split(_folder: Path, num_files: int, _scratch: Path) -> Callable[[], Any]:
    import numpy as np

    from saccade.data.splitting import split_holdout

    digests = np.random.default_rng(0).bytes(16 * num_files).hex()
    groups = [digests[32 * number : 32 * number + 32] for number in range(num_files)]
    labels = np.arange(num_files) % NUM_CLASSES
    return lambda: split_holdout(labels, 0.1, 0, groups)


def _prepare(folder: Path, num_files: int, scratch: Path) -> Callable[[], Any]:
    import pandas as pd

    from saccade.data.examples import Examples
    from saccade.fit.preparation import prepare_data

    labels = pd.Series([number // _PER_FOLDER % NUM_CLASSES for number in range(num_files)])
    examples = Examples(list(_paths(folder, num_files)), pd.RangeIndex(num_files), labels)
    options: dict[str, Any] = {"shorter_side": 4, "holdout_frac": 0.1, "random_state": 0, "seconds_left": None}
    return lambda: prepare_data(examples, None, None, folder=scratch / "store", notify=lambda _: None, **options)


def _paths(folder: Path, num_files: int) -> list[str]:
    """Return the files that `make_files` wrote."""
    paths = []
    for number in range(num_files):
        group = number // _PER_FOLDER
        paths.append(f"{folder}/class_{group % NUM_CLASSES}/{group:05}/{number:07}.pgm")
    return paths


STEPS: dict[str, Callable[[Path, int, Path], Callable[[], Any]]] = {
    "scan folders": _scan,
    "read examples": _examples,
    "encode labels": _labels,
    "fingerprint": _fingerprint,
    "write, read run data": _run_data,
    "split": _split,
    "decode, split (cold)": _prepare,
    "open, split (warm)": _prepare,
}
"""Each makes ready what it needs, and returns the work; the last one finds the store of the one before."""

DECODING = ("decode, split (cold)", "open, split (warm)")


def main(argv: list[str] | None = None) -> None:
    """Measure, print and write the results."""
    parser = arguments_of(__doc__)
    parser.set_defaults(rounds=1)
    parser.add_argument("--nums", type=int, nargs="+", default=[10_000, 100_000, 1_000_000], help="numbers of files")
    parser.add_argument("--most-decoded", type=int, default=100_000, help="largest number of files to decode")
    parser.add_argument("--folder", type=Path, help="folder for the files (default: a temporary one)")
    given = parser.parse_args(argv)
    found: list[dict[str, Any]] = []
    for num_files in sorted(given.nums):
        with work_folder(given.folder) as place:
            files = make_files(place / "files", num_files)
            for _ in range(given.rounds):
                for name in STEPS:
                    if name not in DECODING or num_files <= given.most_decoded:
                        measured = _measured(name, files, num_files, place)
                        found.append({"step": name, "num_files": num_files, **measured})
                        print(f"{name}, {num_files:,} files: {measured['wall_s']:.3f} s", file=sys.stderr, flush=True)
            shutil.rmtree(files)
    print(table(["step", "files", "s", "µs/file", "MB", "bytes/file", "x time", "x memory"], rows_of(found)))
    write_json(given.json, given, found)


def _measured(name: str, files: Path, num_files: int, place: Path) -> dict[str, Any]:
    with work_folder(place) as scratch:
        environment = {"SACCADE_CACHE": str(place / "cache"), "SACCADE_STORE_CACHE_GB": "50"}
        if name == DECODING[0]:
            shutil.rmtree(place / "cache", ignore_errors=True)
        own = measuring.in_own_process
        return own(step, environment, name=name, folder=str(files), num_files=num_files, scratch=str(scratch))


def rows_of(found: list[dict[str, Any]]) -> list[list[Any]]:
    """Return the table's rows: the best of the rounds, and how many times as much a file costs as among the fewest."""
    rows = []
    for name in dict.fromkeys(one["step"] for one in found):
        first: tuple[float, float] | None = None
        for num_files in sorted({one["num_files"] for one in found if one["step"] == name}):
            of = [one for one in found if (one["step"], one["num_files"]) == (name, num_files)]
            seconds, grown_mb = (min(one[what] for one in of) for what in ("wall_s", "grown_mb"))
            cost = seconds / num_files, max(0.0, grown_mb) / num_files
            first = first or cost
            ratios = [now / then if then else None for now, then in zip(cost, first, strict=True)]
            rows.append([name, f"{num_files:,}", seconds, 1e6 * cost[0], grown_mb, 1e6 * cost[1], *ratios])
    return rows


if __name__ == "__main__":
    main()
