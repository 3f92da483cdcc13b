from __future__ import annotations

import subprocess
import sys

import saccade.scheduler
import saccade.searcher
import saccade.space


def test_old_paths_import_the_same_classes():
    import saccade.core as ag
    from saccade.common.space import Categorical, Int
    from saccade.core import Bool, Real
    from saccade.core.scheduler import LocalSequentialScheduler
    from saccade.core.scheduler.seq_scheduler import LocalSequentialScheduler as AgainLocalSequentialScheduler
    from saccade.core.searcher import LocalGridSearcher, LocalRandomSearcher
    from saccade.core.searcher.exceptions import ExhaustedSearchSpaceError
    from saccade.core.searcher.local_searcher import LocalSearcher
    from saccade.core.space import Dict, List, Space

    for space in (Categorical, Int, Bool, Real, Dict, List, Space):
        assert space is getattr(saccade.space, space.__name__) is getattr(ag.space, space.__name__)
    for searcher in (LocalGridSearcher, LocalRandomSearcher, LocalSearcher):
        assert searcher is getattr(saccade.searcher, searcher.__name__) is getattr(ag.searcher, searcher.__name__)
    assert LocalSequentialScheduler is AgainLocalSequentialScheduler is ag.scheduler.LocalSequentialScheduler
    assert LocalSequentialScheduler is saccade.compat.local_sequential.LocalSequentialScheduler
    assert issubclass(ExhaustedSearchSpaceError, AssertionError)


def test_an_old_script_runs():
    import saccade.core as ag

    def train_fn(args, reporter):
        for epoch in range(args["epochs"]):
            reporter(epoch=epoch + 1, reward=-((args["lr"] - 0.1) ** 2))

    space = {"lr": ag.space.Real(1e-3, 1, log=True), "momentum": ag.Categorical(0.8, 0.9), "epochs": 2}
    searcher = ag.searcher.LocalRandomSearcher(search_space=space)
    scheduler = ag.scheduler.LocalSequentialScheduler(
        train_fn, search_space=space, searcher=searcher, resource={"num_cpus": 1, "num_gpus": 0}, num_trials=5
    )
    scheduler.run()
    scheduler.join_jobs()
    assert scheduler.get_best_reward() == -((scheduler.get_best_config()["lr"] - 0.1) ** 2)


def test_every_room_can_be_imported_first():
    rooms = "core", "core.space", "common.space", "compat.local_sequential", "scheduler", "searcher"
    code = (
        "import sys, importlib; importlib.import_module(sys.argv[1]); assert not {'torch', 'pandas'} & {*sys.modules}"
    )
    for room in rooms:
        subprocess.run([sys.executable, "-c", code, f"saccade.{room}"], check=True)
