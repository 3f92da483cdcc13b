from __future__ import annotations

import json
import math
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import saccade as ag
from saccade import ImageDataset, ImagePredictor
from saccade.errors import (
    DataError,
    HyperparameterError,
    ImageReadError,
    NotFittedError,
    SavedPredictorError,
    SearchFailedError,
    UnknownArgumentError,
    UnknownModelError,
    UnknownNameError,
    WeightsNotFoundError,
)

MakeColours = Callable[..., pd.DataFrame]


@pytest.fixture
def predictor(tmp_path: Path) -> ImagePredictor:
    return ImagePredictor(path=tmp_path / "run", verbosity=0)


@pytest.fixture
def fitted(predictor: ImagePredictor, make_colours: MakeColours, tiny: dict[str, Any]) -> ImagePredictor:
    return predictor.fit(make_colours(10, ("blue", "green", "red")), hyperparameters={**tiny, "epochs": 4})


@pytest.fixture(scope="module")
def kept(make_colours_once: MakeColours, tmp_path_factory: pytest.TempPathFactory) -> ImagePredictor:
    """The same for tests that change neither the predictor nor its run."""
    predictor = ImagePredictor(path=tmp_path_factory.mktemp("kept") / "run", verbosity=0)
    tiny = {"model": "test_resnet", "pretrained": False, "img_size": 32, "batch_size": 8, "epochs": 4, "lr": 3e-3}
    return predictor.fit(make_colours_once(10, ("blue", "green", "red")), hyperparameters=tiny)


def test_predictions_have_labels_names_and_the_index_of_the_input(
    kept: ImagePredictor, make_colours: MakeColours
) -> None:
    test = make_colours(4, ("blue", "green", "red"), seed=5).sample(frac=1, random_state=1)
    labels, proba = kept.predict(test), kept.predict_proba(test)
    assert labels.name == "label"
    assert labels.index.equals(test.index)
    assert (labels == test["label"]).mean() > 0.9
    assert list(proba.columns) == kept.classes == ["blue", "green", "red"]
    assert proba.index.equals(test.index)
    assert np.allclose(proba.sum(axis=1), 1, atol=1e-5)
    assert (proba.idxmax(axis=1) == labels).all()
    assert np.array_equal(kept.predict(test, as_pandas=False), labels.to_numpy())
    assert np.array_equal(kept.predict_proba(test, as_pandas=False), proba.to_numpy())
    assert kept.evaluate(test) == {"top1": (labels == test["label"]).mean()}


def test_one_path_a_list_and_bytes_are_predicted_like_a_frame(kept: ImagePredictor, make_colours: MakeColours) -> None:
    test = make_colours(2, ("blue", "red"), seed=5)
    expected = list(kept.predict(test))
    paths = list(test["image"])
    assert list(kept.predict(paths)) == expected
    assert list(kept.predict(Path(paths[0]))) == expected[:1]
    assert list(kept.predict(paths[0])) == expected[:1]
    assert list(kept.predict([Path(path).read_bytes() for path in paths])) == expected
    assert len(kept.predict([])) == 0
    assert kept.predict_proba([]).shape == (0, 3)


@pytest.mark.parametrize("labels", [["no", "yes"], [10, 20], [False, True], [0.5, 1.5]])
def test_predicted_labels_have_the_form_of_the_given_ones(
    predictor: ImagePredictor, make_colours: MakeColours, tiny: dict[str, Any], labels: list[Any]
) -> None:
    frame = make_colours(8)
    frame["label"] = frame["label"].map({"blue": labels[0], "red": labels[1]})
    predictor = ImagePredictor(problem_type="binary", path=predictor.path, verbosity=0)
    predicted = predictor.fit(frame, hyperparameters={**tiny, "epochs": 1}).predict(frame)
    assert predicted.dtype == frame["label"].dtype
    assert set(predicted) <= set(labels)
    assert predictor.classes == labels
    again = ImagePredictor.load(predictor.path, verbosity=0).predict(frame)
    pd.testing.assert_series_equal(again, predicted)


