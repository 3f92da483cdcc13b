from __future__ import annotations

from collections import Counter

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saccade.data.splitting import (
    MIN_OF_STRATUM,
    joined_groups,
    split_by_time,
    split_folds,
    split_holdout,
    split_parts,
    stratified_order,
)
from saccade.errors import DataError, HyperparameterError

fractions = st.floats(0.001, 0.999)


@st.composite
def labelled_groups(draw: st.DrawFn) -> tuple[list[str], list[str]]:
    """Labels, and keys of which some are shared, within a class and across classes."""
    labels = draw(st.lists(st.sampled_from("abcd"), min_size=1, max_size=40))
    keys = [draw(st.sampled_from(["", f"own {i}", "p", "q", f"of {label}"])) for i, label in enumerate(labels)]
    return labels, keys


def num_groups(labels: list[str], keys: list[str], label: str) -> int:
    return len({key or position for position, key in enumerate(keys) if labels[position] == label})


@given(labelled_groups(), fractions, st.integers(0, 5))
def test_split_holdout_has_its_documented_properties(
    drawn: tuple[list[str], list[str]], frac: float, seed: int
) -> None:
    labels, keys = drawn
    labels_of: dict[str, set[str]] = {}
    for label, key in zip(labels, keys, strict=True):
        labels_of.setdefault(key, set()).add(label)
    movable = {  # classes with a group that has no second label, and with another group beside it
        label
        for label, key in zip(labels, keys, strict=True)
        if (key == "" or len(labels_of[key]) == 1) and num_groups(labels, keys, label) > 1
    }
    try:
        train, val = split_holdout(labels, frac, seed, groups=keys)
    except DataError:
        assert not movable
        return

    assert len(train) > 0
    assert len(val) > 0
    assert sorted([*train, *val]) == list(range(len(labels)))
    assert train.tolist() == sorted(train)
    assert val.tolist() == sorted(val)
    shared = ({keys[position] for position in train} & {keys[position] for position in val}) - {""}
    assert shared == set(), "the same image on both sides"
    in_train, in_val = Counter(labels[i] for i in train), Counter(labels[i] for i in val)
    assert set(in_train) == set(labels), "every class is learned"
    for label in movable:
        if labels.count(label) * frac >= 0.5:
            assert in_val[label] >= 1


@given(st.lists(st.integers(2, 60), min_size=1, max_size=6), st.floats(0.05, 0.5), st.integers(0, 5))
def test_each_class_gives_its_fraction_to_validation(sizes: list[int], frac: float, seed: int) -> None:
    labels = [number for number, size in enumerate(sizes) for _ in range(size)]
    _, val = split_holdout(labels, frac, seed)
    in_val = Counter(labels[i] for i in val)
    for number, size in enumerate(sizes):
        assert abs(in_val[number] - size * frac) <= 1
    assert abs(len(val) - len(labels) * frac) <= max(1.0, len(sizes) / 2)


@given(st.integers(2, 50), fractions, st.integers(0, 5))
def test_without_strata_the_fraction_is_of_all_images(num_images: int, frac: float, seed: int) -> None:
    train, val = split_holdout(np.zeros(num_images), frac, seed)
    assert len(val) in (1, num_images - 1, round(num_images * frac))
    assert len(train) + len(val) == num_images


def test_many_tiny_classes_give_the_fraction_of_all_images() -> None:
    labels = [number for number in range(100) for _ in range(3)]
    train, val = split_holdout(labels, 0.1, 0)
    assert len(val) == 30
    assert set(np.array(labels)[train]) == set(range(100))


def test_a_class_with_one_image_stays_in_training() -> None:
    labels = ["common"] * 10 + ["rare"]
    train, val = split_holdout(labels, 0.9, 0)
    assert 10 in train
    assert len(val) == 9


def test_the_split_depends_on_the_seed() -> None:
    labels = ["a", "b"] * 50

    def split(seed: int | None) -> list[int]:
        return split_holdout(labels, 0.2, seed)[1].tolist()

    assert split(0) == split(0)
    assert len({tuple(split(seed)) for seed in range(5)}) == 5
    assert split(None) != split(None)


def test_equal_images_stay_on_one_side() -> None:
    keys = [f"image {position // 4}" for position in range(40)]
    train, val = split_holdout(["a"] * 40, 0.3, 0, groups=np.array(keys))
    assert len(val) == 12
    assert not {keys[i] for i in train} & {keys[i] for i in val}


def test_images_without_a_key_are_not_grouped() -> None:
    _, val = split_holdout(["a"] * 40, 0.25, 0, groups=[""] * 20 + [None] * 20)
    assert len(val) == 10


def test_an_image_under_two_labels_stays_in_training() -> None:
    labels = ["a"] * 5 + ["b"] * 5
    keys = ["same", *"1234", "same", *"5678"]
    for seed in range(10):
        _, val = split_holdout(labels, 0.5, seed, groups=keys)
        assert 0 not in val
        assert 5 not in val


