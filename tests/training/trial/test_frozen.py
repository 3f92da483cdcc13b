"""What frozen layers make of images is computed once, and nothing goes back through them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from saccade.deadline import Deadline
from saccade.events import EpochDone
from saccade.study.trial import Decision, Job
from saccade.study.trial_files import LocalTrialFiles
from saccade.training.recipes.recipe import Recipe
from saccade.training.task import ImageTask
from saccade.training.trial.frozen import KeptOutputs, ends_with_head, freeze, is_backbone_fixed
from saccade.training.trial.trainer import Trainer

STILL = {"scale": (1.0, 1.0), "hflip": 0.0}
FROZEN = {"pretrained": True, "transfer_lr_mult": 0.0, "epochs": 3, "lr": 0.05, "linear_probe": False}


class Trained:
    """A trial, with how many images its body has seen in each of the two modes of autograd."""

    def __init__(self, task: ImageTask, recipe: dict[str, Any], folder: Path) -> None:
        self.reports: list[EpochDone] = []
        self.num_seen: Counter[bool] = Counter()
        trainer = Trainer(task, Recipe.of(recipe), LocalTrialFiles(folder))
        self.before = {name: tensor.clone() for name, tensor in trainer.network.state_dict().items()}
        trainer.network.conv1.register_forward_hook(self._count)
        trainer.run(Job(0, recipe), self._report)
        self.network = trainer.network

    def _count(self, _: torch.nn.Module, inputs: tuple[torch.Tensor, ...], outputs: torch.Tensor) -> None:
        assert not outputs.requires_grad  # nothing goes back through it
        self.num_seen[not torch.is_inference_mode_enabled()] += len(inputs[0])

    def _report(self, event: EpochDone) -> Decision:
        self.reports.append(event)
        return Decision.CONTINUE


@pytest.fixture(autouse=True)
def _without_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not measure throughput, which passes images too, once per network in a process."""
    monkeypatch.setattr("saccade.training.trial.trainer.network_costs", lambda *_: {})


@pytest.fixture
def task(make_task: Any, tiny_weights: Path) -> ImageTask:
    made: ImageTask = make_task(weights=tiny_weights)
    return made


def test_validation_images_pass_frozen_layers_once(task: ImageTask, tmp_path: Path, tiny: dict[str, Any]) -> None:
    trained = Trained(task, {**tiny, **FROZEN}, tmp_path)
    assert trained.num_seen[True] == 3 * len(task.train.indices)
    assert trained.num_seen[False] == len(task.val.indices) + 1  # one is a look at how the network ends
    after = trained.network.state_dict()
    assert {name for name, tensor in after.items() if not torch.equal(trained.before[name], tensor)} == {
        "fc.weight",
        "fc.bias",
    }


def test_training_images_without_augmentation_pass_frozen_layers_once(
    task: ImageTask, tmp_path: Path, tiny: dict[str, Any]
) -> None:
    trained = Trained(task, {**tiny, **FROZEN, **STILL}, tmp_path)
    assert trained.num_seen[True] == 0
    assert trained.num_seen[False] == len(task.val.indices) + len(task.train.indices) + 2
    losses = [report.metrics["train_loss"] for report in trained.reports]
    assert losses[-1] < losses[0]


def test_cached_features_give_the_same_as_computing_them_again(
    task: ImageTask, tmp_path: Path, tiny: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # In 16 bits, which may have been measured to be faster, the two would differ by rounding.
    recipe = {**tiny, **FROZEN, **STILL, "model_ema": True, "model_ema_decay": 0.5, "amp": False}
    kept = Trained(task, recipe, tmp_path / "kept")
    monkeypatch.setattr("saccade.training.trial.steps.is_backbone_fixed", lambda network: False)
    anew = Trained(task, recipe, tmp_path / "anew")
    assert anew.num_seen[True] == 3 * len(task.train.indices)
    for one, other in zip(kept.reports, anew.reports, strict=True):
        assert one.score == other.score
        assert one.metrics["train_loss"] == pytest.approx(other.metrics["train_loss"], rel=1e-4)


@pytest.mark.parametrize(
    "changes",
    [{"transfer_lr_mult": 0.1}, {"freeze_bn": False, "batch_size": 32}],
    ids=["it learns", "its statistics change"],
)
def test_features_of_a_trained_backbone_are_not_cached(
    task: ImageTask, tmp_path: Path, tiny: dict[str, Any], changes: dict[str, Any]
) -> None:
    trainer = Trainer(task, Recipe.of({**tiny, **FROZEN, **STILL, **changes}), LocalTrialFiles(tmp_path))
    assert trainer.steps.kept is None


@pytest.mark.parametrize(
    "changes", [{}, {**STILL, "drop": 0.5}, {**STILL, "mixup": 0.4}, {**STILL, "tta": True}, {**STILL, "re_prob": 0.1}]
)
def test_augmented_training_computes_all_images_again(
    task: ImageTask, tmp_path: Path, tiny: dict[str, Any], changes: dict[str, Any]
) -> None:
    trainer = Trainer(task, Recipe.of({**tiny, **FROZEN, **changes}), LocalTrialFiles(tmp_path))
    trainer.steps.take_epoch(Deadline(None))
    assert trainer.steps._features is None
    assert trainer.network.training


def test_outputs_of_a_part_of_the_images_are_not_cached(task: ImageTask, tmp_path: Path, tiny: dict[str, Any]) -> None:
    trainer = Trainer(task, Recipe.of({**tiny, **FROZEN, "batch_size": 8}), LocalTrialFiles(tmp_path))
    batches = trainer.classifier.batches(task.store, task.train.indices, batch_size=8)
    kept = KeptOutputs(trainer.classifier)
    assert len(kept.outputs(batches, trainer.network, lambda: 0.0)) < batches.num_images
    np.testing.assert_allclose(
        kept.outputs(batches, trainer.network), trainer.classifier.outputs(batches), rtol=1e-5, atol=1e-6
    )


def test_a_network_with_operations_after_its_last_layer_does_not_end_with_its_head(
    task: ImageTask, tmp_path: Path, tiny: dict[str, Any]
) -> None:
    trainer = Trainer(task, Recipe.of({**tiny, **FROZEN}), LocalTrialFiles(tmp_path))
    assert ends_with_head(trainer.classifier)
    trainer.network.register_forward_hook(lambda _, __, outputs: outputs + 1)
    assert not ends_with_head(trainer.classifier)


def test_a_recipe_without_any_learning_rate_freezes_nothing(tiny: dict[str, Any]) -> None:
    network = torch.nn.Sequential(torch.nn.Linear(2, 2))
    freeze(network, Recipe.of({**tiny, "transfer_lr_mult": 0.0}))
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert not is_backbone_fixed(network)  # nobody knows its last layer