def test_the_summary_and_the_saved_weights_are_those_of_the_best_trial(
    predictor: ImagePredictor, make_colours: MakeColours, tiny: dict[str, Any]
) -> None:
    tuning = make_colours(10, seed=3)
    predictor.fit(
        make_colours(10),
        tuning,
        hyperparameters={**tiny, "epochs": 3, "lr": ag.Categorical(1e-9, 3e-3, 1e-8)},
        hyperparameter_tune_kwargs={"num_trials": 3},
        executor="inline",
    )
    summary, board = predictor.fit_summary(), predictor.leaderboard()
    assert len(board) == 3
    assert list(board["score_val"]) == sorted(board["score_val"], reverse=True)
    best = board.iloc[0]
    assert summary["valid_acc"] == summary["valid_score"] == best["score_val"]
    assert summary["best_trial"] == best["trial"]
    assert summary["best_config"]["lr"] == best["lr"] == 3e-3
    assert summary["fit_history"]["best_config"] == summary["best_config"]
    assert len(summary["fit_history"]["config_history"]) == 3
    assert predictor.evaluate(tuning)["top1"] == pytest.approx(summary["valid_acc"])


def test_the_repr_describes_the_predictor(kept: ImagePredictor) -> None:
    summary = kept.fit_summary()
    text, table = repr(kept), kept._repr_html_()
    assert text == (
        f"<ImagePredictor state: fitted; classes: 3 (blue, green, red); result: {summary['result']}; "
        f"networks: test_resnet; path: {kept.path}>"
    )
    speed = f"{summary['images_per_s']:g} images/s without decoding"
    assert summary["result"] == f"trial 0, accuracy {summary['valid_acc']:.4g}, {speed}"
    assert table.startswith("<table><tr><th>state</th><td>fitted</td></tr>")
    assert "<td>&lt;b&gt;</td>" in ImagePredictor(label="<b>")._repr_html_()
    assert repr(ImagePredictor()) == "<ImagePredictor state: not fitted; label: label>"


def test_a_loaded_predictor_is_the_same_wherever_it_was_moved(
    fitted: ImagePredictor, make_colours: MakeColours, tmp_path: Path
) -> None:
    test = make_colours(3, ("blue", "green", "red"), seed=5)
    expected = fitted.predict_proba(test)
    fitted.save(tmp_path / "saved.ag")
    assert sorted(path.name for path in (tmp_path / "saved.ag").iterdir()) == [
        "features.safetensors",
        "history.jsonl",
        "predictor.json",
        "split.safetensors",
        "validation.safetensors",
        "weights.safetensors",
    ]
    shutil.move(tmp_path / "saved.ag", tmp_path / "moved")
    shutil.move(fitted.path, tmp_path / "whole run")
    for folder in ("moved", "whole run"):
        loaded = ImagePredictor.load(tmp_path / folder, verbosity=0)
        pd.testing.assert_frame_equal(loaded.predict_proba(test), expected)
        assert loaded.fit_summary() == fitted.fit_summary()
        pd.testing.assert_frame_equal(loaded.leaderboard(), fitted.leaderboard())


