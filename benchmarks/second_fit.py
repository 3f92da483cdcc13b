"""Time from the call of fit to the first linear probe, with an empty cache and in a second fit on the same images.

    python -m benchmarks.second_fit [--data DIR] [--network NAME] [--time-limit 60] [--rounds 3] [--json OUT]

Each fit is a new interpreter whose imports are not counted. The second fit holds out other images. `probe s` is the
time of the probe itself. Without `--network` the search chooses.
"""

from __future__ import annotations

import json
import time
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import measuring
from benchmarks.measuring import arguments_of, in_turns, table, work_folder, write_json
from benchmarks.photos import make_photos, photos_of


def fit(photos: str, folder: str, network: str | None, time_limit_s: float, seed: int) -> dict[str, Any]:
    """Fit, and return the seconds to the first report, and those of the probe."""
    from saccade import ImagePredictor
    from saccade.fit.run_folder import EVENTS

    path = Path(folder) / f"run {seed} {time.time_ns()}"
    hyperparameters = {} if network is None else {"model": network, "epochs": 1}
    start_s = time.time()
    ImagePredictor(path=path, verbosity=0).fit(
        photos_of(photos), time_limit=time_limit_s, hyperparameters=hyperparameters, random_state=seed
    )
    events = map(json.loads, (path / EVENTS).read_text(encoding="utf-8").splitlines())
    first = next(event for event in events if event["kind"] == "epoch_done")
    return {"first report s": first["time"] - start_s, "probe s": first["seconds"]}


def main(argv: list[str] | None = None) -> None:
    """Measure, and print the table."""
    parser = arguments_of(__doc__ or "")
    parser.add_argument("--data", type=Path, help="a folder with a folder for each class; without it photos are made")
    parser.add_argument("--network", help="timm's name; its weights must be available")
    parser.add_argument("--time-limit", type=float, default=60.0, help="seconds of each fit")
    given = parser.parse_args(argv)
    with work_folder() as folder:
        photos = str(given.data or make_photos(folder / "photos", 400))
        numbers = iter(range(2 * given.rounds))

        def measured(name: str) -> dict[str, float]:
            number = next(numbers)  # each pair of fits has a cache of its own
            environment = {"SACCADE_CACHE": str(folder / f"cache {number // 2}")}
            run = partial(measuring.in_own_process, fit, environment, photos=photos, folder=str(folder))
            return run(network=given.network, time_limit_s=given.time_limit, seed=int(name == "second"))

        figures = in_turns(given.rounds, {name: partial(measured, name) for name in ("first", "second")})
    write_json(given.json, given, figures)
    print(table(["fit", *figures["first"]], [[name, *found.values()] for name, found in figures.items()]))


if __name__ == "__main__":
    main()