def test_labels_of_any_kind_are_classes() -> None:
    labels = pd.Series([True, "x", 1.5, None] * 10, index=range(100, 140), dtype=object)
    _, val = split_holdout(labels, 0.25, 0)
    assert len(val) == 10
    assert Counter(map(str, labels.iloc[val])).keys() == {"True", "x", "1.5", "None"}


@pytest.mark.parametrize("frac", [0, 1, -0.1, 1.5, float("nan"), True])
def test_a_fraction_outside_zero_and_one_is_refused(frac: float) -> None:
    with pytest.raises(HyperparameterError, match="expected a number between 0 and 1"):
        split_holdout(["a"] * 10, frac, 0)


@pytest.mark.parametrize("labels", [[], ["a"], ["a", "b", "c"]])
def test_too_few_images_are_refused(labels: list[str]) -> None:
    with pytest.raises(DataError, match="can be held out"):
        split_holdout(labels, 0.5, 0)


def test_copies_of_one_image_cannot_be_split() -> None:
    with pytest.raises(DataError, match="two different images"):
        split_holdout(["a"] * 10, 0.5, 0, groups=["same"] * 10)


def test_groups_must_be_as_many_as_labels() -> None:
    with pytest.raises(DataError, match="3 labels, but 2 groups"):
        split_holdout(["a"] * 3, 0.5, 0, groups=["x", "y"])


GROUPS = st.lists(st.integers(0, 5), max_size=120)
SHARES = st.lists(st.floats(0, 0.33), min_size=1, max_size=3)


@given(GROUPS, SHARES, st.integers(0, 1000))
def test_each_class_gives_each_part_its_fraction_up_to_rounding(groups, shares, seed):
    parts = split_parts(groups, shares, np.random.default_rng(seed))
    assert len(parts) == len(groups)
    for group in set(groups):
        of_group = parts[np.asarray(groups) == group]
        nums = np.bincount(of_group, minlength=len(shares) + 1)
        assert nums[0] >= 1
        for share, num in zip(shares, nums[1:], strict=True):
            exact = share * len(of_group)
            # Less only where that would leave nothing in the first part.
            assert num > exact - 1 - 1e-6 or nums[0] == 1
            assert num < exact + 1


@given(st.integers(1, 6), st.integers(10, 40), st.integers(0, 1000))
def test_totals_are_right_where_groups_are_large_enough(num_groups, num_rows, seed):
    groups = np.repeat(np.arange(num_groups), num_rows)
    parts = split_parts(groups, [0.13, 0.2], np.random.default_rng(seed))
    assert np.bincount(parts)[1:].tolist() == [round(len(groups) * share) for share in (0.13, 0.2)]


@given(GROUPS, SHARES, st.integers(0, 1000))
def test_the_same_seed_gives_the_same_parts(groups, shares, seed):
    one, two = (split_parts(groups, shares, np.random.default_rng(seed)) for _ in range(2))
    assert one.tolist() == two.tolist()


def test_no_class_is_preferred_when_rounding():
    groups = np.repeat(np.arange(10), 5)  # each is due half a row
    gave = np.zeros(10)
    for seed in range(200):
        parts = split_parts(groups, [0.1], np.random.default_rng(seed))
        gave += np.bincount(groups[parts == 1], minlength=10)
    assert gave.sum() == 1000
    assert gave.min() > 60


def test_any_image_of_a_class_may_be_taken():
    chosen = {int(np.argmax(split_parts([0] * 6, [0.17], np.random.default_rng(seed)))) for seed in range(100)}
    assert chosen == set(range(6))


@settings(deadline=None)
@given(labelled_groups(), st.integers(2, 5), st.integers(0, 99))
def test_folds_are_stratified_and_keep_groups_together(
    drawn: tuple[list[str], list[str]], num_folds: int, seed: int
) -> None:
    labels, keys = drawn
    folds = split_folds(labels, num_folds, np.random.default_rng(seed))
    assert np.ptp(np.bincount(folds, minlength=num_folds)) <= 1
    for label in set(labels):
        of_class = folds[np.array(labels) == label]
        assert np.ptp(np.bincount(of_class, minlength=num_folds)) <= 1
    folds = split_folds(labels, num_folds, np.random.default_rng(seed), keys)
    if len(set(keys) - {""}) + keys.count("") > 1:  # a single group is divided
        for key in set(keys) - {""}:
            assert len(set(folds[np.array(keys) == key])) == 1


