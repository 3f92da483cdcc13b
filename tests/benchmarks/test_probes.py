from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import probes
from saccade.tasks.problem import Problem


def test_each_way_to_probe_is_judged_by_other_images(
    run_benchmark: Callable[..., Any], tiny_photos: Path, tiny_weights: Path
) -> None:
    options = ("--images-per-class", 2, "all", "--draws", 2)
    figures = run_benchmark(probes.main, "--data", tiny_photos, "--weights", tiny_weights, *options)
    assert list(figures) == ["2", "all"]
    for found in figures.values():
        assert list(found) == list(probes.METHODS)
        assert all(0 <= figure["single"] <= 1 and figure["fit_s"] > 0 for figure in found.values())
    assert len(probes.rows_of(figures)) == 6


def test_neighbours_are_those_in_the_same_direction() -> None:
    x = np.array([[1.0, 0.1], [1.0, 0.0], [0.1, 1.0]])
    problem = Problem.of(list("aab"), "multiclass")
    said = probes.neighbours(x, np.array([0, 0, 1]), np.array([[9.0, 0.5], [0.2, 0.9]]), problem)
    assert said.argmax(1).tolist() == [0, 1]
    assert np.allclose(said.sum(1), 1)
