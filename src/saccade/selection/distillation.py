"""Distillation: a small, fast network is trained on the predictions of a predictor, its teacher.

The loss is the cross entropy with a mean of the label and the teacher's probabilities, which are softened by a
temperature (Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015). Probabilities of linear
probes are out-of-fold: on images that a head was fitted to, they show little but the label. The student is otherwise a
trial like others: a linear probe, then training with augmentation, validated on the validation images.
"""

from __future__ import annotations

import contextlib
import math
import tempfile
import time
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from saccade.data.examples import ImageLike
from saccade.data.store.on_demand import OnDemandImages
from saccade.deadline import Deadline
from saccade.errors import SaccadeError
from saccade.events import CV_SCORE, EpochDone, Event, JobDone, JobFailed, Listener, Progressed, Warned
from saccade.executor import Executor
from saccade.inference.classifier import empty_classifier, load_weights
from saccade.inference.postprocessing import weighted_mean
from saccade.inference.preprocessing import Preprocess
from saccade.inference.saved import SavedPredictor
from saccade.models.weights import weights_place
from saccade.numerics.device import Numerics, choose_device
from saccade.selection.candidates import Candidate, activate, best_epoch
from saccade.selection.combination import Combination
from saccade.selection.ensemble import evaluate, score_error
from saccade.space import Dict
from saccade.study.objectives import trial_costs
from saccade.study.study import GRACE_S
from saccade.study.trial import Decision, Job, Status, Trial
from saccade.study.trial_files import LocalTrialFiles
from saccade.tasks.problem import Problem
from saccade.training.recipes.building import new_classifier
from saccade.training.recipes.recipe import Recipe, choices
from saccade.training.task import ImageTask, Split
from saccade.training.trial.network_costs import network_costs
from saccade.training.trial.trainer import ImageTrainable

SPEEDUP = 5.0  # throughput of the student relative to the teacher, at least, where a network allows it
MAX_PROBED = 3  # networks that are probed, among which the student is chosen
LEAST_SIDE, LEAST_PART_OF_SIDE = 64, 0.5  # of the student's images: in pixels, and relative to the network's own size
MEASURING_PART, TARGETS_PART, PROBES_PART = 0.1, 0.3, 0.4  # of the time that is left, one after the other
TEMPERATURE = 4.0  # divides the teacher's outputs
TEACHER_PART = 0.5  # of the teacher in the mean with the label
EPOCHS = 30  # of the student; the deadline may allow fewer
TOLERANCE = 0.01  # of the score; the summary says where the student is worse by more
DECODED_IMAGES, DECODING_S = 32, 0.5  # the most images, and seconds, for measuring how long decoding takes

_PLAIN: dict[str, Any] = {"smoothing": 0.0, "mixup": 0.0, "cutmix": 0.0, "first_img_size": None}
"""Hyperparameters of the student, if they are given; soft targets take the place of other changes of the labels."""


