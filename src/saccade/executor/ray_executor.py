"""Jobs on a Ray cluster: workers are actors, which come and go with its nodes."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import shutil
import socket
import sys
import threading
import time
import uuid
import warnings
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from saccade import __version__
from saccade.checks import whole_number
from saccade.errors import ClusterError, count_of
from saccade.events import EpochDone, Event, JobDone, JobFailed, Warned, WorkerJoined, WorkerLost
from saccade.executor.base import TICK_S, Executor, Handler, failed
from saccade.executor.files_of_study import INCOMING, FileCall, FileServer, FilesOfStudy
from saccade.executor.local_cluster import NODES_ON_LOOPBACK, LocalCluster, name_of, running_cluster
from saccade.executor.process import STALL_S
from saccade.executor.ray_files import FilesRequest, SharedFiles, dumps
from saccade.executor.slots import WorkerSlot, num_usable_cpus
from saccade.executor.worker import Request
from saccade.study.trial import Job, Trainable
from saccade.study.trial_files import LocalTrialFiles

SILENCE_S = 10.0
"""A worker whose actor has not answered a heartbeat for so long is given up, with its node or its connection."""

START_S = 20.0
"""A worker that has not started after so long does not keep others from being requested."""

CLEAN_UP_S = 5.0
"""Longest wait, when the executor is closed, until nodes have removed their copies of files."""

HEAD_S = 30.0
"""A cluster whose head is not reached for so long is gone."""

CONNECT_S = 10.0
"""Longest wait for the first answer of a cluster's address."""

INLINE_BYTES = 50_000
"""Larger trainables are put into Ray's object store, from which each node fetches them once."""

NO_PLACE_S = 60.0
"""Longest wait for a node that can hold a worker, if the cluster has none; autoscalers may bring one."""


