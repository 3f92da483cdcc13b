from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import sklearn.metrics

import saccade.scheduler
import saccade.searcher
import saccade.space
from saccade.core import metrics
from saccade.core.utils.files import download, unzip
from saccade.errors import DownloadError
from saccade.tasks.metrics import make_metric
from saccade.tasks.problem import Problem


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
    assert LocalSequentialScheduler is saccade.core.scheduler.seq_scheduler.LocalSequentialScheduler
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
    rooms = "core", "core.space", "common.space", "core.scheduler.seq_scheduler", "scheduler", "searcher"
    code = (
        "import sys, importlib; importlib.import_module(sys.argv[1]); assert not {'torch', 'pandas'} & {*sys.modules}"
    )
    for room in rooms:
        subprocess.run([sys.executable, "-c", code, f"saccade.{room}"], check=True)


def test_download_and_unzip(tmp_path):
    with zipfile.ZipFile(tmp_path / "shop.zip", "w") as archive:
        archive.writestr("shop/train/cat/1.jpg", b"1")
    url, sha1 = (tmp_path / "shop.zip").as_uri(), hashlib.sha1((tmp_path / "shop.zip").read_bytes()).hexdigest()
    (tmp_path / "desk").mkdir()
    file = download(url, tmp_path / "desk", sha1_hash=sha1)
    assert file == str(tmp_path / "desk" / "shop.zip")
    (tmp_path / "desk" / "shop.zip").write_bytes(b"other")
    assert download(url, file) == file
    assert (tmp_path / "desk" / "shop.zip").read_bytes() == b"other"
    assert download(url, f"{tmp_path}/new/") == f"{tmp_path}/new/shop.zip"
    download(url, file, sha1_hash=sha1)  # what is there is another file
    assert unzip(file, root=tmp_path / "desk") == "shop"
    assert (tmp_path / "desk" / "shop" / "train" / "cat" / "1.jpg").read_bytes() == b"1"
    with pytest.raises(DownloadError, match="SHA-1"):
        download(url, tmp_path / "desk" / "new.zip", sha1_hash="0" * 40)
    assert sorted(path.name for path in (tmp_path / "desk").iterdir()) == ["shop", "shop.zip"]


def test_metrics_are_names_that_can_be_called():
    true, given = ["cat", "dog", "dog", "cow"], ["cat", "dog", "cat", "cow"]
    assert metrics.f1_macro(true, given) == pytest.approx(sklearn.metrics.f1_score(true, given, average="macro"))
    assert metrics.mcc([0, 1, 1], [0, 1, 0]) == pytest.approx(sklearn.metrics.matthews_corrcoef([0, 1, 1], [0, 1, 0]))
    assert metrics.roc_auc([0, 1, 1], [[0.7, 0.3], [0.2, 0.8], [0.9, 0.1]]) == 0.5
    assert metrics.root_mean_squared_error([1.0, 3.0], [2.0, 4.0]) == 1
    assert metrics.spearmanr([1.0, 3.0, 9.0, 2.0], [2.0, 4.0, 5.0, 3.0]) == pytest.approx(1)
    numbers = np.random.default_rng(0).normal(size=(2, 20))
    assert metrics.pearsonr(*numbers) == pytest.approx(np.corrcoef(numbers)[0, 1], abs=1e-6)
    problem = Problem.of(["a", "b"])
    assert all(make_metric(getattr(metrics, name), problem).name == name for name in ("log_loss", "roc_auc", "f1"))
    assert metrics.get_metric("f1").name == "f1"
    with pytest.raises(AttributeError, match="'f1_macro'"):
        metrics.f1_makro  # noqa: B018


def test_make_scorer_names_a_function():
    def share(y_true, y_pred):
        return float(np.mean(y_true == y_pred))

    problem = Problem.of(["a", "b"])
    metric = make_metric(metrics.make_scorer("mine", share), problem)
    assert metric.name == "mine"
    assert metric(np.array([0, 1]), np.array([[0.9, 0.1], [0.8, 0.2]]), problem) == 0.5
