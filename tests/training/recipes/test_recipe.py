from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saccade import Categorical, Int, Real
from saccade.errors import HyperparameterError
from saccade.training.recipes.recipe import ALIASES, Recipe, canonical, edges_of, recipe_space


@pytest.mark.parametrize(("alias", "name"), ALIASES.items())
def test_every_alias_names_a_hyperparameter(alias: str, name: str) -> None:
    assert canonical({alias: 1}) == {name: 1}


def test_legacy_names_are_all_understood() -> None:
    legacy = """model batch_size lr epochs opt
        optimizer weight_decay wd momentum sched warmup_epochs img_size input_size
        crop_pct hflip vflip color_jitter auto_augment mixup cutmix smoothing label_smoothing drop drop_path clip_grad
        pretrained amp seed early_stop_patience early_stop_min_delta early_stop_baseline early_stop_max_value
        transfer_lr_mult output_lr_mult model_ema
        model_ema_decay tta"""
    for name in legacy.split():
        assert canonical({name: 1})


@pytest.mark.parametrize(
    ("given", "suggestion"), [("epoch", "epochs"), ("batchsize", "batch_size"), ("optimiser", "optimizer")]
)
def test_an_unknown_name_is_an_error_with_a_suggestion(given: str, suggestion: str) -> None:
    with pytest.raises(HyperparameterError, match=rf"unknown hyperparameter '{given}'.*'{suggestion}'"):
        Recipe.of({given: 1})


def test_a_name_unlike_any_other_lists_the_known_ones() -> None:
    with pytest.raises(HyperparameterError, match=r"known: model, .*batch_size"):
        Recipe.of({"zzzz": 1})


def test_a_hyperparameter_under_two_names_is_an_error() -> None:
    with pytest.raises(HyperparameterError, match="given twice"):
        Recipe.of({"wd": 0.1, "weight_decay": 0.1})


@pytest.mark.parametrize(
    ("name", "value"),
    [("epochs", 0), ("epochs", 1.5), ("lr", 0), ("lr", -1), ("lr", float("nan")), ("lr", "much"), ("batch_size", 0),
     ("hflip", 2), ("momentum", 1), ("scale", (0.9, 0.1)), ("sched", "cosin"), ("smoothing", 1), ("img_size", 4)],
)  # fmt: skip
def test_values_out_of_range_are_named_with_their_meaning(name: str, value: object) -> None:
    with pytest.raises(HyperparameterError, match=rf"hyperparameter '{name}' \(.+\) was given"):
        Recipe.of({name: value})


def test_a_recipe_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Recipe().lr = 1.0  # type: ignore[misc]


def test_a_space_is_checked_at_all_its_edges() -> None:
    with pytest.raises(HyperparameterError, match="'epochs'"):
        recipe_space({"epochs": Int(0, 5)})
    with pytest.raises(HyperparameterError, match="'sched'"):
        recipe_space({"sched": Categorical("cosine", "linear")})
    space = recipe_space({"optimizer": Categorical("sgd", "adamw"), "lr": Real(1e-4, 1e-1, log=True), "epochs": 3})
    assert space.default == {"opt": "sgd", "lr": 1e-4, "epochs": 3}


def test_paths_of_weights_may_be_paths() -> None:
    assert Recipe.of({"weights": Path("a") / "b"}).weights == str(Path("a") / "b")


def test_edges_of_nested_choices() -> None:
    assert edges_of(Categorical(1, Int(3, 5))) == [1, 3, 5]
    assert edges_of(7) == []


@given(
    st.dictionaries(
        st.sampled_from(["lr", "epochs", "batch_size", "hflip"]), st.one_of(st.floats(), st.integers(), st.text())
    )
)
def test_any_input_gives_a_recipe_or_our_error(hyperparameters: dict[str, object]) -> None:
    try:
        recipe = Recipe.of(hyperparameters)
    except HyperparameterError:
        return
    assert recipe.epochs >= 1
