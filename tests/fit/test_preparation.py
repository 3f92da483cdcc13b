from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from saccade.data import ImageDataset
from saccade.data.examples import read_examples, read_labelled_examples
from saccade.data.groups import with_groups, with_times
from saccade.errors import DataError, DataWarning
from saccade.events import DataReady, Event, Progressed, Warned
from saccade.fit.preparation import MAX_SIZES, UNREADABLE, PreparedData, _image_sizes, prepare_data
from saccade.fit.run_data import read_run_data, write_run_data

MakeColours = Callable[..., pd.DataFrame]


@pytest.fixture
def prepare(tmp_path: Path) -> Callable[..., tuple[PreparedData, list[Event]]]:
    def prepare(
        frame: pd.DataFrame, tuning: pd.DataFrame | None = None, groups: Any = None, time: Any = None, **changes: Any
    ) -> tuple[PreparedData, list[Event]]:
        events: list[Event] = []
        options = {
            "folder": tmp_path / f"store_{len(list(tmp_path.glob('store_*')))}",
            "shorter_side": 32,
            "holdout_frac": 0.25,
            "random_state": 0,
            "seconds_left": None,
            "notify": events.append,
            **changes,
        }
        examples = [None if part is None else read_labelled_examples(part, "label") for part in (frame, tuning)]
        assert examples[0] is not None
        examples[0] = with_groups(examples[0], groups, frame, "train_data", is_complete=True)
        examples[0] = with_times(examples[0], time, frame, "train_data")
        return prepare_data(*examples, None, **options), events  # type: ignore[arg-type]

    return prepare


def labels_of(data: PreparedData, part: str) -> list[Any]:
    return data.problem.class_array[getattr(data, part).targets].tolist()


def test_the_split_is_stratified_and_seeded(make_colours: MakeColours, prepare: Any) -> None:
    frame = make_colours(8, ("blue", "green", "red"))
    data, events = prepare(frame)
    assert sorted(labels_of(data, "val")) == ["blue"] * 2 + ["green"] * 2 + ["red"] * 2
    assert not set(data.train.indices) & set(data.val.indices)
    assert len(data.train.indices) + len(data.val.indices) == len(frame)
    same, other = prepare(frame)[0], prepare(frame, random_state=1)[0]
    assert np.array_equal(same.val.indices, data.val.indices)
    assert set(other.val.indices) != set(data.val.indices)
    ready = next(event for event in events if isinstance(event, DataReady))
    assert (ready.num_train, ready.num_val, ready.num_classes, ready.num_unreadable) == (18, 6, 3, 0)
    assert ready.class_sizes == [["blue", 6, 2], ["green", 6, 2], ["red", 6, 2]]
    assert sum(number for *_, number in ready.image_sizes) == len(frame)


