"""The lines of the live display, for any course of a run."""

from __future__ import annotations

import os
import sys

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from saccade.events import (
    EpochDone,
    JobDone,
    JobFailed,
    JobStarted,
    NetworksScreened,
    PhaseDone,
    Progressed,
    RunFinished,
    RunPlanned,
    RunStarted,
    TrialCreated,
    Warned,
    WorkerJoined,
    WorkerLost,
)
from saccade.study.display.frame import MAX_LINES, MAX_WIDTH, frame, sparkline
from saccade.study.display.memory import memory_of
from saccade.study.display.state import RunState
from saccade.study.trial import Status, Trial


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def text_of(state: RunState, width: int = 100, **options: bool) -> str:
    return "\n".join(line.plain.rstrip() for line in frame(state, width, 1_500_000_000, **options))


def test_a_run_from_start_to_end() -> None:
    clock = Clock()
    state = RunState(clock=clock)
    assert frame(state, 100) == []
    state(RunStarted("runs/a", 4, 60.0, elapsed_s=2.0))
    state(RunPlanned("binary", "rmse", ["a"], "cpu", "in 2 processes", num_workers=2))
    state(PhaseDone("preparing", 0.0, 3.0, "decoding"))
    clock.now_s = 104.0
    state(Progressed("decoding images", 100, 1000))
    clock.now_s = 106.0
    state(Progressed("decoding images", 500, 1000))
    assert "decoding images" in text_of(state)
    assert "200/s  500 of 1,000 ━━━━━━━━━━━━────────────" in text_of(state)
    state(Progressed("decoding images", 1000, 1000))
    assert "decoding images" not in text_of(state)
    state(PhaseDone("decoding", 3.0, 6.0, "search"))
    state(WorkerJoined(2))
    for number in range(3):
        state(TrialCreated(number, {"model": f"network{number}", "epochs": 4}))
        state(JobStarted(number))
        if number == 0:
            clock.now_s = 116.0
            state(EpochDone(0, 1, -0.5, 8.0, {"rmse": 0.5, "train_s": 4.0, "val_s": 2.0, "num_images": 400.0}))
            state(JobDone(0, "paused"))
    state(Warned("one\nimage"))
    clock.now_s = 120.0
    lines = text_of(state).split("\n")
    assert lines[0].split() == ["saccade", "runs/a", "search", "0:37", "left", "of", "1:00"]
    assert lines[1].startswith("━" * 5)
    assert lines[2] == "■ preparing 3 s  ■ decoding 6 s  ■ training 2 s  ■ validation 1 s  ■ idle 5 s  ■ search 6 s"
    assert lines[3].startswith("3 trials  2 running  1 paused  0 completed  0 stopped  0 failed")
    assert lines[3].endswith("of 4")
    assert lines[4].startswith("best      rmse 0.5000  trial 0  network0  epoch 1  ")
    assert lines[5:] == [
        "memory    1.5 GB",
        "warnings  1: one image",
        f"worker 1  trial 1  network1{'starting ────────────'.rjust(65)}",
        f"worker 2  trial 2  network2{'starting ────────────'.rjust(65)}",
    ]
    assert "═" in text_of(state, has_colours=False).split("\n")[1]
    state(JobFailed(1, "why"))
    state(JobDone(2, "stopped"))
    clock.now_s = 125.0
    assert "worker 1  idle" in text_of(state)
    state(RunFinished(0, -0.5, 28.0, "trial 0, rmse 0.5"))
    clock.now_s = 1e6
    assert text_of(state).split("\n")[0].split() == ["saccade", "runs/a", "finished", "0:28", "in", "all"]
    assert "result    trial 0, rmse 0.5" in text_of(state)
    assert "1 failed" in text_of(state)
    assert "worker" not in text_of(state)


def cluster_of(num_workers: dict[str, int]) -> RunState:
    """Return the state of a search on these nodes, each worker of which has a trial."""
    state = RunState("score", Clock())
    state(RunStarted("runs/a", None, None))
    trial = 0
    for node, num in num_workers.items():
        for _ in range(num):
            state(WorkerJoined(trial + 1, node))
            state(TrialCreated(trial, {"x": trial}))
            state(JobStarted(trial, None, node))
            trial += 1
    return state


def test_workers_of_a_cluster_have_the_name_of_their_node() -> None:
    state = cluster_of({"node-1": 1, "node-2": 1})
    assert "2 workers on 2 nodes" in text_of(state)
    assert "worker 2  trial 1 on node-2  x=1" in text_of(state)
    state(WorkerLost(1, "node-2"))
    state(JobFailed(1, "the worker on node-2 was lost", is_worker_lost=True))
    assert "1 worker on 1 node" in text_of(state)
    assert "worker 1  trial 0 on node-1  x=0" in text_of(state)
    state(JobStarted(1, None, "node-1"))
    state(EpochDone(1, 1, 0.5, node="node-3"))
    assert "trial 1 on node-3" in text_of(state)


