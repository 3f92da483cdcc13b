"""What the study of a fit is made of."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pandas as pd
import pytest
import torch
from torch import nn

import saccade as ag
from saccade import ImagePredictor
from saccade.autosearch.search import AutoSearch
from saccade.data.examples import read_labelled_examples
from saccade.deadline import Deadline
from saccade.errors import HyperparameterError, SpaceError, UnknownNameError
from saccade.events import Event, NetworksScreened, RunPlanned, Warned, WorkerJoined
from saccade.executor import InlineExecutor, ProcessExecutor, WorkerSlot, num_usable_cpus
from saccade.fit import searching
from saccade.fit.options import FitOptions
from saccade.fit.run_folder import FitRequest
from saccade.fit.searching import (
    describe_search,
    executor_in_time,
    make_image_executor,
    make_image_search,
    networks_to_download,
    screen_networks,
)
from saccade.models.downloads import Downloads
from saccade.numerics.device import Numerics
from saccade.predictor.estimators import ImageClassifier
from saccade.scheduler import ASHAScheduler, AutoScheduler, FIFOScheduler, HyperbandScheduler
from saccade.searcher import GPSearcher, GridSearcher, RandomSearcher, TPESearcher
from saccade.study.event_log import EventLog
from saccade.study.life import StudyRecord
from saccade.study.trackers import Tracker
from saccade.training.probes.probe import cached_features
from saccade.training.recipes.building import new_classifier
from saccade.training.recipes.recipe import Recipe, recipe_space
from saccade.training.trial.screening import ScreenedNetwork, Screening

MakeColours = Callable[..., pd.DataFrame]


@pytest.fixture
def request_of(make_colours: MakeColours, tiny: dict[str, Any]) -> Callable[..., FitRequest]:
    examples = read_labelled_examples(make_colours(8), "label")

    def make(hyperparameters: dict[str, Any] | None = None, **arguments: Any) -> FitRequest:
        space = recipe_space({**tiny, "lr": ag.Real(1e-4, 1e-1, log=True), **(hyperparameters or {})})
        settings = FitOptions.of(arguments)
        return FitRequest(None, "label", None, None, 0, examples, None, space, 60.0, settings)

    return make


@pytest.mark.parametrize(
    ("name", "kind"),
    [("auto", AutoSearch), ("random", RandomSearcher), ("bayesopt", GPSearcher), ("skopt", TPESearcher)],
)
def test_searchers_by_name(request_of: Callable[..., FitRequest], make_task: Any, name: str, kind: type) -> None:
    request = request_of(searcher=name, starting_configs=[{"learning_rate": 0.01}])
    make_image_search(request)
    searcher, scheduler = make_image_search(request, describe_search(request, make_task(), Deadline(60)))
    assert type(searcher) is kind
    assert (scheduler is searcher) is (name == "auto")
    assert searcher.suggest()["lr"] == 0.01


def test_custom_networks_are_searched(request_of: Callable[..., FitRequest], make_task: Any) -> None:
    def net(num_classes: int) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, num_classes))

    request = request_of({"model": ag.Categorical(net, "test_resnet")})
    searcher, _ = make_image_search(request, describe_search(request, make_task(), Deadline(60)))
    configs = [searcher.suggest() for _ in range(20)]
    assert len({str(config["model"]) for config in configs}) == 2


def test_one_configuration_needs_no_search(request_of: Callable[..., FitRequest], make_task: Any) -> None:
    request = request_of({"lr": 0.01})
    searcher, scheduler = make_image_search(request, describe_search(request, make_task(), Deadline(60)))
    assert (type(searcher), type(scheduler)) == (RandomSearcher, FIFOScheduler)


@pytest.mark.parametrize(("epochs", "longest"), [(7, 7), (ag.Int(2, 9), 9), (ag.Categorical(3, 12, 5), 12)])
@pytest.mark.parametrize(
    ("name", "kind"), [("asha", ASHAScheduler), ("hyperband", HyperbandScheduler), ("auto", AutoScheduler)]
)
def test_schedulers_receive_the_most_epochs_of_the_space(
    request_of: Callable[..., FitRequest], name: str, kind: type, epochs: Any, longest: int
) -> None:
    _, scheduler = make_image_search(request_of({"epochs": epochs}, searcher="random", scheduler=name), {})
    assert type(scheduler) is kind
    assert scheduler.max_epochs == longest  # type: ignore[attr-defined]
    options = {"scheduler": name, "scheduler_options": {"max_epochs": 4}}
    _, given = make_image_search(request_of({"epochs": epochs}, searcher="random", **options), {})
    assert given.max_epochs == 4  # type: ignore[attr-defined]


def test_instances_of_searchers_and_schedulers(request_of: Callable[..., FitRequest], make_task: Any) -> None:
    plain = request_of()
    space = {"learning_rate" if name == "lr" else name: value for name, value in plain.space.data.items()}
    searcher, scheduler = GridSearcher(space), FIFOScheduler()
    request = request_of(searcher=searcher, scheduler=scheduler)
    assert make_image_search(request, describe_search(request, make_task(), Deadline(60))) == (searcher, scheduler)
    other = request_of({"lr": 0.1}, searcher=GridSearcher({**space, "wd": 0.5}))
    message = (
        r"GridSearcher .* another space: lr is Real\(.*\) there and 0.1 in hyperparameters; weight_decay is 0.5 there"
    )
    with pytest.raises(HyperparameterError, match=message):
        make_image_search(other)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"searcher": "tpe", "searcher_options": {"num_point": 3}}, HyperparameterError, "no option 'num_point'"),
        ({"searcher": "grid", "searcher_options": {"num_point": 3}}, HyperparameterError, "Did you mean 'num_points'"),
        ({"searcher_options": {"score_rang": (0, 1)}}, HyperparameterError, "Did you mean 'score_range'"),
        ({"starting_configs": [{"lr": 3.0}]}, SpaceError, r"starting_configs\[0\]\['lr'\] is 3.0"),
        ({"starting_configs": [{"opt": "sgd"}]}, UnknownNameError, "Unknown hyperparameter 'opt'"),
        ({"starting_configs": [{"lrr": 1}]}, HyperparameterError, "did you mean 'lr'"),
        ({"scheduler": "asha", "scheduler_options": {"grace_epochs": 50}}, HyperparameterError, "max_epochs"),
    ],
)
def test_invalid_options_are_errors_before_work_begins(
    make_colours: MakeColours, tiny: dict[str, Any], tmp_path: Path, arguments: dict[str, Any],
    error: type[Exception], message: str,
) -> None:  # fmt: skip
    space = {**tiny, "lr": ag.Real(1e-4, 1e-1, log=True)}
    with pytest.raises(error, match=message):
        ImagePredictor(path=tmp_path / "run", verbosity=0).fit(
            make_colours(8), hyperparameters=space, hyperparameter_tune_kwargs=arguments
        )
    assert not (tmp_path / "run").exists()


def test_there_are_no_more_workers_than_trials(request_of: Callable[..., FitRequest]) -> None:
    told: list[Event] = []
    with make_image_executor(request_of(num_trials=1), told.append) as executor:
        assert isinstance(executor, InlineExecutor)
    space = {"lr": ag.Categorical(0.1, 0.01)}
    with make_image_executor(request_of(space, nthreads_per_trial=1, ngpus_per_trial=0), told.append) as executor:
        assert executor.num_workers == min(2, num_usable_cpus())
    assert told == []
    with make_image_executor(request_of(nthreads_per_trial=10_000, ngpus_per_trial=0), told.append) as executor:
        assert executor.num_workers == 1
    assert len(told) == 1


@pytest.mark.parametrize(
    ("num_gpus", "asked", "expected"),
    [
        (0, {}, 1),
        (0, {"nprocs_per_trial": 3}, 3),
        (0, {"ngpus_per_trial": 4}, 1),
        (0, {"ngpus_per_trial": 4, "executor": "ray"}, 4),
        (4, {}, 1),
        (4, {"ngpus_per_trial": 0.5}, 1),
        (4, {"ngpus_per_trial": 2}, 2),
        (4, {"ngpus_per_trial": 8}, 4),
        (4, {"ngpus_per_trial": 4, "nprocs_per_trial": 1}, 1),
        (4, {"nprocs_per_trial": 3}, 3),
        (4, {"ngpus_per_trial": 0, "nprocs_per_trial": 3}, 3),
    ],
)
def test_there_is_a_process_for_each_gpu_of_a_trial(
    monkeypatch: pytest.MonkeyPatch, num_gpus: int, asked: dict[str, Any], expected: int
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: num_gpus)
    monkeypatch.setattr("torch.cuda.is_available", lambda: num_gpus > 0)
    assert searching.processes_of_trial(FitOptions.of(asked)) == expected


@pytest.mark.parametrize(("limit_s", "is_short"), [(30.0, True), (3600.0, False), (None, False)])
def test_waiting_threads_of_workers_sleep_early_on_short_limits(
    request_of: Callable[..., FitRequest], monkeypatch: pytest.MonkeyPatch, limit_s: float | None, is_short: bool
) -> None:
    monkeypatch.setattr(searching, "make_executor", lambda given, preload, workers, **options: workers())
    request = replace(request_of(executor="process", num_trials=2, ngpus_per_trial=0), time_limit_s=limit_s)
    (slot,) = make_image_executor(request, [].append)  # type: ignore[misc]
    assert slot.is_wait_short is is_short  # type: ignore[has-type]


def test_a_worker_process_gives_the_same_scores_as_this_process(
    make_colours: MakeColours, tiny: dict[str, Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    frame, space = make_colours(6), {**tiny, "epochs": 1, "lr": ag.Real(1e-4, 1e-1, log=True)}
    boards = []
    with ProcessExecutor(preload=searching.PRELOAD, workers=[WorkerSlot(num_threads=1)]) as process:
        for folder, executor in (("inline", "inline"), ("run", process)):
            predictor = ImagePredictor(path=tmp_path / folder, verbosity=0).fit(
                frame, hyperparameters=space, executor=executor, random_state=7, num_trials=3, nthreads_per_trial=1,
                searcher="random", scheduler="fifo",
            )  # fmt: skip
            boards.append(predictor.leaderboard().drop(columns=["fit_time_s", "images_per_s"]))
    assert capfd.readouterr() == ("", "")
    pd.testing.assert_frame_equal(boards[0], boards[1])
    trials = StudyRecord.load(EventLog(tmp_path / "run" / "events.jsonl")).trials
    assert [trial.number for trial in trials] == [0, 1, 2]
    board = predictor.leaderboard().sort_values("trial")
    assert [trial.best_report.score for trial in trials if trial.best_report] == board["score_val"].tolist()
    weights = list((tmp_path / "run" / "trials").glob("*/best*"))
    best = json.loads((tmp_path / "run" / "predictor" / "predictor.json").read_text())["summary"]["best_trial"]
    assert tmp_path / "run" / "trials" / f"{best:04d}" / "best.safetensors" in weights
    assert all(trials[int(path.parent.name)].status.value in ("completed", "paused", "stopped") for path in weights)


def test_a_trials_own_time_limit_ends_it(make_colours: MakeColours, tiny: dict[str, Any], tmp_path: Path) -> None:
    predictor = ImagePredictor(path=tmp_path / "run", verbosity=0).fit(
        make_colours(10), hyperparameters={**tiny, "epochs": 100_000}, trial_time_limit=0.5
    )
    row = predictor.leaderboard().iloc[0]
    assert (row["status"], row["reason"]) == ("stopped", "trial time limit")
    assert row["fit_time_s"] < 100


class Losing(Tracker):
    """Raises at the first report."""

    def __init__(self) -> None:
        self.kinds: list[str] = []

    def on_event(self, event: Event) -> None:
        self.kinds.append(event.kind)
        if event.kind == "epoch_done":
            raise ConnectionError("no server")


def test_an_executor_and_trackers_may_be_instances(
    tmp_path: Path, make_colours: Callable[..., pd.DataFrame], tiny: dict[str, Any]
) -> None:
    tracker = Losing()
    events: list[Event] = []
    executor = InlineExecutor()
    estimator = ImageClassifier(
        hyperparameters={**tiny, "epochs": 2},
        path=str(tmp_path / "run"),
        verbosity=0,
        fit_options={"executor": executor, "callbacks": [tracker, events.append]},
    )
    images = make_colours(6)
    with pytest.warns(UserWarning, match="The tracker Losing raised ConnectionError: no server"):
        estimator.fit(images["image"], images["label"])
    assert tracker.kinds[-1] == "epoch_done"
    assert [event.kind for event in events].count("epoch_done") == 2
    assert (events[0].kind, events[-1].kind) == ("run_started", "run_finished")
    assert executor.trainable is None


def test_without_time_the_speed_of_the_machine_is_not_measured(
    request_of: Callable[..., FitRequest], make_task: Any
) -> None:
    request = request_of()
    assert "log_speed" in describe_search(request, make_task(), Deadline(60))
    assert not {"log_speed", "forward_s"} & describe_search(request, make_task(), Deadline(0)).keys()


def test_workers_on_other_machines_measure_their_own_speed(
    request_of: Callable[..., FitRequest], make_task: Any, tmp_path: Path
) -> None:
    executor, budget = InlineExecutor(), SimpleNamespace(deadline=Deadline(60), reserve=SimpleNamespace(seconds=0.0))
    executor.measures_speed = True  # `budget` has no part for a measurement here
    request = request_of({"model": ag.Categorical("test_resnet", "test_vit")})
    with EventLog(tmp_path / "events.jsonl") as log:
        study = searching.make_study(request, tmp_path, make_task(), executor, cast(Any, budget), log, [])
        search = study.searcher
        assert isinstance(search, AutoSearch)
        search.suggest()
        before_s = search.costs.epoch_s([0])[0]
        study._handle(WorkerJoined(1, "node", 0.01))
        search.next_job(study)
        assert search.costs.epoch_s([0])[0] == pytest.approx(100 * before_s)


def test_the_search_knows_the_networks_whose_features_are_cached(
    request_of: Callable[..., FitRequest], make_task: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SACCADE_CACHE", str(tmp_path / "cache"))
    request, task = request_of({"img_size": ag.Categorical(32, 64)}), make_task()
    assert describe_search(request, task, Deadline(0))["cached"] == set()
    recipe = Recipe.of({"model": "test_resnet", "pretrained": False, "img_size": 64})
    classifier = new_classifier(recipe, task.problem, Numerics(torch.device("cpu")))
    cached_features(classifier, task.store, task.train.indices)
    (network,) = describe_search(request, task, Deadline(0))["cached"]
    assert network.input_size == 64
    monkeypatch.setenv("SACCADE_FEATURE_CACHE_GB", "0")
    assert describe_search(request, task, Deadline(0))["cached"] == set()


@pytest.fixture
def no_downloads() -> Downloads:
    return Downloads([], Deadline(0))


def test_networks_that_short_probes_dropped_are_not_searched(
    request_of: Callable[..., FitRequest],
    make_task: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    no_downloads: Downloads,
) -> None:
    """The result is in the event log, and a resumed run reads it there."""
    names = ["test_resnet", "test_vit", "test_convnext", "test_efficientnet", "test_mambaout"]
    model = {"model": ag.Categorical(*names), "pretrained": True}
    request, task = request_of(model, starting_configs=[{"model": "test_mambaout"}]), make_task()
    asked: list[object] = []

    def run(_: Screening, networks: list[str], downloads: Downloads, always: list[str]) -> dict[str, ScreenedNetwork]:
        asked.append((networks, always))
        return {name: ScreenedNetwork(0.1, score, 0.01, 8) for name, score in (("test_vit", 0.9), ("test_resnet", 0.8))}

    monkeypatch.setattr(Screening, "run", run)
    with EventLog(tmp_path / "events.jsonl", request.space) as log:
        for _ in range(2):
            narrowed, scores = screen_networks(request, task, Deadline(60), log, log, no_downloads)
            assert narrowed.space.data["model"].data == ("test_vit", "test_resnet", "test_mambaout")
            assert scores == {"test_vit": 0.9, "test_resnet": 0.8}
        searcher, _ = make_image_search(narrowed, describe_search(narrowed, task, Deadline(0), scores))
    assert asked == [(names, ["test_mambaout"])]
    assert {searcher.suggest()["model"] for _ in range(20)} == {"test_vit", "test_resnet", "test_mambaout"}


@pytest.mark.parametrize(
    ("changes", "arguments"),
    [
        ({"model": ag.Categorical("test_resnet", "test_vit")}, {}),  # few
        ({"pretrained": False}, {}),
        ({"linear_probe": False}, {}),
        ({}, {"searcher": "random"}),  # the user asked for another search, and named the networks
    ],
)
def test_when_the_search_has_all_networks(
    request_of: Callable[..., FitRequest],
    make_task: Any,
    tmp_path: Path,
    no_downloads: Downloads,
    changes: dict[str, Any],
    arguments: dict[str, Any],
) -> None:
    model = ag.Categorical("test_resnet", "test_vit", "test_convnext", "test_efficientnet")
    request = request_of({"model": model, "pretrained": True, **changes}, **arguments)
    with EventLog(tmp_path / "events.jsonl", request.space) as log:
        assert screen_networks(request, make_task(), Deadline(60), log, log, no_downloads) == (request, {})


def test_without_a_complete_probe_networks_that_did_not_arrive_are_left_out(
    request_of: Callable[..., FitRequest], make_task: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    request = request_of({"model": ag.Categorical("tf_efficientnet_lite0", "resnet18"), "pretrained": True})
    request = replace(request, is_model_named=False)
    assert networks_to_download(request) == ["resnet18"]
    assert networks_to_download(request, [NetworksScreened({}, 2, 0.1)]) == []
    downloads = Downloads(["resnet18"], Deadline(0))
    monkeypatch.setattr(Screening, "run", lambda *_: {})
    with EventLog(tmp_path / "events.jsonl", request.space) as log:
        narrowed, scores = screen_networks(request, make_task(), Deadline(60), log, log, downloads)
    assert narrowed.space.data["model"] == "tf_efficientnet_lite0"
    assert scores == {}


def test_the_plan_shows_the_sizes_of_downloads(
    request_of: Callable[..., FitRequest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    model = ag.Categorical("tf_efficientnet_lite0", "resnet50.a1_in1k")
    request = replace(request_of({"model": model, "pretrained": True}), is_model_named=False)
    planned = searching.plan(request, "accuracy", InlineExecutor())
    assert planned.networks == ["tf_efficientnet_lite0", "resnet50.a1_in1k (download, 94 MB)"]


class Starting(ProcessExecutor):
    """Worker processes that need `start_s` on the clock of a deadline."""

    def __init__(self, start_s: float) -> None:
        self.start_s, self.now_s, self.is_closed, self.trainable = start_s, 0.0, False, None
        self._slots = (WorkerSlot(),)

    @property
    def num_ready(self) -> int:
        return int(self.now_s >= self.start_s)

    def wait_for_start(self, timeout_s: float | None = None) -> bool:
        assert timeout_s is not None
        self.now_s += timeout_s
        return bool(self.num_ready)

    def close(self) -> None:
        self.is_closed = True


@pytest.mark.parametrize(("start_s", "limit_s", "is_used"), [(4.0, 10, True), (6.0, 10, False), (60.0, None, True)])
def test_worker_processes_that_start_too_late_are_replaced(
    start_s: float, limit_s: float | None, is_used: bool
) -> None:
    executor, events = Starting(start_s), list[Event]()
    used = executor_in_time(executor, Deadline(limit_s, lambda: executor.now_s), events.append)
    assert (used is executor) == is_used == (not executor.is_closed) == (not events)
    assert is_used or (isinstance(used, InlineExecutor) and executor.now_s < 5.2)


def test_fixed_hyperparameters_without_a_search_are_one_trial(
    make_colours: MakeColours, tiny: dict[str, Any], tmp_path: Path, tiny_weights: Path
) -> None:
    events: list[Event] = []
    fixed = {name: value for name, value in tiny.items() if name not in ("model", "pretrained", "lr")}
    predictor = ImagePredictor(path=tmp_path / "run", verbosity=0)
    predictor.fit(make_colours(10), hyperparameters=fixed, weights=tiny_weights, callbacks=[events.append])
    assert predictor.fit_summary()["num_trials"] == 1
    (plan,) = (event for event in events if isinstance(event, RunPlanned))
    assert (plan.networks, plan.metric) == (["test_resnet"], "accuracy")
    assert plan.problem == "binary (2 different labels)"
    assert "Pass time_limit or num_trials" in plan.advice
    assert any("validation images are too few" in event.text for event in events if isinstance(event, Warned))
