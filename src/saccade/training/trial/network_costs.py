"""Costs of using a network: latency on this machine, number of parameters, bytes of the weights."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

import torch

from saccade.inference.classifier import Blueprint, Classifier

_MEASURED_S, _MAX_RUNS, _MIN_RUNS = 0.3, 30, 3

_latencies_ms: dict[tuple[Blueprint, str, int], float] = {}


def network_costs(classifier: Classifier, names: Sequence[str]) -> dict[str, float]:
    """Return costs by name: ``latency_ms`` (of one image), ``num_params`` and ``num_bytes`` (of the weights)."""
    costs = {}
    for name in names:
        if name == "latency_ms":
            costs[name] = latency_ms(classifier)
        elif name == "num_params":
            costs[name] = float(sum(parameter.numel() for parameter in classifier.network.parameters()))
        elif name == "num_bytes":
            costs[name] = float(sum(t.numel() * t.element_size() for t in classifier.network.state_dict().values()))
        else:
            raise ValueError(f"unknown cost {name!r}; expected latency_ms, num_params or num_bytes")
    return costs


@torch.inference_mode()
def latency_ms(classifier: Classifier) -> float:
    """Return the milliseconds of predicting one image, decoding excluded; the network is in evaluation mode afterwards.

    The median of several forward passes in the numerics of inference. It does not depend on the weights, so each
    architecture is measured once per process.
    """
    key = (classifier.blueprint, repr(classifier.inference), torch.get_num_threads())
    if key in _latencies_ms:
        return _latencies_ms[key]
    side = classifier.blueprint.input.img_size
    x_BCHW = torch.zeros(1, classifier.blueprint.in_chans, side, side, device=classifier.numerics.device)
    x_BCHW = x_BCHW.contiguous(memory_format=torch.channels_last)  # as batches are, in any memory format
    classifier.network.eval()
    times_s: list[float] = []
    start_s = time.perf_counter()
    while len(times_s) <= _MIN_RUNS or (
        len(times_s) <= _MAX_RUNS and time.perf_counter() - start_s < _MEASURED_S + times_s[0]
    ):
        run_start_s = time.perf_counter()
        with classifier.inference.threads(), classifier.inference.autocast():
            outputs = classifier.network(x_BCHW)
        classifier.problem.activate(outputs).cpu()  # waits for the device
        times_s.append(time.perf_counter() - run_start_s)
    _latencies_ms[key] = 1000 * statistics.median(times_s[1:])  # the first run includes a warm-up
    return _latencies_ms[key]