def distill(
    executor: Executor,
    task: ImageTask,
    teacher: Combination,
    trials: Sequence[Trial],
    space: Dict,
    folder: Path,
    deadline: Deadline,
    notify: Listener,
    given: Collection[str] = (),
    unlabeled: np.ndarray | None = None,
) -> Combination | None:
    """Return the student of a search with these trials; None, after a warning, if none could be trained.

    It is the network of the `space` that probes best among those with `SPEEDUP` times the teacher's throughput, at
    lower resolution if necessary, or else the fastest one. Hyperparameters that the user has `given` are kept.
    It also learns the teacher's predictions for `unlabeled` images, given as positions in the store.
    """
    costs = trial_costs(trials, ["image_ms"])
    teacher_ms = sum(costs[one.trial]["image_ms"] for one in teacher.members)
    changes = {"robust_loss": 0.0, **({} if "epochs" in given else {"epochs": EPOCHS})}
    measuring = deadline.within(MEASURING_PART * deadline.seconds_left())
    configs = [
        {**config, **{name: value for name, value in _PLAIN.items() if name in config}, **changes}
        for config in _configs(space, task, trials, teacher_ms, measuring, given)
    ]
    left = deadline.within(TARGETS_PART * deadline.seconds_left())
    train = replace(task.train, soft=soft_targets(teacher, task, left))
    others = np.setdiff1d(np.zeros(0, np.int64) if unlabeled is None else unlabeled, train.indices)
    if len(others) and left.seconds_left() > 0:
        train = _with_predicted(train, others, teacher, task, left)
    task = replace(task, train=train, start=None)
    executor.trainable = ImageTrainable(task)
    students: list[Trial] = []
    probes = deadline.within(PROBES_PART * deadline.seconds_left())
    recipe = Recipe.of(configs[0])
    has_probe = recipe.starts_pretrained and recipe.linear_probe
    for place, config in enumerate(configs[:MAX_PROBED] if has_probe else ()):
        if students and probes.seconds_left() <= 0:
            break
        student = Trial(len(trials), config, LocalTrialFiles(folder / str(place)))
        _train(executor, student, probes, notify, until_epoch=0)
        students += [student] if student.reports else []
    if not students:
        students = [Trial(len(trials), configs[0], LocalTrialFiles(folder / "0"))]
    fast = [each for each in students if each.reports and _image_ms(each) * SPEEDUP <= teacher_ms]
    student = max(fast, key=_probe_score) if fast else min(students, key=_image_ms)
    if deadline.seconds_left() > 0 or not student.reports:
        _train(executor, student, deadline, notify)
    if student.best_report is None:
        reason = student.failure.reason if student.failure else "no time was left"
        notify(Warned(f"no student was trained ({reason}); the predictor is the one that it would have learned from"))
        return None
    student.note = "student: see fit_summary()['distillation']"
    student.status = Status.COMPLETED if student.num_epochs == student.config.get("epochs") else Status.STOPPED
    return replace(Combination.single(best_epoch(student, task), task), teacher=teacher, student=student)


def soft_targets(teacher: Combination, task: ImageTask, deadline: Deadline) -> np.ndarray:
    """Return targets for the training images, float32 of shape (num_images, num_outputs).

    After the deadline, they are the labels alone for images that no network has predicted.
    """
    train, problem = task.train, task.problem
    total = np.zeros((len(train.targets), problem.num_outputs))
    weights = np.zeros(len(total))
    for one, weight in zip(teacher.members, teacher.weights, strict=True):
        rows = np.arange(len(total))
        if one.probe is not None:
            rows, predictions = one.probe.rows[one.probe.rows < len(total)], activate(one.probe.unseen, problem)
        else:
            predictions = _predictions(one, task, train.indices, deadline)
        rows, predictions = rows[: len(predictions)], predictions[: len(rows)]
        total[rows] += weight * predictions
        weights[rows] += weight
    labels = problem.soft_targets(torch.as_tensor(train.targets)).numpy().copy()
    known = weights > 0
    mean = total[known] / weights[known, None]
    soft = _softened(mean, problem) if problem.has_classes else problem.encode(mean[:, 0])[:, None]
    labels[known] = TEACHER_PART * soft + (1 - TEACHER_PART) * labels[known]
    return np.asarray(labels)


def _softened(predictions: np.ndarray, problem: Problem) -> np.ndarray:
    return np.asarray(problem.probabilities(problem.logits(torch.from_numpy(predictions)) / TEMPERATURE).numpy())


def _with_predicted(
    train: Split, others: np.ndarray, teacher: Combination, task: ImageTask, deadline: Deadline
) -> Split:
    """Return the images of `train` and `others`, with the teacher's predictions as targets; fewer after the deadline.

    Each image has one class.
    """
    found = [
        _predictions(one, task, others, deadline.within(deadline.seconds_left() / (len(teacher.members) - number)))
        for number, one in enumerate(teacher.members)
    ]
    num = min(map(len, found))
    mean = weighted_mean([each[:num] for each in found], teacher.weights)
    soft = _softened(mean, task.problem).astype(np.float32)
    return train.extended(others[:num], mean.argmax(1), np.ones(num, np.float32), soft)


def _predictions(one: Candidate, task: ImageTask, indices: np.ndarray, deadline: Deadline) -> np.ndarray:
    """Return the predictions of a network for images of the store, fewer after the deadline."""
    numerics = Numerics.choose(choose_device(task.device), one.config.get("amp"))
    classifier = empty_classifier(one.blueprint, task.problem, numerics, one.own_network)
    with tempfile.TemporaryDirectory() as folder:
        one.write_weights(Path(folder) / "weights.safetensors", task)
        load_weights(classifier.network, Path(folder) / "weights.safetensors")
    classifier.network.eval()
    classifier.fuse(len(indices))
    batches = classifier.batches(task.store, indices)
    return activate(classifier.outputs(batches, seconds_left=deadline.seconds_left), task.problem)


