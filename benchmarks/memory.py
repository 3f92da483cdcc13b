"""Peak memory of a fit and of a prediction by the number of images.

    python -m benchmarks.memory [--num-images 100] [--times 1 10 100] [--network test_resnet] [--img-size 32]
                                [--rounds 1] [--json OUT]

Each is measured in its own process. *all* is the peak memory of the process, including mapped files: the decoded images
are one, of which the system keeps as much as fits. *own* is memory that the system cannot reclaim; it should not grow.
Bytes per image are the slope from the fewest images to the most. Fits have one epoch and an empty cache, so images are
decoded too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks import measuring
from benchmarks.measuring import Meter, arguments_of, medians, table, work_folder, write_json
from benchmarks.photos import make_photos, photos_of

TASKS = ("fit", "predict")


def fit(photos: str, config: dict[str, Any], run: str) -> dict[str, float]:
    """Return the memory of a fit in this process."""
    from saccade import ImagePredictor

    train = photos_of(photos)
    with Meter(with_memory=True) as meter:
        ImagePredictor(path=run, verbosity=0).fit(train, time_limit=None, hyperparameters=config, executor="inline")
    return _figures(meter)


def predict(photos: str, run: str) -> dict[str, float]:
    """Return the memory of a prediction of all photos in this process, including loading the predictor."""
    from saccade import ImagePredictor

    images = photos_of(photos)
    with Meter(with_memory=True) as meter:
        ImagePredictor.load(run, verbosity=0).predict(images)
    return _figures(meter)


def _figures(meter: Meter) -> dict[str, float]:
    return {"wall_s": meter.wall_s, "start_mb": meter.start_mb, "all_mb": meter.peak_mb, "own_mb": meter.peak_own_mb}


def slope_bytes(nums: list[int], megabytes: list[float]) -> float:
    """Return the bytes per additional image, from the first number to the last.

    Examples
    --------
    >>> slope_bytes([100, 1000, 1100], [300.0, 340.0, 350.0])
    50000.0
    """
    return 1e6 * (megabytes[-1] - megabytes[0]) / (nums[-1] - nums[0]) if nums[-1] > nums[0] else 0.0


def measure(given: Any, folder: Path) -> list[dict[str, Any]]:
    """Return the medians of each task for each number of images."""
    config = {"model": given.network, "img_size": given.img_size, "epochs": 1, "pretrained": False}
    found = []
    for times in sorted(given.times):
        num_images = times * given.num_images
        photos = str(make_photos(folder / f"photos-{num_images}", num_images, size=tuple(given.photo_size)))
        rounds: dict[str, list[dict[str, float]]] = {task: [] for task in TASKS}
        for number in range(given.rounds):
            place = str(folder / f"run-{num_images}-{number}")
            cache = {"SACCADE_CACHE": str(folder / f"cache-{num_images}-{number}")}
            own = measuring.in_own_process
            rounds["fit"].append(own(fit, cache, photos=photos, config=config, run=place))
            rounds["predict"].append(own(predict, cache, photos=photos, run=place))
        for task, results in rounds.items():
            found.append({"task": task, "num_images": num_images, **medians(results)})
    return found


def main(argv: list[str] | None = None) -> None:
    """Measure, print and write the results."""
    parser = arguments_of(__doc__)
    parser.set_defaults(rounds=1)
    parser.add_argument("--num-images", type=int, default=100)
    parser.add_argument("--times", type=int, nargs="+", default=[1, 10, 100], help="multiples of the number of images")
    parser.add_argument("--network", default="test_resnet", help="a small network, whose own memory is negligible")
    parser.add_argument("--img-size", type=int, default=32, help="side in pixels")
    parser.add_argument("--photo-size", type=int, nargs=2, default=[200, 150], help="width and height in pixels")
    given = parser.parse_args(argv)
    with work_folder() as folder:
        found = measure(given, folder)
    slopes = {}
    rows = []
    for task in TASKS:
        of = [one for one in found if one["task"] == task]
        for one in of:
            ratios = [one[name] / (of[0][name] or 1.0) for name in ("all_mb", "own_mb")]
            row = [f"{task}, {one['num_images']} images", one["start_mb"], one["all_mb"], one["own_mb"], *ratios]
            rows.append([*row, one["wall_s"]])
        nums = [one["num_images"] for one in of]
        slopes[task] = {name: slope_bytes(nums, [one[name] for one in of]) for name in ("all_mb", "own_mb")}
    print(table(["", "MB before", "all MB", "own MB", "x all", "x own", "s"], rows))
    for task, slope in slopes.items():
        print(f"{task}: {slope['all_mb']:,.0f} bytes per image in all, {slope['own_mb']:,.0f} of its own")
    write_json(given.json, given, {"measured": found, "bytes_per_image": slopes})


if __name__ == "__main__":
    main()
