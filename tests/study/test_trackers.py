from __future__ import annotations

import threading
import time

import pytest

from saccade import tune
from saccade.errors import HyperparameterError, UnknownNameError
from saccade.events import RunFinished, RunStarted, Warned
from saccade.fit.options import FitOptions
from saccade.space import Categorical
from saccade.study import trackers
from saccade.study.trackers import TRACKERS, Tracker, check_callbacks, connected
from saccade.testing import TrackerContract


class Keeping(Tracker):
    def __init__(self):
        self.events, self.num_closed = [], 0

    def on_event(self, event):
        self.events.append(event)

    def close(self):
        self.num_closed += 1


class TestKeeping(TrackerContract):
    def make(self, tmp_path):
        return Keeping()


class Broken(Keeping):
    def on_event(self, event):
        super().on_event(event)
        raise ValueError("no connection")


def search(*callbacks, **options):
    return tune(lambda config: config["x"], {"x": Categorical(1, 3, 2)}, callbacks=callbacks, verbosity=0, **options)


def test_trackers_functions_and_names_receive_every_event(monkeypatch):
    named = Keeping()
    monkeypatch.setattr(TRACKERS, "_builtin", {"own": lambda: named})
    tracker, events = Keeping(), []
    search(tracker, events.append, "own")
    assert tracker.events == events == named.events
    assert isinstance(events[0], RunStarted)
    assert isinstance(events[-1], RunFinished)
    kinds = [event.kind for event in events]
    assert [kinds.count(kind) for kind in ("trial_created", "epoch_done", "job_done")] == [3, 3, 3]
    assert tracker.num_closed == named.num_closed == 1


def test_csv_has_a_line_for_each_epoch(tmp_path):
    search("csv", path=tmp_path / "run", searcher="grid")
    lines = (tmp_path / "run" / "epochs.csv").read_text().splitlines()
    assert lines[0] == "trial,epoch,score,seconds,config"
    assert [line.split(",")[:3] for line in lines[1:]] == [["0", "1", "1.0"], ["1", "1", "3.0"], ["2", "1", "2.0"]]
    assert lines[1].endswith('"{""x"": 1}"')
    search("CSV", searcher="grid")  # without a folder there is nothing to write


def test_an_exception_of_a_tracker_is_one_warning_and_the_run_continues():
    broken, other = Broken(), Keeping()
    with pytest.warns(UserWarning, match="The tracker") as caught:
        result = search(broken, other)
    (warning,) = [str(one.message) for one in caught]
    assert warning == "The tracker Broken raised ValueError: no connection. It receives no more events."
    assert result.best_config == {"x": 3}
    assert (len(broken.events), broken.num_closed, other.num_closed) == (1, 1, 1)
    assert len(other.events) > 9


def test_an_exception_of_a_function_or_of_close_is_a_warning():
    class FailsToClose(Keeping):
        def close(self):
            raise OSError("disk full")

    def fails(event):
        raise KeyError("x")

    def follow():
        with connected([FailsToClose(), fails]) as listeners:
            for listener in listeners * 2:
                listener(Warned("text"))

    with pytest.warns(UserWarning, match="The tracker") as caught:
        follow()
    assert [str(one.message).partition(". ")[0] for one in caught] == [
        "The tracker fails raised KeyError: 'x'",
        "The tracker FailsToClose raised OSError: disk full",
    ]


def test_trackers_are_closed_when_the_run_fails():
    tracker = Keeping()
    with pytest.raises(KeyboardInterrupt), connected([tracker]):
        raise KeyboardInterrupt
    assert tracker.num_closed == 1


@pytest.mark.parametrize("callbacks", [print, "own", [Keeping], [3], 3])
def test_wrong_callbacks_are_errors(callbacks):
    with pytest.raises(HyperparameterError, match=r"callbacks (was given|contains)"):
        check_callbacks(callbacks)


def test_an_unknown_name_gets_a_suggestion(monkeypatch):
    monkeypatch.setattr(trackers.TRACKERS, "_builtin", {"own": Keeping})
    with pytest.raises(UnknownNameError, match=r"Unknown tracker 'ownn'. Did you mean 'own'"):
        search("ownn")


class Slow(Keeping):
    in_background = True

    def on_event(self, event):
        time.sleep(0.01)
        super().on_event(event)
        self.thread = threading.current_thread()


def test_a_tracker_in_the_background_receives_every_event_in_order():
    slow, events = Slow(), []
    search(slow, events.append)
    assert slow.events == events
    assert slow.num_closed == 1
    assert slow.thread is not threading.current_thread()


@pytest.mark.parametrize("method", ["on_event", "close"])
def test_a_tracker_that_hangs_in_the_background_is_left_alone(method):
    forever, ends = threading.Event(), []
    hanging, other = Slow(), Slow()
    hanging.close_timeout_s = 0.05
    setattr(hanging, method, lambda *event: forever.wait())

    with pytest.warns(UserWarning, match="The tracker") as caught:
        result = search(hanging, other, lambda event: ends.append(event) if isinstance(event, RunFinished) else None)
    forever.set()
    assert result.best_config == {"x": 3}
    assert ends
    assert (len(caught), other.num_closed) == (1, 1)
    assert "The tracker Slow was not ready 0 s after the end of the run" in str(caught[0].message)


def test_an_exception_in_the_background_is_a_warning_in_the_thread_of_the_run():
    class BrokenInBackground(Broken):
        in_background = True

    broken = BrokenInBackground()
    with pytest.warns(UserWarning, match="The tracker") as caught:
        search(broken)
    (warning,) = [str(one.message) for one in caught]
    assert warning == "The tracker BrokenInBackground raised ValueError: no connection. It receives no more events."
    assert (len(broken.events), broken.num_closed) == (1, 1)


def test_a_missing_library_is_an_error_before_anything_is_trained(monkeypatch):
    class Missing(Keeping):
        library = "not_installed"

    monkeypatch.setattr(TRACKERS, "_builtin", {"not_installed": Missing})
    text = r"requires the package not_installed, which is not installed. Run pip install 'saccade\[not_installed\]'"
    with pytest.raises(HyperparameterError, match=text):
        search("not_installed")
    with pytest.raises(HyperparameterError, match=text):
        FitOptions.of({"callbacks": ["not_installed"]})


def test_each_search_with_a_folder_has_an_optuna_study(tmp_path):
    search("optuna", path=tmp_path)
    assert (tmp_path / "journal.log").is_file()
    with pytest.warns(UserWarning, match="A search without a folder keeps no Optuna study"):
        search("optuna")
