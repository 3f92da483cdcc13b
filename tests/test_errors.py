from __future__ import annotations

import errno
import importlib
import inspect
import pickle
import re
from pathlib import Path

import pytest

import saccade
from saccade import ImageDataset, ImagePredictor, Real, errors
from saccade.data.examples import read_labelled_examples
from saccade.errors import (
    DataError,
    DiskFullError,
    SaccadeError,
    UnknownArgumentError,
    UnknownNameError,
    explained_file_errors,
    near_names,
    suggests_names,
)
from saccade.fit.options import FitOptions
from saccade.models.catalogue import resolve_name
from saccade.tasks.metrics import make_metric
from saccade.tasks.problem import Problem
from saccade.training.recipes.recipe import Recipe

CLASSES = [cls for _, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, SaccadeError)]


def drawn_tree():
    """Return the name, the base, and the further bases of every class in the picture atop the module."""
    stack, rows = ["SaccadeError"], []
    for line in errors.__doc__.splitlines():
        found = re.match(r"([│ ]*[├└]── )(\w+) .*?(?:\(also (.*)\))?$", line)
        if found:
            depth = len(found[1]) // 4
            del stack[depth:]
            rows.append((found[2], stack[-1], found[3].split(", ") if found[3] else []))
            stack.append(found[2])
    return rows


def test_error_tree_in_the_docstring_matches_the_classes():
    rows = drawn_tree()
    assert sorted(name for name, *_ in rows) == sorted(cls.__name__ for cls in CLASSES if cls is not SaccadeError)
    for name, base, also in rows:
        bases = [cls.__name__ for cls in getattr(errors, name).__bases__]
        assert (bases[0], bases[1:]) == (base, also), name


@pytest.mark.parametrize("cls", CLASSES)
def test_an_error_shows_its_message_and_can_be_sent(cls):
    error = pickle.loads(pickle.dumps(cls("what was given, what was expected")))
    assert type(error) is cls
    assert str(error) == "what was given, what was expected"
    assert cls.__doc__


@pytest.mark.parametrize(
    ("given", "known", "message"),
    [
        ("lrr", ["lr", "epochs"], "Unknown thing 'lrr'. Did you mean 'lr'?"),
        ("RESNET18", ["resnet18", "vgg"], "Unknown thing 'RESNET18'. Did you mean 'resnet18'?"),
        ("epocs", ["epoch_s", "epochs"], "Unknown thing 'epocs'. Did you mean 'epochs' or 'epoch_s'?"),
        ("zzz", ["b", "a"], "Unknown thing 'zzz'. Known: a, b."),
        ("zzz", [f"n{i}" for i in range(41)], "Unknown thing 'zzz'."),
        (7, ["a"], "Unknown thing 7. Known: a."),
        ("", ["a"], "Unknown thing ''. Known: a."),
    ],
)
def test_an_unknown_name_is_answered_with_near_or_all_names(given, known, message):
    assert str(UnknownNameError.of("thing", given, iter(known))) == message
    assert str(UnknownNameError.of("thing", given, known, "See the list.")) == f"{message} See the list."


def test_error_has_the_class_that_built_it():
    error = UnknownArgumentError.of("argument", "lrr", ["lr"])
    assert type(error) is UnknownArgumentError
    assert isinstance(error, (KeyError, TypeError, ValueError))
    assert str(error) == "Unknown argument 'lrr'. Did you mean 'lr'?"


def test_near_names_are_few_and_the_nearest_comes_first():
    known = ["resnet18", "resnet34", "resnet50", "resnet101", "vgg16"]
    assert near_names("resnet5", known, num=2)[0] == "resnet50"
    assert len(near_names("resnet5", known, num=2)) == 2
    assert near_names("transformer", known) == []


class RayFloat:
    """Stands for an object of Ray, which is not installed."""


