"""Frames about predictions agree with scikit-learn and `evaluate`; figures show any classes within bounds."""

from __future__ import annotations

import html
import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.metrics import average_precision_score, precision_recall_fscore_support, roc_auc_score

from saccade.inference.calibration import Calibration
from saccade.inference.evaluation import evaluation, wilson_interval
from saccade.report import prediction_sections as sections
from saccade.report.prediction_sections import PREDICTION_SECTIONS
from saccade.report.style import report_style, svg_of
from saccade.tasks.problem import Problem

ODD = ["👩‍🚀 <b>'x' & \"y\"</b>", "$x^2$ \\alpha", "عربي", "a" * 300, "line\nbreak\x01\ud800"]

Given = tuple[Problem, list[str], np.ndarray, np.ndarray, np.ndarray]


def single(num_images: int, num_classes: int, seed: int = 0, quality: float = 2.0, digits: int = 3) -> Given:
    """Return predictions whose decisions are not all those of the largest probability."""
    rng = np.random.default_rng(seed)
    problem = Problem.of(list(range(num_classes)), "binary" if num_classes == 2 else "multiclass")
    targets = rng.integers(num_classes, size=num_images)
    outputs = rng.normal(size=(num_images, num_classes)) * 2
    outputs[np.arange(num_images), targets] += quality
    p = np.exp(outputs) / np.exp(outputs).sum(1, keepdims=True)
    p = p.round(digits).astype(np.float32)  # with ties
    divided = p / rng.uniform(0.5, 1, num_classes)
    adjusted = (divided / divided.sum(1, keepdims=True)).astype(np.float32)
    return problem, [f"class {number}" for number in range(num_classes)], targets, p, adjusted


def multilabel(num_images: int, num_labels: int, seed: int = 0) -> Given:
    rng = np.random.default_rng(seed)
    problem = Problem.of([list(range(num_labels))], "multilabel")
    targets = (rng.random((num_images, num_labels)) < 0.3).astype(np.float32)
    p = (1 / (1 + np.exp(-rng.normal(size=targets.shape) * 2 - 2 * targets + 1))).round(2).astype(np.float32)
    return problem, [f"label {number}" for number in range(num_labels)], targets, p, np.clip(p * 1.2, 0, 1)


def regression(num_images: int) -> Given:
    rng = np.random.default_rng(0)
    values = rng.normal(10, 3, num_images)
    problem = Problem.of([*values.tolist(), 0.0], "regression")
    predictions = (values + rng.normal(size=num_images))[:, None]
    return problem, [], problem.encode(values.tolist()), predictions, predictions


@st.composite
def classified(draw: st.DrawFn) -> Given:
    size, num, seed = draw(st.integers(1, 40)), draw(st.integers(2, 6)), draw(st.integers(0, 2**31))
    return multilabel(size, num, seed) if draw(st.booleans()) else single(size, num, seed, draw(st.floats(0, 9)))


@given(classified())
def test_numbers_of_classes_are_those_of_scikit_learn(given: Given) -> None:
    problem, names, targets, predictions, adjusted = given
    true, predicted = problem.true_labels(targets), problem.predicted_labels(adjusted)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndefinedMetricWarning)
        expected = precision_recall_fscore_support(true, predicted, labels=range(len(names)), zero_division=np.nan)
    frame = sections.classes_frame(*given)
    assert frame is not None
    for name, values in zip(("precision", "recall", "f1", "images"), expected, strict=True):
        np.testing.assert_allclose(frame.sort_index()[name], values)
        if name != "images":
            known = frame[frame[name].notna()]
            assert (known[f"{name}_low"] <= known[name] + 1e-9).all()
            assert (known[f"{name}_high"] >= known[name] - 1e-9).all()
    assert frame["f1"].dropna().is_monotonic_increasing

    confusion, pairs = sections.confusion_frame(*given), sections.pairs_frame(*given)
    assert confusion is not None
    if problem.has_one_class:
        assert confusion.to_numpy().sum() == len(targets)
        num_wrong = int((~problem.are_right(adjusted, targets)).sum())
        assert num_wrong == (0 if pairs is None else pairs["num"].sum())
        scores = evaluation(targets, predictions, adjusted, problem)
        assert scores["top1"] == pytest.approx(confusion.to_numpy().trace() / len(targets))
        abstention = sections.abstention_frame(*given)
        assert abstention is not None
        assert abstention["accuracy"].iloc[-1] == pytest.approx(scores["top1"])
        assert abstention["min_proba"].is_monotonic_decreasing
    else:
        assert (confusion.sum(axis=1) == len(targets)).all()
        assert pairs is None


