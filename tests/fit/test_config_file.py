"""A whole fit in a file: reading, writing, and options that win over it."""

from __future__ import annotations

from pathlib import Path

import pytest

from saccade.errors import DataError, HyperparameterError, SaccadeError, SpaceError, UnknownNameError
from saccade.fit.config_file import FIT_TOML, FitConfig
from saccade.fit.options import options_of
from saccade.space import Categorical, Int, Real

ALL = FitConfig(
    data="/images/pets.zip",
    callbacks=["csv"],
    image_column="path",
    label="kind",
    image_root="/images",
    problem_type="multiclass",
    eval_metric="f1",
    label_sep=";",
    sample_weight="weight",
    encoding="cp1252",
    time_limit=600.0,
    num_trials=3,
    presets="medium_quality",
    searcher="random",
    searcher_options={"seed": 1, "text": "a,b"},
    scheduler="asha",
    scheduler_options={"grace_epochs": 2, "type": "stopping"},
    starting_configs=[{"model": "a,b", "lr": 1e-3, "scale": (0.5, 1.0)}, {"auto_augment": None}],
    trial_time_limit=90.0,
    objectives=["f1"],
    max_reward=1.0,
    min_images_per_s=9.5,
    max_latency_ms=200.0,
    distill=False,
    holdout_frac=0.2,
    groups="patient",
    random_state=7,
    refit_full=False,
    ensemble=3,
    num_folds=3,
    weights="/weights",
    nthreads_per_trial=1,
    ngpus_per_trial=0,
    nprocs_per_trial=2,
    executor="ray",
    address="10.0.0.1:6379",
    max_workers=8,
    report=False,
    verbosity=3,
    hyperparameters={
        "model": Categorical("resnet18", "a,b"),
        "lr": Real(1e-4, 1e-1, log=True),
        "batch_size": Int(8, 64, default=16),
        "auto_augment": None,
        "opt": "None",
        "scale": (0.5, 1.0),
    },
)


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "some.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_all_options_are_read_back(tmp_path):
    in_file = {name for name, option in options_of(FitConfig) if option.is_in_file}
    # Every option is tested; a repeated run has another folder, and times and unlabeled images have no folds.
    assert set(ALL.given) == in_file - {"path", "time", "unlabeled"}
    ALL.write(tmp_path / FIT_TOML)
    assert FitConfig.read(tmp_path / FIT_TOML).given == ALL.given
    assert FitConfig.read(tmp_path).given == ALL.given  # a run folder stands for its file


def test_only_given_options_are_written(tmp_path):
    FitConfig(data="/pets").write(tmp_path / FIT_TOML)
    lines = (tmp_path / FIT_TOML).read_text().splitlines()
    assert [line for line in lines if line and not line.startswith("#")] == ['data = "/pets"']


def test_values_are_texts_or_plain_toml(tmp_path):
    text = """
        time_limit = "10m"
        lr = "1e-4:1e-1:log"
        model = ["resnet18", "vgg11"]
        [set]
        epochs = 5
        batch_size = "16,32"
        pretrained = false
        scale = "(0.7,1)"
        ratio = [[0.5, 2.0], "(1,1)"]
    """
    config = FitConfig.read(written(tmp_path, text))
    assert config.time_limit == 600
    assert config.hyperparameters == {
        "lr": Real(1e-4, 1e-1, log=True),
        "model": Categorical("resnet18", "vgg11"),
        "epochs": 5,
        "batch_size": Categorical(16, 32),
        "pretrained": False,
        "scale": (0.7, 1),
        "ratio": Categorical((0.5, 2.0), (1, 1)),
    }


def test_trial_time_limits_are_numbers_or_durations(tmp_path):
    assert FitConfig.read(written(tmp_path, 'trial_time_limit = "1h30m"')).trial_time_limit == 5400
    assert FitConfig.read(written(tmp_path, "trial_time_limit = 90")).trial_time_limit == 90
    with pytest.raises(HyperparameterError, match="was given 'soon'; expected a duration"):
        FitConfig.read(written(tmp_path, 'trial_time_limit = "soon"'))


def test_starting_configurations(tmp_path):
    text = "starting_configs = [{lr = 0.1, scale = '(0.7,1)'}, {auto_augment = 'None', batch_size = 8}]"
    config = FitConfig.read(written(tmp_path, text))
    assert config.starting_configs == [{"lr": 0.1, "scale": (0.7, 1)}, {"auto_augment": None, "batch_size": 8}]


