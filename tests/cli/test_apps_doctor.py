"""The doctor's page, and its exit code."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def no_hub(monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody listens there


def test_each_fact_has_a_line_and_notes_have_advice(saccade):
    result = saccade("doctor")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    heads = {line.split()[1]: line.split()[0] for line in lines if not line.startswith(" ")}
    assert heads["Saccade"] == "OK"
    assert heads["hub"] == "note"
    assert {"device", "memory", "weights"} <= heads.keys()
    hub = next(number for number, line in enumerate(lines) if line.startswith("note     hub"))
    assert lines[hub + 1].strip().startswith("-> ")


def test_a_problem_has_an_exit_code(saccade, monkeypatch, tmp_path):
    monkeypatch.setenv("SACCADE_WEIGHTS", str(tmp_path / "nowhere"))
    result = saccade("doctor")
    assert result.exit_code == 1
    assert "problem  weights" in result.stdout