def _configs(
    space: Dict,
    task: ImageTask,
    trials: Sequence[Trial],
    teacher_ms: float,
    deadline: Deadline,
    given: Collection[str],
) -> list[dict[str, Any]]:
    """Return the configurations of possible students, those of which most is expected first; at least one.

    Each network has the largest images with which it is fast enough. If none is, the one that takes the least time.
    """
    known = {repr(trial.config.get("model")): trial for trial in sorted(trials, key=_probe_score) if trial.reports}
    networks = choices(space, "model")
    tried = sorted(
        (each for each in networks if repr(each) in known), key=lambda each: -_probe_score(known[repr(each)])
    )
    found: list[tuple[bool, float, dict[str, Any]]] = []  # whether it is fast enough, its milliseconds, and itself
    for model in [*tried, *(each for each in reversed(networks) if repr(each) not in known)]:
        trial = known.get(repr(model))
        config = {**space.default, "model": model}
        if trial is not None and trial.best_report is not None and trial.best_report.epoch:
            config = dict(trial.config)
        if trial is None and (_is_remote(config, task) or (found and deadline.seconds_left() <= 0)):
            continue
        with contextlib.suppress(SaccadeError):  # a network that cannot be built is not a student
            side, image_ms = _side_and_time(config, task, trial)
            part = math.sqrt(min(1.0, teacher_ms / (SPEEDUP * image_ms)))  # time grows with the area
            may_shrink = isinstance(model, str) and "img_size" not in given
            smaller = _smaller_side(side, part) if may_shrink else side
            if smaller < side:
                config["img_size"] = smaller
            found.append((smaller <= part * side, image_ms * (smaller / side) ** 2, config))
    fast = [config for is_fast, _, config in found if is_fast]
    return fast or [min(found, key=lambda each: each[1])[2] if found else dict(space.default)]


def _smaller_side(side: int, part: float) -> int:
    """Return the largest multiple of 32 up to a part of the side, and no less than networks see much with."""
    least = max(LEAST_SIDE, LEAST_PART_OF_SIDE * side)
    return side if part == 1 else min(side, 32 * max(math.floor(part * side / 32), math.ceil(least / 32)))


def _is_remote(config: dict[str, Any], task: ImageTask) -> bool:
    """Return whether the weights of a network would have to be downloaded, or do not exist."""
    model, folder = config["model"], config.get("weights") or task.weights
    if not isinstance(model, str) or not config.get("pretrained", True) or (folder and Path(folder).is_file()):
        return False
    return weights_place(model, folder) in ("hub", "none")


def _side_and_time(config: dict[str, Any], task: ImageTask, trial: Trial | None) -> tuple[int, float]:
    """Return the image size of a network, and milliseconds of an image: as its trial has measured, or now."""
    recipe = Recipe.of(config).model_copy(update={"pretrained": False, "weights": None})
    numerics = Numerics.choose(choose_device(task.device), recipe.amp)
    classifier = new_classifier(recipe, task.problem, numerics, is_loaded_next=True)
    measured = math.inf if trial is None else _image_ms(trial)
    if math.isinf(measured):
        batches = classifier.batches(task.store, task.train.indices)
        measured = network_costs(classifier, ["image_ms"], batches)["image_ms"]
    return classifier.blueprint.input.img_size, measured


def _probe_score(trial: Trial) -> float:
    """Return the highest score of a trial's reports: cross-validated, where there is such a score."""
    return max((report.metrics.get(CV_SCORE, report.score) for report in trial.reports), default=-math.inf)


def _image_ms(trial: Trial) -> float:
    return min((report.metrics.get("image_ms", math.inf) for report in trial.reports), default=math.inf)


def _train(
    executor: Executor, student: Trial, deadline: Deadline, notify: Listener, until_epoch: int | None = None
) -> None:
    """Train up to an epoch or the deadline, and add the reports to the trial."""
    num_epochs = Recipe.of(student.config).epochs

    def handle(event: Event) -> Decision:
        match event:
            case EpochDone():
                student.add(event)
                notify(Progressed("distillation", event.epoch, num_epochs))
            case JobDone(reason=reason):
                student.note = reason
            case JobFailed():
                student.failure = event
        return Decision.CONTINUE

    checkpoint = student.reports[-1].checkpoint if student.reports else None
    job = Job(student.number, student.config, until_epoch, checkpoint, deadline.seconds_left(), student.files)
    executor.submit(job)
    executor.run_within_limits(handle, lambda: {student.number: deadline.seconds_left() + GRACE_S})


