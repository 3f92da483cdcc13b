from __future__ import annotations

import copy
import pickle

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saccade.data import ImageDataset
from saccade.data.classes import are_numbers_of_classes, are_values, checked_classes
from saccade.errors import DataError


def numbered(labels, classes=("cat", "dog", "owl"), start=0):
    """A dataset with integer labels, and columns of other names than the usual ones."""
    images = [f"{start + position}.jpg" for position in range(len(labels))]
    data = {"photo": images, "species": labels, "weight": np.arange(len(labels)) / 2}
    return ImageDataset(data, classes, image_column="photo", label_column="species")


def named(labels):
    return ImageDataset({"image": [f"{position}.jpg" for position in range(len(labels))], "label": labels})


@pytest.fixture
def pets():
    return numbered([0, 1, 2, 1, 0])


RESULTS = {
    "slice": lambda ds: ds[1:3],
    "mask": lambda ds: ds[ds["species"] == 1],
    "columns": lambda ds: ds[["species", "photo"]],
    "loc": lambda ds: ds.loc[[0, 2]],
    "iloc": lambda ds: ds.iloc[::-1],
    "query": lambda ds: ds.query("species == 1"),
    "head": lambda ds: ds.head(2),
    "sample": lambda ds: ds.sample(frac=0.5, random_state=0),
    "sort_values": lambda ds: ds.sort_values("species"),
    "sort_index": lambda ds: ds.sort_index(ascending=False),
    "reset_index": lambda ds: ds[2:].reset_index(drop=True),
    "set_index": lambda ds: ds.set_index("weight"),
    "reindex": lambda ds: ds.reindex([0, 4]),
    "drop": lambda ds: ds.drop(index=0),
    "dropna": lambda ds: ds.dropna(),
    "drop_duplicates": lambda ds: ds.drop_duplicates("species"),
    "assign": lambda ds: ds.assign(more=1),
    "rename": lambda ds: ds.rename(columns={"weight": "kg"}),
    "astype": lambda ds: ds.astype({"weight": "float32"}),
    "copy": lambda ds: ds.copy(),
    "shallow copy": lambda ds: ds.copy(deep=False),
    "copy.copy": copy.copy,
    "copy.deepcopy": copy.deepcopy,
    "pickle": lambda ds: pickle.loads(pickle.dumps(ds)),
    "concat": lambda ds: pd.concat([ds[:2], ds[3:]]),
    "concat of one": lambda ds: pd.concat([ds]),
    "concat with keys": lambda ds: pd.concat({"one": ds[:2], "two": ds[2:]}),
    "concat ignoring the index": lambda ds: pd.concat([ds, ds], ignore_index=True),
    "concat of columns": lambda ds: pd.concat([ds, pd.Series(range(5), name="more")], axis=1),
    "concat with a plain table": lambda ds: pd.concat([ds, pd.DataFrame(ds)]),
    "concat with an empty one": lambda ds: pd.concat([ds, numbered([])]),
    "merge": lambda ds: ds.merge(pd.DataFrame({"species": [0, 1], "legs": [4, 4]}), on="species"),
    "left merge": lambda ds: ds.merge(pd.DataFrame({"species": [0, 1]}), how="left"),
    "join": lambda ds: ds.join(pd.DataFrame({"more": range(5)})),
    "groupby.head": lambda ds: ds.groupby("species").head(1),
    "groupby.sample": lambda ds: ds.groupby("species").sample(1, random_state=0),
    "groupby.get_group": lambda ds: ds.groupby("species").get_group(1),
    "empty": lambda ds: ds[:0],
    "ImageDataset": ImageDataset,
}


@pytest.mark.parametrize("change", RESULTS.values(), ids=RESULTS)
def test_results_of_pandas_operations_keep_class_and_metadata(pets, change):
    result = change(pets)
    assert type(result) is ImageDataset
    assert result.classes == ["cat", "dog", "owl"]
    assert (result.image_column, result.label_column) == ("photo", "species")
    assert pets.classes == ["cat", "dog", "owl"]


def test_the_data_equals_that_of_pandas(pets):
    plain = pd.DataFrame(pets)
    assert type(plain) is pd.DataFrame
    for change in (RESULTS["mask"], RESULTS["concat"], RESULTS["merge"], RESULTS["pickle"], RESULTS["sample"]):
        pd.testing.assert_frame_equal(pd.DataFrame(change(pets)), change(plain))


