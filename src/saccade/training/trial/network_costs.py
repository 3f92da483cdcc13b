"""What a network costs whoever uses it: time for an image on this machine, parameters, bytes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

import torch

from saccade.inference.classifier import Blueprint, Classifier

_MEASURED_S, _MAX_RUNS, _MIN_RUNS = 0.3, 30, 3

_measured_ms: dict[tuple[Blueprint, str, int], float] = {}


def network_costs(classifier: Classifier, names: Sequence[str]) -> dict[str, float]:
    """Return some of the figures ``latency_ms`` (of an image), ``num_params`` and ``num_bytes`` (of the weights).

    Examples
    --------
    >>> from saccade.training.recipes.building import new_classifier
    >>> from saccade.numerics.device import Numerics, choose_device
    >>> from saccade.tasks.problem import Problem
    >>> from saccade.training.recipes.recipe import Recipe
    >>> recipe = Recipe(model="test_resnet", pretrained=False)
    >>> classifier = new_classifier(recipe, Problem.of(["cat", "dog"]), Numerics(choose_device()))
    >>> network_costs(classifier, ["num_params"])
    {'num_params': 372882.0}
    """
    return {name: _FIGURES[name](classifier) for name in names}


def num_params(classifier: Classifier) -> float:
    """Return how many parameters the network has."""
    return float(sum(parameter.numel() for parameter in classifier.network.parameters()))


def num_bytes(classifier: Classifier) -> float:
    """Return how many bytes its weights take."""
    state = classifier.network.state_dict()
    return float(sum(tensor.numel() * tensor.element_size() for tensor in state.values()))


def latency_ms(classifier: Classifier) -> float:
    """Return the milliseconds that a network takes for one image, decoding not included.

    It is the median of some forward passes of a single image, in the numbers in which predictions are made. A network
    is measured once in a process: its weights do not matter.

    Parameters
    ----------
    classifier : Classifier
        The network, which is in evaluation mode afterwards.
    """
    key = (classifier.blueprint, repr(classifier.inference), torch.get_num_threads())
    if key not in _measured_ms:
        _measured_ms[key] = 1000 * _forward_s(classifier)
    return _measured_ms[key]


@torch.inference_mode()
def _forward_s(classifier: Classifier) -> float:
    img_size = classifier.blueprint.input.img_size
    x_BCHW = torch.zeros(1, classifier.blueprint.in_chans, img_size, img_size, device=classifier.numerics.device)
    x_BCHW = x_BCHW.contiguous(memory_format=torch.channels_last)  # as batches are, whatever the network's order is
    classifier.network.eval()
    times: list[float] = []
    start_s = time.perf_counter()
    while len(times) <= _MIN_RUNS or (
        len(times) <= _MAX_RUNS and time.perf_counter() - start_s < _MEASURED_S + times[0]
    ):
        run_start_s = time.perf_counter()
        with classifier.inference.threads(), classifier.inference.autocast():
            outputs = classifier.network(x_BCHW)
        classifier.problem.activate(outputs).cpu()  # which waits for the device
        times.append(time.perf_counter() - run_start_s)
    return statistics.median(times[1:])  # the first one also sets things up


_FIGURES: dict[str, Callable[[Classifier], float]] = {
    "latency_ms": latency_ms,
    "num_params": num_params,
    "num_bytes": num_bytes,
}
