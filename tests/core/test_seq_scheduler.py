from __future__ import annotations

import copy
import io
import logging
import math
import pickle
import time

import numpy as np
import pytest
from matplotlib.figure import Figure

from saccade.core.scheduler.seq_scheduler import LocalSequentialScheduler
from saccade.core.searcher.local_searcher import LocalGridSearcher, LocalRandomSearcher, LocalSearcher
from saccade.errors import HyperparameterError, SearchFailedError, UnknownArgumentError, UnknownNameError
from saccade.searcher import RandomSearcher
from saccade.space import Bool, Categorical, Dict, Int, Real
from saccade.study.trial import Status

SPACE = {"x": Int(0, 9), "static": "same"}


def report_x(args, reporter):
    reporter(epoch=1, reward=args["x"])


def make(train_fn=report_x, space=SPACE, **options):
    options.setdefault("num_trials", 4)
    return LocalSequentialScheduler(train_fn, space, **options)


def test_the_best_of_all_trials_is_found():
    space = {
        "lr": Real(1e-3, 1e-2, log=True),
        "wd": Real(1e-3, 1e-2),
        "flip": Bool(),
        "opt": Categorical("sgd", "adamw"),
        "epochs": 3,
    }
    seen = []

    def train_fn(args, reporter):
        seen.append(dict(args))
        for epoch in range(args.epochs):
            reporter(epoch=epoch + 1, reward=args.lr * epoch, lr=args.lr)

    scheduler = make(train_fn, space, num_trials=6, resource={"num_cpus": 2, "num_gpus": 0})
    scheduler.run()
    scheduler.join_jobs()
    best = max(seen, key=lambda args: args["lr"])
    assert len(seen) == 6
    assert scheduler.get_best_task_id() == best.pop("task_id")
    assert scheduler.get_best_config() == best
    assert best in Dict(space)
    assert scheduler.get_best_reward() == 2 * best["lr"]
    assert (scheduler.searcher.get_best_config(), scheduler.searcher.get_best_reward()) == (best, 2 * best["lr"])
    kept = scheduler.config_history[scheduler.get_best_task_id()]
    assert pickle.dumps(kept) == pickle.dumps(scheduler.get_best_config())
    assert [trial.status for trial in scheduler.study.trials] == [Status.COMPLETED] * 6


def test_the_history_has_every_report():
    def train_fn(args, reporter):
        reporter(epoch=1, reward=np.float32(0.5), note="warm-up")
        reporter(epoch=2, reward=0.25)

    scheduler = make(train_fn, num_trials=2)
    scheduler.run()
    assert list(scheduler.training_history) == list(scheduler.config_history) == [0, 1]
    first, second = scheduler.training_history[1]
    assert (first["epoch"], first["reward"], first["note"], first["trial"]) == (1, 0.5, "warm-up", 1)
    assert type(first["reward"]) is float
    assert second["time_since_start"] > first["time_since_start"] >= first["time_this_iter"] >= 0


def test_the_reward_of_a_trial_is_its_best():
    scheduler = make(lambda args, reporter: [reporter(reward=reward) for reward in (0.1, 0.7, 0.3)], num_trials=1)
    scheduler.run()
    assert scheduler.get_best_reward() == scheduler.searcher.get_best_reward() == 0.7


@pytest.mark.parametrize("epochs", [(0, 1), (5, 5), (None, None)])
def test_epochs_of_old_scripts_may_have_any_numbers(epochs):
    def train_fn(args, reporter):
        for epoch in epochs:
            reporter(**{} if epoch is None else {"epoch": epoch}, reward=0.5)

    scheduler = make(train_fn, num_trials=1)
    scheduler.run()
    assert [report.get("epoch") for report in scheduler.training_history[0]] == list(epochs)


def test_the_names_of_reward_and_time_can_be_chosen():
    def train_fn(args, reporter):
        reporter(step=10, accuracy=0.3)

    scheduler = make(train_fn, reward_attr="accuracy", time_attr="step", num_trials=1)
    scheduler.run()
    assert scheduler.get_best_reward() == scheduler.searcher.get_best_reward() == 0.3


