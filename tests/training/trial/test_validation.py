from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from saccade.deadline import Deadline
from saccade.errors import DataError
from saccade.events import CV_SCORE
from saccade.inference.classifier import Classifier
from saccade.numerics.device import Numerics
from saccade.tasks.metrics import make_metric
from saccade.training.probes.probe import fit_head
from saccade.training.recipes.building import new_classifier
from saccade.training.recipes.recipe import Recipe
from saccade.training.task import ImageTask
from saccade.training.trial.validation import Validation


@pytest.fixture
def by_class(make_task: Any) -> ImageTask:
    """Return a task whose validation images come class by class."""
    task = make_task()
    order = np.argsort(task.val.targets, kind="stable")
    return replace(task, val=replace(task.val, indices=task.val.indices[order], targets=task.val.targets[order]))


def classifier_for(task: ImageTask, tiny: dict[str, Any]) -> Classifier:
    return new_classifier(Recipe.of(tiny), task.problem, Numerics.choose(torch.device("cpu"), amp=False), None)


def test_metrics_are_of_the_images_before_the_deadline(by_class: ImageTask, tiny: dict[str, Any]) -> None:
    classifier = classifier_for(by_class, tiny)
    validation = Validation(classifier, by_class, batch_size=2)
    figures = validation.metrics(classifier.network, Deadline(math.inf))
    outputs = validation.outputs
    assert outputs is not None
    assert figures["accuracy"] == (outputs.argmax(1) == by_class.val.targets).mean()
    validation.metrics(classifier.network, Deadline(1e-9))
    assert validation.outputs is not None
    np.testing.assert_allclose(validation.outputs, outputs[:2], rtol=1e-4, atol=1e-5)


def test_a_metric_that_is_undefined_on_part_of_the_images_uses_all(by_class: ImageTask, tiny: dict[str, Any]) -> None:
    task = replace(by_class, metric=make_metric("roc_auc", by_class.problem))
    classifier = classifier_for(task, tiny)
    validation = Validation(classifier, task, batch_size=2)
    figures = validation.metrics(classifier.network, Deadline(1e-9))  # leaves images of one class
    assert figures == validation.metrics(classifier.network, Deadline(math.inf))
    alone = replace(task.val, indices=task.val.indices[:2], targets=task.val.targets[:2])
    with pytest.raises(DataError, match="roc_auc"):  # nothing helps where all images are of one class
        Validation(classifier, replace(task, val=alone), 2).metrics(classifier.network, Deadline(math.inf))


def test_the_cv_score_of_a_probe_includes_out_of_fold_training_images(
    make_task: Any, make_colours: Any, tiny_weights: Path
) -> None:
    task = replace(make_task(make_colours(20)), is_holdout=True)
    recipe = Recipe.of({"model": "test_resnet", "img_size": 32})
    classifier = new_classifier(recipe, task.problem, Numerics(torch.device("cpu")), tiny_weights)
    probe = fit_head(classifier, task.store, task.train, lambda: math.inf)
    assert probe is not None
    assert probe.held_out is not None
    validation = Validation(classifier, task, batch_size=8)
    assert validation.cv_score(probe) == {}  # it was not judged yet
    validation.metrics(classifier.network, Deadline(math.inf), is_probe=True)
    assert validation.outputs is not None
    num_right = (probe.held_out.argmax(1) == task.train.targets[probe.rows]).sum()
    num_right += (validation.outputs.argmax(1) == task.val.targets).sum()
    expected = num_right / (len(probe.rows) + len(task.val.targets))
    assert validation.cv_score(probe) == {CV_SCORE: pytest.approx(expected)}
    assert validation.cv_score(replace(probe, held_out=None)) == {}
    given = Validation(classifier, replace(task, is_holdout=False), batch_size=8)
    given.metrics(classifier.network, Deadline(math.inf), is_probe=True)
    assert given.cv_score(probe) == {}