def test_a_column_is_a_plain_series(pets):
    assert type(pets["photo"]) is pd.Series
    assert type(pets.iloc[0]) is pd.Series


def test_changing_the_classes_of_a_copy_leaves_the_original(pets):
    for copied in (pets.copy(), pets[:3], pd.concat([pets, pets])):
        copied.classes.append("yak")
        copied.image_column = "other"
    assert pets.classes == ["cat", "dog", "owl"]
    assert pets.image_column == "photo"


def test_a_column_called_like_the_metadata_is_still_a_column(pets):
    assert pets.assign(classes=1)["classes"].tolist() == [1] * 5
    assert pets.assign(classes=1).classes == ["cat", "dog", "owl"]


def test_concatenating_different_class_numbers_is_an_error():
    with pytest.raises(DataError, match=r"number their classes differently.*label_names"):
        pd.concat([numbered([0, 1], ["cat", "dog"]), numbered([0, 1], ["dog", "owl"])])


def test_the_advice_of_that_error_works():
    one, two = numbered([0, 1], ["cat", "dog"]), numbered([0, 1], ["dog", "owl"])
    both = pd.concat([part.assign(species=part.label_names()) for part in (one, two)])
    assert both["species"].tolist() == ["cat", "dog", "dog", "owl"]
    assert both.classes == ["cat", "dog", "owl"]


def test_concatenating_numbers_and_names_is_an_error():
    numbers = ImageDataset({"image": ["0.jpg", "1.jpg"], "label": [0, 1]}, classes=["cat", "dog"])
    with pytest.raises(DataError, match="number their classes differently"):
        pd.concat([numbers, named(["cat", "dog"])])


def test_concatenation_unites_class_names():
    assert pd.concat([named(["owl", "cat"]), named(["dog", "cat"])]).classes == ["cat", "dog", "owl"]


def test_concatenation_ignores_empty_datasets():
    assert pd.concat([numbered([], ["yak"]), numbered([0], ["cat"])]).classes == ["cat"]


def test_concatenation_ignores_datasets_without_classes():
    unnamed = ImageDataset({"image": ["a.jpg"]}, no_class=True)
    assert pd.concat([unnamed, named(["cat"])]).classes == ["cat"]


def test_label_names():
    assert numbered([2, 0]).label_names().tolist() == ["owl", "cat"]
    assert named(["dog"]).label_names().tolist() == ["dog"]
    unnamed = ImageDataset({"image": ["a", "b"], "label": [7, 3]}, None)
    assert unnamed.label_names().tolist() == ["7", "3"]
    assert numbered([2, 0])[1:].label_names().index.tolist() == [1]
    with pytest.raises(DataError, match="no labels"):
        ImageDataset(["a.jpg"], no_class=True).label_names()


LABELS = st.lists(st.integers(0, 4), min_size=1, max_size=80)
SIZES = st.tuples(st.floats(0, 0.49), st.floats(0, 0.49))
SEEDS = st.integers(0, 2**32 - 1)


@given(LABELS, SIZES, SEEDS)
def test_a_random_split_is_a_stratified_partition(labels, sizes, seed):
    dataset = numbered(labels, list("abcde"))
    train, val, test = dataset.random_split(*sizes, random_state=seed)
    assert sorted([*train.index, *val.index, *test.index]) == list(range(len(labels)))
    assert set(labels) == set(train["species"])  # each class can be learned
    for part, share in ((test, sizes[0]), (val, sizes[1])):
        assert part.classes == list("abcde")
        assert part.index.is_monotonic_increasing
        for label in set(labels):
            num, exact = (part["species"] == label).sum(), share * labels.count(label)
            assert num < exact + 1
            assert num > exact - 1 - 1e-6 or (train["species"] == label).sum() == 1


@given(LABELS, SIZES, SEEDS)
def test_a_random_split_is_seeded(labels, sizes, seed):
    dataset = numbered(labels, list("abcde"))
    for one, two in zip(*(dataset.random_split(*sizes, random_state=seed) for _ in range(2)), strict=True):
        pd.testing.assert_frame_equal(one, two)


