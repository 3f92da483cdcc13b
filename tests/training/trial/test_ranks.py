"""Data-parallel training by two processes on the CPU, connected by gloo."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import distributed
from torch.nn import functional

from saccade.errors import HyperparameterError
from saccade.events import EpochDone, JobDone, JobFailed
from saccade.executor import run_job
from saccade.predictor import ImagePredictor
from saccade.study.trial import Decision, Job
from saccade.study.trial_files import LocalTrialFiles
from saccade.training.recipes.recipe import Recipe
from saccade.training.task import ImageTask
from saccade.training.trial import ranks as ranks_module
from saccade.training.trial.ranks import Ranks, dismiss_ranks
from saccade.training.trial.trainer import ImageTrainable, Trainer

MakeTask = Callable[..., ImageTask]
Run = Callable[..., tuple[list[EpochDone], JobDone | JobFailed]]


@pytest.fixture(autouse=True, scope="module")
def _dismissed() -> Iterator[None]:
    """Let the tests of this file share the second process, and end it after them."""
    yield
    dismiss_ranks()


@pytest.fixture
def run(make_task: MakeTask, tiny: dict[str, Any], tmp_path: Path) -> Run:
    """Return a function that trains with a number of processes, and returns its reports and its end."""
    task = make_task(device="cpu")

    def run(
        num_processes: int, name: str, on_report: Callable[[EpochDone], object] = lambda _: None, **changes: Any
    ) -> tuple[list[EpochDone], JobDone | JobFailed]:
        reports: list[EpochDone] = []
        job = {key: changes.pop(key) for key in ("until_epoch", "checkpoint") if key in changes}

        def report(event: EpochDone) -> Decision:
            reports.append(event)
            on_report(event)
            return Decision.CONTINUE

        is_on_ray = changes.pop("is_on_ray", False)
        shared = replace(task, num_processes=num_processes, is_on_ray=is_on_ray)
        config = {**tiny, "amp": False, "channels_last": True, "opt": "sgd", "momentum": 0.9, **changes}
        return reports, run_job(
            ImageTrainable(shared), Job(0, config, files=LocalTrialFiles(tmp_path / name), **job), report
        )

    return run


def checkpoint(folder: Path, epoch: int) -> dict[str, torch.Tensor]:
    return load_file(folder / "0000" / f"last-{epoch:04d}.safetensors")


VARIANTS: dict[str, dict[str, Any]] = {
    "batch norm, odd batches, randaugment": {"batch_size": 5, "auto_augment": "randaugment"},
    "mixup, moving average, clipping": {
        "batch_size": 5, "mixup": 0.4, "cutmix": 1.0, "model_ema": True, "model_ema_decay": 0.9, "clip_grad": 1.0,
    },
    "weights of classes, parts of the images, transformer": {
        "model": "test_vit", "class_weight": {"red": 3.0}, "images_per_epoch": 9, "robust_loss": 0.5,
        "first_img_size": 32,
    },
}  # fmt: skip


@pytest.mark.parametrize("variant", VARIANTS)
def test_two_processes_train_as_one_does(run: Run, tmp_path: Path, variant: str) -> None:
    options = {**VARIANTS[variant], "epochs": 3, "until_epoch": 2}
    (one, _), (two, end) = run(1, "one", **options), run(2, "two", **options)
    assert isinstance(end, JobDone)
    for single, together in zip(one, two, strict=True):
        assert together.score == single.score
        assert together.metrics["num_processes"] == 2
        for name in ("train_loss", "train_acc", "num_images", "train_part"):
            assert together.metrics[name] == pytest.approx(single.metrics[name], rel=1e-5), name
    states = [checkpoint(tmp_path / name, 2) for name in ("one", "two")]
    for name, tensor in states[0].items():
        torch.testing.assert_close(
            states[1][name], tensor, rtol=1e-3, atol=1e-4, msg=lambda text, name=name: f"{name}: {text}"
        )


def test_a_trial_continues_with_another_number_of_processes(run: Run, tmp_path: Path) -> None:
    run(1, "whole", epochs=4, until_epoch=3)
    first, _ = run(2, "parts", epochs=4, until_epoch=1)
    second, _ = run(1, "parts", epochs=4, until_epoch=2, checkpoint=first[-1].checkpoint)
    run(2, "parts", epochs=4, until_epoch=3, checkpoint=second[-1].checkpoint)
    states = [checkpoint(tmp_path / name, 3) for name in ("whole", "parts")]
    for name, tensor in states[0].items():
        torch.testing.assert_close(
            states[1][name], tensor, rtol=1e-3, atol=1e-4, msg=lambda text, name=name: f"{name}: {text}"
        )


def test_after_a_loss_that_is_not_finite_the_processes_take_the_next_trial(run: Run) -> None:
    _, end = run(2, "diverged", lr=1e30, warmup_epochs=0)
    crew = ranks_module._crew
    assert isinstance(end, JobFailed)
    assert end.reason.startswith("DivergedError")
    assert crew is not None
    reports, end = run(2, "next", epochs=1)
    assert (end.kind, len(reports), ranks_module._crew) == ("job_done", 1, crew)


def test_few_images_are_trained_on_by_one_process(run: Run) -> None:
    reports, _ = run(2, "few", batch_size=3, mixup=0.2, epochs=1)
    assert "num_processes" not in reports[-1].metrics


def test_several_processes_do_not_compile(make_task: MakeTask, tiny: dict[str, Any], tmp_path: Path) -> None:
    recipe = Recipe.of({**tiny, "compile": True})
    with pytest.raises(HyperparameterError, match="compile=True is not supported with several processes"):
        Trainer(make_task(), recipe, LocalTrialFiles(tmp_path), ranks=Ranks(0, 2))


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="Windows has no such signal")
def test_a_lost_process_fails_the_job_with_the_reason(run: Run) -> None:
    def kill(event: EpochDone) -> None:
        crew = ranks_module._crew
        assert crew is not None
        (worker,) = crew._executor._workers
        assert worker is not None
        if event.epoch == 1:
            os.kill(worker._process.pid, signal.SIGKILL)

    reports, end = run(2, "killed", kill, epochs=3)
    assert isinstance(end, JobFailed)
    assert end.is_worker_lost  # so the study retries the trial from its checkpoint
    assert "rank 1 of the 2 processes of the trial failed: the worker process was killed by signal SIG" in end.reason
    assert [event.epoch for event in reports] == [1]
    assert ranks_module._crew is None
    assert not distributed.is_initialized()


@given(num=st.integers(1, 40), size=st.integers(1, 6), in_pairs=st.booleans())
def test_each_image_of_a_batch_has_one_rank_and_the_same_as_its_partner(num: int, size: int, in_pairs: bool) -> None:
    parts = [Ranks(rank, size).places(num, in_pairs=in_pairs).tolist() for rank in range(size)]
    assert sorted(place for part in parts for place in part) == list(range(num))
    assert all(part == sorted(part) for part in parts)
    lengths = list(map(len, parts))
    assert max(lengths) - min(lengths) <= (2 if in_pairs else 1)
    if in_pairs:  # Mixing extends odd batches by their first image, and mixes them with their reverse
        whole = [*range(num), *[0] * (num % 2)]
        partners = dict(zip(whole[::-1], whole, strict=True)) if num % 2 == 0 else {}
        for part in parts:
            extended = [*part, *part[:1] * (len(part) % 2)]
            for one, other in zip(extended, extended[::-1], strict=True):
                expected = partners.get(one, (len(whole) - 1 - one) % num if one else 0)
                assert other == expected


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_shared_batch_norm_is_that_of_torch(tmp_path: Path, dtype: torch.dtype) -> None:
    dismiss_ranks()
    distributed.init_process_group("gloo", init_method=(tmp_path / "store").as_uri(), rank=0, world_size=1)
    try:
        found = []
        for context in (torch.autograd.set_grad_enabled(True), Ranks(0, 2).batch_norm()):
            rng = torch.Generator().manual_seed(0)
            x = (100 + torch.randn(4, 3, 5, 5, generator=rng)).to(dtype).requires_grad_()
            weight, bias = (torch.randn(3, generator=rng).requires_grad_() for _ in range(2))
            mean, var = torch.zeros(3), torch.ones(3)
            with context:
                y = functional.batch_norm(x, mean, var, weight, bias, training=True, momentum=0.3)
                fixed = functional.batch_norm(x, mean, var)
            (y.float() * torch.randn(y.shape, generator=rng)).sum().backward()
            found.append([y, fixed, mean, var, x.grad, weight.grad, bias.grad])
    finally:
        distributed.destroy_process_group()
    tolerance = {"rtol": 1e-3, "atol": 1e-3} if dtype is torch.float32 else {"rtol": 0.05, "atol": 0.05}
    for ours, theirs in zip(*found[::-1], strict=True):
        assert ours.dtype == theirs.dtype
        torch.testing.assert_close(ours, theirs, **tolerance)


def test_a_machine_without_the_images_gets_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two threads stand for two machines, of which only the first one sees any folder."""
    monkeypatch.setattr(ranks_module, "BUCKET_BYTES", 3)
    monkeypatch.setattr(Path, "is_dir", lambda self: threading.current_thread() is threading.main_thread())
    files = {"index.npz": b"0123456", "empty": b""}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    sent: queue.SimpleQueue[Any] = queue.SimpleQueue()

    class Machine(Ranks):
        def share(self, value: Any = None) -> Any:
            if self.rank:
                return sent.get(timeout=60)
            sent.put(value)
            return value

        def total(self, *numbers: float) -> list[float]:
            return [1.0 for _ in numbers]

    copies: list[Path] = []
    other = threading.Thread(target=lambda: copies.append(Machine(1, 2).share_folder(Path())))
    other.start()
    assert Machine(0, 2).share_folder(tmp_path) == tmp_path
    other.join()
    assert copies[0] != tmp_path
    assert {path.name: path.read_bytes() for path in copies[0].iterdir()} == files