def test_saving_never_overwrites_something_else(kept: ImagePredictor, tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.txt").write_text("years of work")
    with pytest.raises(SavedPredictorError, match="no saved predictor"):
        kept.save(tmp_path / "precious")
    kept.save(tmp_path / "saved")
    kept.save(tmp_path / "saved")  # an earlier save of a predictor may be replaced


def test_saving_does_not_change_the_predictor(fitted: ImagePredictor, tmp_path: Path) -> None:
    black = np.zeros((32, 32, 3), np.uint8)
    again = pickle.loads(pickle.dumps(fitted))  # it has not loaded its networks yet
    expected, path = fitted.predict_proba(black), fitted.path
    for predictor in (fitted, again):
        shutil.rmtree(predictor.save(tmp_path / "copy"))
        assert predictor.path == path
        pd.testing.assert_frame_equal(predictor.predict_proba(black), expected)
        assert predictor.save() == str(Path(path) / "predictor")
    shutil.rmtree(path)
    pd.testing.assert_frame_equal(fitted.predict_proba(black), expected)  # its networks are in memory
    with pytest.raises(SavedPredictorError, match="is missing"):
        fitted.save(tmp_path / "copy")


def test_loading_runs_no_code_and_errors_have_reasons(fitted: ImagePredictor, tmp_path: Path) -> None:
    saved = Path(fitted.save(tmp_path / "saved"))
    with pytest.raises(SavedPredictorError, match="is not a folder"):
        ImagePredictor.load(tmp_path / "nowhere")
    with pytest.raises(SavedPredictorError, match=r"contains no predictor\.json"):
        ImagePredictor.load(tmp_path)
    (saved / "weights.safetensors").write_bytes(b"\x80\x04cos\nsystem\n")
    with pytest.raises(SavedPredictorError, match="cannot be loaded"):
        ImagePredictor.load(saved, verbosity=0).predict(str(tmp_path))
    record = json.loads((saved / "predictor.json").read_text())
    (saved / "predictor.json").write_text(json.dumps({**record, "format": 99}))
    with pytest.raises(SavedPredictorError, match="Update saccade"):
        ImagePredictor.load(saved)
    (saved / "predictor.json").write_text("{")
    with pytest.raises(SavedPredictorError, match="damaged"):
        ImagePredictor.load(saved)


def test_methods_before_fit_raise_not_fitted_error(predictor: ImagePredictor) -> None:
    for ask in (predictor.fit_summary, predictor.leaderboard, predictor.save, lambda: predictor.predict("a.png")):
        with pytest.raises(NotFittedError, match="call fit"):
            ask()


def test_unreadable_images_do_not_affect_other_predictions(
    fitted: ImagePredictor, make_colours: MakeColours, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    test = make_colours(3, ("blue", "red"), seed=5)
    Path(test["image"][1]).write_text("no image")
    fitted.verbosity = 1
    labels, proba = fitted.predict(test), fitted.predict_proba(test)
    assert pd.isna(labels[1])
    assert proba.loc[1].isna().all()
    assert labels.drop(1).notna().all()
    assert proba.drop(1).notna().all(axis=None)
    assert test["image"][1] in capsys.readouterr().err.replace("\n", "")
    assert fitted.evaluate(test) == {"top1": (labels.drop(1) == test["label"].drop(1)).mean()}
    with pytest.raises(ImageReadError, match="cannot identify"):
        fitted.predict(test["image"][1])


@pytest.mark.parametrize("labels", ["names", "numbers"])
def test_classes_are_matched_by_name_across_data_sets(
    predictor: ImagePredictor, make_colours: MakeColours, tiny: dict[str, Any], tmp_path: Path, labels: Any
) -> None:
    names = ["blue", "green", "red"]
    table = make_colours(8, tuple(names))
    train = ImageDataset.from_folder(tmp_path / "colours_0", labels=labels)
    table_val = make_colours(4, ("green", "red"), seed=1)
    val = ImageDataset.from_folder(tmp_path / "colours_1", labels=labels)  # here green is 0; in training it is 1
    predictor.fit(train, tuning_data=val, hyperparameters={**tiny, "epochs": 8})
    assert predictor.evaluate(val)["top1"] == predictor.evaluate(table_val)["top1"] > 0.8
    assert predictor.fit_summary()["valid_acc"] == pytest.approx(predictor.evaluate(val)["top1"])
    assert predictor.class_names == names
    assert predictor.classes == (names if labels == "names" else [0, 1, 2])
    assert set(predictor.predict(train)) <= set(predictor.classes)
    assert predictor.predict_proba(train).columns.tolist() == predictor.classes
    assert predictor.evaluate(table) == predictor.evaluate(train)
    loaded = ImagePredictor.load(predictor.save(tmp_path / "saved"), verbosity=0)
    assert loaded.evaluate(val) == predictor.evaluate(val)
    make_colours(4, ("red", "yellow"), seed=2)
    other = ImageDataset.from_folder(tmp_path / "colours_2", labels=labels)
    for call in (predictor.evaluate, predictor.label_issues, lambda data: predictor.fit(train, tuning_data=data)):
        with pytest.raises(DataError, match=r"does not have: \['yellow'\].*lacks \['blue', 'green'\]"):
            call(other)


def test_top5_is_reported_for_more_than_five_classes_only(
    predictor: ImagePredictor, make_colours: MakeColours, tiny: dict[str, Any]
) -> None:
    frame = make_colours(12, ("blue", "green", "red", "yellow"))
    frame["label"] = [f"class {number % 6}" for number in range(len(frame))]
    scores = predictor.fit(frame, hyperparameters={**tiny, "epochs": 1}).evaluate(frame)
    assert list(scores) == ["top1", "top5"]
    assert scores["top1"] <= scores["top5"] <= 1


def test_failed_trials_are_shown_and_the_search_continues(
    predictor: ImagePredictor, make_colours: MakeColours, tiny: dict[str, Any]
) -> None:
    space = {**tiny, "epochs": 1, "opt": "sgd", "lr": ag.Categorical(1e30, 1e-2), "warmup_epochs": 0}
    predictor.fit(make_colours(12), hyperparameters=space, executor="inline")
    board = predictor.leaderboard()
    assert list(board["status"]) == ["completed", "failed"]
    assert board["reason"].iloc[1].startswith("DivergedError: ")
    assert math.isnan(board["score_val"].iloc[1])
    traceback = json.loads((Path(predictor.path) / "predictor" / "predictor.json").read_text())["trials"][1][
        "traceback"
    ]
    assert "DivergedError" in traceback


def test_when_all_trials_fail_fit_raises_with_the_reason_and_the_traceback(
    predictor: ImagePredictor, make_colours: MakeColours, tiny: dict[str, Any]
) -> None:
    class Broken(torch.optim.SGD):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            raise ZeroDivisionError("so it goes")

    space = {**tiny, "opt": Broken, "lr": ag.Categorical(1e-2, 1e-3)}
    with pytest.raises(SearchFailedError, match="All 2 trials failed: ZeroDivisionError: so it goes") as error:
        predictor.fit(make_colours(), hyperparameters=space, executor="inline")
    assert "Traceback" in str(error.value)


@pytest.mark.parametrize("time_limit", [0.001, 1])
def test_a_very_short_time_limit_gives_a_predictor(
    predictor: ImagePredictor, make_colours: MakeColours, tiny: dict[str, Any], time_limit: float
) -> None:
    frame = make_colours(20)
    predictor.fit(frame, time_limit=time_limit, hyperparameters={**tiny, "epochs": 100_000, "batch_size": 2})
    assert len(predictor.predict(frame)) == len(frame)


def test_a_time_limit_alone_ends_the_search(
    predictor: ImagePredictor, make_colours: MakeColours, tiny: dict[str, Any]
) -> None:
    predictor.fit(
        make_colours(),
        time_limit=3,
        hyperparameters={**tiny, "epochs": 1, "lr": ag.Real(1e-4, 1e-1)},
        executor="inline",
    )
    assert len(predictor.leaderboard()) >= 1  # how many fit into the limit depends on the machine


def test_without_any_limit_a_finite_space_is_searched_whole(
    predictor: ImagePredictor, make_colours: MakeColours, tiny: dict[str, Any]
) -> None:
    space = {**tiny, "epochs": 1, "lr": ag.Categorical(1e-2, 1e-3), "hflip": ag.Categorical(0.0, 0.5)}
    predictor.fit(
        make_colours(), time_limit=None, hyperparameters=space, executor="inline",
        hyperparameter_tune_kwargs={"searcher": "grid"},
    )  # fmt: skip
    assert len(predictor.leaderboard()) == 4


def test_a_search_without_end_is_refused(
    predictor: ImagePredictor, make_colours: MakeColours, tiny: dict[str, Any]
) -> None:
    with pytest.raises(HyperparameterError, match="would never end"):
        predictor.fit(make_colours(), time_limit=None, hyperparameters={**tiny, "lr": ag.Real(1e-4, 1e-1)})


def test_max_reward_ends_the_search(predictor: ImagePredictor, make_colours: MakeColours, tiny: dict[str, Any]) -> None:
    predictor.fit(
        make_colours(), hyperparameters={**tiny, "lr": ag.Real(1e-4, 1e-1)}, executor="inline",
        hyperparameter_tune_kwargs={"max_reward": 0.0},
    )  # fmt: skip
    assert len(predictor.leaderboard()) == 1


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"hyperparameters": {"epoch": 1}}, HyperparameterError, "'epochs'"),
        ({"hyperparameters": {"model": "resnet18x"}}, UnknownModelError, "resnet18"),
        ({"hyperparameters": {"opt": "adamww"}}, UnknownNameError, "'adamw'"),
        ({"hyperparameters": {"auto_augment": "autoaugmnt"}}, UnknownNameError, "'autoaugment'"),
        ({"hyperparameters": {"model": 3}}, HyperparameterError, "model"),
        ({"hyperparameters": ["lr"]}, HyperparameterError, "expected a dict"),
        ({"hyperparameters": {"model": "resnet18"}, "weights": "."}, WeightsNotFoundError, "pretrained=False"),
        ({"time_limit": 0}, HyperparameterError, "time_limit"),
        ({"time_limit": "soon"}, HyperparameterError, "time_limit"),
        ({"holdout_frac": 1}, HyperparameterError, "holdout_frac"),
        ({"holdoutfrac": 0.1}, UnknownArgumentError, "holdout_frac"),
        ({"hyperparameter_tune_kwargs": {"searcher": "bayesian"}}, UnknownNameError, "searcher"),
        ({"hyperparameter_tune_kwargs": {"scheduler": "fifi"}}, UnknownNameError, "fifo"),
        ({"hyperparameter_tune_kwargs": {"trials": 3}}, UnknownArgumentError, "num_trials"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_lost(
    kept: ImagePredictor, make_colours: MakeColours, tiny: dict[str, Any], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, arguments: dict[str, Any], error: type[Exception], message: str,
) -> None:  # fmt: skip
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message):
        kept.fit(make_colours(), **{"hyperparameters": tiny, **arguments})
    assert kept.predict(make_colours()).notna().all()  # the earlier fit is still there


