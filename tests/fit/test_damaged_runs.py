"""Run folders with damaged files, such as a power failure leaves: resuming succeeds, or an error names the file."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

import saccade as ag
from saccade import ImagePredictor
from saccade.errors import SaccadeError
from saccade.events import Event


def _replaced(change: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(change(path.read_bytes()))


def _in_its_place(make: Callable[[Path], object]) -> Callable[[Path], object]:
    def damage(path: Path) -> None:
        path.unlink()
        make(path)

    return damage


DAMAGES: dict[str, Callable[[Path], object]] = {
    "missing": Path.unlink,
    "empty": _replaced(lambda _: b""),
    "cut": _replaced(lambda content: content[:-1]),
    "padded with zeros": _replaced(lambda content: content[: len(content) // 2].ljust(len(content), b"\0")),
    "with a tail of zeros": _replaced(lambda content: content + bytes(4096)),
    "with other bytes": _replaced(lambda content: content.replace(content[99:103], b"\xff" * len(content[99:103]), 1)),
    "text": _replaced(lambda _: b"not what it was\n"),
    "of another network": _replaced(lambda _: save({"weight": np.zeros(3, np.float32)})),
    "a folder": _in_its_place(Path.mkdir),
    "a link to nothing": _in_its_place(lambda path: path.symlink_to("/no/such/file")),
    "a pipe": _in_its_place(lambda path: os.mkfifo(path)),
}

ODD = (
    *("null", "true", "-1", "0.5", "1e308", "NaN", "1" + 400 * "0", '"x"', '""', '"\\ud800"', "[]", "[null]", "{}"),
    *('{"!lost": 3}', '{"!float": "x"}', "[" * 5000 + "]" * 5000),
)
"""Values of JSON, each of which is invalid in most places."""


class Killed(BaseException):
    """Stands for the end of a process; no code catches it."""


@pytest.fixture(scope="module")
def killed(make_colours_once: Callable[..., pd.DataFrame], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with one trial that has ended and one that was being trained."""
    folder, num = tmp_path_factory.mktemp("killed"), 0

    def kill(event: Event) -> None:
        nonlocal num
        num += event.kind == "epoch_done"
        if num == 4:
            raise Killed

    space = {
        "model": "test_resnet",
        "pretrained": False,
        "img_size": 32,
        "batch_size": 8,
        "epochs": 3,
        "lr": ag.Categorical(1e-2, 1e-3),
    }
    options = {"num_trials": 2, "scheduler": "fifo", "executor": "inline", "nthreads_per_trial": 1, "callbacks": [kill]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SACCADE_CACHE", str(folder / "cache"))
        with pytest.raises(Killed):
            ImagePredictor(path=folder / "run", verbosity=0).fit(
                make_colours_once(8), hyperparameters=space, random_state=0, **options
            )
    return folder


@settings(max_examples=15)
@given(st.data())
def test_a_damaged_file_is_ignored_or_named_in_an_error(killed: Path, data: st.DataObject) -> None:
    names = [path.relative_to(killed / "run") for path in sorted((killed / "run").rglob("*")) if path.is_file()]
    assert len(names) > 8
    name, damage = data.draw(st.sampled_from(names)), data.draw(st.sampled_from(list(DAMAGES)))
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore")  # of what is left out
        patch.setenv("SACCADE_CACHE", str(killed / "cache"))
        run = Path(shutil.copytree(killed / "run", f"{folder}/run"))
        DAMAGES[damage](run / name)
        try:
            # Without any event, there is no trial to finish with.
            predictor = ImagePredictor.resume(run, verbosity=0, finish=name.name != "events.jsonl")
            predictor.predict_proba(np.zeros((32, 32, 3), np.uint8))
        except SaccadeError as error:
            assert name.name in str(error)  # noqa: PT017


@settings(max_examples=15)
@given(st.data())
def test_a_record_with_any_odd_value_is_no_obstacle_or_is_named(killed: Path, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(["run.json", "data.json", "split.json", "trials/0000/blueprint.json"]))
    whole = [json.loads((killed / "run" / name).read_text())]
    holder, key = data.draw(st.sampled_from(list(places(whole))))
    holder[key] = "MARK"
    text = json.dumps(whole[0]).replace('"MARK"', data.draw(st.sampled_from(ODD)))
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shutil.copytree(killed / "run", f"{folder}/run")
        Path(folder, "run", name).write_text(text)
        try:
            ImagePredictor.resume(f"{folder}/run", verbosity=0, finish=True)
        except SaccadeError as error:
            assert Path(name).name in str(error)  # noqa: PT017


def places(holder: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each place in nested JSON as its holder and its key, of lists the first two."""
    for key in list(holder) if isinstance(holder, dict) else range(len(holder[:2])):
        yield holder, key
        if isinstance(holder[key], dict | list):
            yield from places(holder[key])
