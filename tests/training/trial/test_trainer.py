from __future__ import annotations

import math
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from saccade.data.scanning import scan_images
from saccade.data.store.on_demand import StreamedStore
from saccade.errors import (
    DiskFullError,
    DivergedError,
    HyperparameterError,
    OutOfMemoryError,
    WeightsNotFoundError,
)
from saccade.events import EpochDone
from saccade.models.network import CustomObject
from saccade.models.weights import write_weights
from saccade.selection.folds import FoldTrainable
from saccade.study.trial import Decision, Job, Trainable
from saccade.study.trial_files import LocalTrialFiles, file_name
from saccade.testing.trial_contracts import TrainableContract
from saccade.training.probes.probe import IMAGES_OF_CLASS, max_probe_images
from saccade.training.recipes.recipe import Recipe
from saccade.training.task import ImageTask
from saccade.training.trial import trainer as trainer_module
from saccade.training.trial.steps import Steps
from saccade.training.trial.trainer import ImageTrainable, Trainer
from saccade.training.trial.validation import Validation
from saccade.training.trial_files import BEST, BEST_OUTPUTS, LAST

MakeTask = Callable[..., ImageTask]


class TestImageTrainable(TrainableContract):
    config: ClassVar = {"model": "test_resnet", "pretrained": False, "img_size": 32, "epochs": 3, "lr": 1e-3}
    num_epochs = 3
    broken_config: ClassVar = {**config, "opt": "no such optimizer"}

    @pytest.fixture(autouse=True)
    def _task(self, make_task: MakeTask) -> None:
        self.task = make_task()

    def make(self, tmp_path: Path) -> Trainable:
        return ImageTrainable(self.task)


def train(task: ImageTask, folder: Path, recipe: dict[str, Any], **job: Any) -> tuple[list[EpochDone], str]:
    reports: list[EpochDone] = []

    def report(event: EpochDone) -> Decision:
        reports.append(event)
        return Decision.CONTINUE

    trainer = Trainer(task, Recipe.of(recipe), LocalTrialFiles(folder))
    if checkpoint := job.pop("checkpoint", None):
        trainer.load_checkpoint(checkpoint)
    return reports, trainer.run(Job(0, recipe, **job), report)


def found(folder: Path, kind: str, epoch: int) -> Path:
    path = LocalTrialFiles(folder).get(0, kind, epoch)
    assert path is not None
    return path