@pytest.mark.parametrize(
    ("limit", "meaning"), [('"none"', None), ('"auto"', "auto"), ("90", 90), ("1.5", 1.5), ('"1h30m"', 5400)]
)
def test_time_limits_are_numbers_durations_or_words(tmp_path, limit, meaning):
    assert FitConfig.read(written(tmp_path, f"time_limit = {limit}")).time_limit == meaning


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("time_limt = 3", UnknownNameError, "Did you mean 'time_limit'"),
        ("[hyperparametrs]\nepochs = 3", UnknownNameError, "Did you mean 'hyperparameters'"),
        ("num_trials = 'few'", HyperparameterError, "'num_trials' was given 'few'; expected a whole number"),
        ("num_trials = true", HyperparameterError, "'num_trials'"),
        ("seed = 1.5", HyperparameterError, "'seed'"),
        ("data = 3", HyperparameterError, "'data'"),
        ("weights = 3", HyperparameterError, "'weights'"),
        ("verbosity = 7", HyperparameterError, "'verbosity'"),
        ("time_limit = 'soon'", HyperparameterError, "was given 'soon'; expected a duration"),
        ("time_limit = [1]", HyperparameterError, "'time_limit'"),
        ("lr = '1:0.1'", SpaceError, r"Real\(0\.1, 1\.0\)"),
        ("lr = 2020-01-01", HyperparameterError, "not a value"),
        ("lr = []", SpaceError, "no values"),
        ("model = {a = 1}", HyperparameterError, "not a value"),
        ("set = ['epochs=3']", HyperparameterError, "expected a table"),
        ("lr = 1\n[set]\nlr = 2", HyperparameterError, "'lr' is given twice"),
        ("lr = ", DataError, "not a TOML file"),
    ],
)
def test_errors_name_the_file(tmp_path, text, error, message):
    with pytest.raises(error, match=message) as caught:
        FitConfig.read(written(tmp_path, text))
    assert str(caught.value).startswith(str(tmp_path / "some.toml"))
    assert isinstance(caught.value, SaccadeError)


def test_paths_are_relative_to_the_file(tmp_path):
    (tmp_path / "folder").mkdir()
    config = FitConfig.read(written(tmp_path / "folder", "data = '../pets'\nweights = '/w'\nout = 'runs/1'"))
    assert config.data == str(tmp_path / "pets")
    assert config.weights == str(Path("/w"))
    assert config.path == str(tmp_path / "folder" / "runs" / "1")
    assert FitConfig.read(written(tmp_path, "data = 'https://h/p.zip'")).data == "https://h/p.zip"


def test_given_options_take_precedence_over_another_configuration():
    here = FitConfig(num_trials=5, hyperparameters={"learning_rate": 0.1})
    both = here.over(FitConfig(num_trials=3, random_state=1, hyperparameters={"lr": Real(0.1, 1), "epochs": 2}))
    assert (both.num_trials, both.random_state) == (5, 1)
    assert both.hyperparameters == {"lr": 0.1, "epochs": 2}  # the same hyperparameter under two names


def test_paths_become_absolute(tmp_path):
    config = FitConfig(data="pets", weights="w", image_root="https://host/x.zip").with_absolute_paths(tmp_path)
    assert (config.data, config.weights) == (str(tmp_path / "pets"), str(tmp_path / "w"))
    assert config.image_root == "https://host/x.zip"


def test_objects_that_a_file_cannot_hold_are_named_in_a_comment(tmp_path):
    own = FitConfig.model_construct(
        data="caf\udce9",
        eval_metric=len,
        hyperparameters={"model": object(), "epochs": 2, "class_weight": {0: 1.0, 1: 2.5}},
    )
    own.write(tmp_path / FIT_TOML)
    text = (tmp_path / FIT_TOML).read_text()
    assert "# model cannot be written: <object" in text
    assert "# metric cannot be written: <built-in function len>" in text
    assert "# data cannot be written: 'caf\\udce9'" in text
    read = FitConfig.read(tmp_path / FIT_TOML)
    assert (read.data, read.eval_metric) == (None, None)
    assert read.hyperparameters == {"epochs": 2, "class_weight": {0: 1.0, 1: 2.5}}


@pytest.mark.parametrize(
    ("given", "meant"), [("auto", "auto"), ("none", False), ("true", True), ("4", 4), ("1", False)]
)
def test_ensemble_sizes_are_numbers_or_words(tmp_path, given, meant):
    ensemble = FitConfig.read(written(tmp_path, f"ensemble = '{given}'")).ensemble
    assert (type(ensemble), ensemble) == (type(meant), meant)