@pytest.mark.parametrize("num_images", [3, 20, 5000])
def test_the_sizes_of_images_are_recorded_and_of_very_many_a_part_with_the_smallest_and_largest(num_images) -> None:
    sizes = np.stack([np.arange(num_images) // 2 + 1, np.full(num_images, 7)], 1).astype(np.int32)
    sizes[1] = 0  # unreadable
    found = np.array(_image_sizes(sizes))
    assert found[:, 2].sum() == min(num_images - 1, MAX_SIZES)
    assert found[0].tolist()[:2] == [1, 7]
    assert found[-1].tolist()[:2] == sizes[-1].tolist()
    assert set(map(tuple, found[:, :2].tolist())) <= set(map(tuple, sizes.tolist()))


def test_tuning_data_are_the_validation_set(make_colours: MakeColours, prepare: Any) -> None:
    data, _ = prepare(make_colours(5), make_colours(3, seed=1))
    assert len(data.train.indices) == 10
    assert sorted(data.val.indices) == list(range(10, 16))


def test_unreadable_images_are_left_out_and_named_once_with_their_reason(
    make_colours: MakeColours, prepare: Any, tmp_path: Path
) -> None:
    frame = make_colours(8)
    Path(frame["image"][3]).write_text("no image")
    Path(frame["image"][9]).write_bytes(b"")
    data, events = prepare(frame)
    warnings = [event.text for event in events if isinstance(event, Warned)]
    assert len(warnings) == 1
    assert "2 of 16 images cannot be read" in warnings[0]
    ready = next(event for event in events if isinstance(event, DataReady))
    assert sum(ready.unreadable.values()) == 2
    assert ready.unreadable["file is empty"] == 1
    assert warnings[0].count(frame["image"][3]) == 1
    assert f"{frame['image'][9]}: file is empty" in warnings[0]
    assert not {3, 9} & {*data.train.indices, *data.val.indices}


def test_many_unreadable_images_are_listed_in_a_file(make_colours: MakeColours, prepare: Any, tmp_path: Path) -> None:
    frame = make_colours(30)
    for path in frame["image"][:25]:
        Path(path).write_text("no image")
    _, events = prepare(frame)
    listed = pd.read_csv(tmp_path / UNREADABLE)
    assert list(listed["image"]) == list(frame["image"][:25])
    text = next(event.text for event in events if isinstance(event, Warned))
    assert "… and 22 more" in text
    assert f"listed in {tmp_path / UNREADABLE}" in text
    assert text.count("\n") < 8


def test_a_class_without_readable_images_is_left_out(make_colours: MakeColours, prepare: Any) -> None:
    frame = make_colours(6, ("blue", "green", "red"))
    for path in frame.loc[frame["label"] == "green", "image"]:
        Path(path).write_text("no image")
    data, events = prepare(frame)
    assert data.problem.classes == ("blue", "red")
    assert any("no training image of 1 class can be read: ['green']" in getattr(event, "text", "") for event in events)


def test_folders_without_images_are_classes_that_were_left_out(
    make_colours: MakeColours, prepare: Any, tmp_path: Path
) -> None:
    root = tmp_path / "photos"
    for row in make_colours(4, ("blue", "green")).itertuples():
        (root / row.label).mkdir(parents=True, exist_ok=True)
        shutil.copy(row.image, root / row.label)
    (root / "arrays").mkdir()
    (root / "arrays" / "1.npy").touch()
    with pytest.warns(DataWarning, match="'arrays' \\(1 \\.npy\\)"):
        dataset = ImageDataset.from_folder(root)
    data, _ = prepare(dataset)
    assert data.left_out == {"num_unreadable": 0, "reasons": {}, "classes": ["arrays"]}
    train, _, _ = dataset.random_split()
    write_run_data(tmp_path / "data.json", read_examples(train), None)  # as for a run that is resumed
    assert read_run_data(tmp_path / "data.json")[0].empty_classes == ("arrays",)


def test_rows_without_an_image_are_listed(make_colours: MakeColours, prepare: Any, tmp_path: Path) -> None:
    frame = make_colours(8)
    odd = [None, float("nan"), pd.NA, "", 17, str(tmp_path), [frame["image"][0]], {"path": "a.png"}]
    rows = pd.DataFrame({"image": pd.Series(odd, dtype=object), "label": "red"})
    data, events = prepare(pd.concat([frame, rows], ignore_index=True))
    assert "8 of 24 images cannot be read" in next(event.text for event in events if isinstance(event, Warned))
    assert len(data.train.indices) + len(data.val.indices) == 16


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda frame: frame[frame["label"] == "red"], "1 class"),
        (lambda frame: frame.assign(label=None), "missing"),
        (
            lambda frame: frame.assign(image="nowhere.png"),
            r"(?s)none of the 16 training images .*nowhere\.png: no such file",
        ),
        (lambda frame: frame[:0], "no images"),
    ],
)
def test_unusable_data_are_errors(
    make_colours: MakeColours, prepare: Any, change: Callable[[pd.DataFrame], pd.DataFrame], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        prepare(change(make_colours(8)))


def test_when_time_runs_out_the_decoded_images_are_stratified(make_colours: MakeColours, prepare: Any) -> None:
    frame = make_colours(40, ("blue", "green", "red"))
    left = iter([1.0] * 30 + [-1.0] * 1000)
    data, events = prepare(frame, seconds_left=lambda: next(left, -math.inf))
    used = labels_of(data, "train") + labels_of(data, "val")
    assert len(used) < 60
    counts = pd.Series(used).value_counts()
    assert set(counts.index) == {"blue", "green", "red"}
    assert counts.max() - counts.min() <= 2
    assert any("no time to decode" in event.text for event in events if isinstance(event, Warned))


def test_the_default_validation_set_is_limited(make_colours: MakeColours, prepare: Any) -> None:
    frame = make_colours(30)
    for frac, most, num_val in ((None, 4, 4), (None, 100, 6), (None, None, 6), (0.25, 4, 15)):
        data, _ = prepare(frame, holdout_frac=frac, max_held_out=most)
        assert len(data.val.indices) == num_val
        assert len(data.train.indices) + num_val == 60


def test_no_more_images_are_decoded_than_the_limit(make_colours: MakeColours, prepare: Any) -> None:
    frame = make_colours(30)
    data, events = prepare(frame, most_images=20.0)
    used = np.concatenate([data.train.indices, data.val.indices])
    assert len(used) == 20
    assert sorted(frame["label"].iloc[used].value_counts()) == [10, 10]  # a fair sample
    (warning,) = [event.text for event in events if isinstance(event, Warned)]
    assert warning.startswith("60 images are too many for the time limit; 20 of them are used")
    assert [event.total for event in events if isinstance(event, Progressed)][-1] == 20


def test_validation_images_of_a_class_without_training_images_are_left_out(
    make_colours: MakeColours, prepare: Any
) -> None:
    frame, val = make_colours(6, ("blue", "green", "red")), make_colours(2, ("blue", "green", "red"), seed=1)
    for path in frame.loc[frame["label"] == "green", "image"]:
        Path(path).write_text("no image")
    frame["label"], val["label"] = frame["label"].astype("category"), val["label"].astype("category")
    data, _ = prepare(frame, val)
    assert data.problem.classes == ("blue", "red")
    assert len(data.val.indices) == 4
    assert data.left_out == {
        "num_unreadable": 6,
        "reasons": {"not an image: cannot identify its format": 6},
        "classes": ["green"],
    }


def test_groups_and_equal_images_are_on_one_side(make_colours: MakeColours, prepare: Any) -> None:
    frame = make_colours(12).assign(who=[f"p{i % 8}" for i in range(24)])  # each of both classes
    shutil.copy(frame["image"][1], frame["image"][2])  # so p1 and p2 are on one side
    data, _ = prepare(frame, groups="who")
    who = frame["who"].replace({"p2": "p1"}).to_numpy()
    assert not set(who[data.train.indices]) & set(who[data.val.indices])
    assert set(labels_of(data, "val")) == {"blue", "red"}
    numbers = data.train.joined(data.val).groups
    assert len(np.unique(numbers)) == 7


def test_the_latest_images_validate(make_colours: MakeColours, prepare: Any) -> None:
    frame = make_colours(8, ("blue", "green", "red"))
    when = np.where(frame["label"] == "red", 99, np.arange(24) % 8)
    data, events = prepare(frame, time=when.tolist())
    assert sorted(labels_of(data, "val")) == ["blue"] * 3 + ["green"] * 3
    assert max(when[data.train.indices][data.train.targets != 2]) < min(when[data.val.indices])
    (warned,) = (event.text for event in events if isinstance(event, Warned))
    assert warned.startswith("no validation image of 1 class: ['red'] (none is late enough)")


def test_a_single_image_of_each_class_trains_and_validates(make_colours: MakeColours, prepare: Any) -> None:
    data, events = prepare(make_colours(1, ("blue", "green", "red")))
    assert sorted(data.train.indices) == sorted(data.val.indices) == [0, 1, 2]
    assert any("each class has a single image" in event.text for event in events if isinstance(event, Warned))
