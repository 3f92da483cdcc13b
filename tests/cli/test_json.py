"""``--json``: every command writes lines that fit its schema, and the last one is the result or the error."""

from __future__ import annotations

import json
import math
import os
import signal
import sys
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from PIL import Image

from saccade import ImagePredictor
from saccade.apps import demo, doctor
from saccade.cli import app
from saccade.cli.app import PROTOCOLS
from saccade.cli.output import json_value
from saccade.cli.results import RESULTS, SERVERS, schema_of
from saccade.events import EpochDone, Event, Progressed, RunStarted
from saccade.study.trackers import connected, listening

SMALL = ("--model", "test_resnet", "--set", "pretrained=False", "--set", "img_size=32", "--set", "batch_size=4")
COMMANDS = {command.name for command in app.registered_commands if command.name is not None}


def refuse(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def lines_of(command: str, text: str) -> list[dict[str, Any]]:
    """Return the lines of standard output, each of which must fit the schema of the command."""
    lines = [json.loads(line, parse_constant=refuse) for line in text.splitlines()]
    schema = schema_of(command)
    jsonschema.Draft202012Validator.check_schema(schema)
    for line in lines:
        jsonschema.validate(line, schema)
    assert [line["kind"] in ("result", "error") for line in lines] == [False] * (len(lines) - 1) + [True]
    return lines


@pytest.fixture
def arguments(fitted, splits, tmp_path, monkeypatch) -> dict[str, list[str | Path]]:
    """Arguments of each command that succeeds; what takes long or asks a hub is replaced."""
    monkeypatch.setattr(demo, "run_demo", lambda out: {"top1": 0.5})  # its fits are those of `fit`
    monkeypatch.setattr(ImagePredictor, "choose", lambda self, **_: self)
    monkeypatch.setattr(ImagePredictor, "export", lambda self, to, out, **_: str(self.pipeline.saved.folder))
    monkeypatch.setattr(ImagePredictor, "push_to_hub", lambda self, repo, **_: f"https://hub/{repo}")
    monkeypatch.setattr(doctor, "_hub", lambda: doctor.Fact("hub", "not asked"))
    run, image = fitted[0], splits / "test" / "dark" / "0.png"
    return {
        "demo": [tmp_path / "demo"],
        "sample-data": [tmp_path / "photos", "--num-images", "2"],
        "check": [splits],
        "fit": [splits, *SMALL, "--set", "epochs=1", "--out", tmp_path / "run", "--verbosity", "0"],
        "resume": [run],
        "watch": [run],
        "leaderboard": [run],
        "choose": [run, "--out", tmp_path / "chosen"],
        "evaluate": [run, splits, "--metrics", "f1_macro,confusion_matrix,classification_report"],
        "compare": [run, run, "--data", splits, "--out", tmp_path / "compare.html"],
        "predict": [run, image, tmp_path / "missing.png"],
        "explain": [run, image, "--out", tmp_path / "why.png"],
        "export": [run, "--out", tmp_path / "export", "--no-check"],
        "report": [run, "--out", tmp_path / "report.html"],
        "card": [run],
        "push": [run, "user/shoes"],
        "models": ["tf_efficientnet_lite*", "--detailed"],
        "doctor": [],
        "cluster": ["status"],
        "schema": ["predict"],
    }


def test_every_command_has_a_result(saccade):
    assert RESULTS.keys() | PROTOCOLS == COMMANDS


@pytest.mark.parametrize("command", sorted(COMMANDS - PROTOCOLS - {"demo", *SERVERS}))
def test_a_command_writes_lines_that_fit_its_schema(saccade, arguments, command):
    result = saccade(command, *arguments[command], "--json")
    *events, last = lines_of(command, result.stdout)
    assert (result.exit_code, last["kind"]) == (0, "result"), result.stderr
    assert bool(events) == (command in ("fit", "watch"))
    if command == "fit":
        kinds = [event["kind"] for event in events]
        assert (kinds[0], kinds[-1]) == ("run_started", "run_finished")
        assert {"run_planned", "data_ready", "trial_created", "epoch_done", "job_done"} <= set(kinds)
        in_log = [json.loads(line) for line in Path(last["run"], "events.jsonl").read_text().splitlines()[1:]]
        assert kinds == [line["kind"] for line in in_log]
        assert last["test"].keys() == {"top1"}
        assert last["trials"][0]["config"]["model"] == "test_resnet"
    elif command == "predict":
        dark, missing = last["images"]
        assert dark["label"] == "dark"
        assert dark["probabilities"]["dark"] == dark["probability"]
        assert sum(dark["probabilities"].values()) == pytest.approx(1)
        assert (missing["label"], missing["error"], last["num_unreadable"]) == (None, "no such file", 1)
    elif command == "compare":
        assert [row["verdict"] for row in last["runs"]] == ["baseline", "no clear difference"]
        assert (last["differences"][0]["p_value"], last["num_images"]) == (1, 6)
        assert Path(last["file"]).is_file()
    elif command == "evaluate":
        assert last["metrics"] == {"f1_macro": 1.0}
        assert last["tables"]["confusion_matrix"]["data"] == [[3, 0], [0, 3]]


def test_the_demo_writes_its_scores(saccade, arguments, tmp_path):
    (last,) = lines_of("demo", saccade("demo", "--out", tmp_path, "--json").stdout)
    assert last["scores"] == {"top1": 0.5}


def test_a_server_writes_its_address(saccade, fitted, monkeypatch):
    pytest.importorskip("fastapi", reason="the extra serve is not installed")
    monkeypatch.setattr("saccade.serve.server.run_server", lambda model, settings, on_start: on_start("http://x", None))
    serving, last = lines_of("serve", saccade("serve", fitted[0], "--json").stdout)
    assert (serving["name"], serving["url"], last["url"]) == ("test_resnet", "http://x", "http://x")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("fit", "nowhere"), "DataError", "nowhere"),
        (("fit", "nowhere", "--modle", "x"), "UnknownArgumentError", "--model"),
        (("evaluate", "x"), "UsageError", "Missing argument"),
        (("export", "x", "--coverage", "much"), "UsageError", "--coverage"),
        (("leaderboard", "nowhere"), "SavedPredictorError", "nowhere"),
        (("models", "zzz"), "UnknownModelError", "zzz"),
    ],
)
def test_an_error_is_an_object_with_the_same_exit_code(saccade, arguments, code, message):
    result = saccade(*arguments, "--json")
    (error,) = lines_of(arguments[0], result.stdout)
    assert (error["kind"], error["code"], result.exit_code) == ("error", code, 2)
    assert message in error["message"]
    assert (error["advice"] == f"saccade {arguments[0]} --help") == (code == "UsageError")
    assert saccade(*arguments).exit_code == 2


