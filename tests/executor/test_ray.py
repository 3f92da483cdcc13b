"""`RayExecutor` on a small Ray cluster."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from saccade.errors import ClusterError, HyperparameterError, SearchFailedError
from saccade.events import Decision, EpochDone, Event, Warned, WorkerJoined, WorkerLost
from saccade.executor import Executor, RayExecutor, make_executor, ray_executor
from saccade.executor.files_of_study import FilesOfStudy
from saccade.scheduler import FIFOScheduler
from saccade.searcher import GridSearcher
from saccade.space import Categorical
from saccade.study.function import FunctionTrainable
from saccade.study.study import Study
from saccade.study.trial import Status, Trainable
from saccade.study.trial_files import LocalTrialFiles
from saccade.testing import ExecutorContract
from saccade.tuning import tune


@pytest.mark.usefixtures("ray_cluster")
class TestRayExecutor(ExecutorContract):
    def make(self, trainable: Trainable | None) -> Executor:
        executor = RayExecutor(trainable, max_workers=1)
        assert executor.wait_for_start(60)
        executor.run(lambda event: Decision.CONTINUE)  # the worker has joined
        return executor


def crash_once(config: dict[str, Any], report: Any) -> None:
    """Report six epochs; end the process after the second one, and the actor after the fourth, once each."""
    start = 0 if report.checkpoint is None else int((report.checkpoint / "epoch").read_text())
    assert start == report.last_epoch
    for epoch in range(start + 1, 7):
        for after, pid in ((2, os.getpid()), (4, os.getppid())):
            mark = Path(config["folder"]) / f"{config['x']}-{after}"
            if epoch == after + 1 and config["x"] == 0 and not mark.exists():
                mark.touch()
                os.kill(pid, signal.SIGKILL)
                signal.pause()

        def write(folder: Path, epoch: int = epoch) -> None:
            (folder / "epoch").write_text(str(epoch))
            (folder / "large").write_bytes(bytes(3_000_000))

        report(epoch=epoch, score=config["x"] + epoch / 10, pid=os.getpid(), checkpoint=write)


@pytest.mark.usefixtures("ray_cluster")
def test_trials_survive_their_process_and_their_actor_and_no_disk_is_shared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RayExecutor, "_files_for", lambda self, job: FilesOfStudy(job.files, None))
    files, events = LocalTrialFiles(tmp_path / "trials"), list[Event]()
    space = {"x": Categorical(0, 1, 2), "folder": str(tmp_path)}
    with RayExecutor(FunctionTrainable(crash_once), max_workers=2) as executor:
        study = Study(executor, GridSearcher(space), FIFOScheduler(), files=files, listeners=[events.append])
        study.run()
    assert [(trial.status, trial.num_epochs) for trial in study.trials] == [(Status.COMPLETED, 6)] * 3
    of_first = [event.epoch for event in events if isinstance(event, EpochDone) and event.trial == 0]
    assert of_first == [1, 2, 3, 4, 5, 6]  # none twice, none lost
    assert (study.trials[0].num_retries, study.trials[0].num_lost_nodes) == (0, 1)  # a new epoch between
    warned = [event.text for event in events if isinstance(event, Warned)]
    assert [text.partition(":")[0] for text in warned] == [
        f"Trial 0 is retried from epoch {epoch}" for epoch in (3, 5)
    ]  # fmt: skip
    workers = [type(event) for event in events if isinstance(event, WorkerJoined | WorkerLost)]
    assert workers.count(WorkerLost) == 1
    assert all(event.node for event in events if isinstance(event, EpochDone | WorkerJoined | WorkerLost))
    assert (files.folder(2) / "checkpoint-0006" / "large").stat().st_size == 3_000_000
    assert [path.name for path in tmp_path.glob(".*")] == []


def test_any_function_is_tuned_and_an_instance_keeps_its_workers(ray_cluster: str) -> None:
    shift, space, lock = 1.0, {"x": Categorical(1, 2, 3)}, threading.Lock()
    found = tune(lambda config: shift - config["x"], space, executor="ray", address=ray_cluster, verbosity=0)
    assert (found.best_config, found.best_score) == ({"x": 1}, 0.0)
    with RayExecutor(address=ray_cluster, max_workers=1) as executor:
        pids = [
            tune(lambda config: os.getpid(), {"x": Categorical(1, 2)}, executor=executor, verbosity=0).best_score
            for _ in range(2)
        ]
        assert pids[0] == pids[1] != os.getpid()
        with pytest.raises(SearchFailedError, match="cannot pickle '_thread"):
            tune(lambda config: lock.locked(), space, executor=executor, verbosity=0)


def test_a_cluster_without_the_resources_is_explained(ray_cluster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(**options: Any) -> Executor:
        return RayExecutor(FunctionTrainable(lambda config: 1.0), address=ray_cluster, **options)

    text = "No node of the Ray cluster has 1 CPU and 0.5 GPUs for a worker; all nodes together have 2 CPUs"
    with ask(num_gpus=0.5) as executor:
        events = list[Event]()
        executor.run(lambda event: events.append(event) or Decision.CONTINUE, timeout_s=0.1)  # type: ignore[func-returns-value]
        assert events == [Warned(f"{text}. Waiting for a node that an autoscaler may add")]
        assert executor.num_workers == 0
    monkeypatch.setattr(ray_executor, "NO_PLACE_S", 0.0)
    with pytest.raises(ClusterError, match=text):
        ask(num_gpus=0.5)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("127.0.0.1:1", "No Ray cluster answers at 127.0.0.1:1: Connection refused"),
        ("ray://127.0.0.1:1", "No Ray cluster answers at ray://127.0.0.1:1: Connection refused"),
        ("head", 'address was given \'head\'; expected "host:6379", "ray://host:10001" or "auto"'),
    ],
)
def test_an_address_without_a_cluster_is_an_error(address: str, message: str) -> None:
    pytest.importorskip("ray")
    with pytest.raises(ClusterError, match=message):
        RayExecutor(address=address)
    with pytest.raises(ClusterError, match=message):
        make_executor("auto", address=address)


def test_ray_must_be_installed_and_belongs_to_its_options(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ClusterError, match=r'pip install "saccade\[ray\]"'):
        make_executor("ray")
    with pytest.raises(HyperparameterError, match="'process' has no option 'address'"):
        make_executor("process", address="auto")
    with pytest.raises(HyperparameterError, match="max_workers"):
        make_executor("ray", max_workers=0)
