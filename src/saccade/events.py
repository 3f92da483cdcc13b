"""Events: one small record for each thing that happens in a run.

Workers send the events of their jobs to the study. The study writes them to the event log and passes them on to its
listeners, such as the progress display.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, ClassVar

from saccade.errors import DivergedError


class Decision(str, Enum):
    """What a trial does after a report."""

    CONTINUE = "continue"
    PAUSE = "pause"
    STOP = "stop"


@dataclass(frozen=True)
class Event:
    """The base class of all events; `kind` is the name of an event in the event log."""

    kind: ClassVar[str] = "event"


@dataclass(frozen=True)
class RunStarted(Event):
    """A process has started, or resumed, the run in `folder`."""

    kind: ClassVar[str] = "run_started"
    folder: str
    num_trials: int | None
    time_limit_s: float | None
    environment: dict[str, str] = field(default_factory=dict)
    """Versions and machine of the process, such as ``{"Python": "3.12.1"}``."""
    scales: dict[str, str] = field(default_factory=dict)
    """``"linear"``, ``"log"`` or ``"choice"`` of each hyperparameter that is searched; see `flat_form.scales`."""
    elapsed_s: float = 0.0
    """Seconds of the time limit that are used already, by earlier sessions as well."""
    metric: str = "score"
    """The metric used for model selection."""


@dataclass(frozen=True)
class RunPlanned(Event):
    """What a process is going to do in a run."""

    kind: ClassVar[str] = "run_planned"
    problem: str
    """The problem type and why it was inferred, such as ``"multiclass (3 different labels, not numbers)"``."""
    metric: str
    """The metric used for model selection."""
    networks: list[str]
    """The networks of the search space."""
    device: str
    """The device of the trials, such as ``"cpu, 2 threads"``."""
    executor: str
    """The processes in which they run, such as ``"in this process"``."""
    advice: str = ""
    """How to change the limits of the search, if they are defaults."""
    num_workers: int = 0
    """Worker processes at the start; 0 if trials run in this process."""


@dataclass(frozen=True)
class DataReady(Event):
    """The images are split and decoded."""

    kind: ClassVar[str] = "data_ready"
    num_train: int
    num_val: int
    num_classes: int
    num_unreadable: int
    seconds: float
    class_sizes: list[list[Any]] = field(default_factory=list)
    """Name of each class, and its training and validation images."""
    image_sizes: list[list[int]] = field(default_factory=list)
    """Width and height in pixels, and number of images of that size; of very many sizes a sample."""
    unreadable: dict[str, int] = field(default_factory=dict)
    """Number of unreadable images by reason."""


@dataclass(frozen=True)
class DataChecked(Event):
    """The data checks have ended."""

    kind: ClassVar[str] = "data_checked"
    findings: list[dict[str, Any]]
    """``code``, ``title``, ``severity``, ``message``, ``what_to_do``, ``num_images``, and ``examples`` of files."""


@dataclass(frozen=True)
class Warned(Event):
    """A warning for the user."""

    kind: ClassVar[str] = "warned"
    text: str

    def shown(self) -> str:
        """Return the text in the words of the interface that the user has: see `warnings_in`."""
        return _words.get()(self.text)


_words: ContextVar[Callable[[str], str]] = ContextVar("words", default=str)


@contextmanager
def warnings_in(words: Callable[[str], str]) -> Iterator[None]:
    """Context in which warnings are shown as `words` writes them, such as with options in place of arguments."""
    token = _words.set(words)
    try:
        yield
    finally:
        _words.reset(token)


@dataclass(frozen=True)
class Progressed(Event):
    """`done` of `total` steps of a long task named `what` are done."""

    kind: ClassVar[str] = "progressed"
    what: str
    done: int
    total: int


@dataclass(frozen=True)
class NetworksScreened(Event):
    """Successive probing has ended: which networks the search continues with."""

    kind: ClassVar[str] = "networks_screened"
    scores: dict[str, float]
    """The score of each that is left, out of fold on a part of the training images; the best network first."""
    num_networks: int
    """How many there were."""
    seconds: float
    left_out: dict[str, str] = field(default_factory=dict)
    """Why networks were not probed: their weights did not arrive, they do not fit, or they are too slow."""


@dataclass(frozen=True)
class PseudoLabelled(Event):
    """Images without labels have got pseudo-labels, and train with them if that is better."""

    kind: ClassVar[str] = "pseudo_labelled"
    num_images: int
    are_used: bool
    loss: float
    """Out-of-fold log-loss of the labelled images without pseudo-labels."""
    loss_with: float
    error: float
    """Standard error of the difference."""


@dataclass(frozen=True)
class PhaseDone(Event):
    """A phase of a run, such as ``"decoding"``, has ended; it began after `start_s` seconds and took `seconds`."""

    kind: ClassVar[str] = "phase_done"
    phase: str
    start_s: float
    seconds: float
    next_phase: str = ""
    """The phase that begins; "" in logs of earlier versions."""


@dataclass(frozen=True)
class TrialCreated(Event):
    """A trial has its number, counted from 0, and its configuration."""

    kind: ClassVar[str] = "trial_created"
    trial: int
    config: dict[str, Any]


@dataclass(frozen=True)
class JobStarted(Event):
    """A worker has been given a job of a trial, which ends at `until_epoch`; None is the end of the configuration."""

    kind: ClassVar[str] = "job_started"
    trial: int
    until_epoch: int | None = None
    node: str = field(default="", compare=False)
    """Name of the cluster's node that it is sent to; "" on this machine."""