def test_keyword_arguments_and_the_name_of_the_reporter_are_free():
    def renamed(args, report, scale):
        report(epoch=1, reward=args.x * scale)

    def between(args, scale, reporter):
        reporter(epoch=1, reward=args.x * scale)

    for train_fn in (renamed, between, lambda args, **named: named["reporter"](reward=args.x * named["scale"])):
        scheduler = make(train_fn, train_fn_kwargs={"scale": 10}, searcher="grid", num_trials=2)
        scheduler.run()
        assert scheduler.get_best_reward() == 30


def test_arguments_are_a_dict_with_attributes_and_belong_to_the_trial():
    def train_fn(args, reporter):
        assert isinstance(args, dict)
        assert args[7] == "int key"
        assert args.optimizer.lr == args["optimizer"]["lr"]
        assert copy.deepcopy(args) == args
        assert not hasattr(args, "nothing")
        args.x = args.pop("task_id")
        args["sizes"].append("changed")
        reporter(reward=args["x"])

    space = {"x": Real(0, 1), 7: "int key", "optimizer": {"lr": Real(0, 1)}, "sizes": [1, 2]}
    scheduler = make(train_fn, space, num_trials=2)
    scheduler.run()
    assert scheduler.get_best_reward() == 1
    assert scheduler.get_best_config()["sizes"] == [1, 2]


def test_a_stopping_criterion_is_required():
    with pytest.raises(AssertionError, match="Need stopping criterion: Either num_trials or time_out"):
        LocalSequentialScheduler(train_fn=report_x, search_space=SPACE, reward_attr="reward", resource=None)


@pytest.mark.parametrize("limit", [{"num_trials": value} for value in (0, -1, 2.5, True, "3")])
def test_invalid_numbers_of_trials(limit):
    with pytest.raises(HyperparameterError, match="num_trials was given"):
        make(**limit)


@pytest.mark.parametrize("time_out", [0, -1, math.nan, "3"])
def test_invalid_time_limits(time_out):
    with pytest.raises(HyperparameterError, match="time_out was given"):
        make(time_out=time_out)


def test_the_time_limit_ends_the_search():
    def train_fn(args, reporter):
        time.sleep(0.05)
        reporter(reward=args.x)

    scheduler = make(train_fn, {"x": Real(0, 1)}, num_trials=None, time_out=0.5)
    scheduler.run()
    assert 1 <= len(scheduler.training_history) <= 10


def test_the_time_limit_ends_a_trial_in_the_middle():
    ended = []

    def train_fn(args, reporter):
        for epoch in range(1, 1000):
            time.sleep(0.05)
            reporter(epoch=epoch, reward=epoch)
        ended.append(True)

    scheduler = make(train_fn, time_out=0.3)
    scheduler.run()
    assert not ended
    assert scheduler.get_best_reward() == len(scheduler.training_history[0]) <= 6


def test_a_reward_that_is_high_enough_ends_the_search():
    scheduler = make(
        searcher="grid", num_trials=10, max_reward=3, search_options={"grid_num_sample_settings": {"x": 10}}
    )
    scheduler.run()
    assert [config["x"] for config in scheduler.config_history.values()] == [0, 1, 2, 3]


def test_without_max_reward_every_trial_is_run():
    scheduler = make(num_trials=10)
    scheduler.run()
    assert len(scheduler.training_history) == 10
    assert scheduler.get_best_reward() == 9


def test_an_exhausted_space_ends_the_search_with_a_warning(caplog):
    scheduler = make(num_trials=99)
    scheduler.run()
    assert len(scheduler.training_history) == 10
    assert "10 configurations" in caplog.text


def test_failing_trials_do_not_end_the_search(caplog):
    def train_fn(args, reporter):
        if args.x % 2:
            reporter(epoch=1, reward=100)
            raise ValueError(f"odd: {args.x}")
        reporter(epoch=1, reward=args.x)

    scheduler = make(train_fn, num_trials=10)
    scheduler.run()
    for number, history in scheduler.training_history.items():
        is_odd = bool(scheduler.config_history[number]["x"] % 2)
        assert any("traceback" in report for report in history) is is_odd
        assert ("train_fn" in history[-1].get("traceback", "")) is is_odd
    assert scheduler.get_best_reward() == scheduler.searcher.get_best_reward() == 8
    assert scheduler.get_best_config() == {"x": 8, "static": "same"}
    assert "Trial" in caplog.text
    assert "odd: 7" in caplog.text


