"""Tables of the benchmarks of unlabeled images and of students."""

from __future__ import annotations

from benchmarks import distillation, unlabeled


def test_gains_are_differences_of_the_same_draw_of_labels() -> None:
    fits = [
        {"data": "d", "labels": 5, "without": 0.5, "with": 0.6, "num_used": 90},
        {"data": "d", "labels": 5, "without": 0.7, "with": 0.7, "num_used": 0},
    ]
    (row,) = unlabeled.rows_of(fits)
    assert row == ["d", "5", "2", "0.6000 ± 0.1000", "0.6500 ± 0.0500", "0.0500 ± 0.0500", "1 of 2", "90"]


def test_students_are_compared_with_the_teacher_of_the_same_seed() -> None:
    shared = {"data": "d", "limit": 60.0, "images_per_s": 50.0, "files_s": 40.0, "latency_ms": 3.0, "networks": ["a"]}
    fits = [
        {**shared, "kind": kind, "seed": seed, "top1": top1}
        for kind, seed, top1 in (("teacher", 0, 0.9), ("student", 0, 0.88), ("teacher", 1, 0.8), ("student", 1, 0.8))
    ]
    teacher, student = distillation.rows_of(fits)
    assert teacher[8] == "0.0000 ± 0.0000"
    assert student[4:9] == ["0.8400 ± 0.0400", "50", "40", "3", "0.0100 ± 0.0100"]
