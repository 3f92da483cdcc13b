"""Images per second of each stage between a file and a trained network, and the bottleneck.

    python -m benchmarks.pipeline [--data DIR] [--network mobilenetv3_small_100] [--sizes 64 128 224] [--num-images 300]
                                  [--seconds 2] [--rounds 3] [--json OUT]

All stages are measured in turns in one process, each for some seconds on its own:

- *decode 1*, *decode*: a file decoded and reduced to the size in the store, by one thread, and by one for each core.
- *store*: an image copied from the store.
- *augment*: a random crop, resized and mirrored, by one thread.
- *batches*: the input of a training: augmentation in threads, batches assembled and normalised.
- *train*, *predict*: the network (forward, backward and step, or forward alone) on batches in memory, in its fastest
  numerics.

Then a real trial measures the part of its time in which it waits for data, and a real prediction the files per second,
over the slower of decoding and the network alone. If both run on the same cores, their joint limit is
1 / (1 / decode + 1 / predict), the reference of the last column.

The targets: batches faster than the network, data below 3 %, prediction at 0.9 of the slower one.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks import measuring
from benchmarks.measuring import arguments_of, table, work_folder, write_json
from benchmarks.photos import make_photos, photos_of

STAGES = ("decode 1", "decode", "store", "augment", "batches", "train", "predict")


def rates(
    photos: str, config: dict[str, Any], num_images: int, seconds: float, num_rounds: int, folder: str
) -> dict[str, Any]:
    """Return the images per second of each stage, and the values of a real trial and of a real prediction."""
    from benchmarks.arithmetic import Arithmetic, make_task  # imports torch

    paths = [str(path) for path in photos_of(photos, num_images)["image"]]
    task = make_task(photos, config, Path(folder), num_images)
    arithmetic = Arithmetic(task, config)
    stages = {**_stages_of_data(paths, task, config), **_stages_of_network(arithmetic)}
    # A prediction decodes for its own crop, which is what the store keeps for one network.
    files_per_s = _prediction(photos, paths, config, Path(folder))
    stages["files"] = files_per_s
    trials = []
    measured: dict[str, list[float]] = {name: [] for name in stages}
    for _ in range(num_rounds):
        for name, stage in stages.items():
            measured[name].append(_rate(stage, seconds))
        trials.append(_waiting(task, config, Path(folder)))
    figures = {name: statistics.median(values) for name, values in measured.items()}
    slower = min(figures["decode"], figures["predict"])
    together = 1 / (1 / figures["decode"] + 1 / figures["predict"])
    return {
        "images_per_s": figures,
        "data_part": statistics.median(trials),
        "predict_over_slower": figures["files"] / slower,
        "predict_over_together": figures["files"] / together,
        "numerics": {"training": str(arithmetic.training), "inference": str(arithmetic.inference)},
    }


def _rate(stage: Callable[[], int], seconds: float) -> float:
    """Return the images per second of a stage that does some images at each call; the first call warms up."""
    stage()
    num_images, start_s = 0, time.perf_counter()
    while (took_s := time.perf_counter() - start_s) < seconds or not num_images:
        num_images += stage()
    return num_images / took_s


def _stages_of_data(paths: list[str], task: Any, config: Mapping[str, Any]) -> dict[str, Callable[[], int]]:
    import numpy as np
    import torch

    from saccade.data.augmentation import Augmentation, TrainingTransform, as_tensor
    from saccade.data.batches import Batches
    from saccade.data.scanning import map_in_threads
    from saccade.data.store.stored_form import read_as_stored

    store, indices = task.store, task.train.indices
    vary, rng = TrainingTransform(Augmentation(), config["img_size"], "bicubic"), np.random.default_rng(0)
    half = (0.5, 0.5, 0.5)
    batches = Batches(store, indices, task.train.targets, vary, config["batch_size"], half, half)

    def decode(num_threads: int | None) -> Callable[[], int]:
        def stage() -> int:
            work = map_in_threads(
                lambda position: read_as_stored(paths[position], store.shorter_side), range(len(paths)), num_threads
            )
            return sum(1 for _ in work)

        return stage

    def read() -> int:
        for index in indices:
            as_tensor(store[int(index)])
        return len(indices)

    def augment() -> int:
        num_threads = torch.get_num_threads()
        torch.set_num_threads(1)
        for index in indices:
            vary(store[int(index)], rng)
        torch.set_num_threads(num_threads)
        return len(indices)

    def prepare() -> int:
        return sum(len(batch[0]) for batch in batches.shuffled())

    return {"decode 1": decode(1), "decode": decode(None), "store": read, "augment": augment, "batches": prepare}


def _stages_of_network(arithmetic: Any) -> dict[str, Callable[[], int]]:
    from benchmarks.arithmetic import wait

    device = arithmetic.training.device

    def train() -> int:
        arithmetic.begin_training()
        x_BCHW, y = arithmetic.train_batches[0]
        arithmetic.step(x_BCHW, y)
        wait(device)
        return len(x_BCHW)

    def predict() -> int:
        arithmetic.begin_predicting()
        x_BCHW, _ = arithmetic.val_batches[0]
        arithmetic.predict(x_BCHW)
        wait(device)
        return len(x_BCHW)

    return {"train": train, "predict": predict}


def _prediction(photos: str, paths: list[str], config: dict[str, Any], folder: Path) -> Callable[[], int]:
    """Return a function that predicts all files with a hardly trained predictor."""
    from saccade import ImagePredictor

    predictor = ImagePredictor(path=folder / "run", verbosity=0)
    hyperparameters = {**config, "epochs": 1}
    predictor.fit(photos_of(photos, 8 * config["batch_size"]), time_limit=None, hyperparameters=hyperparameters)

    def stage() -> int:
        return len(predictor.predict(paths))

    return stage


def _waiting(task: Any, config: dict[str, Any], folder: Path) -> float:
    """Return the part of the last epoch's training in which a real trial waited for data."""
    from saccade.events import EpochDone
    from saccade.study.trial import Decision, Job
    from saccade.study.trial_files import LocalTrialFiles
    from saccade.training.trial.trainer import ImageTrainable

    reports: list[EpochDone] = []

    def listen(event: EpochDone) -> Decision:
        reports.append(event)
        return Decision.CONTINUE

    with work_folder(folder) as trial:
        ImageTrainable(task).train(Job(0, config, files=LocalTrialFiles(trial)), listen)
    metrics = reports[-1].metrics
    return metrics["data_s"] / metrics["train_s"]