def test_when_every_trial_fails_the_search_does():
    def train_fn(args, reporter):
        raise ValueError(f"wrong {args.x}")

    scheduler = make(train_fn, num_trials=3)
    with pytest.raises(SearchFailedError, match=r"ValueError: wrong[\s\S]*Traceback"):
        scheduler.run()
    assert [len(history) for history in scheduler.training_history.values()] == [1, 1, 1]
    assert scheduler.get_best_config() == {}


def test_a_function_that_never_reports_has_no_reward_and_causes_a_warning(caplog):
    scheduler = make(lambda args, reporter: None, num_trials=2, reward_attr="accuracy")
    scheduler.run()
    assert scheduler.training_history == {0: [], 1: []}
    assert scheduler.get_best_reward() == -math.inf
    assert scheduler.get_best_task_id() is None
    assert "did not call reporter(epoch=…, accuracy=…)" in caplog.text


@pytest.mark.parametrize("figures", [{"epoch": 1, "loss": 0.1}, {"reward": "high"}, {"reward": math.nan}])
def test_a_report_without_a_usable_reward_fails_the_trial(figures):
    scheduler = make(lambda args, reporter: reporter(**figures), num_trials=1)
    with pytest.raises(SearchFailedError, match=r"'reward'|could not convert|score"):
        scheduler.run()


def test_before_the_search_there_is_no_best():
    scheduler = make()
    assert scheduler.get_best_config() == {}
    assert scheduler.get_best_reward() == -math.inf
    assert scheduler.get_best_task_id() is None


def test_a_second_search_tries_other_configurations():
    scheduler = make(searcher="grid", search_options={"grid_numeric_spaces_points_number": 10}, num_trials=3)
    scheduler.run()
    scheduler.run()
    assert [config["x"] for config in scheduler.config_history.values()] == [3, 4, 5]
    assert list(scheduler.training_history) == [0, 1, 2]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("auto", LocalRandomSearcher),
        ("random", LocalRandomSearcher),
        ("local_random", LocalRandomSearcher),
        ("grid", LocalGridSearcher),
    ],
)
def test_searchers_by_name(name, kind):
    assert type(make(searcher=name).searcher) is kind


def test_a_searcher_may_be_given():
    for searcher in (LocalRandomSearcher(SPACE), RandomSearcher(SPACE)):
        scheduler = make(searcher=searcher)
        scheduler.run()
        assert scheduler.searcher is searcher
        assert scheduler.get_best_reward() > 0


def test_a_custom_local_searcher_receives_every_trial():
    calls = []

    class Countdown(LocalSearcher):
        def get_config(self):
            return {"x": 9 - len(self._configs), "static": "same"}

        def register_pending(self, config):
            super().register_pending(config)
            calls.append(("pending", config["x"]))

        def update(self, config, **figures):
            super().update(config, **figures)
            calls.append(("update", config["x"]))

        def evaluation_failed(self, config):
            super().evaluation_failed(config)
            calls.append(("failed", config["x"]))

    def train_fn(args, reporter):
        assert args.x != 8
        reporter(reward=args.x)

    scheduler = make(train_fn, searcher=Countdown(SPACE), num_trials=2)
    scheduler.run()
    assert calls == [("pending", 9), ("update", 9), ("pending", 8), ("failed", 8)]


def test_unknown_search_options_are_refused():
    with pytest.raises(UnknownArgumentError, match="'random_seed'"):
        make(search_options={"random_sed": 3})
    with pytest.raises(HyperparameterError, match="were given together with an instance"):
        make(searcher=LocalRandomSearcher(SPACE), search_options={"random_seed": 3})


def test_unknown_arguments_are_refused_and_old_ones_cause_warnings(caplog):
    with pytest.raises(UnknownArgumentError, match="Did you mean 'max_reward'"):
        make(max_rewards=1)
    assert not caplog.records
    make(checkpoint="state.ag", visualizer="none")
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2
    assert "checkpoint has no effect" in caplog.text
    assert "visualizer has no effect" in caplog.text