CV_SCORE = "cv_score"
"""The metric of a report that searchers observe in place of the score, where a report has it: a cross-validated one."""

ENGINE_GAIN = "engine_gain"
"""The metric of a linear probe's report with how many times as fast as by torch its features were computed."""


@dataclass(frozen=True)
class EpochDone(Event):
    """A trial has trained and validated one more epoch."""

    kind: ClassVar[str] = "epoch_done"
    trial: int
    epoch: int
    """Epochs completed, from 1; 0 is a report before any training, such as that of a linear probe."""
    score: float
    """The validation score, higher is better; a NaN or an infinite one raises a DivergedError."""
    seconds: float = 0.0
    """Duration of the epoch, waiting for data and validation included."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Further metrics by name. `CV_SCORE` is the score on more images than the validation set."""
    checkpoint: str | None = None
    """Name of the checkpoint from which training can continue after this epoch, as `TrialFiles.put` returns it."""
    is_last: bool = False
    """Whether the trial's configuration ends with this epoch."""
    decision: Decision | None = field(default=None, compare=False)
    """What the study has answered; None until it has."""
    node: str = field(default="", compare=False)
    """Name of the cluster's node that trained it; "" on this machine."""

    def __post_init__(self) -> None:
        if not math.isfinite(self.score):
            raise DivergedError(f"the score of epoch {self.epoch} is {self.score}; a score is a finite number")


@dataclass(frozen=True)
class TrialRestarted(Event):
    """A trial is trained again after `after_epoch`; its reports of later epochs are dropped, with -1 all of them."""

    kind: ClassVar[str] = "trial_restarted"
    trial: int
    after_epoch: int
    num_retries: int = 0
    """How often the trial has lost its worker since it has reported a new epoch."""
    num_lost_nodes: int = 0
    """How often it has lost the node of its worker since then."""


@dataclass(frozen=True)
class JobDone(Event):
    """A job has ended without an error."""

    kind: ClassVar[str] = "job_done"
    trial: int
    status: str = "completed"
    """The status of the trial: ``"completed"``, ``"stopped"`` or ``"paused"``."""
    reason: str = ""
    """Why the job ended early; "" if it did not."""


@dataclass(frozen=True)
class JobFailed(Event):
    """A job has raised an error, or lost its worker."""

    kind: ClassVar[str] = "job_failed"
    trial: int
    reason: str
    """One line."""
    traceback: str = ""
    """Of the error; "" if there was none."""
    is_worker_lost: bool = False
    """Whether the worker crashed or was killed, which may not be caused by the trial."""
    is_node_lost: bool = False
    """Whether the worker was lost together with its node or its connection, which the trial does not cause."""
    is_disk_full: bool = False
    """Whether a file could not be written for lack of space. The trial is retried when the run is resumed."""


@dataclass(frozen=True)
class WorkerJoined(Event):
    """An executor has one more worker; `num_workers` is the new number."""

    kind: ClassVar[str] = "worker_joined"
    num_workers: int
    node: str = ""
    """Name of the cluster's node that it is on; "" on this machine."""
    speed: float | None = None
    """Speed of the node, relative to any machine that is the same for all nodes; None if it was not measured."""


@dataclass(frozen=True)
class WorkerLost(Event):
    """An executor has lost a worker for good; `num_workers` is the new number. A job that it had fails separately.

    With 0 workers, trials run in the process of the study.
    """

    kind: ClassVar[str] = "worker_lost"
    num_workers: int
    node: str = ""
    """Name of the cluster's node that it was on; "" on this machine."""


@dataclass(frozen=True)
class RunFinished(Event):
    """The run has ended; `best_trial` is None if no trial succeeded, and `result` describes a predictor."""

    kind: ClassVar[str] = "run_finished"
    best_trial: int | None
    score: float | None
    seconds: float
    result: str = ""


Listener = Callable[[Event], None]
