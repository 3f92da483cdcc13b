"""Costs of using a network: time of an image on this machine, number of parameters, bytes of the weights."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Sequence

import numpy as np
import torch

from saccade.data.batches import Batches
from saccade.inference.classifier import Blueprint, Classifier
from saccade.inference.pipeline import BATCH_SIZE
from saccade.training.recipes.lora import merged_weights

_MEASURED_S, _MAX_RUNS, _MIN_RUNS = 0.3, 30, 3
_LONGEST_PASS_S = 0.1  # a pass of larger batches is measured only if it takes no longer, as far as is known

_known_ms: dict[tuple[str, Blueprint, str, int], float] = {}


def network_costs(classifier: Classifier, names: Sequence[str], batches: Batches) -> dict[str, float]:
    """Return costs by name, as in `saccade.study.objectives.COSTS`.

    ``image_ms`` is the time of an image in a batch, ``latency_ms`` that of a single image; in both decoding is
    excluded. They do not depend on the weights, so each network is measured at most once per process, on images of
    `batches`. The network is in evaluation mode afterwards.
    """
    costs = {}
    for name in names:
        if name in _MEASURES:
            key = (name, classifier.blueprint, repr(classifier.inference), torch.get_num_threads())
            if key not in _known_ms:
                classifier.network.eval()
                classifier.fuse()
                _known_ms[key] = _MEASURES[name](classifier, batches)
                classifier.unfuse()
            costs[name] = _known_ms[key]
        elif name == "num_params":
            buffers = dict(classifier.network.named_buffers())
            state = merged_weights(classifier.network)
            costs[name] = float(sum(tensor.numel() for key, tensor in state.items() if key not in buffers))
        elif name == "num_bytes":
            costs[name] = float(sum(tensor.nbytes for tensor in merged_weights(classifier.network).values()))
        else:
            raise ValueError(f"unknown cost {name!r}; expected image_ms, latency_ms, num_params or num_bytes")
    return costs


def _image_ms(classifier: Classifier, batches: Batches) -> float:
    """Return the milliseconds of an image in a batch, in the pass of the probe, or else in a short pass."""
    for num in (1, 4, BATCH_SIZE // 2) if math.isinf(classifier.image_s) else ():
        if 2 * num * classifier.image_s < _LONGEST_PASS_S or num == 1:
            indices = np.resize(batches.indices, 2 * num)
            classifier.outputs(classifier.batches(batches.images, indices, batch_size=num))
    return 1000 * classifier.image_s


@torch.inference_mode()
def _latency_ms(classifier: Classifier, batches: Batches) -> float:
    """Return the milliseconds of predicting one image: the median of several passes."""
    del batches
    side = classifier.blueprint.input.img_size
    x_BCHW = torch.zeros(1, classifier.blueprint.in_chans, side, side, device=classifier.numerics.device)
    x_BCHW = x_BCHW.contiguous(memory_format=torch.channels_last)  # as batches are, in any memory format
    times_s: list[float] = []
    start_s = time.perf_counter()
    while len(times_s) <= _MIN_RUNS or (
        len(times_s) <= _MAX_RUNS and time.perf_counter() - start_s < _MEASURED_S + times_s[0]
    ):
        run_start_s = time.perf_counter()
        with classifier.inference.threads():
            classifier.problem.activate(classifier.forward(x_BCHW).cpu())  # waits for the device
        times_s.append(time.perf_counter() - run_start_s)
    return 1000 * statistics.median(times_s[1:])  # the first run includes a warm-up


_MEASURES = {"image_ms": _image_ms, "latency_ms": _latency_ms}
