from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from saccade.events import ENGINE_GAIN, EpochDone
from saccade.inference import classifier as classifier_module
from saccade.inference.classifier import Classifier
from saccade.numerics.choice import Workload
from saccade.numerics.device import Numerics
from saccade.study.trial import Decision, Job
from saccade.study.trial_files import LocalTrialFiles
from saccade.tasks.problem import Problem
from saccade.training.recipes.building import new_classifier
from saccade.training.recipes.recipe import Recipe
from saccade.training.task import ImageTask
from saccade.training.trial import trainer
from saccade.training.trial.trainer import ImageTrainable, Trainer, choose_for_probe, choose_for_trial

MakeTask = Callable[..., ImageTask]

CPU = torch.device("cpu")
HALF = Numerics(CPU, torch.bfloat16)
CHANNELS_FIRST = Numerics(CPU, channels_last=False)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Workload, list[Numerics], float, bool]]:
    """Let the last candidate always be the fastest; return a list of what was asked."""
    asked: list[tuple[Workload, list[Numerics], float, bool]] = []

    def choose(network: nn.Module, workload: Workload, among: list[Numerics], num_steps: float, *_: Any) -> Numerics:
        asked.append((workload, among, num_steps, network.training))
        return among[-1]

    for module in (trainer, classifier_module):
        monkeypatch.setattr(module, "choose_numerics", choose)
    return asked


def classifier(**recipe: Any) -> tuple[Classifier, Recipe]:
    made = Recipe.of({"model": "test_resnet", "pretrained": False, "img_size": 32, "batch_size": 8, **recipe})
    return new_classifier(made, Problem.of(["cat", "dog"]), Numerics.choose(CPU, made.amp, made.channels_last)), made


def test_training_and_inference_have_the_same_memory_format(asked: list[Any]) -> None:
    network, recipe = classifier()
    training, inference = choose_for_trial(network, recipe, 1000, 32)
    assert [(workload.purpose, workload.shape, mode) for workload, _, _, mode in asked] == [
        ("training", (8, 3, 32, 32), True),
        ("inference", (32, 3, 32, 32), False),
    ]
    assert not training.channels_last
    assert {numerics.channels_last for numerics in asked[1][1]} == {inference.channels_last} == {False}


@pytest.mark.parametrize(
    ("fixed", "expected"),
    [
        ({"amp": True}, (torch.bfloat16, False)),
        ({"amp": False, "channels_last": True}, (torch.float32, True)),
        ({"amp": True, "channels_last": False}, (torch.bfloat16, False)),
    ],
)
def test_a_recipe_can_fix_the_numerics(asked: list[Any], fixed: dict[str, bool], expected: tuple[Any, bool]) -> None:
    for chosen in choose_for_trial(*classifier(**fixed), 1000, 32):
        assert (chosen.dtype, chosen.channels_last) == expected


def test_longer_trials_may_measure_more(asked: list[Any]) -> None:
    for num_steps in (1000, 10_000):
        choose_for_trial(*classifier(), num_steps, 32)
    assert [10 * steps for _, _, steps, _ in asked[:2]] == pytest.approx([steps for _, _, steps, _ in asked[2:]])


def test_a_short_trial_may_measure_just_enough_for_a_quarter_of_a_batch(asked: list[Any]) -> None:
    for num_steps in (5, 20, 40):
        choose_for_trial(*classifier(), num_steps, 32)
    assert [steps for _, _, steps, _ in asked[::2]] == [0.5, 1.5, 1.5]


def test_loss_and_state_are_float32_in_any_numerics() -> None:
    network, _ = classifier()
    with HALF.autocast():
        outputs = network.network(torch.randn(4, 3, 32, 32))
    assert outputs.dtype is torch.bfloat16
    loss = network.problem.loss(outputs, torch.tensor([0, 1, 1, 0]))
    loss.backward()
    kept = [*network.network.parameters(), *network.network.buffers(), loss]
    kept += [parameter.grad for parameter in network.network.parameters() if parameter.grad is not None]
    assert {tensor.dtype for tensor in kept if tensor.is_floating_point()} == {torch.float32}
    assert any("running_var" in name for name, _ in network.network.named_buffers())


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Numerics, Numerics]]:
    """Let trials choose what the list holds, which they take out."""
    chosen: list[tuple[Numerics, Numerics]] = []
    monkeypatch.setattr(trainer, "choose_for_trial", lambda *_: chosen.pop())
    return chosen


def run(task: ImageTask, folder: Path, recipe: dict[str, Any], **job: Any) -> list[EpochDone]:
    reports: list[EpochDone] = []

    def report(event: EpochDone) -> Decision:
        reports.append(event)
        return Decision.CONTINUE

    ImageTrainable(task).train(Job(0, recipe, files=LocalTrialFiles(folder), **job), report)
    return reports