def test_an_unknown_command_is_an_error_object_and_help_is_text(saccade):
    result = saccade("fti", "--json")
    assert json.loads(result.stdout)["code"] == "UsageError"
    assert result.exit_code == 2
    assert "--json" in saccade("predict", "--json", "--help").stdout


def test_findings_and_problems_have_exit_code_1(saccade, splits, tmp_path, monkeypatch):
    for name in ("bright", "dark"):
        (tmp_path / "images" / name).mkdir(parents=True)
        Image.open(splits / "test" / "dark" / "0.png").save(tmp_path / "images" / name / "a.png")
    monkeypatch.setattr(doctor, "examine", lambda: iter([doctor.Fact("disk", "full", "problem", "make room")]))
    for command, arguments in (("check", [tmp_path / "images"]), ("doctor", [])):
        text, lines = saccade(command, *arguments), saccade(command, *arguments, "--json")
        assert text.exit_code == lines.exit_code == 1
        (last,) = lines_of(command, lines.stdout)
    assert last["facts"][0]["advice"] == "make room"


def test_a_fit_that_loses_its_reader_ends_quietly(splits, tmp_path, monkeypatch, capfd):
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w") as closed:  # noqa: PTH123
        monkeypatch.setattr(sys, "stdout", closed)
        with pytest.raises(SystemExit) as ended:
            app(["fit", str(splits), *SMALL, "--out", str(tmp_path / "run"), "--verbosity", "0", "--json"])
        monkeypatch.undo()
        os.dup2(os.open(os.devnull, os.O_WRONLY), writing)  # what is still in the buffer
    assert ended.value.code == 1
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("kind", [EpochDone, RunStarted])
def test_ctrl_c_once_ends_the_search_and_writes_the_result_or_an_error(saccade, splits, tmp_path, kind):
    def interrupt(event: Event) -> None:
        if isinstance(event, kind):
            signal.raise_signal(signal.SIGINT)

    with listening(interrupt):
        result = saccade("fit", splits, *SMALL, "--set", "epochs=50", "--out", tmp_path / "run", "--json")
    *events, last = lines_of("fit", result.stdout)
    if kind is EpochDone:
        assert (result.exit_code, last["is_interrupted"]) == (0, True)
        assert last["trials"][0]["epochs_done"] < 50
    else:
        assert (result.exit_code, last["code"]) == (130, "KeyboardInterrupt")
    assert "warned" in [event["kind"] for event in events]


def test_values_without_a_json_form_are_converted():
    value: dict[Any, Any] = {
        "caf\udce9": "x\udce9",
        "a": math.nan,
        1: [math.inf, np.float32(0.5)],
        "p": Path("x"),
        "t": (1, {2}),
        "none": None,
        "on": True,
    }
    expected = {"caf?": "x?", "a": None, "1": [None, 0.5], "p": "x", "t": [1, [2]], "none": None, "on": True}
    assert json_value(value) == expected
    assert json_value(EpochDone(0, 1, 0.5))["score"] == 0.5


def test_a_listener_of_all_runs_hears_first_and_may_end_them():
    heard: list[Event] = []
    with listening(heard.append), connected([]) as listeners:
        listeners[0](Progressed("decoding", 1, 2))
    assert heard == [Progressed("decoding", 1, 2)]
    with connected([]) as listeners:
        assert listeners == []