def bottleneck(images_per_s: Mapping[str, float]) -> str:
    """Return the slowest of what works beside each other in a training.

    Examples
    --------
    >>> bottleneck({"batches": 1500.0, "train": 50.0})
    'train'
    """
    return min(("batches", "train"), key=lambda name: images_per_s[name])


def print_cases(cases: list[dict[str, Any]]) -> None:
    """Show images per second, and the ratios."""
    print("images per second")
    rows = [
        [f"{case['network']} {case['img_size']}", *(case["images_per_s"][name] for name in STAGES)] for case in cases
    ]
    print(table(["size in pixels", *STAGES], rows))
    print("\nratios")
    heads = ["size in pixels", "batches / train", "bottleneck", "data (≤ 0.03)", "files/s", "files / slower (≥ 0.9)",
             "files / both"]  # fmt: skip
    rows = []
    for case in cases:
        rate = case["images_per_s"]
        row = [f"{case['network']} {case['img_size']}", rate["batches"] / rate["train"], bottleneck(rate)]
        rows.append(
            [*row, case["data_part"], rate["files"], case["predict_over_slower"], case["predict_over_together"]]
        )
    print(table(heads, rows))
    for case in cases:
        numerics = case["numerics"]
        print(f"{case['network']} {case['img_size']}: {numerics['training']}; to predict {numerics['inference']}")


def main(argv: list[str] | None = None) -> None:
    """Measure, print and write the results."""
    parser = arguments_of(__doc__)
    parser.add_argument("--data", type=Path, help="a folder of photos, one folder a class; it may be in train/")
    parser.add_argument("--networks", nargs="+", default=["mobilenetv3_small_100", "resnet18"])
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 128, 224], help="side in pixels")
    parser.add_argument("--num-images", type=int, default=300)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=2.0, help="seconds per stage and round")
    given = parser.parse_args(argv)
    cases = []
    with work_folder() as folder:
        photos = given.data or make_photos(folder / "photos", given.num_images)
        for network in given.networks:
            for img_size in given.sizes:
                config = {"model": network, "img_size": img_size, "epochs": 2, "batch_size": given.batch_size,
                          "pretrained": False}  # fmt: skip
                found = measuring.in_own_process(
                    rates,
                    {"SACCADE_CACHE": str(folder / "cache")},
                    photos=str(photos),
                    config=config,
                    num_images=given.num_images,
                    seconds=given.seconds,
                    num_rounds=given.rounds,
                    folder=str(folder / f"{network}-{img_size}"),
                )
                cases.append({"network": network, "img_size": img_size, **found})
    print_cases(cases)
    write_json(given.json, given, cases)


if __name__ == "__main__":
    main()
