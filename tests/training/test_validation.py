from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from saccade.deadline import Deadline
from saccade.errors import DataError
from saccade.training.classifier import Classifier, new_classifier
from saccade.training.device import Numerics
from saccade.training.metrics import make_metric
from saccade.training.recipe import Recipe
from saccade.training.task import ImageTask
from saccade.training.validation import Validation


@pytest.fixture
def by_class(make_task: Any) -> ImageTask:
    """Return a task whose validation images come class by class."""
    task = make_task()
    order = np.argsort(task.val.targets, kind="stable")
    return replace(task, val=replace(task.val, indices=task.val.indices[order], targets=task.val.targets[order]))


def classifier_for(task: ImageTask, tiny: dict[str, Any]) -> Classifier:
    return new_classifier(Recipe.of(tiny), task.problem, Numerics.choose(torch.device("cpu"), amp=False), None)


def test_figures_are_of_the_images_that_the_deadline_leaves(by_class: ImageTask, tiny: dict[str, Any]) -> None:
    classifier = classifier_for(by_class, tiny)
    validation = Validation(classifier, by_class, batch_size=2)
    figures = validation.figures(classifier.network, Deadline(math.inf))
    outputs = validation.outputs
    assert outputs is not None
    assert figures["accuracy"] == (outputs.argmax(1) == by_class.val.targets).mean()
    validation.figures(classifier.network, Deadline(1e-9))
    assert validation.outputs is not None
    np.testing.assert_allclose(validation.outputs, outputs[:2], rtol=1e-4, atol=1e-5)


def test_a_metric_that_part_of_the_images_leaves_undefined_is_judged_on_all(
    by_class: ImageTask, tiny: dict[str, Any]
) -> None:
    task = replace(by_class, metric=make_metric("roc_auc", by_class.problem))
    classifier = classifier_for(task, tiny)
    validation = Validation(classifier, task, batch_size=2)
    figures = validation.figures(classifier.network, Deadline(1e-9))  # leaves images of one class
    assert figures == validation.figures(classifier.network, Deadline(math.inf))
    alone = replace(task.val, indices=task.val.indices[:2], targets=task.val.targets[:2])
    with pytest.raises(DataError, match="roc_auc"):  # nothing helps where all images are of one class
        Validation(classifier, replace(task, val=alone), 2).figures(classifier.network, Deadline(math.inf))
