from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import urllib.request

import pytest

from saccade.apps.dashboard import Run, Site

pytest.importorskip("optuna_dashboard")


def get(url):
    with urllib.request.urlopen(url, timeout=60) as answer:
        return answer.read().decode()


@pytest.mark.usefixtures("react_to_ctrl_c")
def test_studies_and_reports_of_a_run_over_http_until_ctrl_c(fitted):
    run, _ = fitted
    command = [sys.executable, "-m", "saccade", "dashboard", str(run), "--port", "0", "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert server.stderr is not None
        study, report = server.stdout.readline().split(), server.stdout.readline().split()
        (name,) = (
            each["study_name"]
            for each in json.loads(get(study[1].replace("dashboard", "api/studies")))["study_summaries"]
        )
        assert name == run.name
        details = json.loads(get(study[1].replace("dashboard", "api/studies/0")))
        assert details["trials"][0]["state"] == "Complete"
        assert {each["name"] for each in details["trials"][0]["params"]} >= {"model", "lr", "epochs"}
        assert report[1] == study[1].replace("dashboard", "reports/0")
        assert "/reports/0" in get(study[1].replace("dashboard", ""))
        server.send_signal(signal.SIGINT)
        assert (server.wait(), server.stderr.read()) == (0, "")


@pytest.mark.parametrize("has_report", [True, False])
def test_the_report_of_the_run_or_a_new_one_is_shown(fitted, tmp_path, has_report):
    run = tmp_path / "run"
    shutil.copytree(fitted[0], run)
    (run / "report.html").unlink(missing_ok=True)
    if has_report:
        (run / "report.html").write_text("<p>Mine ä</p>", encoding="utf-8")
    status = []
    environ = {"PATH_INFO": "/reports/0"}
    (page,) = Site([Run(run)], tmp_path)(environ, lambda line, *others: status.append(line))
    assert status == ["200 OK"]
    assert page.decode() == "<p>Mine ä</p>" if has_report else "test_resnet" in page.decode()
    assert (run / "report.html").exists() == has_report


def test_options_are_listed(saccade):
    shown = saccade("dashboard", "--help").output
    assert all(option in shown for option in ("RUN...", "--host", "--port", "--no-browser"))