def test_one_node_is_not_named_for_each_trial() -> None:
    text = text_of(cluster_of({"node-1": 2}))
    assert "2 workers on 1 node" in text
    assert " on node-1" not in text


def test_many_workers_are_shown_by_node() -> None:
    state = cluster_of({"node-10": 3, "node-2": 3})
    state(JobDone(1, "paused"))
    lines = text_of(state).split("\n")
    assert lines[-2].split(maxsplit=1) == ["node-2", f"trials 3, 4, 5{'3 of 3 workers busy'.rjust(76)}"]
    assert lines[-1].split() == ["node-10", "trials", "0,", "2", "2", "of", "3", "workers", "busy"]
    assert len(frame(cluster_of({f"node-{number}": 8 for number in range(64)}), 80)) <= MAX_LINES


def test_a_search_of_any_function_has_no_phases_and_shows_configurations() -> None:
    clock = Clock()
    state = RunState("score", clock)
    state(RunStarted("", None, None))
    state(TrialCreated(0, {"lr": 0.00123456, "x": 3}))
    state(JobStarted(0))
    clock.now_s = 110.0
    state(EpochDone(0, 1, 0.5, 3.0, {"score": 0.5, "num_images": 100.0}))
    lines = text_of(state).split("\n")
    assert lines[0].endswith("0:10, no time limit")
    assert lines[2] == "■ search 10 s"
    assert "trial 0  lr=0.00123  x=3" in lines[-1]
    assert "epoch 2 " in lines[-1]


def test_trials_of_earlier_sessions_count_and_open_ones_are_paused() -> None:
    clock = Clock()
    state = RunState("score", clock)
    reports = [EpochDone(0, 1, 0.9, 3.0)]
    state(RunStarted("a", None, 100.0, elapsed_s=40.0))
    state.recall([Trial(0, {}, reports=reports, status=Status.COMPLETED), Trial(1, {}, status=Status.RUNNING)])
    state(PhaseDone("preparing", 38.0, 3.0, "search"))
    assert state.counts() == {"running": 0, "paused": 1, "completed": 1, "stopped": 0, "failed": 0}
    assert state.seconds() == {"earlier": 38.0, "preparing": 3.0}
    assert state.best == [(40.0, 0.9)]
    state(JobStarted(1))
    assert state.counts()["running"] == 1


events = st.one_of(
    st.builds(Warned, st.text(max_size=200)),
    st.builds(Progressed, st.text(max_size=80), st.integers(0, 9), st.integers(1, 9)),
    st.builds(PhaseDone, st.just("search"), st.floats(0, 50), st.floats(0, 50), st.sampled_from(["folds", "search"])),
    st.builds(WorkerLost, st.integers(0, 3)),
    st.builds(NetworksScreened, st.just({}), st.just(3), st.floats(0, 9)),
    st.tuples(st.integers(0, 9), st.floats(-1e9, 1e9), st.floats(0, 1e3)),
)


@example([Progressed("\n", 0, 1)], 20, None, "\n")
@given(
    st.lists(events, max_size=30),
    st.integers(20, 220),
    st.sampled_from([None, 1.0, 1e6]),
    st.text(max_size=200),
)
def test_a_frame_has_few_lines_within_the_width(happened, width: int, limit_s: float | None, folder: str) -> None:
    clock = Clock()
    state = RunState("a metric with a long name", clock)
    state(RunStarted(folder, 1000, limit_s))
    for event in happened:
        clock.now_s += 1.5
        if not isinstance(event, tuple):
            state(event)
            continue
        number, score, seconds = event
        trials = state.record.trials
        if number >= len(trials):
            number = len(trials)
            state(TrialCreated(number, {"model": "网络" * 30, "epochs": number}))
        state(JobStarted(number))
        state(EpochDone(number, trials[number].num_epochs + 1, score, seconds, {"train_s": seconds}))
        if score < 0:
            state(JobDone(number, "stopped"))
    lines = frame(state, width, 10**12)
    assert 3 <= len(lines) <= MAX_LINES
    assert all(line.cell_len <= min(width, MAX_WIDTH) and "\n" not in line.plain for line in lines)
    assert sum(state.counts().values()) == len(state.record.trials)


def test_a_sparkline_is_the_best_value_over_time() -> None:
    assert sparkline([], 9.0, 5) == ""
    assert sparkline([(1.0, 0.5)], 9.0, 4) == "▁▁▁▁"
    assert sparkline([(0.0, 0.0), (5.0, 1.0)], 10.0, 4) == "▁███"
    assert sparkline([(0.0, 3.0), (5.0, 2.0), (7.5, 1.0)], 10.0, 4) == "█▅▁▁"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems do not show it")
def test_the_memory_is_that_of_the_process_and_its_children() -> None:
    import subprocess

    alone = memory_of(os.getpid())
    code = "block = b'x' * 50_000_000; print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        both = memory_of(os.getpid())
        child.communicate(b"\n")
    assert alone is not None
    assert both is not None
    assert 50_000_000 < both - alone < 150_000_000
    assert memory_of(2**22 + 1) is None
