"""Predictors on a hub, over real HTTP on loopback."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from loopback_hub import LoopbackHub
from saccade import ImagePredictor
from saccade.cli.app import app
from saccade.errors import DataWarning, HubError, SavedPredictorError
from saccade.export import hub as sharing

REPO = "me/colours"
TINY = {"model": "test_resnet", "pretrained": False, "img_size": 32, "batch_size": 8, "epochs": 1, "lr": 3e-3}
OURS = {
    "README.md", "calibration.png", "features.safetensors", "predictor.json", "split.safetensors",
    "history.jsonl", "validation.safetensors", "weights.safetensors",
}  # fmt: skip


@pytest.fixture(scope="module")
def images(make_colours_once: Callable[..., pd.DataFrame]) -> pd.DataFrame:
    return make_colours_once(12)


@pytest.fixture(scope="module")
def fitted(images: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> ImagePredictor:
    predictor = ImagePredictor(path=tmp_path_factory.mktemp("run") / "run", verbosity=0)
    return predictor.fit(images, hyperparameters=TINY, holdout_frac=0.3)


@pytest.fixture
def pushed(hub: LoopbackHub, fitted: ImagePredictor) -> LoopbackHub:
    assert fitted.push_to_hub(REPO) == f"{hub.url}/{REPO}"
    return hub


def test_a_predictor_comes_back_as_it_was(pushed: LoopbackHub, fitted: ImagePredictor, images: pd.DataFrame) -> None:
    assert set(pushed.head_of(REPO)) == OURS
    assert len(pushed.repositories[REPO].branches["main"]) == 2  # that of the new repository, and one of the push
    assert f"from_hub('{REPO}')" in pushed.head_of(REPO)["README.md"].decode()
    loaded = ImagePredictor.from_hub(REPO, verbosity=0)
    pd.testing.assert_frame_equal(loaded.predict_proba(images), fitted.predict_proba(images))
    assert loaded.novelty(images).equals(fitted.novelty(images))
    assert loaded.model_card().figure is not None
    contents = b"".join(pushed.head_of(REPO).values())
    for path in (fitted.path, images["image"][0], Path(images["image"][0]).parents[2]):
        assert str(path).encode() not in contents
    assert loaded.report().record.trials[0].reports == fitted.report().record.trials[0].reports
    pushed.stop()  # it is in the cache now
    assert ImagePredictor.from_hub(REPO).classes == fitted.classes


def test_branches_commits_and_private_repositories(
    hub: LoopbackHub,
    fitted: ImagePredictor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fitted.push_to_hub(REPO, private=True, revision="v1", commit_message="first")
    assert hub.repositories[REPO].is_private
    assert hub.head_of(REPO) == {}
    assert set(hub.head_of(REPO, "v1")) == OURS
    commit = hub.repositories[REPO].branches["v1"][-1][0]
    assert ImagePredictor.from_hub(REPO, "v1").path == ImagePredictor.from_hub(REPO, commit).path
    with pytest.raises(SavedPredictorError, match=r"contains no Saccade predictor.*push_to_hub"):
        ImagePredictor.from_hub(REPO)
    with pytest.raises(HubError, match="has no revision 'v2'"):
        ImagePredictor.from_hub(REPO, "v2")
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(sharing.huggingface_hub, "get_token", lambda: None)
    with pytest.raises(HubError, match="does not exist, or it is private and the token has no access"):
        ImagePredictor.from_hub(REPO)
    assert ImagePredictor.from_hub(REPO, "v1", hub.token).classes == fitted.classes
    with pytest.raises(HubError, match="requires a token that may write"):
        fitted.push_to_hub(REPO)


def test_a_second_push_replaces_the_predictor_and_keeps_what_is_not_ours(
    pushed: LoopbackHub, fitted: ImagePredictor
) -> None:
    repository = pushed.repositories[REPO]
    files = pushed.head_of(REPO)
    repository.commit("main", {**files, "members/0001.safetensors": b"old", "notes.txt": b"mine"})
    fitted.push_to_hub(REPO)
    assert set(pushed.head_of(REPO)) == OURS | {"notes.txt"}
    repository.commit("main", {**files, "README.md": files["README.md"] + b"my text"})
    with pytest.warns(DataWarning, match="edited, and is kept"):
        fitted.push_to_hub(REPO)
    assert pushed.head_of(REPO)["README.md"].endswith(b"my text")


def test_repositories_of_others_are_not_changed(hub: LoopbackHub, fitted: ImagePredictor) -> None:
    hub.create({"name": "other", "organization": "you"})
    hub.repositories["you/other"].commit("main", {"weights.safetensors": b"x", "model.pkl": pickle.dumps(print)})
    before = hub.head_of("you/other")
    with pytest.raises(HubError, match=r"no Saccade predictor, but files of the same names: weights\.safetensors"):
        fitted.push_to_hub("you/other")
    with pytest.raises(SavedPredictorError, match=r"contains no Saccade predictor: it has .*model\.pkl"):
        ImagePredictor.from_hub("you/other")
    assert hub.head_of("you/other") == before
    with pytest.raises(HubError, match="exists and is public"):
        fitted.push_to_hub("you/other", private=True)


@pytest.mark.parametrize(
    ("request_", "status", "message"),
    [
        ("POST /api/repos/create", 403, "may not do this"),
        ("/preupload/", 403, "may not do this"),
        ("PUT /lfs", 400, "HTTP 400"),
        ("/commit/", 500, "HTTP 500.*Try again later"),
        ("/commit/", 412, "in the meantime"),
        ("POST /api/validate-yaml", 401, "token is missing, wrong or expired|has no access"),
    ],
)
def test_a_push_that_fails_leaves_nothing(
    hub: LoopbackHub,
    fitted: ImagePredictor,
    request_: str,
    status: int,
    message: str,
) -> None:
    hub.failures[request_] = status
    with pytest.raises(HubError, match=f"(?s){message}.*Nothing of the push is visible"):
        fitted.push_to_hub(REPO)
    assert REPO not in hub.repositories or hub.head_of(REPO) == {}
    hub.failures.clear()
    fitted.push_to_hub(REPO)
    assert set(hub.head_of(REPO)) == OURS


@pytest.mark.parametrize("request_", ["/api/repos/create", "PUT /lfs", "/commit/"])
def test_a_hub_that_stalls_is_given_up(
    hub: LoopbackHub,
    fitted: ImagePredictor,
    request_: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sharing, "STALL_S", 0.5)
    hub.stalled.add(request_)
    with pytest.raises(HubError, match=r"no progress within 0\.5 seconds.*Look at the repository"):
        fitted.push_to_hub(REPO)
    assert REPO not in hub.repositories or hub.head_of(REPO) == {}


def test_hubs_that_refuse_a_download(
    pushed: LoopbackHub, monkeypatch: pytest.MonkeyPatch, fitted: ImagePredictor
) -> None:
    with pytest.raises(HubError, match="does not exist"):
        ImagePredictor.from_hub("me/nothing")
    with pytest.raises(HubError, match="'a b' is not a name of a repository"):
        ImagePredictor.from_hub("a b")
    monkeypatch.setattr(sharing, "ANSWER_S", 0.3)
    pushed.stalled.add("/api/models")
    with pytest.raises(HubError, match=r"not in the cache .* cannot be reached"):
        ImagePredictor.from_hub(REPO)
    pushed.stalled.clear()
    pushed.repositories[REPO].is_gated = True
    with pytest.raises(HubError, match=r"is gated\. Ask for access"):
        ImagePredictor.from_hub(REPO, token="hf_wrong")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(HubError, match="HF_HUB_OFFLINE is set"):
        ImagePredictor.from_hub(REPO)
    with pytest.raises(HubError, match="HF_HUB_OFFLINE is set"):
        fitted.push_to_hub(REPO)


@pytest.mark.parametrize("name", ["weights.safetensors", "predictor.json", "features.safetensors"])
def test_files_that_differ_from_their_digest_are_refused(pushed: LoopbackHub, name: str, images: pd.DataFrame) -> None:
    content = pushed.head_of(REPO)[name]
    pushed.tampered[name] = content[:-1] + bytes([content[-1] ^ 1])
    with pytest.raises(HubError, match=f"{name} of {REPO} is damaged"):
        ImagePredictor.from_hub(REPO)
    pushed.tampered.clear()
    assert len(ImagePredictor.from_hub(REPO).predict(images)) == len(images)


def test_incomplete_and_foreign_files_are_not_loaded(pushed: LoopbackHub) -> None:
    repository, files = pushed.repositories[REPO], pushed.head_of(REPO)
    repository.commit("main", {name: content for name, content in files.items() if name != "weights.safetensors"})
    with pytest.raises(SavedPredictorError, match=r"lacks weights\.safetensors"):
        ImagePredictor.from_hub(REPO)
    description = json.loads(files["predictor.json"])
    description["members"][0]["weights"] = "../../evil.safetensors"
    repository.commit("main", {**files, "predictor.json": json.dumps(description).encode()})
    with pytest.raises(SavedPredictorError, match="is damaged"):
        ImagePredictor.from_hub(REPO)
    repository.commit("main", {**files, "code.py": b"1/0", "model.pkl": pickle.dumps(print)})
    path = Path(ImagePredictor.from_hub(REPO).path)
    assert {each.name for each in path.iterdir()} == OURS - {"README.md", "calibration.png"}


def test_the_command_line(hub: LoopbackHub, fitted: ImagePredictor, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["push", fitted.path, REPO, "--private", "--license", "mit"])
    assert done.exit_code == 0, done.output
    assert f"pushed to {hub.url}/{REPO}" in done.output
    assert b"license: mit" in hub.head_of(REPO)["README.md"]
    done = CliRunner().invoke(app, ["card", fitted.path, "--out", str(tmp_path / "card.md")])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "calibration.png").is_file()
    done = CliRunner().invoke(app, ["card", fitted.path])
    assert done.stdout.startswith("---\nlibrary_name: saccade")
    (tmp_path / "card.md").write_text("mine")
    done = CliRunner().invoke(app, ["card", fitted.path, "--out", str(tmp_path / "card.md")])
    assert done.exit_code == 2
    assert (tmp_path / "card.md").read_text() == "mine"
