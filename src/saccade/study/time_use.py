"""Where the seconds of a run go."""

from __future__ import annotations

from saccade.events import (
    EpochDone,
    Event,
    JobDone,
    JobFailed,
    JobStarted,
    NetworksScreened,
    PhaseDone,
    RunPlanned,
    TrialRestarted,
    WorkerJoined,
    WorkerLost,
)


class TimeUse:
    """Where the seconds of a run go, by its events and their times in seconds of the run.

    A process starts in the phase ``preparing``, after the `used_s` of earlier ones; each `PhaseDone` names the next.
    """

    def __init__(self, used_s: float = 0.0) -> None:
        self.phase, self.start_s, self._then_s = "preparing", used_s, used_s
        self._seconds: dict[str, float] = {"earlier": used_s}
        self._worker_s = dict.fromkeys(("probes", "training", "validation", "idle"), 0.0)
        self._of_workers_s = 0.0  # time of all workers in the search
        self._num_processes = 0  # worker processes
        self._with_job: set[int] = set()  # trials with a job

    def _advance(self, now_s: float) -> None:
        waited_s, self._then_s = now_s - self._then_s, now_s
        if self.phase == "search":
            self._of_workers_s += max(1, self._num_processes) * waited_s
            self._worker_s["idle"] += max(0, self._num_processes - len(self._with_job)) * waited_s

    def add(self, event: Event, now_s: float) -> None:
        """Count an event, and the time since the one before."""
        self._advance(now_s)
        match event:
            case RunPlanned() | WorkerJoined() | WorkerLost():
                self._num_processes = event.num_workers
            case PhaseDone():
                self._seconds[self.phase] = self._seconds.get(self.phase, 0.0) + now_s - self.start_s
                self.phase, self.start_s = event.next_phase, now_s
                self._with_job.clear()
            case NetworksScreened():  # in the main process; its workers have no jobs yet
                num_workers = max(1, self._num_processes)
                self._worker_s["probes"] += event.seconds * num_workers
                self._worker_s["idle"] = max(0.0, self._worker_s["idle"] - event.seconds * num_workers)
            case JobStarted():
                self._with_job.add(event.trial)
            case JobDone() | JobFailed() | TrialRestarted():
                self._with_job.discard(event.trial)
            case EpochDone() if self.phase == "search":
                if event.epoch == 0:  # the linear probe
                    self._worker_s["probes"] += event.seconds
                else:
                    self._worker_s["training"] += event.metrics.get("train_s", 0.0)
                    self._worker_s["validation"] += event.metrics.get("val_s", 0.0)

    def seconds(self, total_s: float) -> dict[str, float]:
        """Return the seconds of each part so far; see `saccade.fit.time_budget`."""
        self._advance(total_s)
        seconds = dict(self._seconds)
        seconds[self.phase] = seconds.get(self.phase, 0.0) + total_s - self.start_s
        found: dict[str, float] = {}
        for phase, phase_s in seconds.items():
            if phase == "search":
                average = phase_s / self._of_workers_s if self._of_workers_s else 0.0
                parts_s = {name: worker_s * average for name, worker_s in self._worker_s.items()}
                found |= {**parts_s, "overhead": phase_s - sum(parts_s.values())}
            else:
                found[phase] = phase_s
        return {**{name: value for name, value in found.items() if value}, "total": total_s}