@given(st.lists(st.integers(1, 400), min_size=1, max_size=6), st.integers(0, 5), st.data())
def test_every_beginning_of_a_stratified_order_is_a_sample_in_proportion(
    sizes: list[int], seed: int, data: st.DataObject
) -> None:
    strata = np.repeat(np.arange(len(sizes)), sizes)
    order = stratified_order(strata, np.random.default_rng(seed))
    assert sorted(order) == list(range(len(strata)))
    num = data.draw(st.integers(0, len(strata)))
    found = np.bincount(strata[order[:num]], minlength=len(sizes))
    least = np.minimum(sizes, min(MIN_OF_STRATUM, num // (4 * len(sizes))))
    assert (found >= least).all()
    num_early = MIN_OF_STRATUM * len(sizes)  # at most so many are out of proportion
    assert (np.abs(found - num * np.array(sizes) / len(strata)) <= num_early + 1).all()


def test_a_part_of_a_large_set_has_its_class_frequencies() -> None:
    strata = np.repeat([0, 1, 2], [18_000, 1_800, 200])
    part = strata[stratified_order(strata, np.random.default_rng(0))[:2000]]
    assert np.bincount(part).tolist() == pytest.approx([1800, 180, 20], abs=3)
    labels = np.array(["rare", "frequent"])[np.repeat([0, 1], [1, 999])]  # strings are strata, too
    assert "rare" in labels[stratified_order(labels, np.random.default_rng(0))[:10]]


def on_one_side(groups: list[int], *sides: np.ndarray) -> bool:
    return not set.intersection(*({groups[position] for position in side} for side in sides))


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 12)), min_size=2, max_size=60),
    st.floats(0.05, 0.5),
    st.integers(0, 5),
)
def test_groups_of_several_classes_are_held_out_as_a_whole(
    drawn: list[tuple[str, int]], frac: float, seed: int
) -> None:
    labels, groups = [label for label, _ in drawn], [group for _, group in drawn]
    own = {group: {label for label, other in drawn if other == group} for group in groups}
    # A group may be held out if each of its classes has another group.
    movable = [g for g in own if all(any(label in own[h] for h in own if h != g) for label in own[g])]
    try:
        train, val = split_holdout(labels, frac, seed, groups, moves_mixed_groups=True)
    except DataError:
        assert not movable
        return
    assert movable
    assert sorted([*train, *val]) == list(range(len(labels)))
    assert on_one_side(groups, train, val)
    assert {labels[position] for position in train} == set(labels)


def test_groups_of_several_classes_leave_each_class_its_fraction() -> None:
    rng = np.random.default_rng(0)
    groups, labels = np.repeat(np.arange(60), 5), rng.integers(3, size=300)
    _, val = split_holdout(labels, 0.2, 0, groups, moves_mixed_groups=True)
    assert np.abs(np.bincount(labels[val]) - 0.2 * np.bincount(labels)).max() <= 5
    folds = split_folds(labels, 5, rng, groups)
    counts = np.array([np.bincount(labels[folds == fold], minlength=3) for fold in range(5)])
    assert np.ptp(counts, axis=0).max() <= 5


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 8), st.integers(0, 6)), min_size=2, max_size=40),
    st.floats(0.05, 0.6),
)
def test_no_training_group_is_later_than_a_validation_group(drawn: list[tuple[str, int, int]], frac: float) -> None:
    labels, times, groups = map(list, zip(*drawn, strict=True))
    try:
        train, val = split_by_time(labels, times, frac, groups)
    except DataError:
        return
    assert on_one_side(groups, train, val)
    assert {labels[position] for position in train} == set(labels)
    latest = [max(time for time, other in zip(times, groups, strict=True) if other == group) for group in groups]
    first_val = min(latest[position] for position in val)
    late = {groups[position] for position in train if latest[position] >= first_val}
    # Only groups with a class that has no earlier images.
    early_labels = {label for label, when in zip(labels, latest, strict=True) if when < first_val}
    assert all(any(labels[i] not in early_labels for i in range(len(labels)) if groups[i] == group) for group in late)


@pytest.mark.parametrize("times", [[1] * 10, [0] + [1] * 9])
def test_times_that_do_not_divide_the_images_are_refused(times: list[int]) -> None:
    with pytest.raises(DataError, match=r"(10|9) of them, or of their groups, have one time"):
        split_by_time(["a"] * 10, times, 0.1)


@given(st.lists(st.tuples(st.integers(0, 9), st.sampled_from("abcd") | st.just("")), max_size=30))
def test_joined_groups_are_the_connected_components(drawn: list[tuple[int, str]]) -> None:
    numbers, keys = [number for number, _ in drawn], [key for _, key in drawn]
    joined = joined_groups(len(drawn), np.array(numbers, int), keys)
    sets = [{position} for position in range(len(drawn))]
    for i in range(len(drawn)):
        for j in range(i):
            if numbers[i] == numbers[j] or (keys[i] and keys[i] == keys[j]):
                sets[i] |= sets[j]
                for position in sets[i]:
                    sets[position] = sets[i]
    assert all((joined[i] == joined[j]) == (j in sets[i]) for i in range(len(drawn)) for j in range(len(drawn)))