def test_ray_train_places_the_other_process(run: Run, ray_cluster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray")
    dismiss_ranks()
    one, _ = run(1, "one", epochs=1)
    two, end = run(2, "two", epochs=1, is_on_ray=True)
    assert isinstance(end, JobDone), end
    assert two[-1].metrics["num_processes"] == 2
    assert two[-1].score == one[-1].score
    assert two[-1].metrics["train_loss"] == pytest.approx(one[-1].metrics["train_loss"], rel=1e-5)
    dismiss_ranks()
    assert not ray.is_initialized()


SCRIPT = """\
import os, sys, numpy, pandas
from saccade import ImagePredictor
frame = pandas.read_csv("images.csv")
predictor = ImagePredictor(path="run", verbosity=0).fit(frame, hyperparameters=eval(sys.argv[1]), random_state=0)
numpy.save(os.environ["RANK"], predictor.predict_proba(frame))
"""


def test_a_program_under_torchrun_makes_one_fit(
    tmp_path: Path, make_colours: Callable[..., pd.DataFrame], tiny: dict[str, Any]
) -> None:
    frame, hyperparameters = make_colours(10), {**tiny, "amp": False, "channels_last": True}
    frame.to_csv(tmp_path / "images.csv", index=False)
    (tmp_path / "train.py").write_text(SCRIPT)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command = [*torchrun, "train.py", repr(hyperparameters)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    alone = ImagePredictor(path=tmp_path / "alone", verbosity=0)
    expected = alone.fit(frame, hyperparameters=hyperparameters, random_state=0).predict_proba(frame)
    for rank in (0, 1):
        np.testing.assert_allclose(np.load(tmp_path / f"{rank}.npy"), expected, atol=1e-4)