VARIANTS = {
    "plain": {},
    "growing images": {"first_img_size": 16},
    "ema": {"model_ema": True, "model_ema_decay": 0.9},
    "mixup on odd batches": {"mixup": 0.4, "cutmix": 1.0, "batch_size": 5},
    "sgd with augmentation": {"opt": "sgd", "momentum": 0.9, "auto_augment": "randaugment", "color_jitter": 0.3},
    "dropout and clipping": {"drop": 0.3, "clip_grad": 1.0, "smoothing": 0.1, "re_prob": 0.5, "vflip": 0.5},
    "bfloat16": {"amp": True},
    "parts of the images": {"images_per_epoch": 5, "batch_size": 3},
    "low-rank updates": {"model": "test_vit", "img_size": 160, "lora_rank": 2, "model_ema": True},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_training_continues_from_a_checkpoint_with_the_same_numbers(
    make_task: MakeTask, tmp_path: Path, tiny: dict[str, Any], variant: str
) -> None:
    task, recipe = make_task(), {**tiny, "epochs": 4, **VARIANTS[variant]}
    whole, _ = train(task, tmp_path / "whole", recipe, until_epoch=3)
    first, _ = train(task, tmp_path / "parts", recipe, until_epoch=1)
    rest, _ = train(task, tmp_path / "parts", recipe, checkpoint=first[-1].checkpoint, until_epoch=3)
    assert [report.epoch for report in rest] == [2, 3]
    for once, again in zip(whole, first + rest, strict=True):
        assert once.score == again.score
        assert once.metrics["train_loss"] == again.metrics["train_loss"]
    states = [load_file(found(tmp_path / name, LAST, 3)) for name in ("whole", "parts")]
    for name, tensor in states[0].items():
        assert torch.equal(tensor, states[1][name]), name


def test_a_checkpoint_without_a_state_of_the_gradient_scaler_is_resumed_with_one(
    make_task: MakeTask, tmp_path: Path, tiny: dict[str, Any]
) -> None:
    """As on a GPU without bfloat16, after the run began on a CPU."""
    steps = Trainer(make_task(), Recipe.of(tiny), tmp_path).steps
    state = steps.state_dict()
    assert state["scaler"] == {}
    steps._scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    steps.load_state_dict(state)
    assert steps._scaler.get_scale() == 8


def test_a_network_with_tied_weights_is_trained_and_resumed(
    make_task: MakeTask, tmp_path: Path, tiny: dict[str, Any]
) -> None:
    class Tied(torch.nn.Module):
        def __init__(self, num_outputs: int) -> None:
            super().__init__()
            self.pool = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten())
            self.first, self.second = torch.nn.Linear(12, 12), torch.nn.Linear(12, 12)
            self.second.weight = self.first.weight
            self.fc = torch.nn.Linear(12, num_outputs)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(self.second(self.first(self.pool(x)).relu()))

    recipe = {**tiny, "model": CustomObject(Tied)}
    task = make_task()
    first, _ = train(task, tmp_path, recipe, until_epoch=1)
    weights = load_file(found(tmp_path, BEST, 1))
    assert torch.equal(weights["first.weight"], weights["second.weight"])
    rest, _ = train(task, tmp_path, recipe, checkpoint=first[-1].checkpoint)
    assert [report.epoch for report in rest] == [2]


def test_val_interval_skips_validations_and_training_stays_the_same(
    make_task: MakeTask, tmp_path: Path, tiny: dict[str, Any]
) -> None:
    task, recipe = make_task(), {**tiny, "epochs": 7, "sched": "constant"}
    whole, _ = train(task, tmp_path / "whole", recipe, until_epoch=6)
    some, _ = train(task, tmp_path / "some", {**recipe, "val_interval": 4}, until_epoch=6)
    assert [report.epoch for report in some] == [4, 6]
    assert [report.score for report in some] == [whole[epoch - 1].score for epoch in (4, 6)]
    losses = [[report.metrics["train_loss"] for report in reports] for reports in (some, whole)]
    assert losses[0] == [losses[1][3], losses[1][5]]
    assert some[0].metrics["train_s"] > some[0].metrics["data_s"] > 0
    rest, reason = train(task, tmp_path / "some", {**recipe, "val_interval": 9}, checkpoint=some[-1].checkpoint)
    assert ([report.epoch for report in rest], rest[-1].is_last, reason) == ([7], True, "")


def test_the_last_epoch_within_the_time_is_validated(make_task: MakeTask, tmp_path: Path, tiny: dict[str, Any]) -> None:
    recipe = {**tiny, "epochs": 10**6, "val_interval": 10**6}
    reports, reason = train(make_task(), tmp_path / "trial", recipe, seconds_left=2.0)
    assert reason == "time limit"
    assert found(tmp_path / "trial", BEST, max(reports, key=lambda report: report.score).epoch)


def test_there_is_no_checkpoint_after_the_last_epoch(make_task: MakeTask, tmp_path: Path, tiny: dict[str, Any]) -> None:
    reports, _ = train(make_task(), tmp_path / "trial", tiny)
    assert [(report.checkpoint is None, report.is_last) for report in reports] == [(False, False), (True, True)]
    assert not LocalTrialFiles(tmp_path / "trial").epochs(0, LAST)
    refit, _ = train(make_task(is_refit=True), tmp_path / "refit", {**tiny, "epochs": 3}, until_epoch=2)
    assert [report.checkpoint for report in refit] == [None, None]
    assert found(tmp_path / "refit", BEST, 2)


