"""Which trials go into a soup, and what becomes of soups that fail."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from saccade.deadline import Deadline
from saccade.events import EpochDone, Event, Warned
from saccade.executor import InlineExecutor
from saccade.inference.classifier import Blueprint
from saccade.models.network import InputSpec
from saccade.selection.soup import SoupTrainable
from saccade.selection.souping import make_soups, soup_groups
from saccade.study.trial import Status, Trial
from saccade.training.trial_files import BLUEPRINT, outputs_file, weights_file

MakeTrial = Callable[..., Trial]
SPEC = InputSpec(32, 1.0, "bicubic", (0.5,) * 3, (0.5,) * 3)


@pytest.fixture
def make_trial(tmp_path: Path) -> MakeTrial:
    """Make trials one after the other, with files that are empty."""
    trials: list[Trial] = []

    def make(score: float, epoch: int = 2, architecture: str = "test_vit", **config: Any) -> Trial:
        folder = tmp_path / f"{len(trials):04d}"
        folder.mkdir()
        report = EpochDone(len(trials), epoch, score, metrics={"val_s": 2.0})
        trial = Trial(len(trials), {"model": architecture, **config}, str(folder), Status.COMPLETED, [report])
        (folder / BLUEPRINT).write_text(json.dumps(Blueprint(architecture, SPEC).to_json()))
        weights_file(folder, epoch).touch()
        outputs_file(folder, epoch).touch()
        trials.append(trial)
        return trial

    return make


def numbers(groups: list[list[Trial]]) -> list[list[int]]:
    return [[trial.number for trial in group] for group in groups]


def test_a_group_is_of_one_network_and_one_start_the_best_first(make_trial: MakeTrial) -> None:
    trials = [
        make_trial(0.5),
        make_trial(0.9, architecture="test_resnet"),
        make_trial(0.7),
        make_trial(0.8, architecture="test_resnet"),
        make_trial(0.6),
        make_trial(0.95, weights="other.safetensors"),
    ]
    assert numbers(soup_groups(trials, 3)) == [[1, 3], [2, 4, 0]]
    assert numbers(soup_groups(trials, 2)) == [[1, 3], [2, 4]]


def test_networks_that_began_at_random_make_no_soup_unless_it_is_said_that_they_began_alike(
    make_trial: MakeTrial,
) -> None:
    trials = [make_trial(score, pretrained=False) for score in (0.5, 0.6)]
    assert soup_groups(trials, 3) == []
    assert numbers(soup_groups(trials, 3, is_any_start=True)) == [[1, 0]]


def test_probes_of_one_network_are_all_the_same_and_one_of_them_is_enough(make_trial: MakeTrial) -> None:
    trials = [make_trial(0.5, epoch=0), make_trial(0.5, epoch=0)]
    assert soup_groups(trials, 3) == []
    assert numbers(soup_groups([*trials, make_trial(0.6)], 3)) == [[2, 0]]


def test_trials_that_failed_or_whose_files_are_gone_are_left_out(make_trial: MakeTrial) -> None:
    trials = [make_trial(score) for score in (0.5, 0.6, 0.7, 0.8)]
    trials[3].status = Status.FAILED
    outputs_file(Path(trials[2].folder), 2).unlink()
    assert numbers(soup_groups(trials, 3)) == [[1, 0]]


def test_a_soup_that_fails_is_told_and_does_no_harm(
    make_trial: MakeTrial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups = soup_groups([make_trial(0.5), make_trial(0.6)], 3)
    told: list[Event] = []

    def made(limit_s: float | None) -> tuple[int, bool]:
        task = SimpleNamespace(num_threads=None)
        soups = make_soups(InlineExecutor(), task, groups, tmp_path / "soups", Deadline(limit_s), told.append)
        return len(soups), any(isinstance(event, Warned) for event in told)

    def fail(*_: Any) -> str:
        raise MemoryError("no room")

    monkeypatch.setattr(SoupTrainable, "train", lambda *_: "")
    assert made(None) == (0, False)
    monkeypatch.setattr(SoupTrainable, "train", fail)
    assert made(1.0) == (0, False)  # it is not begun: to judge one mean takes 2 s
    assert made(None) == (0, True)