@pytest.mark.parametrize("ema", [False, True])
def test_a_resumed_trial_keeps_its_numerics(
    make_task: MakeTask, tmp_path: Path, tiny: dict[str, Any], chosen: list[Any], ema: bool
) -> None:
    task, recipe = make_task(), {**tiny, "model_ema": ema, "epochs": 3}
    numerics = replace(HALF, channels_last=False), CHANNELS_FIRST
    chosen += [numerics, numerics]
    whole = run(task, tmp_path / "whole", recipe, until_epoch=2)
    first = run(task, tmp_path / "parts", recipe, until_epoch=1)
    rest = run(task, tmp_path / "parts", recipe, checkpoint=first[-1].checkpoint, until_epoch=2)
    assert not chosen
    assert [report.metrics["train_loss"] for report in first + rest] == [r.metrics["train_loss"] for r in whole]
    again = Trainer(task, Recipe.of(recipe), LocalTrialFiles(tmp_path / "parts"))
    again.load_checkpoint(str(rest[-1].checkpoint))
    assert (again.classifier.numerics, again.classifier.inference) == numerics


def test_on_another_machine_a_trial_chooses_numerics_again(
    make_task: MakeTask, tmp_path: Path, tiny: dict[str, Any], chosen: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    task = make_task()
    chosen.append((HALF, HALF))
    first = run(task, tmp_path / "trial", tiny, until_epoch=1)
    monkeypatch.setattr(trainer, "processor", lambda device: "another")
    chosen.append((CHANNELS_FIRST, CHANNELS_FIRST))
    rest = run(task, tmp_path / "trial", tiny, checkpoint=first[-1].checkpoint)
    assert not chosen
    assert [report.epoch for report in rest] == [2]


def test_the_time_of_measuring_is_part_of_the_job(
    make_task: MakeTask, tmp_path: Path, tiny: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[float] = []
    now_s = 0.0

    def choose(self: Trainer, seconds_left: float) -> None:
        nonlocal now_s
        seen.append(seconds_left)
        now_s += 11.0

    monkeypatch.setattr(trainer, "Deadline", lambda limit_s: _Deadline(limit_s, lambda: now_s))
    monkeypatch.setattr(Trainer, "choose_numerics", choose)
    reports = run(make_task(), tmp_path / "trial", {**tiny, "pretrained": False}, seconds_left=10.0)
    assert seen == pytest.approx([10.0], abs=2.0)  # what the network takes to be built comes off before
    assert len(reports) == 1  # of two epochs


def test_training_numerics_are_not_measured_for_a_probe(
    make_task: MakeTask,
    tmp_path: Path,
    tiny: dict[str, Any],
    tiny_weights: Path,
    chosen: list[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(trainer, "choose_for_probe", lambda *_: HALF)
    task, recipe = make_task(), {**tiny, "pretrained": True, "weights": str(tiny_weights)}
    first = run(task, tmp_path / "trial", recipe, until_epoch=0)
    assert [report.epoch for report in first] == [0]
    chosen.append((CHANNELS_FIRST, CHANNELS_FIRST))
    rest = run(task, tmp_path / "trial", recipe, checkpoint=first[-1].checkpoint, until_epoch=1)
    assert [report.epoch for report in rest] == [1]
    assert not chosen


def test_a_probe_without_time_to_measure_uses_native_16_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    made, recipe = classifier()
    for is_native, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(trainer, "is_half_native", lambda _, is_native=is_native: is_native)
        monkeypatch.setattr(trainer, "candidates", lambda *_, **__: [Numerics(CPU), HALF])
        assert choose_for_probe(made, recipe, 30, 31, seconds_left=1e-3).dtype is dtype


def test_a_probe_measures_the_engine_unless_16_bits_are_requested(
    asked: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[tuple[Any, ...]] = []

    def choose(self: Classifier, numerics: Numerics, *rest: Any) -> Numerics:
        given.append(rest)
        return replace(numerics, engine="onnxruntime")

    monkeypatch.setattr(Classifier, "choose_engine", choose)
    engines = {amp: choose_for_probe(*classifier(amp=amp), 900, 32, 10.0).engine for amp in (None, False, True)}
    assert engines == {None: "onnxruntime", False: "onnxruntime", True: "torch"}
    assert given == 2 * [(32, 900, pytest.approx(trainer.PROBE_PART * 10.0))]
    assert asked


def test_a_probe_reports_the_gain_of_its_engine(
    make_task: MakeTask, tmp_path: Path, tiny: dict[str, Any], tiny_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def choose(classifier: Classifier, *_: Any) -> Numerics:
        classifier.engine_gain = 2.5
        return Numerics(CPU)

    monkeypatch.setattr(trainer, "choose_for_probe", choose)
    recipe = {**tiny, "pretrained": True, "weights": str(tiny_weights)}
    (report,) = run(make_task(), tmp_path / "trial", recipe, until_epoch=0)
    assert report.metrics[ENGINE_GAIN] == 2.5


class _Deadline:
    def __init__(self, limit_s: float, now_s: Callable[[], float]) -> None:
        self.limit_s, self.now_s = limit_s, now_s

    def seconds_left(self) -> float:
        return self.limit_s - self.now_s()


def test_a_trial_of_a_few_steps_measures_nothing(
    make_task: MakeTask, tmp_path: Path, tiny: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from saccade.numerics import choice as numerics

    monkeypatch.setattr(numerics, "Bench", None)  # which would fail
    assert len(run(make_task(), tmp_path / "trial", tiny)) == tiny["epochs"]
