"""Data-parallel training: several processes train one network, each on its part of every batch.

The processes are called ranks, as in torch. Rank 0 is the process of the job: it builds the network, fits the probe,
keeps the time, validates, writes files and reports. The other ranks follow its orders and start from its weights, so
they read neither weights nor checkpoints nor clocks. Gradients, losses and batch statistics are those of the whole
batch, so that the result equals that of one process, up to rounding.
"""

from __future__ import annotations

import atexit
import contextlib
import datetime
import logging
import os
import shutil
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import distributed
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from saccade.errors import DivergedError, HyperparameterError, WorkerDiedError
from saccade.events import Event, JobFailed
from saccade.executor.process import ProcessExecutor
from saccade.executor.slots import WorkerSlot
from saccade.numerics.device import choose_device, cpu_threads
from saccade.study.trial import Decision, Job, Trainable

BUCKET_BYTES = 32 * 2**20  # gradients that are summed in one message
PATIENCE = datetime.timedelta(days=30)  # ranks wait while rank 0 validates; a hung rank is found by its heartbeats
JOIN_S = 300.0  # time that a started process has to join the others
FAILURE_S = 15.0  # time until the reason is known why a connection broke


class LostRankError(RuntimeError):
    """The connection to another rank is broken."""


class Ranks:
    """The processes that train one network; this one is number `rank`. By default it is alone.

    All of them call the methods in the same order. `connect` is called before the first communication.
    """

    def __init__(self, rank: int = 0, size: int = 1, connect: Callable[[], object] | None = None) -> None:
        self.rank, self.size, self._connect = rank, size, connect
        self.is_busy = False  # whether the ranks are in the middle of an epoch, and not ready for an order
        self.has_trial = False  # whether the others have a network

    def share(self, value: Any = None) -> Any:
        """Return the value of rank 0."""
        if self._connect is not None:
            self._connect()
            self._connect = None
        box = [value]
        with _explained():
            distributed.broadcast_object_list(box, src=0, group=_group, device=torch.device("cpu"))
        return box[0]

    def share_folder(self, folder: Path) -> Path:
        """Return a folder of rank 0; where this machine does not have it, a temporary copy."""
        shared: Path = self.share(folder)
        if not self.total(float(not shared.is_dir()))[0]:
            return shared
        is_copied = not shared.is_dir()
        copy = Path(tempfile.mkdtemp(prefix="saccade-images-")) if is_copied else shared
        if is_copied:
            atexit.register(shutil.rmtree, copy, ignore_errors=True)
        for name in self.share(sorted(path.name for path in shared.iterdir()) if self.rank == 0 else None):
            with contextlib.ExitStack() as opened:
                source = opened.enter_context((shared / name).open("rb")) if self.rank == 0 else None
                target = opened.enter_context((copy / name).open("wb")) if is_copied else None
                while chunk := self.share(source and source.read(BUCKET_BYTES)):
                    if target is not None:
                        target.write(chunk)
        return copy

    @contextlib.contextmanager
    def epoch(self) -> Iterator[None]:
        """Context of an epoch; after an error all ranks are useless, unless all of them raise it."""
        self.is_busy = True
        try:
            yield
        except DivergedError:
            self.is_busy = False
            raise
        self.is_busy = False

    def release(self) -> None:
        """Let the others drop their network, if they have one."""
        if self.has_trial:
            self.has_trial = False
            self.share(RELEASE)

    def total(self, *numbers: float) -> list[float]:
        """Return the sums of these numbers over all ranks."""
        return list(numbers) if self.size == 1 else _sum(torch.tensor(numbers, dtype=torch.float64)).tolist()

    def places(self, num: int, *, in_pairs: bool = False) -> np.ndarray:
        """Return the positions of this rank's images in a batch of `num`, in ascending order.

        With `in_pairs`, images that `Mixing` mixes, the first with the last and so on, have the same rank.
        """
        if not in_pairs:
            return np.array_split(np.arange(num), self.size)[self.rank]
        firsts = np.array_split(np.arange((num + 1) // 2), self.size)[self.rank]
        seconds = num - 1 + num % 2 - firsts[::-1]  # an odd batch is extended by its first image
        return np.concatenate([firsts, seconds[seconds < num]])

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Replace gradients by their sums over all ranks; a parameter that no rank has used keeps none."""
        if self.size == 1:
            return
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        has_gradient = torch.tensor([float(parameter.grad is not None) for parameter in trained])
        buckets: list[list[torch.Tensor]] = []
        num_bytes = BUCKET_BYTES
        for parameter, is_used in zip(trained, _sum(has_gradient).tolist(), strict=True):
            if not is_used:
                continue
            if parameter.grad is None:  # branches of a custom network may depend on the images
                parameter.grad = torch.zeros_like(parameter)
            if num_bytes >= BUCKET_BYTES:
                buckets.append([])
                num_bytes = 0
            buckets[-1].append(parameter.grad)
            num_bytes += parameter.grad.nbytes
        for gradients in buckets:
            flat = _sum(torch.cat([gradient.flatten() for gradient in gradients]))
            totals = torch.split(flat, [gradient.numel() for gradient in gradients])
            for gradient, total in zip(gradients, totals, strict=True):
                gradient.copy_(total.view(gradient.shape))

    def batch_norm(self) -> contextlib.AbstractContextManager[object]:
        """Context in which batch norm uses the statistics of all ranks' images."""
        return contextlib.nullcontext() if self.size == 1 else _SharedBatchNorm()


ALONE = Ranks()
EPOCH, RELEASE = "take an epoch", "drop the network"  # orders of rank 0, besides the pickle of a trial


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """Turn the errors of torch's communication into a LostRankError."""
    try:
        yield
    except RuntimeError as error:
        raise LostRankError(f"the connection to another process of the trial is broken: {error}") from error


def _sum(tensor: torch.Tensor) -> torch.Tensor:
    """Sum a tensor over all ranks in place."""
    with _explained():
        distributed.all_reduce(tensor, group=_group)
    return tensor


class _SharedBatchNorm(TorchFunctionMode):
    """Replaces torch's batch norm in training mode, whichever module calls it, and on any device.

    `torch.nn.SyncBatchNorm` works on GPUs only, and is another module, whose weights would have to be converted.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is functional.batch_norm:
            return _batch_norm(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _batch_norm(
    x: torch.Tensor,
    running_mean: torch.Tensor | None,
    running_var: torch.Tensor | None,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> torch.Tensor:
    """Return what `torch.nn.functional.batch_norm` returns for the images of all ranks."""
    if not training:
        return functional.batch_norm(x, running_mean, running_var, weight, bias, training, momentum, eps)
    ones, zeros = x.new_ones(x.shape[1], dtype=torch.float32), x.new_zeros(x.shape[1], dtype=torch.float32)
    y: torch.Tensor
    y, mean, var, num = _BatchNorm.apply(x, ones if weight is None else weight, zeros if bias is None else bias, eps)
    if running_mean is not None and running_var is not None:
        with torch.no_grad():
            running_mean.lerp_(mean.to(running_mean.dtype), momentum)
            running_var.lerp_((var * num / (num - 1).clamp(min=1)).to(running_var.dtype), momentum)
    return y


class _BatchNorm(torch.autograd.Function):
    """Batch norm with mean and variance of the images of all ranks; sums are in float64, since they nearly cancel."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, eps: float) -> Any:
        num_channels, wide = x.shape[1], x.float()
        var, mean = torch.var_mean(wide, _all_but_channels(x), correction=0)
        var, mean, num_own = var.double(), mean.double(), x.numel() // num_channels
        sums = _sum(torch.cat([mean, var + mean.square(), mean.new_ones(1)]) * num_own)
        num = sums[-1]
        mean, square = sums[:-1].view(2, -1) / num
        var = (square - mean.square()).clamp(min=0)
        inv_std = (var + eps).rsqrt().float()
        ctx.save_for_backward(x, weight, mean.float(), inv_std, num)
        y = (wide - _by_channel(mean.float(), x)) * _by_channel(inv_std * weight, x) + _by_channel(bias, x)
        ctx.mark_non_differentiable(mean, var, num)
        return y.to(x.dtype), mean, var, num

    @staticmethod
    def backward(ctx: Any, grad_y: torch.Tensor, *_: Any) -> Any:
        x, weight, mean, inv_std, num = ctx.saved_tensors
        grad, z = grad_y.float(), (x.float() - _by_channel(mean, x)) * _by_channel(inv_std, x)
        grad_bias, grad_weight = grad.sum(_all_but_channels(x)), (grad * z).sum(_all_but_channels(x))
        mean_grad, mean_grad_z = (_sum(torch.stack([grad_bias, grad_weight]).double()) / num).float()
        grad_x = grad - _by_channel(mean_grad, x) - z * _by_channel(mean_grad_z, x)
        return (grad_x * _by_channel(inv_std * weight, x)).to(x.dtype), grad_weight, grad_bias, None


def _all_but_channels(x: torch.Tensor) -> list[int]:
    return [0, *range(2, x.ndim)]


def _by_channel(values: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return values.view(1, -1, *[1] * (x.ndim - 2))


def backend_of(device: torch.device) -> str:
    """Return torch's backends: numbers and orders travel from CPU to CPU, gradients from GPU to GPU."""
    return "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"


def join(rank: int, size: int, store: str, device: torch.device) -> None:
    """Connect this process with the others of this machine, which know each other by a file."""
    if rank > 0:
        Path(f"{store}.{rank}").touch()
    with _on_loopback():
        file = distributed.FileStore(store, size)  # type: ignore[attr-defined]
        file.set_timeout(datetime.timedelta(seconds=JOIN_S))
        _connect_by(file, rank, size, device)


def _connect_by(store: Any, rank: int, size: int, device: torch.device) -> None:
    distributed.init_process_group(backend_of(device), store=store, rank=rank, world_size=size, timeout=PATIENCE)


@contextlib.contextmanager
def _on_loopback() -> Iterator[None]:
    """Let processes connect within this machine, so that no port is open to others."""
    loopback = {"linux": "lo", "darwin": "lo0"}.get(sys.platform)
    given = {name: os.environ.get(name) for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")}
    try:
        if loopback is not None:
            os.environ.update(dict.fromkeys(given, loopback))
        yield
    finally:
        for name, value in given.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


_launched: Ranks | None = None  # by torchrun, with this process among them
_group: distributed.ProcessGroup | None = None  # None is torch's default group


def launched_ranks() -> Ranks | None:
    """Return the processes that torchrun has started, of which this is one; None without torchrun, or for a single one.

    They are connected by the first call, for which all of them wait.
    """
    global _launched, _group
    if _launched is None and distributed.is_torchelastic_launched() and int(os.environ["WORLD_SIZE"]) > 1:
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        backend = backend_of(choose_device())
        is_local = os.environ["LOCAL_WORLD_SIZE"] == os.environ["WORLD_SIZE"]
        with _on_loopback() if is_local else contextlib.nullcontext():
            if distributed.is_initialized():  # by the user's program, perhaps with another backend
                group = distributed.new_group(backend=backend, timeout=PATIENCE)
                assert isinstance(group, distributed.ProcessGroup)
                _group = group
            else:
                distributed.init_process_group(backend, timeout=PATIENCE)
                atexit.register(distributed.destroy_process_group)
        _launched = Ranks(distributed.get_rank(), distributed.get_world_size())
    return _launched


class RayCrew:
    """Ranks 1 and up on a Ray cluster, placed by Ray Train's TorchTrainer; rank 0 is this worker of `RayExecutor`.

    They are connected among the nodes as Ray's own processes are.
    """

    def __init__(self, size: int, device: torch.device) -> None:
        import ray
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchConfig, TorchTrainer

        self.key = size, torch.get_num_threads(), device.type
        self.ranks = Ranks(0, size, self._join)
        self._device = device
        self._error: Exception | None = None
        warnings.filterwarnings("ignore", module=r"ray\.")  # Ray Train's about its own parts
        self._is_noticed = threading.Event()  # that the others have ended
        self._has_connected = not ray.is_initialized()
        if self._has_connected:
            ray.init(os.environ["RAY_ADDRESS"], log_to_driver=False, logging_level=logging.ERROR)
        os.environ.setdefault("RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S", "30")  # of a process that was stopped or hangs
        self._folder = Path(tempfile.mkdtemp(prefix="saccade-ranks-"))
        host = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
        self._store = distributed.TCPStore(  # type: ignore[attr-defined]
            host, 0, is_master=True, wait_for_workers=False
        )
        config = {"size": size, "host": host, "port": self._store.port, "num_threads": torch.get_num_threads()}
        self._trainer = TorchTrainer(
            follow_on_ray,
            train_loop_config=config,
            torch_config=TorchConfig(backend="gloo"),
            scaling_config=ScalingConfig(
                num_workers=size - 1,
                use_gpu=device.type == "cuda",
                resources_per_worker={"CPU": torch.get_num_threads()},
                placement_strategy="PACK",
            ),
            run_config=RunConfig(storage_path=str(self._folder), failure_config=FailureConfig(max_failures=0)),
        )
        self._thread = threading.Thread(target=self._run, name="saccade-ranks", daemon=True)
        self._thread.start()

    @property
    def is_whole(self) -> bool:
        """Whether all processes are alive."""
        return self._thread.is_alive()

    def _run(self) -> None:
        try:
            self._trainer.fit()
        except Exception as error:
            self._error = error
        # Without an end of its connection, as of a node without power, communication cannot be interrupted.
        if self._error is not None and not self._is_noticed.wait(FAILURE_S):
            sys.stderr.write(f"a process of the trial was lost: {self._error}\n")
            os._exit(1)

    def _join(self) -> None:
        start_s = time.monotonic()
        while not self._store.check([f"rank {rank}" for rank in range(1, self.ranks.size)]):
            if not self.is_whole or time.monotonic() - start_s > JOIN_S:
                raise LostRankError(
                    f"the Ray cluster has not started the {self.ranks.size} processes of the trial in {JOIN_S:g} s"
                )
            time.sleep(0.02)
        with _explained():
            _connect_by(self._store, 0, self.ranks.size, self._device)

    def failure(self) -> Exception | None:
        """Wait until it is known why a process was lost."""
        self._is_noticed.set()
        self._thread.join(FAILURE_S)
        return WorkerDiedError(f"a process of the trial was lost: {self._error or 'it has ended'}")

    def close(self) -> None:
        """Let the processes end, and Ray kill those that do not."""
        import ray

        self._is_noticed.set()
        if distributed.is_initialized():
            distributed.destroy_process_group()
        self._thread.join(FAILURE_S)
        if self._has_connected:
            ray.shutdown()  # the actors of TorchTrainer end with the connection that started them
        shutil.rmtree(self._folder, ignore_errors=True)


def follow_on_ray(config: dict[str, Any]) -> None:
    """Take part in the trials of rank 0, in a worker of TorchTrainer, whose own process group has no rank 0."""
    from ray import train
    from ray.train.torch import get_device

    from saccade.training.trial.trainer import follow

    distributed.destroy_process_group()
    device, rank = get_device(), train.get_context().get_world_rank() + 1
    if device.type == "cuda":
        torch.cuda.set_device(device)
    torch.set_num_threads(config["num_threads"])
    store = distributed.TCPStore(config["host"], config["port"], is_master=False)  # type: ignore[attr-defined]
    store.set(f"rank {rank}", "ready")
    _connect_by(store, rank, config["size"], device)
    with contextlib.suppress(LostRankError):  # rank 0 has ended, or reports the loss
        follow(Ranks(rank, config["size"]))


class Crew:
    """Worker processes of this machine, which train together with this one as ranks 1 and up until they are closed."""

    def __init__(self, size: int, num_threads: int, device: torch.device, follower: Trainable) -> None:
        self.key = size, num_threads, device.type
        self.ranks = Ranks(0, size, self._join)
        self._device = device
        self._failure: JobFailed | None = None
        self._folder = Path(tempfile.mkdtemp(prefix="saccade-ranks-"))
        places = [f"cuda:{rank}" if device.type == "cuda" else "cpu" for rank in range(1, size)]
        slots = [WorkerSlot(place, num_threads) for place in places]
        self._executor = ProcessExecutor(follower, (type(follower).__module__,), slots)
        for rank in range(1, size):
            self._executor.submit(Job(rank, {"size": size, "store": self._store}))
        self._thread = threading.Thread(target=self._watch, name="saccade-ranks", daemon=True)
        self._thread.start()

    @property
    def is_whole(self) -> bool:
        """Whether all processes are alive."""
        return self._thread.is_alive()

    @property
    def _store(self) -> str:
        return str(self._folder / "rendezvous")

    def _join(self) -> None:
        start_s = time.monotonic()
        # Connecting cannot be interrupted, so it begins when all are there.
        while len(list(self._folder.glob(f"{Path(self._store).name}.*"))) < self.ranks.size - 1:
            if not self.is_whole or time.monotonic() - start_s > JOIN_S:
                raise LostRankError(f"the {self.ranks.size} processes of the trial were not ready in {JOIN_S:g} s")
            time.sleep(0.02)
        with _explained():
            join(0, self.ranks.size, self._store, self._device)

    def _watch(self) -> None:
        """Kill all processes as soon as one is lost, so that no other one waits for it."""
        with contextlib.suppress(LostRankError):
            self._executor.run(self._handle)

    def _handle(self, event: Event) -> Decision:
        if isinstance(event, JobFailed):
            self._failure = event
            if self._device.type == "cuda" and (group := distributed.group.WORLD) is not None:
                group.abort()  # unlike gloo, NCCL would wait for ever
            raise LostRankError
        return Decision.CONTINUE

    def failure(self) -> Exception | None:
        """Wait until it is known which process was lost, and return an error that says why."""
        self._thread.join(FAILURE_S)
        if self._failure is None:
            return None
        reason = self._failure.reason.removeprefix(f"{WorkerDiedError.__name__}: ")
        text = f"rank {self._failure.trial} of the {self.ranks.size} processes of the trial failed: {reason}"
        return WorkerDiedError(text) if self._failure.is_worker_lost else RuntimeError(text)

    def close(self) -> None:
        """Kill the processes."""
        self._executor.close()
        self._thread.join()
        if distributed.is_initialized():
            distributed.destroy_process_group()
        shutil.rmtree(self._folder, ignore_errors=True)


_crew: Crew | RayCrew | None = None  # of this process; jobs share it


def dismiss_ranks() -> None:
    """End the processes that this one has started for data-parallel training."""
    global _crew
    if _crew is not None:
        crew, _crew = _crew, None
        crew.close()


def _crew_of(size: int, num_threads: int, device: torch.device, follower: Trainable | None) -> Crew | RayCrew:
    """Return the processes of the job before, if they suit this one, or else new ones."""
    global _crew
    if _crew is None or _crew.key != (size, num_threads, device.type) or not _crew.is_whole:
        dismiss_ranks()
        if distributed.is_initialized():
            raise HyperparameterError(
                f"nprocs_per_trial={size} starts processes that torch.distributed connects, but this process uses "
                'it already. Leave out nprocs_per_trial, or pass executor="process".'
            )
        _crew = RayCrew(size, device) if follower is None else Crew(size, num_threads, device, follower)
    return _crew


@contextlib.contextmanager
def data_parallel(size: int, device: str | None, follower: Trainable | None) -> Iterator[Ranks]:
    """Context of a job that `size` processes train together: those of torchrun, or those that this one starts now.

    The latter are kept for the next job; their own job is `follower`, and without it they are on the Ray cluster, of
    which this process is a worker. Raises a WorkerDiedError if one of them is lost
    during the context, and a RuntimeError if one of them fails. None of them outlives this process.
    """
    if size == 1:
        yield ALONE
        return
    is_divided = _launched is None and follower is not None
    num_threads = max(1, torch.get_num_threads() // (size if is_divided else 1))
    crew = None if _launched else _crew_of(size, num_threads, choose_device(device), follower)
    ranks = _launched or (crew.ranks if crew else ALONE)
    if ranks.is_busy:
        raise WorkerDiedError("the processes of torchrun are out of step since an earlier failure; start them again")
    try:
        with cpu_threads(num_threads):
            yield ranks
            ranks.release()
    except BaseException as error:
        failure: Exception | None = None
        if isinstance(error, LostRankError):
            ranks.is_busy = True
            failure = WorkerDiedError(str(error)) if crew is None else crew.failure()
        if not ranks.is_busy:
            ranks.release()
        elif crew is not None:
            dismiss_ranks()
        if failure is not None:
            raise failure from error
        raise
