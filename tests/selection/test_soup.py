"""Means of weights: what goes into them, and what stays out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.optim.swa_utils import update_bn

from saccade.events import EpochDone
from saccade.numerics.device import Numerics, choose_device
from saccade.selection.candidates import activated
from saccade.selection.soup import OUTPUTS, RECORD, STATISTICS, WEIGHTS, Ingredient, Soup, SoupOrder, SoupTrainable
from saccade.study.trial import Decision, Job
from saccade.training.recipes.building import blueprint_of, new_classifier
from saccade.training.recipes.recipe import Recipe
from saccade.training.task import ImageTask
from saccade.training.trial_files import save_outputs

State = dict[str, torch.Tensor]
MakeTask = Callable[..., ImageTask]


def test_each_of_a_mean_counts_the_same():
    soup = Soup([0], {"x": torch.tensor([3.0]), "count": torch.tensor(7)})
    for trial, value in ((1, 6.0), (2, 0.0)):
        soup = soup.plus(trial, {"x": torch.tensor([value]), "count": torch.tensor(9)})
    assert soup.trials == [0, 1, 2]
    assert soup.state["x"].tolist() == pytest.approx([3.0])
    assert soup.state["count"] == 7


class Kitchen:
    """A network that tells colours apart, and orders for soups of it."""

    def __init__(self, task: ImageTask, tiny: dict[str, Any], folder: Path) -> None:
        self.task, self.folder = task, folder
        recipe = Recipe.of(tiny)
        torch.manual_seed(0)
        self.classifier = new_classifier(recipe, task.problem, Numerics(choose_device("cpu")))
        self.blueprint = blueprint_of(self.classifier.network, recipe)
        self.state = self._good_state()

    def _good_state(self) -> State:
        """Fit the last layer to the images, validation images included: enough for being better than others."""
        network = self.classifier.network
        update_bn(self.classifier.batches(self.task.store, self.task.train.indices).in_order(), network)
        network.eval()
        indices = np.concatenate([self.task.train.indices, self.task.val.indices])
        targets = torch.from_numpy(np.concatenate([self.task.train.targets, self.task.val.targets]))
        with torch.no_grad():
            x = torch.cat([x for x, _ in self.classifier.batches(self.task.store, indices).in_order()])
            features = network.forward_head(network.forward_features(x), pre_logits=True)
        head = network.get_classifier()
        optimizer = torch.optim.Adam(head.parameters(), lr=0.05)
        for _ in range(100):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(head(features), targets).backward()
            optimizer.step()
        return {
            name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in network.state_dict().items()
        }

    def shifted(self, size: float, only: tuple[str, ...] = ("weight", "bias")) -> State:
        torch.manual_seed(0)
        return {
            name: tensor + size * torch.randn_like(tensor) if name.endswith(only) else tensor
            for name, tensor in self.state.items()
        }

    def cook(self, *states: State, seconds_left: float = float("inf")) -> tuple[list[EpochDone], Path]:
        ingredients = []
        for number, state in enumerate(states):
            weights, outputs = self.folder / f"{number}.safetensors", self.folder / f"{number}.npy"
            save_file(state, weights)
            save_outputs(outputs, self.outputs(state))
            ingredients.append(Ingredient(10 + number, weights, outputs))
        reports: list[EpochDone] = []
        order = SoupOrder(ingredients, self.blueprint, amp=False)
        job = Job(10, {"order": order}, str(self.folder / "soup"), seconds_left=seconds_left)
        SoupTrainable(self.task).train(job, lambda report: reports.append(report) or Decision.CONTINUE)
        return reports, self.folder / "soup"

    def outputs(self, state: State) -> np.ndarray:
        self.classifier.network.load_state_dict(state)
        return self.classifier.outputs(self.classifier.batches(self.task.store, self.task.val.indices))


@pytest.fixture
def kitchen(make_task: MakeTask, tiny: dict[str, Any], tmp_path: Path) -> Kitchen:
    return Kitchen(make_task(), tiny, tmp_path)


def test_what_makes_the_mean_better_goes_in_and_what_does_not_stays_out(kitchen: Kitchen) -> None:
    one_side, garbage, other_side = kitchen.shifted(0.1), kitchen.shifted(3.0), kitchen.shifted(-0.1)
    reports, folder = kitchen.cook(one_side, garbage, other_side)
    assert [report.metrics["is_better"] for report in reports] == [0, 1]
    assert json.loads((folder / RECORD).read_text())["trials"] == [10, 12]
    soup = load_file(folder / WEIGHTS)
    for name, tensor in kitchen.state.items():
        assert torch.allclose(soup[name], tensor, atol=1e-5), name
    outputs = np.load(folder / OUTPUTS)
    assert np.allclose(outputs, kitchen.outputs(soup), atol=1e-4)
    probabilities = activated(outputs, kitchen.task.problem)
    assert np.allclose(probabilities.sum(1), 1)


def test_without_a_better_mean_there_is_none(kitchen: Kitchen) -> None:
    reports, folder = kitchen.cook(kitchen.state, kitchen.shifted(3.0))
    assert [report.metrics["is_better"] for report in reports] == [0]
    assert not folder.exists()


def test_without_time_there_is_none(kitchen: Kitchen) -> None:
    reports, folder = kitchen.cook(kitchen.shifted(0.02), kitchen.shifted(-0.02), seconds_left=-1.0)
    assert not reports
    assert not folder.exists()


def test_batch_normalisation_gets_the_statistics_of_the_mean(kitchen: Kitchen) -> None:
    """And not the mean of statistics, which are these of no network at all."""
    worse = {**kitchen.shifted(0.02)}
    odd = {name: tensor + 40.0 if name.endswith("running_mean") else tensor for name, tensor in worse.items()}
    reports, folder = kitchen.cook(odd, kitchen.shifted(-0.02))
    assert [report.metrics["is_better"] for report in reports] == [1]
    soup = load_file(folder / WEIGHTS)
    for name in soup:
        if name.endswith("running_mean"):
            assert (soup[name] - odd[name]).abs().min() > 10, name
        elif not name.endswith((*STATISTICS, "num_batches_tracked")):
            assert torch.allclose(soup[name], kitchen.state[name], atol=1e-5), name
    assert np.allclose(np.load(folder / OUTPUTS), kitchen.outputs(soup), atol=1e-4)


def test_a_first_trial_without_outputs_makes_no_soup(kitchen: Kitchen, tmp_path: Path) -> None:
    save_file(kitchen.state, tmp_path / "0.safetensors")
    ingredients = [Ingredient(number, tmp_path / "0.safetensors", tmp_path / "gone.npy") for number in range(2)]
    job = Job(0, {"order": SoupOrder(ingredients, kitchen.blueprint)}, str(tmp_path / "soup"))
    assert "gone" in SoupTrainable(kitchen.task).train(job, lambda report: pytest.fail("there is nothing to report"))
