from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saccade.events import EpochDone, JobDone, JobFailed, JobStarted
from saccade.study.function import CHECKPOINTS
from saccade.study.trial import Status, Trial
from saccade.tuning.checkpoints import NUM_BEST, CheckpointKeeper, best_checkpoint


class Search:
    """Plays a study: it tells the keeper what trials do."""

    def __init__(self, root):
        self.root, self.trials = root, []
        self.keeper = CheckpointKeeper(self.trials)

    def begin(self):
        number = len(self.trials)
        self.trials.append(Trial(number, {}, str(self.root / str(number))))
        self.start(number)
        return number

    def start(self, number):
        self.trials[number].status = Status.RUNNING
        self.keeper(JobStarted(number))

    def report(self, number, score, has_checkpoint=True):
        trial = self.trials[number]
        epoch = trial.num_epochs + 1
        path = Path(trial.folder) / CHECKPOINTS / f"epoch_{epoch:04d}"
        if has_checkpoint:
            path.mkdir(parents=True)
            (path / "weights").touch()
        event = EpochDone(number, epoch, score, checkpoint=str(path) if has_checkpoint else None)
        trial.add(event)
        self.keeper(event)

    def end(self, number, status):
        self.trials[number].status = status
        self.keeper(JobFailed(number, "") if status is Status.FAILED else JobDone(number, status.value))

    def on_disk(self, number):
        folder = Path(self.trials[number].folder) / CHECKPOINTS
        return sorted(int(path.name[-4:]) for path in folder.iterdir()) if folder.is_dir() else []


def test_a_running_trial_keeps_its_best_and_its_last(tmp_path):
    search = Search(tmp_path)
    trial = search.begin()
    kept = []
    for score in [1, 3, 2, 2, 5, 4]:
        search.report(trial, score)
        kept.append(search.on_disk(trial))
    assert kept == [[1], [2], [2, 3], [2, 4], [5], [5, 6]]


def test_a_job_keeps_what_it_began_with_until_its_end(tmp_path):
    search = Search(tmp_path)
    trial = search.begin()
    search.report(trial, 1)
    search.end(trial, Status.PAUSED)
    search.start(trial)
    search.report(trial, 2)
    search.report(trial, 3)
    assert search.on_disk(trial) == [1, 3]
    search.end(trial, Status.PAUSED)
    assert search.on_disk(trial) == [3]


@pytest.mark.parametrize(("status", "kept"), [(Status.COMPLETED, [2]), (Status.STOPPED, [2]), (Status.FAILED, [])])
def test_a_trial_that_has_ended_keeps_its_best_or_nothing(tmp_path, status, kept):
    search = Search(tmp_path)
    trial = search.begin()
    for score in [1, 3, 2]:
        search.report(trial, score)
    search.end(trial, status)
    assert search.on_disk(trial) == kept


def test_an_epoch_without_a_checkpoint_changes_nothing(tmp_path):
    search = Search(tmp_path)
    trial = search.begin()
    search.report(trial, 1)
    search.report(trial, 5, has_checkpoint=False)
    assert search.on_disk(trial) == [1]
    assert best_checkpoint(search.trials[trial]).endswith("epoch_0001")


def test_what_a_kill_left_behind_is_removed(tmp_path):
    search = Search(tmp_path)
    trial = search.begin()
    (tmp_path / "0" / CHECKPOINTS / "part").mkdir(parents=True)
    search.report(trial, 1)
    assert search.on_disk(trial) == [1]


@given(
    plan=st.lists(
        st.tuples(
            st.lists(st.integers(0, 50), min_size=1, max_size=4),
            st.sampled_from([Status.COMPLETED, Status.STOPPED, Status.PAUSED, Status.FAILED]),
        ),
        max_size=12,
    ),
    is_new_process=st.lists(st.booleans(), min_size=12, max_size=12),
)
@settings(max_examples=40, deadline=None)
def test_what_is_kept_are_the_best_and_what_may_go_on(tmp_path_factory, plan, is_new_process):
    search = Search(tmp_path_factory.mktemp("search"))
    for (scores, status), is_new in zip(plan, is_new_process, strict=False):
        if is_new:
            search.keeper = CheckpointKeeper(search.trials)
        number = search.begin()
        for score in scores:
            search.report(number, score)
        search.end(number, status)
    ended = [trial for trial in search.trials if trial.status in (Status.COMPLETED, Status.STOPPED)]
    best = sorted(ended, key=lambda trial: (-trial.best_report.score, trial.number))[:NUM_BEST]
    for trial in search.trials:
        best_epoch = trial.best_report.epoch
        if trial.status is Status.PAUSED:
            expected = sorted({best_epoch, trial.num_epochs})
        else:
            expected = [best_epoch] if trial in best else []
        assert search.on_disk(trial.number) == expected
