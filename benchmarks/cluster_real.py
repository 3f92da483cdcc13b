"""The same search on two nodes of Ray and in worker processes; the cost of a job beside Ray Tune's.

    python -m benchmarks.cluster_real [--data DIR] [--weights DIR] [--network NAME] [--jobs 200] [--tune-jobs 16]
        [--rounds 3] [--json OUT]

*Scores*: a fit with fixed configurations and epochs, once in worker processes and once on a `ray.cluster_utils.Cluster`
of two nodes on this machine, none of which has the images' files. Scores of the same seed are to be equal.

*Cost of a job*: a search whose trials do nothing, on the same nodes: by this project's executors and by Ray Tune.
"nothing" is a function that returns a score; "halving" reports up to 9 epochs and is stopped by asynchronous successive
halving (promotion needs checkpoints, which cost each library its own way, so trials are stopped). `start s` is the time
from the call to the first report; `ms/job` is the time after it, divided by the other jobs. The target is 50 ms.
"""

from __future__ import annotations

import functools
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import measuring
from benchmarks.cluster_nodes import environment, local_nodes
from benchmarks.measuring import arguments_of, in_turns, table, work_folder, write_json
from benchmarks.photos import make_photos, photos_of

LRS = (1e-3, 3e-3, 1e-2, 3e-2)
NUM_EPOCHS = 3
MAX_EPOCHS = 9
REDUCTION = 3


def fit(
    photos: str,
    folder: str,
    executor: str,
    address: str | None = None,
    network: str = "test_resnet",
    weights: str | None = None,
    num_epochs: int = NUM_EPOCHS,
    seed: int = 0,
) -> dict[str, Any]:
    """Fit each learning rate, or resume that; return the scores of all epochs by trial."""
    import saccade
    from saccade import ImagePredictor
    from saccade.fit.run_folder import EVENTS
    from saccade.study.event_log import EventLog
    from saccade.study.life import StudyRecord

    path = Path(folder)
    space = {"model": network, "pretrained": weights is not None, "img_size": 32, "batch_size": 8,
             "epochs": num_epochs, "lr": saccade.Categorical(*LRS)}  # fmt: skip
    start_s = time.perf_counter()
    predictor = ImagePredictor(path=path, eval_metric="neg_log_loss", verbosity=0).fit(  # finer than accuracy
        photos_of(photos),
        time_limit=None,
        hyperparameters=space,
        searcher="grid",
        scheduler="fifo",
        weights=weights,
        executor=executor,
        ngpus_per_trial=0,
        nthreads_per_trial=1,
        random_state=seed,
        resume=(path / EVENTS).exists(),
        report=False,
        **({"address": address} if executor == "ray" else {}),
    )
    wall_s = time.perf_counter() - start_s
    trials = StudyRecord.load(EventLog(path / EVENTS)).trials
    return {
        "scores": [[trial.config["lr"], [report.score for report in trial.reports]] for trial in trials],
        "epochs": [[report.epoch for report in trial.reports] for trial in trials],
        "best": [predictor.fit_summary()["best_config"]["lr"], predictor.fit_summary()["valid_score"]],
        "wall_s": wall_s,
    }


def nothing(config: dict[str, Any]) -> float:
    """Return a score without training."""
    return float(config["x"])


def halving(config: dict[str, Any], report: Callable[..., None]) -> None:
    """Report epochs without training."""
    for epoch in range(1, MAX_EPOCHS + 1):
        report(epoch=epoch, score=config["x"] * epoch)


def tune_ours(work: str, num_jobs: int, num_workers: int, executor: str, address: str | None = None) -> dict[str, Any]:
    """Return the cost of jobs in a search of ours."""
    import saccade
    from saccade.events import EpochDone
    from saccade.scheduler import ASHAScheduler

    first_s: list[float] = []
    start_s = time.perf_counter()
    saccade.tune(
        {"nothing": nothing, "halving": halving}[work],
        {"x": saccade.Real(0, 1)},
        num_trials=num_jobs,
        searcher="random",
        scheduler="fifo" if work == "nothing" else ASHAScheduler(MAX_EPOCHS, 1, REDUCTION, type="stopping"),
        executor=executor,
        verbosity=0,
        callbacks=[lambda event: isinstance(event, EpochDone) and first_s.append(time.perf_counter())],
        **({"address": address, "max_workers": num_workers} if executor == "ray" else {"num_workers": num_workers}),
    )
    return _cost(start_s, first_s[0], num_jobs)