def test_a_full_disk_is_an_error_with_what_to_do(make_task: MakeTask, tmp_path: Path, tiny: dict[str, Any]) -> None:
    resource = pytest.importorskip("resource", reason="only POSIX limits the size of files")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))  # the weights need more: as on a full disk
    try:
        with pytest.raises(DiskFullError, match=r"no space left for the weights of test_resnet in .*larger disk"):
            train(make_task(), tmp_path / "trial", tiny)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_probed_trial_reports_epoch_0_and_continues_exactly(
    make_task: MakeTask, tmp_path: Path, tiny: dict[str, Any], tiny_weights: Path
) -> None:
    task, recipe = make_task(weights=tiny_weights), {**tiny, "pretrained": True}
    whole, _ = train(task, tmp_path / "whole", recipe)
    assert [report.epoch for report in whole] == [0, 1, 2]
    assert all(0 <= report.metrics["train_acc"] <= 1 for report in whole)
    first, _ = train(task, tmp_path / "parts", recipe, until_epoch=0)
    assert [report.epoch for report in first] == [0]
    rest, _ = train(task, tmp_path / "parts", recipe, checkpoint=first[-1].checkpoint)
    assert [report.score for report in whole] == [report.score for report in first + rest]


def test_without_the_probe_the_head_starts_from_zero_and_epoch_1_is_first(
    make_task: MakeTask, tmp_path: Path, tiny: dict[str, Any], tiny_weights: Path
) -> None:
    recipe = {**tiny, "pretrained": True, "linear_probe": False}
    trainer = Trainer(make_task(weights=tiny_weights), Recipe.of(recipe), LocalTrialFiles(tmp_path / "trial"))
    assert not trainer.network.get_classifier().weight.any()
    reports, _ = train(make_task(weights=tiny_weights), tmp_path / "trial", recipe)
    assert [report.epoch for report in reports] == [1, 2]