def test_the_seed_zero_is_a_seed_and_none_is_not():
    dataset = numbered([0, 1] * 100)
    test_of = [dataset.random_split(random_state=seed)[2].index.tolist() for seed in (0, 0, 1, None, None)]
    assert test_of[0] == test_of[1]
    assert len({tuple(test) for test in test_of}) == 4


def test_a_random_split_by_default_is_nine_tenths_and_one_tenth():
    train, val, test = numbered([0, 1] * 50).random_split()
    assert (len(train), len(val), len(test)) == (90, 0, 10)


def test_a_random_split_of_names_fractions_and_no_labels():
    assert named(["a"] * 10 + ["b"] * 30).random_split(0.1)[2]["label"].tolist() == ["a", "b", "b", "b"]
    fractions = ImageDataset({"image": list("abcdefghij"), "label": np.arange(10) / 3})
    assert [len(part) for part in fractions.random_split(0.2, 0.1)] == [7, 1, 2]
    unlabelled = ImageDataset(list("abcdefghij"), no_class=True)
    assert [len(part) for part in unlabelled.random_split(0.2, 0.1)] == [7, 1, 2]


def test_a_random_split_of_few_images():
    assert [len(part) for part in numbered([0]).random_split(0.5)] == [1, 0, 0]
    assert [len(part) for part in numbered([]).random_split(0.5)] == [0, 0, 0]
    assert [len(part) for part in numbered([0, 1, 2]).random_split(0.5, 0.3)] == [3, 0, 0]


@pytest.mark.parametrize("sizes", [(1.0, 0), (0.5, 0.5), (-0.1, 0), (0, -0.1), (10, 0), (float("nan"), 0)])
def test_invalid_split_sizes_are_errors(sizes):
    with pytest.raises(DataError, match="test_size="):
        numbered([0, 1] * 5).random_split(*sizes)


def test_images_with_several_labels_are_split_too() -> None:
    labels = [["a"], ["b", "a"], ["a", "b"], [], ["a"]] * 4
    data = ImageDataset({"image": [f"{number}.png" for number in range(20)], "label": labels})
    assert [len(part) for part in data.random_split(test_size=0.25, random_state=0)] == [15, 0, 5]
    with pytest.raises(DataError, match="not among the classes"):
        data.to_torch()


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (["b", "a", "b"], ["a", "b"]),
        (["b", None], ["b"]),
        ([1, 0], None),
        ([0.5, 1.5], None),
        ([True, False], None),
        ([], None),
    ],
)
def test_classes_are_found_only_where_labels_are_strings(labels, classes):
    assert checked_classes(None, pd.Series(labels, dtype=None if labels else object)) == classes


def test_given_classes_keep_their_order():
    assert checked_classes(("b", "a"), pd.Series(["a"])) == ["b", "a"]
    assert checked_classes(["b", "a"], pd.Series([1, 0])) == ["b", "a"]


@pytest.mark.parametrize("labels", [[0, 2], [-1, 0]])
def test_a_number_without_a_class_is_an_error(labels):
    with pytest.raises(DataError, match=f"from {labels[0]} to {labels[1]}, but there are 2 classes"):
        checked_classes(["a", "b"], pd.Series(labels))


def test_a_name_that_is_no_class_is_an_error():
    with pytest.raises(DataError, match="'c' is not among"):
        checked_classes(["a", "b"], pd.Series(["a", "c"]))


@pytest.mark.parametrize("classes", [["a", "b", "a"], "ab"])
def test_invalid_classes_are_errors(classes):
    with pytest.raises(DataError, match=r"named twice: 'a'|string 'ab'"):
        checked_classes(classes, pd.Series([0, 1]))


def test_numbers_mean_classes_only_where_these_have_names():
    assert are_numbers_of_classes(pd.Series([0]), ["a"])
    assert not are_numbers_of_classes(pd.Series([0]), None)
    assert not are_numbers_of_classes(pd.Series(["a"]), ["a"])
    assert not are_numbers_of_classes(pd.Series([0.5]), ["a"])


def test_only_fractions_are_values():
    assert are_values(pd.Series([0.5, None]))
    assert not are_values(pd.Series([1.0, None]))
    assert not are_values(pd.Series(["0.5"]))