RayFloat.__module__ = "ray.tune.search.sample"


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda: Recipe.of({"optim.lr": 1e-3}), "'lr'?"),
        (lambda: Recipe.of({"model.timm_image.checkpoint_name": "resnet18"}), "'model'?"),
        (lambda: Recipe.of({"env.batch_size": 8}), "'batch_size'?"),
        (lambda: Recipe.of({"imgsz": 224}), "'img_size'?"),
        (lambda: Recipe.of({"time_limit": 60}), "argument of fit()"),
        (lambda: Recipe.of({"rotation_range": 20}), "'train_transform' or 'auto_augment'?"),  # Keras
        (lambda: Recipe.of({"lr": [1e-3, 1e-2]}), "saccade.Categorical(0.001, 0.01)"),
        (lambda: ImageDataset({"image": ["a"], "label": [0]}).random_split(test_sise=0.2), "'test_size'"),
        (lambda: read_labelled_examples([("a.png", "cat")], "label"), "pandas.DataFrame({'image': paths"),
        (lambda: Recipe.of({"loss": "focal"}), "the loss follows from the problem type"),
        (lambda: FitOptions.of({"steps_per_epoch": 9}), "hyperparameters={'images_per_epoch': …}"),
        (lambda: FitOptions.of({"lrf": 0.01}), "hyperparameters={'min_lr': …}"),  # Ultralytics
        (lambda: FitOptions.of({"splitter": None}), "'holdout_frac'?"),  # fastai
        (lambda: FitOptions.of({"column_types": {}}), "Images are in the column image"),  # AutoMM
        (lambda: FitOptions.of({"val": None}), "'tuning_data'?"),
        (lambda: ImagePredictor(num_classes=3), "the number of classes follows from the labels"),
        (lambda: ImagePredictor().history, "'fit_summary'?"),
        (lambda: ImagePredictor().train, "'fit'?"),
        (lambda: ImagePredictor().get_preds, "'predict_proba'?"),
        (lambda: FitOptions.of({"seed": 0}), "'random_state'?"),
        (lambda: FitOptions.of({"val_data": None}), "'tuning_data'?"),
        (lambda: FitOptions.of({"time_limits": 60}), "'time_limit'?"),
        (lambda: FitOptions.of({"num_to_keep": 1}), "best epoch of each trial"),
        (lambda: FitOptions.of({"save_path": "run"}), "ImagePredictor(path=…)"),
        (lambda: FitOptions.of({"lr": 1e-3}), "hyperparameters={'lr': …}"),
        (lambda: FitOptions.of({"bs": 8}), "hyperparameters={'batch_size': …}"),
        (lambda: FitOptions.of({"hyperparameter_tune_kwargs": {"time_limits": 3}}), "argument of fit()"),
        (lambda: FitOptions.of({"hyperparameter_tune_kwargs": {"num_samples": 3}}), "'num_trials'?"),
        (lambda: ImagePredictor(save_path="run"), "'path'?"),
        (lambda: ImagePredictor(metric="f1"), "'eval_metric'?"),
        (lambda: ImagePredictor(seed=1), "'random_state' is an argument of fit()"),
        (lambda: ImagePredictor.load("run", devices="cpu"), "'device'?"),
        (lambda: ImageDataset.from_csv("a.csv", label="kind"), "'label_column'?"),
        (lambda: ImagePredictor().class_labels, "'classes'?"),
        (lambda: ImagePredictor().extract_embedding, "'embed'?"),
        (lambda: ImagePredictor().predict_prob, "'predict_proba'?"),
        (lambda: ImagePredictor.from_checkpoint, "'load'"),
        (lambda: ImageDataset.from_directory, "'from_folder'?"),
        (lambda: saccade.Tuner, "'tune'"),
        (lambda: ImagePredictor().fit(None, ngpu=1), "'ngpus_per_trial'?"),
        (lambda: ImagePredictor().fit(None, test_data=1), "evaluate(data)"),
        (lambda: ImagePredictor().fit(None, sample_weights="w"), "ImagePredictor(sample_weight=…)"),
        (lambda: Recipe.of({"focal": 2}), "class_weight and robust_loss"),
        (lambda: resolve_name("ViT-B/16"), "'vit_base_patch16_224'?"),
        (lambda: resolve_name("microsoft/resnet-50"), "'resnet50'"),
        (lambda: make_metric("confusion", Problem.of(["a", "b"])), 'metrics=["confusion_matrix"]'),
        (lambda: make_metric("pac_score", Problem.of(["a", "b"])), 'eval_metric="log_loss"'),
        (lambda: importlib.import_module("saccade.core.utils").mkdir, "os.makedirs"),
        (lambda: saccade.args, "saccade.tune(train_fn, space)"),
        (lambda: saccade.Choice, "'Categorical'?"),
        (lambda: saccade.space.Choice, "'Categorical'?"),
        (lambda: saccade.tune.loguniform(1e-4, 1e-1), "saccade.Real(lower, upper, log=True)"),
        (lambda: saccade.tune(len, {"x": Real(0, 1)}, num_samples=3), "'num_trials'?"),
        (lambda: saccade.tune(len, {"x": RayFloat()}), "Write saccade.Real"),
        (lambda: resolve_name("vit_b_16"), "'vit_base_patch16_224'?"),  # torchvision
        (lambda: resolve_name("dinov2"), "'vit_small_patch14_dinov2'?"),
        (lambda: make_metric("auc", Problem.of(["a", "b"])), "'roc_auc'"),
        (lambda: make_metric("auc", Problem.of(["a", "b", "c"])), "'roc_auc_ovr'"),
    ],
)
def test_words_of_other_libraries_are_answered_with_ours(call, word):
    with pytest.raises((SaccadeError, AttributeError)) as caught:
        call()
    assert word in str(caught.value)