def test_run_with_config_calls_the_function_once_outside_the_search():
    def train_fn(args, reporter):
        reporter(epoch=1, reward=2.0)
        return args["x"] + 1 if args["x"] else 1 / args["x"]

    scheduler = make(train_fn)
    assert scheduler.run_with_config({"x": 5}) == 6
    with pytest.raises(ZeroDivisionError):
        scheduler.run_with_config({"x": 0})
    assert scheduler.training_history == {}


def test_training_curves_have_a_line_for_each_trial(tmp_path):
    def train_fn(args, reporter):
        for step in (10, 20):
            reporter(step=step, accuracy=args.x)
        if args.x == 9:
            raise ValueError

    scheduler = make(train_fn, reward_attr="accuracy", time_attr="step", num_trials=10)
    scheduler.run()
    figure = scheduler.get_training_curves(tmp_path / "curves.svg")
    assert isinstance(figure, Figure)
    (axes,) = figure.axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("step", "accuracy")
    assert [list(line.get_xdata()) for line in axes.lines] == [[10, 20]] * 10
    assert [line.get_ydata()[0] for line in axes.lines] == [c["x"] for c in scheduler.config_history.values()]
    assert len(axes.get_legend().get_texts()) == 10
    assert (tmp_path / "curves.svg").read_text(encoding="utf-8").startswith("<?xml")
    assert scheduler.get_training_curves(use_legend=False).axes[0].get_legend() is None


def test_training_curves_count_reports_without_an_epoch():
    scheduler = make(lambda args, reporter: [reporter(reward=0.5) for _ in range(3)], num_trials=1)
    scheduler.run()
    assert list(scheduler.get_training_curves().axes[0].lines[0].get_xdata()) == [1, 2, 3]


def test_labels_of_training_curves_have_fonts_for_all_characters(recwarn):
    scheduler = make(lambda args, reporter: reporter(epoch=1, 精度=0.5), num_trials=1, reward_attr="精度")
    scheduler.run()
    (axes,) = scheduler.get_training_curves().axes
    text = axes.get_ylabel()
    assert text == "精度" or (text == "U+7CBE U+5EA6" and "No installed font" in str(recwarn[0].message))
    axes.figure.savefig(io.BytesIO())
    assert len(recwarn) <= 1  # a glyph that is missing would be a warning, which is an error here


def test_training_curves_can_be_drawn_before_the_search():
    assert not make().get_training_curves().axes[0].lines


@pytest.mark.filterwarnings("ignore:FigureCanvasAgg is non-interactive")
def test_training_curves_can_be_shown(monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "agg")
    from matplotlib import pyplot

    pyplot.switch_backend("agg")
    assert make().get_training_curves(plot=True) is None
    assert pyplot.get_fignums() == []


def test_the_average_time_of_trials():
    average = None
    for index, (start, end) in enumerate([(100, 102), (110, 114), (120, 121.5)]):
        average = LocalSequentialScheduler.get_average_trial_time_(index, average, start, end)
    assert average == pytest.approx((2 + 4 + 1.5) / 3)


@pytest.mark.parametrize(
    ("end", "average", "factor", "expected"),
    [
        (106, 1, 0.95, True),
        (106, None, 0.95, True),
        (106, 4.2, 0.95, True),
        (106, 5, 0.95, False),
        (106, 1, 5, False),
        (110, 0, 0.95, False),
        (116, 0, 0.95, False),
        (116, None, 0.95, False),
    ],
)
def test_has_enough_time_for_a_trial(end, average, factor, expected):
    has_time = LocalSequentialScheduler.has_enough_time_for_trial_(
        time_out=10,
        time_start=100,
        trial_start_time=105,
        trial_end_time=end,
        avg_trial_run_time=average,
        fill_factor=factor,
    )
    assert has_time is expected


def test_an_unknown_searcher_is_an_error():
    with pytest.raises(UnknownNameError, match="searcher 'gird'"):
        make(searcher="gird")
