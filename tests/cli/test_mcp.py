"""``saccade mcp``: the tools, in this process and in a real one, called by the client of the SDK."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mcp", reason="the extra mcp is not installed")

import anyio
from mcp import Client
from mcp.client.stdio import StdioServerParameters
from mcp.server.mcpserver import MCPServer

from saccade import ImagePredictor
from saccade.cli.mcp_server import Root, make_server
from saccade.errors import DataError

Call = Callable[..., Awaitable[Any]]


@pytest.fixture
def root(fitted, splits, tmp_path) -> Path:
    """A folder with a run and its images; it has a link to the outside."""
    folder = tmp_path / "root"
    shutil.copytree(splits, folder / "images")
    shutil.copytree(fitted[0], folder / "run")
    shutil.copytree(fitted[0], folder / "foreign")  # whose training images are outside
    data = folder / "run" / "data.json"
    data.write_text(data.read_text().replace(str(splits), str(folder / "images")))
    (folder / "run" / "predictor" / "embeddings.safetensors").unlink(missing_ok=True)
    (folder / "outside").symlink_to(splits)
    return folder


def process(root: Path) -> StdioServerParameters:
    """Return the command of a server in `root`."""
    env = {"PYTHONPATH": os.pathsep.join(sys.path), "SACCADE_CACHE": str(root.parent / "cache"), "OMP_NUM_THREADS": "1"}
    arguments = ["-m", "saccade", "mcp", "--root", str(root)]
    return StdioServerParameters(command=sys.executable, args=arguments, env=env, cwd=root.parent)


def session(server: StdioServerParameters | MCPServer, use: Callable[[Client, Call], Awaitable[None]]) -> None:
    """Let `use` call the tools of a server."""

    async def run() -> None:
        async with Client(server) as client:

            async def call(tool: str, **arguments: Any) -> Any:
                result = await client.call_tool(tool, arguments)
                return result.content[0].text if result.is_error else result.structured_content

            await use(client, call)

    anyio.run(run)


@pytest.mark.slow
def test_tools_read_a_run_and_refuse_what_is_outside(root):
    async def use(client: Client, call: Call) -> None:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        expected = {"fit", "resume", "stop", "status", "leaderboard", "evaluate", "predict", "explain", "report"}
        assert tools.keys() == expected | {"check", "list_models"}
        assert all(tool.description and tool.output_schema for tool in tools.values())
        assert (await call("status", run="run"))["state"] == "finished"
        assert (await call("leaderboard", run="run"))["trials"][0]["status"] == "completed"
        assert (await call("evaluate", run="run", data="images"))["metrics"] == {"top1": 1.0}
        found = await call("predict", run="run", images=["images/test/dark"], top_k=1, max_images=2)
        assert [image["label"] for image in found["images"]] == ["dark", "dark"]
        assert found["num_images"] == 3
        assert found["images"][0]["probabilities"].keys() == {"dark"}
        result = await client.call_tool("explain", {"run": "run", "images": ["images/test/dark/0.png"], "k": 1})
        assert [part.type for part in result.content] == ["image", "text"], result.content
        assert result.structured_content == json.loads(result.content[1].text)
        assert result.structured_content["images"][0]["nearest"][0]["label"] == "dark"
        report = await call("report", run="run", section="leaderboard")
        assert Path(report["file"]) == root / "run" / "report.html"
        assert "score_val" in report["table"]["columns"]
        assert (await call("check", data="images"))["num_images"] == {"train": 24, "test": 6}
        assert {"model": "resnet18"}.items() <= (await call("list_models", pattern="resnet18"))["models"][1].items()
        for tool, arguments, message in (
            ("predict", {"run": "run", "images": ["outside/test"]}, "is outside of"),
            ("predict", {"run": "run", "images": ["../root/../x.png"]}, "is outside of"),
            ("fit", {"data": "images", "out": "../run"}, "is outside of"),
            ("report", {"run": "run", "out": "/tmp/report.html"}, "is outside of"),
            ("evaluate", {"run": "run", "data": "https://example.org/x.zip"}, "is a URL"),
            ("leaderboard", {"run": "nowhere"}, "nowhere"),
            ("report", {"run": "run", "section": "leaderbord"}, "Did you mean 'leaderboard'"),
            ("stop", {"run": "run"}, "nothing to stop"),
            ("explain", {"run": "foreign", "images": ["images/test/dark/0.png"]}, "is outside of"),
            ("fit", {"data": "images", "out": "run"}, "contains a run"),
        ):
            text = await call(tool, **arguments)
            assert message in text, text
            assert "Traceback" not in text

    session(make_server(root), use)


@pytest.mark.slow
def test_a_fit_runs_in_the_background_is_stopped_and_resumed(root):
    small = {"model": "test_resnet", "pretrained": False, "img_size": 32, "batch_size": 4, "lr": 0.01}

    async def use(client: Client, call: Call) -> None:
        failing = await call("fit", data="images", hyperparameters={"lr": "1:0.1"}, out="bad")
        started = await call("fit", data="images", time_limit_s=120, hyperparameters={**small, "epochs": 100_000})
        run = started["run"]
        assert Path(run).parent == root / "saccade_runs"
        assert started["state"] == failing["state"] == "running"
        while (await call("status", run=run))["best_score"] is None:
            await anyio.sleep(0.1)
        assert "is running" in await call("resume", run=run)
        assert "Did you mean 'time_limit_s'?" in await call("resume", run=run, time_limit=5)
        stopped = await call("stop", run=run)
        assert (stopped["state"], stopped["num_trials"]) == ("interrupted", {"interrupted": 1})
        assert (await call("leaderboard", run=run))["is_finished"]
        assert (await call("resume", run=run))["state"] == "running"
        assert (await call("stop", run=run, at_once=True))["state"] == "interrupted"
        while (failed := await call("status", run="bad"))["state"] == "running":
            await anyio.sleep(0.1)
        assert (failed["state"], "Real(0.1, 1.0)" in failed["error"]) == ("failed", True)
        assert not (root / "bad").exists()
        assert ImagePredictor.resume(run, finish=True, verbosity=0).leaderboard()["epochs_done"][0] < 100_000

    session(process(root), use)


def test_a_run_may_have_links_of_its_tracker(tmp_path):
    (tmp_path / "root/run/wandb").mkdir(parents=True)
    (tmp_path / "root/run/wandb/debug.log").symlink_to(tmp_path / "cache.log")
    root = Root(tmp_path / "root")
    assert root.run("run") == tmp_path / "root/run"
    with pytest.raises(DataError, match="is outside of"):
        root.tree("run")
    (tmp_path / "root/run/wandb").rename(tmp_path / "wandb")
    (tmp_path / "root/run/wandb").symlink_to(tmp_path / "wandb")
    with pytest.raises(DataError, match="is outside of"):
        root.run("run")


def test_paths_outside_of_the_root_are_refused(tmp_path):
    root, other = tmp_path / "root", tmp_path / "other"
    for folder in (root / "images" / "a", other):
        folder.mkdir(parents=True)
    checked = Root(root)
    assert checked.tree("images") == root / "images"
    assert checked.path(root / "new" / "file") == root / "new" / "file"
    (root / "images" / "loop").symlink_to(root / "images")
    assert checked.data("images") == root / "images"
    (root / "linked").mkdir()
    (root / "images" / "a" / "b").symlink_to(root / "linked")
    (root / "linked" / "c").symlink_to(other)
    (root / "table.csv").write_text("image,label\n../other/x.png,a\n")
    (root / "loop").symlink_to(root / "loop")
    refused: list[Callable[[], object]] = [
        lambda: checked.path(".."),
        lambda: checked.path(other),
        lambda: checked.path("\0"),
        lambda: checked.path("file:///etc/passwd"),
        lambda: checked.tree("images"),
        lambda: checked.data("table.csv"),
        lambda: checked.images(["images/a/b/*"]),
        lambda: checked.images(["../other/*"]),
        lambda: Root(tmp_path / "none"),
    ]
    for call in refused:
        with pytest.raises(DataError):
            call()