def test_an_unknown_keyword_is_a_key_error_as_it_was(predictor: ImagePredictor, make_colours: MakeColours) -> None:
    with pytest.raises(KeyError, match=r"Did you mean 'num_trials'"):
        predictor.fit(make_colours(), num_trial=3)


def test_a_run_folder_records_the_search(kept: ImagePredictor) -> None:
    folder = Path(kept.path)
    run = json.loads((folder / "run.json").read_text())
    assert ag.space.from_json(run["space"]).default["model"] == "test_resnet"
    lines = (folder / "events.jsonl").read_text().splitlines()
    kinds = [kind for line in lines if (kind := json.loads(line)["kind"]) != "phase_done"]
    assert kinds == [
        "event_log",
        "run_started",
        "run_planned",
        "data_ready",
        "data_checked",
        "warned",  # of few validation images
        "trial_created",
        "job_started",
        *["epoch_done"] * 4,
        "job_done",
        "run_finished",
    ]
    assert json.loads((folder / "trials" / "0000" / "config.json").read_text())["epochs"] == 4
    assert not (folder / "store").exists()
    assert not list(folder.glob("trials/*/last.safetensors"))


def test_a_folder_that_is_no_run_is_left_alone(make_colours: MakeColours, tiny: dict[str, Any], tmp_path: Path) -> None:
    frame = make_colours()
    with pytest.raises(DataError, match="is not a run folder"):
        ImagePredictor(path=tmp_path, verbosity=0).fit(frame, hyperparameters=tiny)