def distillation_summary(
    student: SavedPredictor,
    teacher: SavedPredictor,
    combination: Combination,
    task: ImageTask,
    trials: Sequence[Trial],
    images: Sequence[ImageLike],
) -> dict[str, Any]:
    """Return the entries of the summary that compare both on the validation images, whose sources are `images`."""
    assert combination.teacher is not None
    targets, problem, metric, groups = task.val.targets, task.problem, task.metric, task.val.groups
    costs = trial_costs(trials, ["image_ms", "latency_ms"])
    rows = {}
    for name, saved in (("student", student), ("teacher", teacher)):
        times = {
            cost: sum(costs[one.trial].get(cost, math.nan) for one in saved.members)
            for cost in ("image_ms", "latency_ms")
        }
        forms = {(Preprocess(one.blueprint.input).shorter_side, one.blueprint.in_chans) for one in saved.members}
        decode_ms = sum(_decode_ms(images, *form, saved.pixel_range) for form in forms)
        rows[name] = {
            "networks": [f"{one.blueprint.name} ({one.blueprint.input.img_size} px)" for one in saved.members],
            "valid_score": saved.summary["valid_score"],
            "images_per_s": _rounded(1000 / times["image_ms"]),
            "files_per_s": _rounded(1000 / (times["image_ms"] + decode_ms)),
            "latency_ms": _rounded(times["latency_ms"]),
        }
    adjusted = [
        evaluate(each.predictions, targets, problem, metric, groups=groups).adjusted
        for each in (combination, combination.teacher)
        if len(each.predictions) == len(targets)
    ]
    error = score_error(adjusted[0], adjusted[1], targets, problem, metric, groups) if len(adjusted) == 2 else math.nan
    one, two = rows["student"], rows["teacher"]
    difference = one["valid_score"] - two["valid_score"]

    def shown(row: dict[str, Any]) -> str:
        return (
            f"{metric.name} {metric.score(row['valid_score']):.4g}, {row['images_per_s']:g} images/s without decoding, "
            f"{row['files_per_s']:g} with it, {row['latency_ms']:g} ms for one image"
        )

    text = f"student {one['networks'][0]}: {shown(one)}; teacher {', '.join(two['networks'])}: {shown(two)}"
    return {
        "result": text,
        "why_not_best_trial": "the student is trained on the predictions of the teacher, and faster",
        "distillation": {
            **rows,
            "teacher_path": str(teacher.folder),
            "difference": difference,
            "difference_error": error,
            "tolerance": TOLERANCE,
            "num_validation_images": len(targets),
        },
    }


def loss_message(summary: dict[str, Any]) -> str:
    """Return the warning that the student is worse than the teacher, or slower than planned; "" if it is neither."""
    found = summary["distillation"]
    texts = []
    if found["difference"] < -TOLERANCE:
        texts.append(
            f"its score is lower by {-found['difference']:.4f} ± {found['difference_error']:.4f} on "
            f"{found['num_validation_images']} validation images, more than {TOLERANCE:g}"
        )
    speedup = found["student"]["images_per_s"] / found["teacher"]["images_per_s"]
    if speedup < SPEEDUP:
        texts.append(f"its throughput is only {speedup:.1f} times as high; no network of the search is faster")
    if not texts:
        return ""
    advice = "Increase time_limit, or use the teacher: ImagePredictor.load"
    return f"The student differs from the teacher: {' and '.join(texts)}. {advice}({found['teacher_path']!r})"


def _decode_ms(images: Sequence[ImageLike], shorter_side: int, channels: int, pixel_range: Any) -> float:
    """Return the milliseconds of decoding an image in one thread, the mean over some of them."""
    decoded = OnDemandImages(images, shorter_side, channels, pixel_range=pixel_range)
    start_s, num = time.perf_counter(), 0
    while num < min(DECODED_IMAGES, len(images)) and (not num or time.perf_counter() - start_s < DECODING_S):
        _ = decoded[num]
        num += 1
    return 1000 * (time.perf_counter() - start_s) / max(1, num)


def _rounded(value: float) -> float:
    return float(f"{value:.3g}")