def test_the_best_weights_are_those_of_the_best_epoch(
    make_task: MakeTask, tmp_path: Path, tiny: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([0.5, 0.9, 0.7])
    monkeypatch.setattr(Validation, "metrics", lambda self, *what, **how: {"accuracy": next(scores)})
    saved = []
    write = lambda self, kind, _: saved.append(file_name(kind, self.steps.num_epochs))  # noqa: E731
    monkeypatch.setattr(Trainer, "_write_weights", write)
    train(make_task(), tmp_path / "trial", {**tiny, "epochs": 3})
    # The learning rate has come down at the end of the last epoch, so that its weights are kept beside the best ones.
    assert saved == ["best-0001.safetensors", "best-0002.safetensors", "end-0003.safetensors"]


def test_best_weights_give_the_reported_score(make_task: MakeTask, tmp_path: Path, tiny: dict[str, Any]) -> None:
    task = make_task()
    reports, _ = train(task, tmp_path / "trial", {**tiny, "epochs": 4})
    best = max(reports, key=lambda report: report.score)
    trainer = Trainer(task, Recipe.of(tiny), LocalTrialFiles(tmp_path / "again"))
    trainer.network.load_state_dict(load_file(found(tmp_path / "trial", BEST, best.epoch)))
    predictions = trainer.classifier.predict(trainer.validation.batches)
    assert (predictions.argmax(1) == task.val.targets).mean() == best.score


@pytest.mark.parametrize("tta", [False, True])
def test_outputs_of_the_best_epoch_are_written_with_its_weights(
    make_task: MakeTask, tmp_path: Path, tiny: dict[str, Any], tiny_weights: Path, tta: bool
) -> None:
    task, folder = make_task(weights=tiny_weights), tmp_path / "trial"
    reports, _ = train(task, folder, {**tiny, "pretrained": True, "lr": 1e-9, "tta": tta}, until_epoch=1)
    best = max(reports, key=lambda report: (report.score, -report.epoch))
    assert LocalTrialFiles(folder).epochs(0, BEST_OUTPUTS) == [best.epoch]
    outputs = np.load(found(folder, BEST_OUTPUTS, best.epoch))
    assert outputs.shape == (len(task.val.targets), task.problem.num_outputs)
    predictions = task.problem.activate(torch.from_numpy(outputs)).numpy()
    assert task.metric(task.val.targets, predictions, task.problem) == best.score
    trainer = Trainer(task, Recipe.of({**tiny, "tta": tta}), LocalTrialFiles(tmp_path / "again"))
    trainer.network.load_state_dict(load_file(found(folder, BEST, best.epoch)))
    np.testing.assert_allclose(
        predictions, trainer.classifier.predict(trainer.validation.batches), atol=0.02
    )  # in 16 bits


def test_a_refit_has_no_outputs(make_task: MakeTask, tmp_path: Path, tiny: dict[str, Any]) -> None:
    task = make_task()
    train(replace(task, train=task.train.joined(task.val), is_refit=True), tmp_path / "trial", tiny)
    assert found(tmp_path / "trial", BEST, 2)
    assert not list(tmp_path.glob("trial/*/*.npy"))


def test_an_excessive_learning_rate_raises_a_diverged_error(
    make_task: MakeTask, tmp_path: Path, tiny: dict[str, Any]
) -> None:
    with pytest.raises(DivergedError, match=r"the loss became (nan|inf)"):
        train(make_task(), tmp_path / "trial", {**tiny, "opt": "sgd", "lr": 1e30, "warmup_epochs": 0, "epochs": 3})


def test_a_deadline_within_the_first_epoch_leaves_a_validated_network(
    make_task: MakeTask, tmp_path: Path, tiny: dict[str, Any]
) -> None:
    reports, reason = train(make_task(), tmp_path / "trial", {**tiny, "batch_size": 1}, seconds_left=1e-6)
    assert reason == "time limit"
    assert len(reports) == 1
    assert reports[0].metrics["train_part"] < 1
    assert reports[0].checkpoint is None  # part of an epoch cannot be continued exactly
    assert found(tmp_path / "trial", BEST, 1)


def test_a_job_that_starts_after_the_deadline_is_a_probe_on_one_batch(
    make_task: MakeTask,
    make_colours: Callable[..., Any],
    tmp_path: Path,
    tiny: dict[str, Any],
    tiny_weights: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SACCADE_FEATURE_CACHE_GB", "0")  # features that are cached take no time
    task = make_task(make_colours(50), weights=tiny_weights)
    recipe = {**tiny, "pretrained": True, "linear_probe": True}
    reports, reason = train(task, tmp_path / "trial", recipe, seconds_left=-1.0)
    assert reason == "time limit"
    assert [report.epoch for report in reports] == [0]
    assert reports[0].metrics["train_part"] < 0.5
    assert found(tmp_path / "trial", BEST, 0)


def test_early_stopping_ends_a_trial(make_task: MakeTask, tmp_path: Path, tiny: dict[str, Any]) -> None:
    reports, reason = train(make_task(), tmp_path / "trial", {**tiny, "epochs": 50, "early_stop_max_value": 0.5})
    assert "early stop" in reason
    assert len(reports) < 50


def test_too_little_memory_is_an_error_with_what_to_do(
    make_task: MakeTask, tmp_path: Path, tiny: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def allocate(self: Steps, *batch: torch.Tensor) -> tuple[float, float]:
        torch.empty(2**60)  # the allocator itself raises
        return 0.0, 0.0

    monkeypatch.setattr(Steps, "_step", allocate)
    with pytest.raises(OutOfMemoryError, match=r"batch_size=8 does not fit .* smaller batch_size"):
        train(make_task(), tmp_path / "trial", tiny)


def test_mixup_is_refused_for_regression(
    make_task: MakeTask, tmp_path: Path, tiny: dict[str, Any], make_colours
) -> None:
    frame = make_colours(10)
    frame["label"] = [0.5 + index for index in range(len(frame))]
    with pytest.raises(HyperparameterError, match="mixup"):
        Trainer(make_task(frame), Recipe.of({**tiny, "mixup": 0.2}), LocalTrialFiles(tmp_path))


@pytest.mark.parametrize(("batch_size", "is_frozen"), [(8, True), (64, False)])
def test_batch_statistics_of_pretrained_networks_are_kept_when_batches_are_small(
    make_task: MakeTask, tmp_path: Path, tiny: dict[str, Any], tiny_weights: Path, batch_size: int, is_frozen: bool
) -> None:
    recipe = Recipe.of({**tiny, "pretrained": True, "batch_size": batch_size})
    trainer = Trainer(make_task(weights=tiny_weights), recipe, LocalTrialFiles(tmp_path))
    before = {name: tensor.clone() for name, tensor in trainer.network.named_buffers() if "running_mean" in name}
    trainer.steps.take_epoch(trainer_module.Deadline(math.inf))
    changed = any(
        not torch.equal(before[name], tensor) for name, tensor in trainer.network.named_buffers() if name in before
    )
    assert changed is not is_frozen


def test_images_per_epoch_draws_other_images_each_epoch(
    make_task: MakeTask, tmp_path: Path, tiny: dict[str, Any], tiny_weights: Path
) -> None:
    task = make_task(weights=tiny_weights)
    num = len(task.train.indices)
    most = num // 2 + 1
    parts = {"epochs": 2, "batch_size": 4, "images_per_epoch": most}
    recipe = Recipe.of({**tiny, "pretrained": True, "linear_probe": True, **parts})
    trainer, asked = Trainer(task, recipe, LocalTrialFiles(tmp_path)), []
    vary = trainer.steps.batches._varied
    trainer.steps.batches._varied = lambda seed, row, number: asked.append(row) or vary(seed, row, number)  # type: ignore[method-assign,func-returns-value]
    reports: list[EpochDone] = []
    trainer.run(Job(0, {}), lambda event: reports.append(event) or Decision.CONTINUE)  # type: ignore[func-returns-value]
    assert sorted(asked) == list(range(num))
    assert max_probe_images(recipe, task.problem.num_outputs) == IMAGES_OF_CLASS * 2 > most
    assert [report.metrics["train_part"] for report in reports] == [1.0, 1.0, 1.0]


def test_training_images_grow_and_validation_uses_the_last_size(
    make_task: MakeTask, tmp_path: Path, tiny: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    sides: list[tuple[bool, int]] = []
    trainer = Trainer(make_task(), Recipe.of({**tiny, "epochs": 3, "first_img_size": 16}), LocalTrialFiles(tmp_path))
    trainer.network.register_forward_pre_hook(
        lambda network, inputs: sides.append((network.training, inputs[0].shape[-1]))
    )
    trainer.run(Job(0, {}), lambda event: Decision.CONTINUE)
    in_training = [side for is_training, side in sides if is_training]
    assert in_training[0] == 16
    assert in_training[-1] == 32
    assert {side for is_training, side in sides if not is_training} == {32}
    with pytest.raises(HyperparameterError, match=r"vit_tiny_patch16_224.*cannot take images of 64 pixels"):
        Trainer(
            make_task(),
            Recipe.of({**tiny, "model": "vit_tiny_patch16_224", "img_size": 96, "first_img_size": 64}),
            tmp_path,
        )
    with pytest.raises(HyperparameterError, match="first_img_size requires the built-in augmentation"):
        Recipe.of({**tiny, "first_img_size": 16, "train_transform": lambda x: x})


@pytest.mark.parametrize("imbalance", [{"class_weight": {"red": 0}}, {"class_weight": {"red": 0}, "mixup": 0.5}])
def test_a_class_of_weight_0_has_no_effect(
    make_task: MakeTask, tmp_path: Path, tiny: dict[str, Any], imbalance: dict[str, Any]
) -> None:
    task = make_task()
    trainer = Trainer(task, Recipe.of({**tiny, "epochs": 8, "lr": 0.02, **imbalance}), LocalTrialFiles(tmp_path))
    assert trainer.steps.class_weights is not None
    assert trainer.steps.class_weights[1] == 0
    trainer.run(Job(0, {}), lambda event: Decision.CONTINUE)
    assert (trainer.classifier.predict(trainer.validation.batches).argmax(1) == 0).all()


def test_images_of_weight_0_have_no_effect(make_task: MakeTask, tmp_path: Path, tiny: dict[str, Any]) -> None:
    task = make_task()
    weights = np.where(task.train.targets == 1, 2.0, 0.0).astype(np.float32)
    task = replace(task, train=replace(task.train, weights=weights))
    trainer = Trainer(task, Recipe.of({**tiny, "epochs": 8, "lr": 0.02}), LocalTrialFiles(tmp_path))
    trainer.run(Job(0, {}), lambda event: Decision.CONTINUE)
    assert (trainer.classifier.predict(trainer.validation.batches).argmax(1) == 1).all()


def test_balanced_sampling_draws_a_rare_class_as_often(
    make_task: MakeTask, make_colours: Any, tmp_path: Path, tiny: dict[str, Any]
) -> None:
    frame = make_colours(40)
    frame = frame[(frame["label"] == "blue") | (np.arange(len(frame)) % 8 == 0)]
    trainer = Trainer(make_task(frame), Recipe.of({**tiny, "balanced_sampling": True}), LocalTrialFiles(tmp_path))
    torch.manual_seed(0)
    shown = torch.cat([y for _ in range(10) for _, y in trainer.steps.batches.shuffled()])
    assert 0.4 < shown.float().mean() < 0.6
    assert trainer.task.train.targets.mean() < 0.2


@pytest.mark.parametrize("variant", ["weights", "weights of the recipe", "start", "no store", "fold"])
def test_copies_of_all_files_are_enough_on_another_machine(
    make_task: MakeTask, tmp_path: Path, tiny: dict[str, Any], tiny_weights: Path, variant: str
) -> None:
    task, config = make_task(), {**tiny, "pretrained": True}
    folder = shutil.copytree(tiny_weights, tmp_path / "weights")
    if variant == "weights of the recipe":
        config["weights"] = str(folder / "test_resnet.safetensors")
    else:
        task = replace(task, weights=folder)
    match variant:
        case "start":
            start = Trainer(task, Recipe.of(config), LocalTrialFiles(tmp_path)).network
            task = replace(task, weights=None, start=tmp_path / "start.safetensors")
            write_weights(task.start, start.state_dict())
        case "no store":
            paths = sorted((tmp_path / "colours_0").rglob("*.png"))
            streamed = StreamedStore([*map(str, paths), b"no image"], scan_images([*paths, b"no image"]), 36)
            task = replace(task, store=streamed)
    trainable: Trainable = ImageTrainable(task)
    if variant == "fold":
        trainable, config = FoldTrainable(task, np.arange(len(task.train.indices)) % 2), {"fold": 1, "config": config}
    contract = TestImageTrainable()
    contract.config, contract.make = config, lambda tmp_path: trainable  # type: ignore[method-assign, misc]
    contract.test_it_runs_where_only_copies_of_its_files_are(tmp_path)
    _, files = trainable.portable(contract.job(tmp_path))
    expected = task.store.files() + ([task.start] if task.start else [folder / "test_resnet.safetensors"])
    assert list(files) == expected


def test_a_network_without_weights_is_an_error_where_the_search_runs(make_task: MakeTask, tiny: dict[str, Any]) -> None:
    trainable = ImageTrainable(make_task())
    with pytest.raises(WeightsNotFoundError, match="Tried"):
        trainable.portable(Job(0, {**tiny, "pretrained": True}))
    assert trainable.portable(Job(0, tiny))[1] == trainable.task.store.files()
