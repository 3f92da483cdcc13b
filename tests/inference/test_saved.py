"""Predictor folders: written in one step, and read with care if they come from strangers."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from saccade import ImagePredictor
from saccade.errors import DataError, DiskFullError, SaccadeError, SavedPredictorError
from saccade.inference.saved import SavedPredictor
from saccade.models.weights import write_weights

MakeColours = Callable[..., pd.DataFrame]
SMALL = {"model": "test_resnet", "pretrained": False, "img_size": 32, "batch_size": 8, "epochs": 1}


@pytest.fixture(scope="module")
def frame(make_colours_once: MakeColours) -> pd.DataFrame:
    return make_colours_once(8)


@pytest.fixture(scope="module")
def original(frame: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "run"
    predictor = ImagePredictor(path=run, verbosity=0).fit(frame, hyperparameters=SMALL)
    return Path(predictor.save(run.with_name("saved")))


@pytest.fixture
def saved(original: Path, tmp_path: Path) -> Path:
    shutil.copytree(original, tmp_path / "saved")
    return tmp_path / "saved"


@pytest.fixture
def ensemble(original: Path, tmp_path: Path) -> Path:
    """Two members, and files of the user."""
    one = SavedPredictor.read(original)
    names = ("weights.safetensors", "members/0001.safetensors")
    members = [replace(one.members[0], weights=name, weight=0.5) for name in names]
    numerics = {device: records * 2 for device, records in one.numerics.items()}
    copy = replace(one, folder=tmp_path / "ensemble", members=members, numerics=numerics)
    copy.write({name: lambda path: shutil.copyfile(one.weights_path, path) for name in names})
    for name in ("card.md", "members/notes.txt"):
        (copy.folder / name).write_text("mine")
    return copy.folder


def content(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def places(value: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the places of all values within nested JSON."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place, *(found for key, part in inner for found in places(part, (*place, key)))]


ODD = [
    *(None, True, -1, 0, 2**70, 10**400, 0.5, 1e308, float("nan"), float("inf"), "", "x", "../../x", "/etc/passwd"),
    *("\u202e\0", "hf-hub:x/y", "x" * 10**5, [], [[]], ["a", "a"], [1, 2, 3], [0.5] * 3, {}, {"a": 1}),
]


class TestWriting:
    def test_a_save_over_an_ensemble_leaves_nothing_of_it_and_no_file_of_others_is_touched(
        self, original: Path, ensemble: Path, frame: pd.DataFrame
    ) -> None:
        for _ in range(3):
            ImagePredictor.load(original, verbosity=0).save(ensemble)
            weights = {name for name in content(ensemble) if "weights" in name or "members" in name}
            assert len(weights) == 2
            assert "members/notes.txt" in weights
        assert (ensemble / "card.md").read_text() == "mine"
        assert ImagePredictor.load(ensemble).predict(frame).notna().all()

    @pytest.mark.parametrize("num_written", [0, 1])
    def test_a_full_disk_leaves_the_earlier_predictor_whole_and_nothing_else(
        self, saved: Path, ensemble: Path, frame: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
        num_written: int,
    ) -> None:  # fmt: skip
        before, num = content(saved), 0
        copy = shutil.copyfile

        def full(source: Path, target: Path) -> None:
            nonlocal num
            num += 1
            if num > num_written:
                Path(target).write_bytes(b"half")
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))
            copy(source, target)

        predictor = ImagePredictor.load(ensemble, verbosity=0)
        with monkeypatch.context() as patch:
            patch.setattr(shutil, "copyfile", full)
            for folder in (saved, tmp_path / "new"):
                num = 0
                with pytest.raises(DiskFullError, match="Make room"):
                    predictor.save(folder)
        assert content(saved) == before
        assert content(tmp_path / "new") == {}
        predictor.save(saved)
        assert ImagePredictor.load(saved).predict(frame).notna().all()

    @pytest.mark.parametrize("target", ["file/predictor", "file", "ensemble/weights.safetensors/x"])
    def test_the_error_for_an_invalid_folder_is_one_sentence(self, ensemble: Path, target: str) -> None:
        (ensemble.parent / "file").touch()
        with pytest.raises(SavedPredictorError, match=r"(pass|Pass) a"):
            ImagePredictor.load(ensemble, verbosity=0).save(ensemble.parent / target)

    def test_weights_that_were_replaced_are_not_used(
        self, original: Path, saved: Path, frame: pd.DataFrame, tmp_path: Path
    ) -> None:
        predictor = ImagePredictor.load(saved, verbosity=0)  # its networks are loaded when they are used
        other = SavedPredictor.read(original)
        weights = {name: part * 2 for name, part in load_file(other.weights_path).items() if part.is_floating_point()}
        state = {**load_file(other.weights_path), **weights}
        replace(other, folder=saved, members=[replace(other.members[0], checksum=None)]).write(
            {"weights.safetensors": lambda path: write_weights(path, state)}
        )
        (saved / "weights-1.safetensors").replace(saved / "weights.safetensors")
        calls: list[Callable[[], object]] = [
            lambda: predictor.predict(frame),
            lambda: predictor.save(tmp_path / "copy"),
            predictor.save,
        ]
        for call in calls:
            with pytest.raises(SavedPredictorError, match=r"replaced|a later one"):
                call()
        assert content(tmp_path / "copy") == {}


class TestStrangers:
    @given(st.data())
    @settings(max_examples=80)
    def test_a_description_with_any_odd_value_is_refused_or_works(
        self, original: Path, frame: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
    ) -> None:
        record = json.loads((original / "predictor.json").read_text())
        place = data.draw(st.sampled_from(places(record)))
        odd = data.draw(st.sampled_from(ODD))
        inner = record
        for key in place[:-1]:
            inner = inner[key]
        if place:
            inner[place[-1]] = odd
        folder = tmp_path_factory.mktemp("odd")
        (folder / "weights.safetensors").symlink_to(original / "weights.safetensors")
        (folder / "predictor.json").write_text(json.dumps(record if place else odd))
        with contextlib.suppress(SaccadeError):
            predictor = ImagePredictor.load(folder, verbosity=0)
            predictor.predict(frame["image"][0])
            predictor.leaderboard()
            assert repr(predictor)

    def test_large_and_deep_descriptions_are_refused_at_once(self, saved: Path) -> None:
        description = saved / "predictor.json"
        record = json.loads(description.read_text())
        member = record["members"][0]
        for text in (
            json.dumps({**record, "members": [member] * 20_000}),
            json.dumps({**record, "members": [{**member, "weight": 0.5}]}),
            json.dumps({**record, "problem": {"type": "multiclass", "classes": ["a", "b", "b"]}}),
            "[" * 10**6,
            '{"a":' * 10**5,
            "\0" * 999,
            "",
        ):
            description.write_text(text)
            with pytest.raises(SavedPredictorError, match=r"predictor\.json is damaged"):
                ImagePredictor.load(saved)

    @pytest.mark.parametrize("classes", [["blue", "red"], list(range(900_000))])
    def test_a_network_that_is_larger_than_its_weights_is_not_built(self, saved: Path, classes: list[Any]) -> None:
        description = saved / "predictor.json"
        record = json.loads(description.read_text())
        if len(classes) == 2:
            record["members"][0]["blueprint"]["architecture"] = "vit_gigantic_patch14_clip_224"
        record["problem"] = {"type": "multiclass", "classes": classes}
        description.write_text(json.dumps(record))
        with pytest.raises(SavedPredictorError, match=r"larger than its weights|another network"):
            ImagePredictor.load(saved, verbosity=0).pipeline.module()

    def test_stored_features_and_keys_that_do_not_fit_are_refused(self, saved: Path, frame: pd.DataFrame) -> None:
        path = saved / "features.safetensors"
        with safe_open(path, "pt") as file:
            metadata, known = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        train, targets = known["train"], known["train_targets"]
        for name, changed in (
            ("train", train.flatten()),
            ("train", train.double()),
            ("train", train * float("nan")),
            ("train", train[1:].clone()),
            ("train_targets", targets + 5),
            ("train_targets", targets[:, None].clone()),
            ("class_counts", known["class_counts"][:1].clone()),
            ("class_counts", known["class_counts"] + 10**12),
        ):
            save_file({**known, name: changed}, path, metadata)
            with pytest.raises(SavedPredictorError, match=r"features\.safetensors is damaged"):
                ImagePredictor.load(saved, verbosity=0).novelty(frame)
        narrow = {name: known[name][:, :3].clone() for name in ("train", "val")}
        save_file({**known, **narrow}, path, metadata)
        with pytest.raises(SavedPredictorError, match=r"features\.safetensors has features of another network"):
            ImagePredictor.load(saved, verbosity=0).novelty(frame)
        save_file({"fitted": train, "held_out": train.clone()}, saved / "split.safetensors")
        with pytest.raises(DataError, match=r"split\.safetensors is damaged"):
            ImagePredictor.load(saved, verbosity=0).save(saved.with_name("copy"))

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no FIFOs")
    def test_only_regular_files_of_this_network_with_finite_values_are_loaded(
        self, saved: Path, frame: pd.DataFrame
    ) -> None:
        weights = saved / "weights.safetensors"
        state = load_file(weights)
        name = next(name for name, part in state.items() if part.is_floating_point())

        def fifo() -> None:
            weights.unlink()
            os.mkfifo(weights)

        damages: list[tuple[Callable[[], object], str]] = [
            (lambda: save_file({**state, name: state[name] * float("nan")}, weights), "not finite"),
            (lambda: save_file({**state, name: state[name][:0]}, weights), "another network"),
            (lambda: save_file({**state, "more": state[name].clone()}, weights), "another network"),
            (lambda: save_file({name: state[name]}, weights), "another network"),
            (lambda: weights.write_bytes(bytes(5000)), "cannot be loaded"),
            (fifo, "regular file"),
        ]
        for damage, message in damages:
            damage()
            with pytest.raises(SavedPredictorError, match=message) as raised:
                ImagePredictor.load(saved, verbosity=0).predict(frame)
            assert str(weights) in str(raised.value)
        with pytest.raises(SavedPredictorError, match="regular file"):
            ImagePredictor.load(saved, verbosity=0).save(saved.with_name("copy"))