@pytest.mark.parametrize("place", ["saccade", "saccade.vision", "saccade.core"])
def test_importing_another_librarys_predictor_names_ours(place):
    with pytest.raises(ImportError, match="'ImagePredictor'" if place != "saccade.core" else "cannot import name"):
        exec(f"from {place} import MultiModalPredictor")
    module = importlib.import_module(place)
    assert not hasattr(module, "MultiModalPredictor")
    assert not hasattr(module, "YOLO")
    with pytest.raises(AttributeError, match="'MultiModalPredictor'"):
        module.MultiModalPredictor  # noqa: B018


@pytest.mark.parametrize("word", ["persist_all", "unpersist", "coef_", "get_layer", "zzz", "focus"])
def test_names_that_nothing_resembles_have_no_suggestion(word):
    with pytest.raises(AttributeError) as caught:
        getattr(ImagePredictor(), word)
    assert "Did you mean" not in str(caught.value)


def test_a_propertys_own_error_is_kept_and_unknown_private_names_have_no_advice():
    with pytest.raises(errors.NotFittedError, match="has not been fitted"):
        ImagePredictor().classes  # noqa: B018
    assert not hasattr(ImagePredictor(), "_repr_svg_")
    assert pickle.loads(pickle.dumps(saccade.tune)) is saccade.tune
    assert list(inspect.signature(ImagePredictor).parameters)[:2] == ["label", "problem_type"]


def test_suggests_names_leaves_functions_with_any_keywords_alone():
    @suggests_names()
    class Open:
        def any(self, **given):
            return given

        @staticmethod
        def one(value):
            return value

    assert Open().any(x=1) == {"x": 1}
    assert Open.one(value=2) == 2
    with pytest.raises(UnknownArgumentError, match=r"argument of one\(\) 'valu'. Did you mean 'value'"):
        Open.one(valu=2)


FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    ("error", "path", "kind", "text"),
    [
        (FULL, None, DiskFullError, "The disk is full. Make room"),
        (FULL, Path("run"), DiskFullError, "The disk of run is full. Make room"),
        (OSError(errno.ENOSPC, "No space", "from", None, "to"), None, DiskFullError, "The disk of to is full"),
        (
            PermissionError(errno.EACCES, "Permission denied", "x.csv"),
            None,
            DataError,
            "x.csv: Permission denied. Check",
        ),
        (
            OSError(errno.EROFS, "Read-only file system", "x"),
            None,
            DataError,
            "x: Read-only file system. Check the perm",
        ),
        (IsADirectoryError(errno.EISDIR, "Is a directory", "x"), None, DataError, "Pass the path of a file"),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", "x/y"), None, DataError, "whose folders are not files"),
        (FileNotFoundError("no such file: x"), None, DataError, "no such file: x. Check the path"),
        (OSError(errno.ENAMETOOLONG, "Too long", "x" * 1001), None, DataError, "^x{100}…: Too long. Check the perm"),
    ],
)
def test_errors_of_the_file_system_are_explained(error, path, kind, text):
    with pytest.raises(kind, match=text) as info, explained_file_errors(path):
        raise error
    assert info.value.__cause__ is error


@pytest.mark.parametrize("error", [BrokenPipeError(errno.EPIPE, "Broken pipe"), OSError("truncated"), ValueError("no")])
def test_other_errors_are_left_as_they_are(error):
    with pytest.raises(type(error)) as info, explained_file_errors():
        raise error
    assert info.value is error


def test_a_folder_in_place_of_a_table_is_an_error_of_our_own(tmp_path):
    with pytest.raises(DataError, match="Pass the path of a file"):
        ImageDataset.from_csv(tmp_path)
