"""Faults of a Ray cluster while a search runs on it: they cost time, and neither epochs nor the answer.

The benchmark `benchmarks.cluster_faults` does the same for all kinds in all phases, many times.
"""

from __future__ import annotations

import math
import random
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("ray", reason="Ray is not installed")
if sys.platform == "win32":
    pytest.skip("clusters of Ray on Windows are experimental", allow_module_level=True)

from benchmarks.cluster_faults import Search
from benchmarks.cluster_nodes import local_nodes, log_violations, search

from saccade.errors import ClusterError
from saccade.events import EpochDone, JobStarted, TrialCreated, TrialRestarted
from saccade.executor.ray_executor import HEAD_S, RayExecutor
from saccade.study.event_log import EventLog

if TYPE_CHECKING:
    from benchmarks.cluster_nodes import Nodes

OPTIONS: dict[str, Any] = {"scheduler": "asha", "num_trials": 200, "num_epochs": 9, "seed": 3}
FAULTS = [
    ("worker", "checkpointing"),
    ("node", "training"),
    ("stopped worker", "training"),
    ("coordinator", "promotion"),
    ("actor", "training"),
]


@pytest.fixture
def nodes() -> Iterator[Nodes]:
    with local_nodes(num_nodes=1, num_cpus=2) as started:
        yield started


def test_no_fault_loses_epochs_or_changes_the_answer(nodes: Nodes, tmp_path: Path) -> None:
    undisturbed = search(str(tmp_path / "undisturbed"), **OPTIONS)
    run = Search(nodes, tmp_path / "search", random.Random(0), epoch_s=0.2, **OPTIONS)
    run.wait_for(run.news)
    late = nodes.add()
    assert run.wait_for(lambda: [mark for mark in run.news() if mark.is_on(late)]), "a late node got no work"
    happened = [run.inject(*fault) for fault in FAULTS]
    assert all(happened), "the search ended before all faults had happened"
    run.marks.hurry()
    found, _ = run.check(undisturbed, is_exact=False)
    assert found == []


def test_a_cluster_whose_head_is_gone_is_an_error() -> None:
    """Ray itself would end this process, a minute later and without an exception."""
    with socket.create_server(("127.0.0.1", 0)) as head:
        address = f"127.0.0.1:{head.getsockname()[1]}"
        executor = object.__new__(RayExecutor)
        executor._ray = SimpleNamespace(
            util=SimpleNamespace(client=SimpleNamespace(ray=SimpleNamespace(is_connected=lambda: False))),
            get_runtime_context=lambda: SimpleNamespace(gcs_address=address),
        )
        executor._headless_since_s, executor._ticked_s = math.inf, 0.0
        assert executor._does_head_answer()
    assert not executor._does_head_answer()
    executor._ticked_s = HEAD_S
    with pytest.raises(ClusterError, match=f"The Ray cluster at {address} is gone: Connection refused. Resume"):
        executor._does_head_answer()


def test_lost_epochs_and_epochs_that_are_counted_twice_are_found(tmp_path: Path) -> None:
    """The check of the test above can fail."""

    def found(*events: EpochDone | TrialRestarted) -> list[str]:
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.jsonl"
        with EventLog(path) as log:
            for event in (TrialCreated(0, {}), JobStarted(0), *events):
                log(event)
        return log_violations(path)

    one, two = (EpochDone(0, epoch, 0.5, checkpoint=f"checkpoint-{epoch:04d}") for epoch in (1, 2))
    assert found(one, TrialRestarted(0, 1), two) == []
    assert found(one, one) != []
    assert found(one, two, TrialRestarted(0, 1), two) != []
    assert found(one, TrialRestarted(0, -1), one) != []
    assert found(two) != []