class RayExecutor(Executor):
    """Workers on a Ray cluster: as many as it has room for, more when nodes join, fewer when they are lost.

    Each worker is an actor with a worker process, which stays warm from job to job. There is always a request for one
    more while all workers are busy, so that room on the cluster is used within seconds, and an autoscaler adds nodes.
    A process that crashes fails its job. A node that is lost or hangs (`SILENCE_S`) fails the jobs of its workers with
    ``is_node_lost``, and the study continues them on others. Workers need no shared disk: where they do not see the
    study's folder, its files are sent, and a node that does not see the data gets them once (`Trainable.portable`). A
    worker whose node cannot get them has no more jobs. All workers end with the executor, and with the process that
    created it.

    Parameters
    ----------
    trainable : Trainable or None
        What is trained; may be set later, before the first job.
    preload : sequence of str
        Modules that workers import at their start.
    address : str or None
        Of a Ray cluster: ``"host:6379"``, ``"ray://host:10001"`` (Ray client), or ``"auto"`` for one on this machine.
        None is the Ray to which this process is connected, that of the variable RAY_ADDRESS, or one that runs on this
        machine; else one is started, and ends with the executor.
    max_workers : int or None
        The most workers; None leaves it to the cluster.
    num_cpus : float or None
        CPUs of a worker, and threads of its numeric libraries. None is 1; with a GPU, its share of the node's CPUs.
    num_gpus : float or None
        GPUs of a worker; fractions share one. None is 1 if the cluster has GPUs.
    num_trials : int or None
        Upper bound of the number of trials, and so of workers.
    measure_speed : str or None
        A function ``"module:function"`` without arguments. Workers call it at their start, and announce the result as
        the speed of their node; jobs go to the fastest free worker.
    num_ranks : int
        Processes that train a trial together, each with these CPUs and GPUs: the worker, and those that its jobs start
        on the cluster, for which room is left.

    Raises
    ------
    ClusterError
        If Ray is not installed or the cluster is not reached; and from `run`, if workers cannot run on it.
    """

    def __init__(
        self,
        trainable: Trainable | None = None,
        preload: Sequence[str] = (),
        *,
        address: str | None = None,
        max_workers: int | None = None,
        num_cpus: float | None = None,
        num_gpus: float | None = None,
        num_trials: int | None = None,
        measure_speed: str | None = None,
        num_ranks: int = 1,
    ) -> None:
        self.trainable, self._num_ranks = trainable, num_ranks
        self._preload, self._address = (*preload, *([measure_speed] if measure_speed else ())), address
        self.measures_speed = measure_speed is not None
        self._max_workers: float = math.inf if max_workers is None else whole_number("max_workers", max_workers)
        self._max_workers = min(self._max_workers, num_trials or math.inf)
        self._num_cpus, self._num_gpus = num_cpus, num_gpus
        self._workers: list[_Worker] = []  # that have joined
        self._starting: list[_Worker] = []
        self._unusable: list[_Worker] = []  # whose nodes cannot get the files of the jobs
        self._events: deque[Event] = deque()  # to be passed to the handler
        self._sent: tuple[Trainable, Any] | None = None  # the last trainable, and its pickle or the reference to that
        self._headless_since_s = math.inf  # since when the cluster's head does not answer
        self._tokens: dict[Path, Path] = {}  # by folder: a file by which workers know that they see it
        self._folder: str | None = str(Path.cwd())
        self._ray: Any = None  # the module while connected
        self._ticked_s = self._grow_at_s = -math.inf
        with self._closing_on_error():
            self._connect()
            self._grow()

    @property
    def num_workers(self) -> int:
        """Workers that have joined; 0 until the first one has started."""
        return len(self._workers)

    @property
    def num_free(self) -> int:
        """Workers without a job."""
        return sum(worker.job is None for worker in self._workers)

    def describe(self) -> str:
        """Return the cluster's size and what a worker requests."""
        if self._ray is None:
            return "on a Ray cluster"
        nodes = [node for node in self._ray.nodes() if node["Alive"]]
        has, asked = _resources_text(self._ray.cluster_resources()), _resources_text(self._needs)
        return f"on {count_of(len(nodes), 'Ray node')} with {has}, {asked} per trial"

    def wait_for_start(self, timeout_s: float | None = None) -> bool:
        """Wait until all workers that were requested have started; return False at the timeout in seconds."""
        end_s = math.inf if timeout_s is None else time.monotonic() + timeout_s
        self._connect()
        while self._starting or not self._workers:
            if time.monotonic() >= end_s:
                return False
            self._work(min(TICK_S, max(0.0, end_s - time.monotonic())))
        return True

    @property
    def next_node(self) -> str:
        """Name of the node of the worker that is sent the next job."""
        worker = self._next_worker()
        return "" if worker is None else worker.node

    def _next_worker(self) -> _Worker | None:
        free = (worker for worker in self._workers if worker.job is None)
        return max(free, key=lambda worker: worker.speed or 0.0, default=None)

    def submit(self, job: Job) -> None:
        """Send the job to a free worker. A job that cannot be pickled fails."""
        worker = self._next_worker()
        assert worker is not None, "every worker has a job; see num_free"
        assert self.trainable is not None, "set the executor's trainable before the first job"
        worker.job, worker.number = job, worker.number + 1
        with self._closing_on_error():
            try:
                if self._sent is None or self._sent[0] is not self.trainable:
                    pickled = dumps(self.trainable)
                    # A small one is a part of the message, and needs no node that has a copy of it.
                    self._sent = self.trainable, pickled if len(pickled) <= INLINE_BYTES else self._ray.put(pickled)
                job, files = self.trainable.portable(job)
                pickled = dumps(replace(job, files=self._files_for(job)))
                request = Request(job.trial, pickled, None, 0.0, self._shared.keys(files))
            except Exception as error:
                worker.job = None
                self._events.append(failed(job.trial, error))
                return
            new = [] if worker.trainable is self.trainable else [self._sent[1]]
            worker.step = worker.actor.step.remote(worker.number, request, *new)
            worker.trainable = self.trainable

    def run(self, handle: Handler, timeout_s: float = math.inf) -> None:
        """Pass the workers' messages to the handler, until no job is left or until the timeout."""
        end_s, is_over = time.monotonic() + timeout_s, False
        with self._closing_on_error():
            self._connect()
            while True:
                while self._events:
                    handle(self._events.popleft())
                if is_over or (self._workers and self.num_free == len(self._workers)):
                    return
                self._work(min(TICK_S, max(0.0, end_s - time.monotonic())), handle)
                is_over = time.monotonic() >= end_s

    def cancel(self, trial: int, reason: str = "cancelled") -> bool:
        """Kill the worker process that runs the job; its actor starts another one for the next."""
        for worker in self._workers:
            if worker.job is not None and worker.job.trial == trial:
                worker.actor.end_job.remote(worker.number)
                worker.drop_job()
                self._events.append(JobDone(trial, "stopped", reason))
                return True
        return False

    def is_stalled(self, trial: int) -> bool:
        """Return whether the process of the job had used no processor time for a while at the last heartbeat."""
        return any(worker.job is not None and worker.job.trial == trial and worker.idle_s >= STALL_S
                   for worker in self._workers)  # fmt: skip

    def close(self) -> None:
        """End the workers, and the Ray that was started for them; the next job starts new ones."""
        workers = self._workers + self._starting + self._unusable
        with_copies = {worker.node: worker for worker in workers if worker.node in self._nodes_with_copies}
        if with_copies:
            with contextlib.suppress(Exception):  # the connection may be lost
                removed = [each.actor.remove_copies.remote(self._shared.session) for each in with_copies.values()]
                self._ray.wait(removed, num_returns=len(removed), timeout=CLEAN_UP_S)
        self._workers, self._starting, self._unusable, self._sent = [], [], [], None
        self._events.clear()
        for worker in workers:
            worker.drop_job()
            self._kill(worker)
        for token in self._tokens.values():
            token.unlink(missing_ok=True)
        self._tokens.clear()
        if self._ray is not None:
            self._ray = None
            _disconnect()

    def _connect(self) -> None:
        if self._ray is not None:
            return
        self._ray = ray = _connect(self._address)
        self._shared, self._nodes_with_copies = SharedFiles(ray.put), set[str]()
        totals = ray.cluster_resources()
        if self._num_gpus is None:
            self._num_gpus = 1 if totals.get("GPU", 0) >= 1 else 0
        if self._num_cpus is None:
            shares = [node["Resources"].get("CPU", 0) / node["Resources"]["GPU"]
                      for node in ray.nodes() if node["Alive"] and node["Resources"].get("GPU")]  # fmt: skip
            self._num_cpus = max(1, int(min(shares, default=1) * self._num_gpus)) if self._num_gpus else 1
        self._needs = {name: num for name, num in (("CPU", self._num_cpus), ("GPU", self._num_gpus)) if num}
        self._no_place_since_s, self._has_warned = math.inf, False
        self._actor_class = _actor_class(ray)
        self._grow_at_s = -math.inf

    def _files_for(self, job: Job) -> Any:
        """Return the files that the job is sent: by messages where its worker does not see their folder."""
        files = job.files
        if files is None or files.is_shared:
            return files
        token = None
        if isinstance(files, LocalTrialFiles):
            token = self._tokens.get(files.root)
            if token is None:
                files.root.mkdir(parents=True, exist_ok=True)
                for old in files.root.glob(".seen_*"):  # of processes that were killed
                    old.unlink(missing_ok=True)
                for folder in files.root.parent.glob(f"{INCOMING}*"):
                    shutil.rmtree(folder, ignore_errors=True)
                token = self._tokens[files.root] = files.root / f".seen_{uuid.uuid4().hex}"
                token.touch()
        return FilesOfStudy(files, token)

    def _work(self, timeout_s: float, handle: Handler | None = None) -> None:
        """Wait for a message of a worker and deal with it; look after the workers once in `TICK_S`."""
        if time.monotonic() >= self._ticked_s + TICK_S:
            self._tick()
        waiting = {worker.step: worker for worker in self._workers if worker.step is not None}
        waiting |= {worker.hello: worker for worker in self._starting}
        if not waiting:
            time.sleep(timeout_s)
            return
        ready, _ = self._ray.wait(list(waiting), num_returns=1, timeout=timeout_s)
        for reference in ready:
            worker = waiting[reference]
            try:
                message = self._ray.get(reference)
            except self._ray.exceptions.RayError as error:
                self._lose(worker, error)
                continue
            if worker in self._starting:
                self._join(worker, message)
            else:
                self._receive(worker, message, handle)

    def _receive(self, worker: _Worker, message: Any, handle: Handler | None) -> None:
        """Deal with a message of a worker's job."""
        if isinstance(message, FileCall):
            assert worker.job is not None
            assert worker.job.files is not None
            worker.answer(worker.files.answer(worker.job.files, message))
        elif isinstance(message, FilesRequest):
            if message.part is not None:
                self._nodes_with_copies.add(worker.node)
            worker.answer(self._shared.answer(message))
        elif isinstance(message, JobDone | JobFailed):
            worker.drop_job()
            if isinstance(message, JobFailed) and message.is_node_lost:
                self._workers.remove(worker)
                self._unusable.append(worker)  # its place stays taken, so that no other worker starts there
                self._why_unusable = message.reason
                self._events.append(WorkerLost(len(self._workers), worker.node))
            self._events.append(message)
        else:
            assert handle is not None
            if isinstance(message, EpochDone):
                message = replace(message, node=worker.node)
            step, number = worker.step, worker.number
            decision = handle(message)
            if worker.step == step and worker.number == number:  # the handler may have cancelled the job
                worker.answer(decision)

    def _tick(self) -> None:
        """Look at the heartbeats, and request more workers."""
        # Ticks are counted, not seconds: while this process is stopped or busy, none pass.
        self._ticked_s = time.monotonic()
        if not self._does_head_answer():
            return
        beats = {worker.beat: worker for worker in self._workers if worker.beat is not None}
        ready, _ = self._ray.wait(list(beats), num_returns=len(beats), timeout=0) if beats else ([], [])
        for worker in list(self._workers):
            if worker.beat is None or worker.beat in ready:
                try:
                    worker.idle_s = 0.0 if worker.beat is None else self._ray.get(worker.beat)
                except self._ray.exceptions.RayError as error:
                    self._lose(worker, error)
                    continue
                worker.num_silent, worker.beat = 0, worker.actor.beat.remote()
            else:
                worker.num_silent += 1
                if worker.num_silent * TICK_S >= SILENCE_S:
                    self._lose(worker, None)
        if self._ticked_s >= self._grow_at_s:
            self._grow()

    def _does_head_answer(self) -> bool:
        """Return whether the cluster's head is reached; raise a ClusterError if it has not been for `HEAD_S`.

        Without it, calls of Ray do not return, and Ray ends this process after a minute.
        """
        if self._ray.util.client.ray.is_connected():  # the client's connection raises errors itself
            return True
        host, _, port = self._ray.get_runtime_context().gcs_address.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), TICK_S).close()
        except OSError as error:
            self._headless_since_s = min(self._headless_since_s, self._ticked_s)
            if self._ticked_s - self._headless_since_s >= HEAD_S:
                raise ClusterError(
                    f"The Ray cluster at {host}:{port} is gone: {error.strerror or error}. Resume the run on another."
                ) from None
            return False
        self._headless_since_s = math.inf
        return True

    def _grow(self) -> None:
        """Request workers: as many as there is room for, and one more while all are busy."""
        ray, now_s = self._ray, time.monotonic()
        if any(worker.job is None for worker in self._workers):
            return
        num_starting = sum(now_s - worker.since_s < START_S for worker in self._starting)
        available = ray.available_resources()
        room = min((int(available.get(name, 0) // num + 1e-9) for name, num in self._needs.items()), default=1)
        wanted: float = max(room, 0 if self._starting else 1)
        most = self._max_workers
        if self._num_ranks > 1:
            totals = ray.cluster_resources()
            trials = (totals.get(name, 0) // (self._num_ranks * num) for name, num in self._needs.items())
            most = min(most, max(1, int(min(trials, default=1))))
        wanted = min(wanted, most - len(self._workers))
        for _ in range(int(wanted) - num_starting):
            options: dict[str, Any] = {"num_cpus": self._num_cpus, "num_gpus": self._num_gpus, "max_restarts": 0}
            # `saccade cluster status` shows the names, which have to be unique.
            name = f"of process {os.getpid()} on {socket.gethostname()}, {uuid.uuid4().hex[:8]}"
            options |= {"name": name, "namespace": "saccade"}
            slot = WorkerSlot("cpu" if not self._num_gpus else None, max(1, int(self._num_cpus or 1)))
            actor = self._actor_class.options(**options).remote(self._preload, slot, self._folder)
            self._starting.append(_Worker(actor, actor.hello.remote(), now_s))
        if self._unusable and not self._workers and not any(now_s - each.since_s < START_S for each in self._starting):
            raise ClusterError(f"No worker of the Ray cluster can get the files of the trials: {self._why_unusable}")
        if not self._workers:
            self._explain_waiting(now_s)

    def _explain_waiting(self, now_s: float) -> None:
        """Warn once, with the reason, that no worker has started; raise a ClusterError after `NO_PLACE_S`."""
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        asked, has = _resources_text(self._needs), _resources_text(self._ray.cluster_resources())
        text = ""
        if not any(all(node.get(name, 0) >= num for name, num in self._needs.items()) for node in nodes):
            text = f"No node of the Ray cluster has {asked} for a worker; all nodes together have {has}"
            self._no_place_since_s = min(self._no_place_since_s, now_s)
            if now_s - self._no_place_since_s >= NO_PLACE_S:
                raise ClusterError(f"{text}. Request less (nthreads_per_trial, ngpus_per_trial), or add nodes.")
            text += ". Waiting for a node that an autoscaler may add"
        else:
            self._no_place_since_s = math.inf
            if self._starting and now_s - self._starting[0].since_s >= START_S:
                text = f"Waiting for {asked} on the Ray cluster: its {has} are in use, or a node is slow to start"
        if text and not self._has_warned:
            self._has_warned = True
            self._events.append(Warned(text))

    def _join(self, worker: _Worker, hello: Any) -> None:
        self._starting.remove(worker)
        if len(self._workers) >= self._max_workers:  # requests that had waited for long
            self._kill(worker)
            return
        if hello.versions["Saccade"] != __version__:
            self._cannot_start(f"{hello.host} has Saccade {hello.versions['Saccade']}, and this process {__version__}")
            self._kill(worker)
            return
        names = {node["NodeID"]: name_of(node) for node in self._ray.nodes() if node["Alive"]}
        name = names.get(hello.node_id, hello.host)
        worker.node = name if Counter(names.values())[name] <= 1 else f"{name}-{hello.node_id[:4]}"
        worker.speed = hello.speed
        self._workers.append(worker)
        self._events.append(WorkerJoined(len(self._workers), worker.node, hello.speed))

    def _lose(self, worker: _Worker, error: Exception | None) -> None:
        """Give up a worker whose actor has died, or is silent without an error."""
        self._kill(worker)
        if worker in self._starting:
            self._starting.remove(worker)
            is_lost = isinstance(error, self._ray.exceptions.RayActorError) and "creation task" not in str(error)
            if not is_lost:
                self._cannot_start(_why_not_started(error))
            elif not self._has_warned:  # another one is requested by the next tick
                self._has_warned = True
                self._events.append(Warned(f"A worker was lost while it started, and is replaced: {_one_line(error)}"))
            return
        self._workers.remove(worker)
        job = worker.job
        worker.drop_job()
        self._events.append(WorkerLost(len(self._workers), worker.node))
        if job is not None:
            how = f"no sign of life for {SILENCE_S:.0f} s" if error is None else _first_line(error)
            is_node_lost = "low on memory" not in str(error)  # else Ray has killed it, perhaps because of the trial
            reason = f"the worker on {worker.node} was lost: {how}"
            self._events.append(JobFailed(job.trial, reason, is_worker_lost=True, is_node_lost=is_node_lost))

    def _cannot_start(self, reason: str) -> None:
        """Raise an error if no worker has joined; otherwise continue with those that have, and try again later."""
        if not self._workers:
            raise ClusterError(f"A worker did not start on the Ray cluster: {reason}")
        self._events.append(Warned(f"A worker did not start on the Ray cluster: {reason}"))
        self._grow_at_s = time.monotonic() + NO_PLACE_S

    def _kill(self, worker: _Worker) -> None:
        with contextlib.suppress(Exception):  # it may be dead, or the connection
            self._ray.kill(worker.actor)


@dataclass(eq=False)
class _Worker:
    """The executor's side of an actor."""

    actor: Any
    hello: Any  # reference to its `Hello`
    since_s: float  # when it was requested, on the monotonic clock
    node: str = ""
    speed: float | None = None
    job: Job | None = None
    number: int = 0  # jobs so far
    trainable: Trainable | None = None  # that was sent last
    step: Any = None  # reference to the next message of its job
    beat: Any = None  # reference to the last heartbeat
    num_silent: int = 0  # ticks without an answer to it
    idle_s: float = 0.0  # without processor time, at the last heartbeat
    files: FileServer = field(default_factory=FileServer)

    def answer(self, answer: Any) -> None:
        """Send the answer to the last message of the job."""
        self.step = self.actor.step.remote(self.number, answer)

    def drop_job(self) -> None:
        """Forget the job, and files that have arrived in part."""
        self.job = self.step = None
        self.files.discard()


_connecting = threading.Lock()
_num_connected = 0  # executors of this process that use a connection made here


def _connect(address: str | None) -> Any:
    """Return the module ray, connected to the cluster; a Ray that the user has initialised is used as it is."""
    global _num_connected
    given = _prepare(address or os.environ.get("RAY_ADDRESS"))
    try:
        import ray
    except ImportError:
        raise ClusterError('executor="ray" requires Ray. Install it: pip install "saccade[ray]"') from None
    with _connecting:
        if ray.is_initialized():
            used = ray.get_runtime_context().gcs_address
            if address not in (None, "auto", "local") and not address.startswith("ray://") and not _same(address, used):
                raise ClusterError(
                    f"address was given {address!r}, but this process is connected to Ray at {used}. "
                    "Call ray.shutdown() first, or leave address out."
                )
            if _num_connected:
                _num_connected += 1
            return ray
        if given not in (None, "auto", "local"):
            _check_reachable(given)
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                try:
                    ray.init(given or "auto", **options)
                except ConnectionError:
                    if given not in (None, "local"):
                        raise
                    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
                    ray.init("local", num_cpus=num_usable_cpus(), include_dashboard=False, **options)
            except Exception as error:
                if given is None:
                    raise ClusterError(f"Ray could not be started: {_one_line(error)}") from None
                advice = "If the cluster has a token, set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN."
                raise ClusterError(f"The Ray cluster at {given} refuses: {_one_line(error)}. {advice}") from None
        _num_connected = 1
        return ray


def _prepare(given: str | None) -> str | None:
    """Return the address, which is that of `saccade cluster up` if it runs; set what Ray reads when it is imported."""
    os.environ.setdefault(NODES_ON_LOOPBACK, "0")  # a Ray that is started here listens on 127.0.0.1 alone
    local = running_cluster()
    if local is None or given not in (None, "auto", local.address):
        return given
    if not _can_connect(local, is_asked=given is not None):
        return given
    os.environ.update(local.environment())
    return local.address


def _can_connect(local: LocalCluster, *, is_asked: bool) -> bool:
    """Return whether Ray has the settings of the cluster, or is not imported; an error if it `is_asked` for."""
    ray = sys.modules.get("ray")
    missing = {name: text for name, text in local.environment().items() if os.environ.get(name) != text}
    if ray is None or not missing or (is_asked and ray.is_initialized()):
        return True
    if not is_asked:
        return False
    settings = " ".join(f"{name}={text}" for name, text in missing.items())
    raise ClusterError(
        "Ray was imported before, with other settings than those of the cluster of saccade cluster up. Connect in a "
        f"new process, or set these variables before Ray is imported: {settings}"
    )


def _check_token(address: str) -> None:
    """Raise an error at once if the cluster refuses our token; Ray tries for long, and prints each attempt."""
    try:
        import grpc
    except ImportError:
        return
    metadata = []
    if is_on := os.environ.get("RAY_AUTH_MODE") == "token":
        file = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
        token = os.environ.get("RAY_AUTH_TOKEN") or (file.read_text(encoding="utf-8").strip() if file.is_file() else "")
        metadata = [("authorization", f"Bearer {token}")]
    with grpc.insecure_channel(address, [("grpc.enable_http_proxy", 0)]) as channel:
        try:
            ask = channel.unary_unary("/ray.rpc.NodeInfoGcsService/GetClusterId")
            ask(b"", timeout=CONNECT_S, metadata=metadata)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.UNAUTHENTICATED:
                name = "RAY_AUTH_TOKEN, or the file RAY_AUTH_TOKEN_PATH,"
                how = f"Check that {name} has it" if is_on else f"Set RAY_AUTH_MODE=token, and {name} to it"
                raise ClusterError(
                    f"The Ray cluster at {address} answers only those who have its token. {how}."
                ) from None


def _disconnect() -> None:
    """Disconnect from a cluster, or end it, when its last executor is closed; not from one that the user has chosen."""
    global _num_connected
    with _connecting:
        if _num_connected == 1:
            import ray

            ray.shutdown()
        _num_connected = max(0, _num_connected - 1)


def _check_reachable(address: str) -> None:
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        raise ClusterError(f'address was given {address!r}; expected "host:6379", "ray://host:10001" or "auto"')
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_S).close()
    except OSError as error:
        raise ClusterError(
            f"No Ray cluster answers at {address}: {error.strerror or error}. Check the address, and that the cluster "
            "runs: ray start --head"
        ) from None
    if not address.startswith("ray://"):
        _check_token(address)


def _same(address: str, other: str) -> bool:
    """Return whether two addresses have the same port of the same machine."""
    (host, _, port), (other_host, _, other_port) = address.rpartition(":"), other.rpartition(":")
    with contextlib.suppress(OSError):
        host, other_host = socket.gethostbyname(host), socket.gethostbyname(other_host)
    return port == other_port and (host == other_host or host.startswith("127."))


def _actor_class(ray: Any) -> Any:
    from saccade.executor.ray_worker import RayWorker

    for name in ("beat", "end_job", "remove_copies"):  # while `step` waits for a message
        ray.method(concurrency_group="control")(getattr(RayWorker, name))
    # Out of order: a heartbeat does not wait for the arguments of a step, which may be on their way for long.
    return ray.remote(concurrency_groups={"control": 2}, allow_out_of_order_execution=True)(RayWorker)


def _one_line(error: BaseException | None) -> str:
    return " ".join(str(error).split())[:300].rstrip(".:") or type(error).__name__


def _first_line(error: BaseException) -> str:
    return " ".join(str(error).strip().partition("\n")[0].split()) or type(error).__name__


def _why_not_started(error: Exception | None) -> str:
    text = str(error)
    if "No module named 'saccade'" in text:
        return f"a node does not have Saccade. Install it there: pip install saccade=={__version__}"
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__


def _resources_text(resources: Mapping[str, float]) -> str:
    named = {"CPU": ("CPU", "CPUs"), "GPU": ("GPU", "GPUs")}
    parts = [f"{num:g} {named[name][num != 1]}" for name in named if (num := resources.get(name, 0))]
    return " and ".join(parts) or "no CPU"