@given(classified())
def test_areas_under_curves_are_those_of_scikit_learn(given: Given) -> None:
    problem, names, targets, predictions, _ = given
    columns, true = problem.threshold_columns(predictions), problem.perfect_predictions(targets) > 0
    curves = {
        roc_auc_score: sections.roc_frame(*given),
        average_precision_score: sections.precision_recall_frame(*given),
    }
    for score, frame in curves.items():
        if columns is None:
            assert frame is None
            continue
        true = true[:, -columns.shape[1] :]
        drawn = [number for number in range(columns.shape[1]) if 0 < true[:, number].sum() < len(true)]
        areas = {} if frame is None else sections.curve_areas(frame).to_dict()
        labels = names[-columns.shape[1] :]
        assert areas == pytest.approx({labels[k]: score(true[:, k], columns[:, k]) for k in drawn})


@given(classified(), st.floats(0.5, 2.5), st.booleans())
def test_calibration_errors_are_those_of_evaluate_and_of_uncalibrated_predictions(
    given: Given, temperature: float, has_prior: bool
) -> None:
    problem, names, targets, raw, _ = given
    raw = np.clip(raw, 1e-3, 0.999)
    raw = raw / raw.sum(1, keepdims=True) if problem.has_one_class else raw
    prior = tuple((np.arange(1, len(names) + 1) / np.arange(1, len(names) + 1).sum()).tolist())
    calibration = Calibration(temperature, class_prior=prior if has_prior else (), logit_adjustment=0.7 * has_prior)
    predictions = calibration.apply(raw, problem)
    undone = calibration.undo(predictions, problem)
    np.testing.assert_allclose(undone, raw, atol=3e-3)  # near 1, probabilities of labels are rounded to 6e-8

    frame = sections.reliability_frame(problem, targets, predictions, calibration)
    assert frame is not None
    for stage, part in frame.groupby("stage"):
        p = undone if stage == "before calibration" else predictions
        assert part["ece"].iloc[0] == pytest.approx(evaluation(targets, p, p, problem, detailed=True)["ece"])
        assert part["num"].sum() == len(targets) * (1 if problem.has_one_class else len(names))
        if problem.has_one_class:
            gaps = part["num"] * (part["observed"] - part["probability"]).abs()
            assert gaps.sum() / len(targets) == pytest.approx(part["ece"].iloc[0], abs=1e-6)


@given(st.integers(1, 50), st.integers(0, 50))
def test_intervals_of_proportions_are_wilsons(num: int, num_right: int) -> None:
    num_right = min(num, num_right)
    expected = binomtest(num_right, num).proportion_ci(0.95, "wilson")
    np.testing.assert_allclose(wilson_interval(np.array(num_right), np.array(num)), expected, atol=1e-12)


CASES = {
    "binary": single(200, 2),
    "names": (*single(300, 5)[:1], ODD, *single(300, 5)[2:]),
    "whole matrix": single(600, 30),
    "1,000 classes": single(4000, 1000, quality=5),
    "three images": single(3, 4),
    "all are right": single(40, 3, quality=90),
    "multilabel": multilabel(200, 5),
    "many labels": multilabel(300, 40),
    "regression": regression(200),
    "many numbers": regression(4000),
}


@pytest.mark.parametrize("case", CASES)
def test_figures_are_drawn_from_their_frames_alone_and_stay_small(case: str) -> None:
    problem, names, targets, predictions, _ = CASES[case]
    frames: dict[str, pd.DataFrame | None] = {
        "confusion": sections.confusion_frame(*CASES[case]),
        "confused_pairs": sections.pairs_frame(*CASES[case]),
        "classes": sections.classes_frame(*CASES[case]),
        "roc": sections.roc_frame(*CASES[case]),
        "precision_recall": sections.precision_recall_frame(*CASES[case]),
        "reliability": sections.reliability_frame(problem, targets, predictions, Calibration(1.3)),
        "abstention": sections.abstention_frame(*CASES[case]),
        "residuals": sections.residuals_frame(*CASES[case]),
    }
    texts = ""
    for section in PREDICTION_SECTIONS:
        if (frame := frames.get(section.name)) is None:
            continue
        assert section.plot is not None
        with report_style():
            svg = svg_of(section.plot(frame), section.name)
        assert len(svg) < 200_000, section.name
        assert section.summary(frame).endswith(".")
        texts += svg
    if case == "names":
        assert all(sections.short_name(name) in html.unescape(texts) for name in names)
    texts.encode()  # no surrogates


def test_a_bootstrap_that_takes_too_long_gives_no_intervals() -> None:
    problem, _, targets, predictions, adjusted = single(50, 3)
    options: dict[str, Any] = {"interval": 0.95, "detailed": True}
    whole = evaluation(targets, predictions, adjusted, problem, **options)
    stopped = evaluation(targets, predictions, adjusted, problem, **options, bootstrap_s=-1)
    assert np.isfinite(whole["ece_interval"]).all()
    assert np.isnan(stopped["ece_interval"]).all()
    assert stopped["ece"] == whole["ece"]
