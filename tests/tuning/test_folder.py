from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saccade.errors import HyperparameterError
from saccade.events import EpochDone, JobDone, JobFailed, JobStarted
from saccade.space import Categorical, Dict, Real
from saccade.study.function import CHECKPOINT
from saccade.study.trial import Status, Trial
from saccade.study.trial_files import LocalTrialFiles
from saccade.tuning.folder import (
    ABOUT,
    NUM_BEST,
    FunctionCheckpointKeeper,
    best_checkpoint,
    check_path,
    read_about,
    start_or_resume,
)

SPACE = Dict(x=Real(0, 1))


def opened(folder, space=SPACE, metric="score", mode="max", resume=False):
    check_path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    return start_or_resume(folder, space, metric, mode, resume=resume)


def test_a_new_folder_records_the_search(tmp_path):
    folder = tmp_path / "a" / "run"
    assert opened(folder, metric="loss", mode="min") is False
    about = read_about(folder)
    assert (about["metric"], about["mode"]) == ("loss", "min")
    assert [path.name for path in folder.iterdir()] == [ABOUT]
    assert [path.name for path in folder.parent.iterdir()] == ["run"]


def test_an_empty_or_missing_folder_starts_a_search(tmp_path):
    (tmp_path / "empty").mkdir()
    assert opened(tmp_path / "empty") is False
    assert opened(tmp_path / "none", resume=True) is False


def test_a_search_is_resumed_only_with_resume(tmp_path):
    opened(tmp_path / "run")
    assert opened(tmp_path / "run", resume=True) is True
    with pytest.raises(HyperparameterError, match=r"contains a search\. Pass resume=True"):
        opened(tmp_path / "run")


def test_a_folder_with_other_files_is_an_error(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(HyperparameterError, match="exists and contains no search"):
        opened(tmp_path)
    with pytest.raises(HyperparameterError, match="exists and contains no search"):
        opened(tmp_path / "thesis.tex")
    with pytest.raises(HyperparameterError, match="contains no search of saccade"):
        read_about(tmp_path)
    (tmp_path / ABOUT).write_text("[]")
    with pytest.raises(HyperparameterError, match="contains no search of saccade"):
        read_about(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metric": "loss"}, "contains a search with metric=score, but metric is loss"),
        ({"mode": "min"}, "contains a search with mode=max, but mode is min"),
        ({"space": Dict(x=Real(0, 2))}, "contains a search with space="),
    ],
)
def test_a_different_search_is_an_error(tmp_path, changes, message):
    opened(tmp_path / "run")
    with pytest.raises(HyperparameterError, match=message):
        opened(tmp_path / "run", resume=True, **changes)


def test_spaces_without_a_json_form_are_not_compared(tmp_path):
    opened(tmp_path / "run", Dict(f=Categorical(min, max)))
    assert opened(tmp_path / "run", Dict(f=Categorical(max, min)), resume=True)


class Search:
    """Plays a study: it passes events to the keeper."""

    def __init__(self, root):
        self.files, self.trials = LocalTrialFiles(root), []
        self.keeper = FunctionCheckpointKeeper(self.trials)

    def begin(self):
        number = len(self.trials)
        self.trials.append(Trial(number, {}, self.files))
        self.start(number)
        return number

    def start(self, number):
        self.trials[number].status = Status.RUNNING
        self.keeper(JobStarted(number))

    def report(self, number, score, has_checkpoint=True):
        trial = self.trials[number]
        epoch = trial.num_epochs + 1
        name = self.files.put(number, CHECKPOINT, epoch, lambda path: path.mkdir()) if has_checkpoint else None
        event = EpochDone(number, epoch, score, checkpoint=name)
        trial.add(event)
        self.keeper(event)

    def end(self, number, status):
        self.trials[number].status = status
        self.keeper(JobFailed(number, "") if status is Status.FAILED else JobDone(number, status.value))

    def on_disk(self, number):
        return self.files.epochs(number, CHECKPOINT)


def test_a_running_trial_keeps_its_best_and_its_last(tmp_path):
    search = Search(tmp_path)
    trial = search.begin()
    kept = []
    for score in [1, 3, 2, 2, 5, 4]:
        search.report(trial, score)
        kept.append(search.on_disk(trial))
    assert kept == [[1], [2], [2, 3], [2, 4], [5], [5, 6]]


def test_a_job_keeps_its_first_checkpoint_until_its_end(tmp_path):
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
    assert best_checkpoint(search.trials[trial]) == "checkpoint-0001"


@given(
    plan=st.lists(
        st.tuples(
            st.lists(st.integers(0, 50), min_size=1, max_size=4),
            st.sampled_from([Status.COMPLETED, Status.STOPPED, Status.PAUSED, Status.FAILED]),
        ),
        max_size=12,
    ),
    is_resumed=st.lists(st.booleans(), min_size=12, max_size=12),
)
@settings(max_examples=40, deadline=None)
def test_the_best_and_resumable_trials_keep_checkpoints(tmp_path_factory, plan, is_resumed):
    search = Search(tmp_path_factory.mktemp("search"))
    for (scores, status), is_resumed_here in zip(plan, is_resumed, strict=False):
        if is_resumed_here:
            search.keeper = FunctionCheckpointKeeper(search.trials)
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