def tune_by_ray(work: str, num_jobs: int, num_workers: int, address: str) -> dict[str, Any]:
    """Return the cost of jobs in a search of Ray Tune."""
    import ray
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler

    def ray_halving(config: dict[str, Any]) -> None:
        halving(config, lambda epoch, score: tune.report({"epoch": epoch, "score": score}))

    class First(tune.Callback):
        def on_trial_result(self, *arguments: Any, **named: Any) -> None:  # noqa: ARG002
            first_s.append(time.perf_counter())

    first_s: list[float] = []
    ray.init(address, log_to_driver=False, logging_level="ERROR")
    with tempfile.TemporaryDirectory() as folder:
        halve = ASHAScheduler(time_attr="epoch", max_t=MAX_EPOCHS, grace_period=1, reduction_factor=REDUCTION)
        start_s = time.perf_counter()
        tune.Tuner(
            ray_halving if work == "halving" else lambda config: {"score": nothing(config)},
            param_space={"x": tune.uniform(0, 1)},
            tune_config=tune.TuneConfig(
                metric="score",
                mode="max",
                num_samples=num_jobs,
                max_concurrent_trials=num_workers,
                scheduler=halve if work == "halving" else None,
            ),
            run_config=tune.RunConfig(storage_path=folder, verbose=0, callbacks=[First()]),
        ).fit()
        cost = _cost(start_s, first_s[0], num_jobs)
    ray.shutdown()
    return cost


def _cost(start_s: float, first_s: float, num_jobs: int) -> dict[str, float]:
    end_s = time.perf_counter()
    return {"start s": first_s - start_s, "ms/job": 1000 * (end_s - first_s) / (num_jobs - 1)}


def main(argv: list[str] | None = None) -> None:
    """Measure, and print the tables."""
    parser = arguments_of(__doc__ or "")
    parser.add_argument("--data", type=Path, help="a folder with a folder for each class; without it photos are made")
    parser.add_argument("--num-images", type=int, default=120)
    parser.add_argument("--network", default="test_resnet", help="timm's name")
    parser.add_argument("--weights", type=Path, help="folder with weights; without it networks are not pretrained")
    parser.add_argument("--jobs", type=int, default=200, help="jobs of a search of ours")
    parser.add_argument("--tune-jobs", type=int, default=16, help="jobs of a search of Ray Tune; 0 leaves it out")
    given = parser.parse_args(argv)
    in_own_process = functools.partial(measuring.in_own_process, environment=environment())
    figures: dict[str, Any] = {"scores": {}, "cost": {}}
    with work_folder() as folder, local_nodes(num_nodes=2, num_cpus=1) as nodes:
        photos = str(given.data or make_photos(folder / "photos", given.num_images, size=(64, 48)))
        fits: dict[str, dict[str, Any]] = figures["scores"]
        for executor in ("process", "ray"):
            fits[executor] = in_own_process(
                fit,
                photos=photos,
                folder=str(folder / executor),
                executor=executor,
                address=nodes.address if executor == "ray" else None,
                network=given.network,
                weights=None if given.weights is None else str(given.weights),
            )
        for work in ("nothing", "halving"):
            for num_workers in (1, 2):
                same = {"work": work, "num_workers": num_workers}
                ours = functools.partial(in_own_process, tune_ours, num_jobs=given.jobs, **same)
                measures = {
                    "worker processes": functools.partial(ours, executor="process"),
                    "Ray": functools.partial(ours, executor="ray", address=nodes.address),
                    "Ray Tune": functools.partial(
                        in_own_process, tune_by_ray, num_jobs=given.tune_jobs, address=nodes.address, **same
                    ),
                }
                if not given.tune_jobs:
                    del measures["Ray Tune"]
                figures["cost"][f"{work}, {num_workers}"] = in_turns(given.rounds, measures)
    write_json(given.json, given, figures)
    rows = []
    for (lr, local), (_, on_nodes) in zip(fits["process"]["scores"], fits["ray"]["scores"], strict=True):
        difference = max(abs(one - other) for one, other in zip(local, on_nodes, strict=True))
        rows.append([f"lr {lr:g}", len(local), local[-1], on_nodes[-1], difference])
    print(table(["scores", "epochs", "processes", "2 nodes", "max difference"], rows))
    print(f"seconds of the fit: {fits['process']['wall_s']:.1f} in processes, {fits['ray']['wall_s']:.1f} on 2 nodes\n")
    heads = ["work, workers", "executor", "start s", "ms/job"]
    cost_rows = [[name, by, *found.values()] for name, each in figures["cost"].items() for by, found in each.items()]
    print(table(heads, cost_rows))


if __name__ == "__main__":
    main()
