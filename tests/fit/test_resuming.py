"""Resuming runs that were interrupted at any instant."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file

import saccade as ag
from saccade import ImagePredictor
from saccade.errors import DataError, HyperparameterError, RunInUseError
from saccade.selection import finishing
from saccade.selection.folds import FoldTrainable
from saccade.study.event_log import EventLog
from saccade.study.run_folder import locked
from saccade.study.study import Study
from saccade.study.trial import Job, Reporter

MakeColours = Callable[..., pd.DataFrame]


class Killed(BaseException):
    """Stands for the end of a process; no code catches it."""


@pytest.fixture(autouse=True)
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[Path]]:
    """Return the stores that are kept for later runs."""
    monkeypatch.setenv("SACCADE_CACHE", str(tmp_path / "cache"))
    return lambda: sorted(summary.parent for summary in (tmp_path / "cache" / "stores").glob("*/store.json"))


@pytest.fixture
def search(tiny: dict[str, Any]) -> dict[str, Any]:
    """Arguments of a search whose trials are paused and promoted; it gives the same numbers each time."""
    return {
        "hyperparameters": {**tiny, "epochs": 4, "lr": ag.Real(1e-4, 1e-1, log=True)},
        "hyperparameter_tune_kwargs": {"num_trials": 3, "searcher": "random", "scheduler": "asha"},
        "executor": "inline",
        "nthreads_per_trial": 1,
    }


def predictor_of(folder: Path, verbosity: int = 0) -> ImagePredictor:
    return ImagePredictor(path=folder, verbosity=verbosity)


def events(folder: Path, kind: str) -> list[dict[str, Any]]:
    lines = (folder / "events.jsonl").read_text().splitlines()
    return [event for event in map(json.loads, lines) if event["kind"] == kind]


def epochs(folder: Path) -> list[tuple[int, int]]:
    return [(event["trial"], event["epoch"]) for event in events(folder, "epoch_done")]


def killed_at(monkeypatch: pytest.MonkeyPatch, write: int, *, before: bool) -> None:
    """Raise `Killed` at a write to the event log, before it or after it."""
    append, num = EventLog._write, 0

    def counting(self: EventLog, record: dict[str, Any]) -> None:
        nonlocal num
        num += 1
        if num == write and before:
            raise Killed
        append(self, record)
        if num == write:
            raise Killed

    monkeypatch.setattr(EventLog, "_write", counting)


def same_results(one: ImagePredictor, other: ImagePredictor) -> None:
    boards = [predictor.leaderboard().drop(columns=["fit_time_s", "images_per_s"]) for predictor in (one, other)]
    pd.testing.assert_frame_equal(*boards)
    weights = [load_file(Path(predictor.path) / "predictor" / "weights.safetensors") for predictor in (one, other)]
    assert all(np.array_equal(weights[0][name], weights[1][name]) for name in weights[0])


NUM_WRITES = 45
"""Lines of the event log of the search above."""


def test_a_run_that_is_killed_at_any_write_gives_the_same_results(
    make_colours: MakeColours, search: dict[str, Any], tmp_path: Path
) -> None:
    frame = make_colours(8)
    whole = predictor_of(tmp_path / "whole").fit(frame, **search)
    assert len((tmp_path / "whole" / "events.jsonl").read_bytes().splitlines()) == NUM_WRITES
    for write in range(1, NUM_WRITES + 1, 11):
        folder = tmp_path / f"killed_{write}"
        with pytest.MonkeyPatch.context() as patch:
            killed_at(patch, write, before=write % 2 == 0)
            try:
                predictor_of(folder).fit(frame, **search)
            except Killed:
                assert not (folder / "predictor").exists() or write > NUM_WRITES - 3
        resumed = predictor_of(folder).fit(frame, **search, resume=True)
        same_results(whole, resumed)
        done = epochs(folder)
        assert len(done) - len(set(done)) == 0
        assert not (folder / "store").exists()
        assert not list(folder.glob("trials/*/last-*"))


def test_a_run_is_resumed_from_its_folder_alone(
    make_colours: MakeColours, search: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame, tuning = make_colours(8), make_colours(4, seed=1)
    whole = predictor_of(tmp_path / "whole").fit(frame, tuning, **search)
    with pytest.MonkeyPatch.context() as patch:
        killed_at(patch, 20, before=True)
        with pytest.raises(Killed):
            predictor_of(tmp_path / "run").fit(frame, tuning, **search)
    monkeypatch.chdir(tmp_path)  # relative paths may lead elsewhere now
    resumed = ImagePredictor.resume("run")
    same_results(whole, resumed)
    assert resumed.predict(frame).notna().all()
    assert (resumed.verbosity, resumed.path) == (0, str(tmp_path / "run"))


def test_images_are_decoded_again_if_their_store_is_damaged(
    make_colours: MakeColours, search: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = make_colours(8)
    monkeypatch.setenv("SACCADE_STORE_CACHE_GB", "0")
    with pytest.MonkeyPatch.context() as patch:
        killed_at(patch, 6, before=True)
        with pytest.raises(Killed):
            predictor_of(tmp_path / "run").fit(frame, **search)
    assert (tmp_path / "run" / "store" / "store.json").is_file()
    (tmp_path / "run" / ".store-12345678.partial").mkdir()
    (tmp_path / "run" / "store" / "store.json").write_text("{")  # as if the disk had been full
    predictor_of(tmp_path / "run").fit(frame, **search, resume=True)
    assert not list((tmp_path / "run").glob("*store*"))


def test_later_and_resumed_runs_reuse_decoded_images(
    make_colours: MakeColours, search: dict[str, Any], tmp_path: Path, cached: Callable[[], list[Path]]
) -> None:
    frame = make_colours(8)
    first = predictor_of(tmp_path / "first").fit(frame, **search)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("saccade.data.store.store.decode_image", None)
        second = predictor_of(tmp_path / "second").fit(frame, **search)
        killed_at(patch, 20, before=True)
        with pytest.raises(Killed):
            predictor_of(tmp_path / "third").fit(frame, **search)
    (store,) = cached()
    shutil.rmtree(store)  # the cache was cleared in between
    third = predictor_of(tmp_path / "third").fit(frame, **search, resume=True)
    same_results(first, second)
    same_results(first, third)
    assert cached() == [store]
    assert not list(tmp_path.glob("*/*store*/pixels.bin"))


def test_resume_starts_a_new_run_and_loads_a_finished_one(
    make_colours: MakeColours, tiny: dict[str, Any], tmp_path: Path
) -> None:
    frame = make_colours(8)
    first = predictor_of(tmp_path / "run").fit(frame, hyperparameters=tiny, resume=True)
    again = predictor_of(tmp_path / "run").fit(frame, hyperparameters=tiny, resume=True, time_limit=1e-6)
    assert again.fit_summary() == first.fit_summary()
    assert len(events(tmp_path / "run", "run_started")) == 1
    assert ImagePredictor.resume(tmp_path / "run").predict(frame).notna().all()
    with pytest.raises(HyperparameterError, match=r"resume=True requires the run folder"):
        ImagePredictor(verbosity=0).fit(frame, hyperparameters=tiny, resume=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hyperparameters": {"epochs": 3}}, "epochs was 1 and is 3"),
        ({"hyperparameters": {"epochs": 1, "opt": "sgd"}}, "opt was not given and is 'sgd'"),
        ({"holdout_frac": 0.4}, "holdout_frac was None and is 0.4"),
        ({"num_trials": 5}, "num_trials was None and is 5"),
        ({"random_state": 3}, "random_state was 0 and is 3"),
        ({"searcher": "tpe", "refit_full": True}, "refit_full was False and is True; searcher was 'auto' and is 'tpe'"),
    ],
)
def test_arguments_that_differ_from_the_run_are_errors(
    make_colours: MakeColours, tiny: dict[str, Any], tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    frame = make_colours(8)
    asked = {**tiny, "epochs": 1}
    predictor_of(tmp_path / "run").fit(frame, hyperparameters=asked)
    changed = {**changes, "hyperparameters": {**asked, **changes.get("hyperparameters", {})}}
    with pytest.raises(HyperparameterError) as caught:
        predictor_of(tmp_path / "run").fit(frame, resume=True, **changed)
    assert message in str(caught.value)
    assert "time_limit" in str(caught.value)  # which may differ


def test_time_limit_and_executor_may_differ(make_colours: MakeColours, tiny: dict[str, Any], tmp_path: Path) -> None:
    frame = make_colours(8)
    predictor_of(tmp_path / "run").fit(frame, hyperparameters=tiny)
    again = predictor_of(tmp_path / "run", verbosity=1)
    again.fit(
        frame, hyperparameters=tiny, resume=True, time_limit=77, executor="process", nthreads_per_trial=1,
        ngpus_per_trial=0,
    )  # fmt: skip
    assert again.fit_summary()["num_trials"] == 1


def test_other_images_or_labels_are_errors(make_colours: MakeColours, tiny: dict[str, Any], tmp_path: Path) -> None:
    frame = make_colours(8)
    predictor_of(tmp_path / "run").fit(frame, hyperparameters=tiny)
    relabelled = frame.assign(label=frame["label"][::-1].to_numpy())
    for other in (frame.iloc[:-1], relabelled):
        with pytest.raises(DataError, match="other images, labels"):
            predictor_of(tmp_path / "run").fit(other, hyperparameters=tiny, resume=True)


def test_another_split_is_an_error(make_colours: MakeColours, search: dict[str, Any], tmp_path: Path) -> None:
    frame = make_colours(8)
    with pytest.MonkeyPatch.context() as patch:
        killed_at(patch, 9, before=True)
        with pytest.raises(Killed):
            predictor_of(tmp_path / "run").fit(frame, **search)
    for path in frame["image"][:3]:
        Path(path).write_text("no image any more")
    with pytest.raises(DataError, match="bring the files back"):
        predictor_of(tmp_path / "run").fit(frame, **search, resume=True)


def test_a_drawn_seed_is_reused(make_colours: MakeColours, search: dict[str, Any], tmp_path: Path) -> None:
    frame = make_colours(8)
    with pytest.MonkeyPatch.context() as patch:
        killed_at(patch, 9, before=True)
        with pytest.raises(Killed):
            predictor_of(tmp_path / "run").fit(frame, **search, random_state=None)
    seed = json.loads((tmp_path / "run" / "run.json").read_text())["arguments"]["random_state"]
    resumed = predictor_of(tmp_path / "run").fit(frame, **search, random_state=None, resume=True)
    assert resumed.fit_summary()["best_config"]["seed"] == seed


def test_images_in_memory_and_objects_are_resumed_in_python_only(
    make_colours: MakeColours, search: dict[str, Any], tmp_path: Path
) -> None:
    frame = make_colours(8)
    images = frame.assign(image=[Path(path).read_bytes() for path in frame["image"]])

    def accuracy(true: np.ndarray, predicted: np.ndarray) -> float:
        return float((true == predicted).mean())

    cases: list[tuple[str, pd.DataFrame, dict[str, Any], type[Exception], str]] = [
        ("bytes", images, {}, DataError, "16 images were given as bytes"),
        (
            "metric",
            frame,
            {"eval_metric": accuracy},
            HyperparameterError,
            "an object that a file cannot hold.*accuracy",
        ),
    ]
    for name, data, arguments, error, message in cases:
        with pytest.MonkeyPatch.context() as patch:
            killed_at(patch, 12, before=False)
            with pytest.raises(Killed):
                ImagePredictor(path=tmp_path / name, verbosity=0, **arguments).fit(data, **search)
        with pytest.raises(error, match=message):
            ImagePredictor.resume(tmp_path / name)
        again = ImagePredictor(path=tmp_path / name, verbosity=0, **arguments).fit(data, **search, resume=True)
        assert len(epochs(tmp_path / name)) == len(set(epochs(tmp_path / name)))
        assert again.fit_summary()["num_trials"] == 3


def test_ctrl_c_prints_how_to_resume(
    make_colours: MakeColours,
    search: dict[str, Any],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    cached: Callable[[], list[Path]],
) -> None:
    def interrupted(self: Study) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Study, "run", interrupted)
        with pytest.raises(KeyboardInterrupt):
            predictor_of(tmp_path / "run", verbosity=1).fit(make_colours(8), **search)
    assert (
        f"interrupted. {tmp_path / 'run'} is a run that has not finished. Continue it: saccade resume"
        in capfd.readouterr().err
    )
    assert len(cached()) == 1


def test_an_interrupted_refit_starts_again(make_colours: MakeColours, search: dict[str, Any], tmp_path: Path) -> None:
    frame = make_colours(8)
    whole = predictor_of(tmp_path / "whole").fit(frame, **search, refit_full=True)

    def interrupted(*args: object) -> None:
        (tmp_path / "run" / "refit").mkdir()
        (tmp_path / "run" / "refit" / "best-0004.safetensors").write_text("half of it")
        raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finishing, "refit", interrupted)
        with pytest.raises(Killed):
            predictor_of(tmp_path / "run").fit(frame, **search, refit_full=True)
    resumed = ImagePredictor.resume(tmp_path / "run")
    assert resumed.fit_summary()["refit_full"] is True
    same_results(whole, resumed)


def test_missing_weights_are_an_error(make_colours: MakeColours, search: dict[str, Any], tmp_path: Path) -> None:
    frame = make_colours(8)
    with pytest.MonkeyPatch.context() as patch:
        killed_at(patch, NUM_WRITES, before=True)
        with pytest.raises(Killed):
            predictor_of(tmp_path / "run").fit(frame, **search)
    shutil.rmtree(tmp_path / "run" / "predictor")
    for path in (tmp_path / "run" / "trials").glob("*/best*"):
        path.unlink()
    with pytest.raises(DataError, match=r"the weights of trial \d, one of the best trials, is missing"):
        ImagePredictor.resume(tmp_path / "run")


def test_a_folder_without_a_run_cannot_be_resumed(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a run folder"):
        ImagePredictor.resume(tmp_path)
    (tmp_path / ".starting").mkdir()
    with pytest.raises(DataError, match="interrupted before it started"):
        ImagePredictor.resume(tmp_path)
    for record in ("{", "[]", "{}", '{"arguments": [], "data": "", "num_images": 3}'):
        (tmp_path / "run.json").write_text(record)
        with pytest.raises(DataError, match=r"run\.json is damaged .*start a new run"):
            ImagePredictor.resume(tmp_path)


def test_a_run_in_use_is_neither_read_nor_replaced_nor_resumed(
    make_colours: MakeColours, tiny: dict[str, Any], tmp_path: Path
) -> None:
    frame = make_colours(8)
    first = predictor_of(tmp_path / "run").fit(frame, hyperparameters=tiny)
    path = tmp_path / "run" / "run.json"
    record = path.read_text()
    with locked(tmp_path / "run"):
        path.write_text("{")  # without the lock, the record may change and must not be read
        for resume in (False, True):
            with pytest.raises(RunInUseError, match="Another run is using the folder"):
                predictor_of(tmp_path / "run").fit(frame, hyperparameters={**tiny, "epochs": 1}, resume=resume)
        (tmp_path / "run" / "predictor").rename(tmp_path / "predictor")
        with pytest.raises(RunInUseError, match="Another run is using the folder"):
            ImagePredictor.resume(tmp_path / "run")
        (tmp_path / "predictor").rename(tmp_path / "run" / "predictor")
        path.write_text(record)
    assert first.predict(frame).notna().all()
    assert predictor_of(tmp_path / "run").fit(frame, hyperparameters=tiny, resume=True).predict(frame).notna().all()


def test_the_time_of_earlier_sessions_counts(make_colours: MakeColours, search: dict[str, Any], tmp_path: Path) -> None:
    frame = make_colours(8)
    with pytest.MonkeyPatch.context() as patch:
        killed_at(patch, 12, before=True)
        with pytest.raises(Killed):
            predictor_of(tmp_path / "run").fit(frame, **search, time_limit=1000)
    log = tmp_path / "run" / "events.jsonl"
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    lines[-1]["session_s"] = 991.0
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    resumed = predictor_of(tmp_path / "run").fit(frame, **search, time_limit=900, resume=True)
    assert len(resumed.leaderboard()) < 3
    seconds = resumed.fit_summary()["seconds"]
    total_s = seconds.pop("total")
    assert 990 < total_s == resumed.fit_summary()["total_time"] < 1100
    assert seconds["earlier"] >= 990
    assert {"preparing", "decoding", "selection", "finishing"} <= seconds.keys()
    assert sum(seconds.values()) == pytest.approx(total_s)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["arguments"]["time_limit"] == 900


def test_a_longer_limit_keeps_the_validation_images(
    make_colours: MakeColours, search: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame, folder = make_colours(20), tmp_path / "run"
    monkeypatch.setattr("saccade.fit.fitting.max_held_out", lambda limit_s, *_: 2 if limit_s < 1000 else 4)
    with pytest.MonkeyPatch.context() as patch:
        killed_at(patch, 12, before=True)
        with pytest.raises(Killed):
            predictor_of(folder).fit(frame, **search, time_limit=900)
    resumed = predictor_of(folder).fit(frame, **search, time_limit=2000, resume=True)
    assert {event["num_val"] for event in events(folder, "data_ready")} == {2}
    assert len(resumed.leaderboard()) == 3


def test_a_warm_start_is_resumed_with_the_weights_in_the_run_folder(
    make_colours: MakeColours, tiny: dict[str, Any], tmp_path: Path
) -> None:
    frame = make_colours(8)
    first = predictor_of(tmp_path / "run").fit(frame, hyperparameters={**tiny, "epochs": 6})
    before = load_file(Path(first.path) / "predictor" / "weights.safetensors")
    with pytest.MonkeyPatch.context() as patch:
        killed_at(patch, 5, before=True)
        with pytest.raises(Killed):
            first.fit(frame, hyperparameters={"epochs": 1, "lr": 1e-12}, warm_start=True, overwrite=True)
    resumed = ImagePredictor.resume(tmp_path / "run")
    after = load_file(Path(resumed.path) / "predictor" / "weights.safetensors")
    for name in (name for name in before if name.endswith("weight")):
        assert np.allclose(before[name], after[name], atol=1e-6), name
    assert not (tmp_path / "run" / "trials" / "start.safetensors").exists()


def test_interrupted_folds_are_trained_again(
    make_colours: MakeColours, tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = make_colours(9)
    arguments = {"hyperparameters": tiny, "executor": "inline", "nthreads_per_trial": 1, "num_folds": 3}
    train, num = FoldTrainable.train, 0

    def killed_in_the_second(self: FoldTrainable, job: Job, report: Reporter) -> str:
        nonlocal num
        num += 1
        if num == 2:
            raise Killed
        return train(self, job, report)

    with monkeypatch.context() as patch:
        patch.setattr(FoldTrainable, "train", killed_in_the_second)
        with pytest.raises(Killed):
            predictor_of(tmp_path / "run").fit(frame, **arguments)
    resumed = ImagePredictor.resume(tmp_path / "run", verbosity=0)
    whole = predictor_of(tmp_path / "whole").fit(frame, **arguments)
    assert resumed.fit_summary()["num_folds"] == whole.fit_summary()["num_folds"] == 3
    same_results(resumed, whole)
