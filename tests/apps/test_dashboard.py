from __future__ import annotations

import json
from wsgiref.util import setup_testing_defaults

import pytest

from saccade import tune
from saccade.apps import dashboard
from saccade.apps.dashboard import Run, Site, run_dashboard
from saccade.errors import DataError, HyperparameterError, SaccadeError
from saccade.space import Categorical, Dict, Real

pytest.importorskip("optuna_dashboard")

SPACE = {"lr": Real(1e-4, 1e-1, log=True), "net": Categorical("a", Dict(name="b", depth=3), None)}


def rising(config, report):
    for epoch in (1, 2):
        report(epoch=epoch, loss=config["lr"] / epoch)


def search(path, num_trials=3, **options):
    options = {"metric": "loss", "mode": "min", "scheduler": "fifo", "verbosity": 0, **options}
    tune(rising, SPACE, path=path, num_trials=num_trials, **options)
    return path


@pytest.fixture
def site(tmp_path):
    """Return a function that makes the site of runs, and a request to it."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()

    def make(*folders):
        app = Site([Run(folder) for folder in folders], scratch)

        def get(address):
            status = []
            environ = {"PATH_INFO": address}
            setup_testing_defaults(environ)
            answer = app(environ, lambda line, *others: status.append(line))
            body = b"".join(answer)
            if hasattr(answer, "close"):  # of a file; a server closes it
                answer.close()
            return status[0][:3], body.decode()

        return get

    return make


def studies(get):
    status, body = get("/api/studies")
    assert status == "200"
    found = json.loads(body)["study_summaries"]
    return {each["study_name"]: json.loads(get(f"/api/studies/{each['study_id']}")[1]) for each in found}


def contents(folder):
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}


def test_studies_of_several_searches_are_shown_and_nothing_is_changed(tmp_path, site):
    one, two = search(tmp_path / "one"), search(tmp_path / "other" / "one", mode="max")
    before = contents(one) | contents(two)
    get = site(one, two)
    found = studies(get)
    assert list(found) == [str(one), str(two)]  # their names are the same
    low, high = found.values()
    assert [trial["state"] for trial in low["trials"]] == ["Complete"] * 3
    best = min(trial["values"][0] for trial in low["trials"])
    assert low["best_trials"][0]["values"] == [best]
    assert best > 0
    assert high["best_trials"][0]["values"][0] > 0
    assert {each["name"] for each in low["union_search_space"]} >= {"lr", "net"}
    assert contents(one) | contents(two) == before
    assert "/reports/" not in get("/")[1]
    assert get("/reports/0")[0] == get("/reports/7")[0] == get("/reports/x")[0] == "404"
    assert get("/dashboard")[0] == "200"


def test_a_search_that_continues_is_followed(tmp_path, site, monkeypatch):
    monkeypatch.setattr(dashboard, "INTERVAL_S", 0)
    folder = search(tmp_path / "run", num_trials=1)
    get = site(folder)
    assert len(studies(get)["run"]["trials"]) == 1
    search(folder, num_trials=3, resume=True)
    assert len(studies(get)["run"]["trials"]) == 3


def test_names_are_escaped(tmp_path, site):
    folder = search(tmp_path / "<b>&run", num_trials=1)
    assert "&lt;b&gt;&amp;run" in site(folder)("/")[1]


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.mkdir()])
def test_a_folder_without_a_run_is_an_error(tmp_path, make):
    make(tmp_path / "folder")
    with pytest.raises(SaccadeError, match="folder"):
        run_dashboard([tmp_path / "folder"], port=0, opens_browser=False)


def test_a_missing_library_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(HyperparameterError, match=r"Run pip install 'saccade\[dashboard\]'"):
        run_dashboard([tmp_path])


@pytest.mark.parametrize("host", ["127.0.0.1", "no.such.host.invalid"])
def test_an_address_that_is_not_available_is_an_error(tmp_path, host):
    import socket

    folder = search(tmp_path / "run", num_trials=1)
    with socket.socket() as used:
        used.bind(("127.0.0.1", 0))
        used.listen()
        text = r"is in use\. Pass another --port" if host == "127.0.0.1" else "is not available"
        with pytest.raises(DataError, match=text):
            run_dashboard([folder], host, used.getsockname()[1])