def test_verbosity_0_prints_nothing_and_a_pipe_gets_plain_lines(
    make_colours: MakeColours, tiny: dict[str, Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    frame = make_colours()
    ImagePredictor(path=tmp_path / "a", verbosity=0).fit(frame, hyperparameters=tiny).predict(frame)
    assert capfd.readouterr() == ("", "")
    ImagePredictor(path=tmp_path / "b", verbosity=3).fit(frame, hyperparameters=tiny).predict(frame)
    out, err = capfd.readouterr()
    assert out == ""
    assert "\x1b" not in err
    assert "trial 0" in err
    assert "epoch 2" in err
    assert "result: trial 0" in err


def test_the_callers_dictionaries_are_not_touched(
    predictor: ImagePredictor, make_colours: MakeColours, tiny: dict[str, Any]
) -> None:
    hyperparameters, tuning = {**tiny, "wd": 0.1}, {"num_trials": 1}
    predictor.fit(make_colours(), hyperparameters=hyperparameters, hyperparameter_tune_kwargs=tuning)
    assert hyperparameters == {**tiny, "wd": 0.1}
    assert tuning == {"num_trials": 1}


def test_regression_predicts_numbers(
    predictor: ImagePredictor, make_colours: MakeColours, tiny: dict[str, Any]
) -> None:
    frame = make_colours(12)
    frame["label"] = np.where(frame["label"] == "red", 7.0, -7.0) + np.linspace(0, 1, len(frame))
    predictor = ImagePredictor(problem_type="regression", path=predictor.path, verbosity=0)
    predictor.fit(frame, hyperparameters={**tiny, "epochs": 6, "batch_size": 4})
    predicted = predictor.predict(frame)
    assert predicted.dtype.kind == "f"
    assert predictor.evaluate(frame).keys() == {"rmse"}
    assert predictor.evaluate(frame)["rmse"] < 5
    assert predictor.fit_summary()["valid_score"] == -predictor.fit_summary()["valid_rmse"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_predictor_trained_on_a_gpu_is_loaded_on_a_cpu(fitted: ImagePredictor, make_colours: MakeColours) -> None:
    frame = make_colours(4)
    script = (
        "import sys; from saccade import ImagePredictor; print(*ImagePredictor.load(sys.argv[1]).predict(sys.argv[2:]))"
    )
    command = [sys.executable, "-c", script, fitted.path, *frame["image"]]
    done = subprocess.run(command, env={"CUDA_VISIBLE_DEVICES": ""}, capture_output=True, text=True, check=True)
    assert done.stdout.split() == list(fitted.predict(frame))
