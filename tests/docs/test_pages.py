"""All code on the pages runs: Python in one namespace for each page, commands of saccade in this process.

Two things differ from the reader's desk. https://example.org is a server on this machine, and the weights that
``SACCADE_WEIGHTS`` names are random, so figures on the pages are not compared. What must come out exactly stands on the
page as a comment ``# -> …`` after the line that prints it, and is compared. Files of settings are read and checked.
"""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from saccade.cli import app
from saccade.executor import local_cluster
from saccade.fit.config_file import FitConfig
from saccade.training.recipes.recipe import recipe_space

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))
FENCE = re.compile(r"^```(?P<language>\w*)(?P<attributes>[^\n]*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)

NOT_OURS = ("saccade sample-data ", "pip ", "npm ", "make ", "git ", "export ", ". .venv")
"""How lines of a shell begin that are not tested here."""


@dataclass(frozen=True)
class Block:
    """Code between fences."""

    language: str
    code: str
    line: int


def blocks_of(page: str) -> Iterator[Block]:
    text = (DOCS / page).read_text(encoding="utf-8")
    for match in FENCE.finditer(text):
        yield Block(match["language"], match["code"], text.count("\n", 0, match.start("code")))


def run_python(block: Block, page: str, names: dict[str, object], example_org: str) -> None:
    code = "\n" * block.line + block.code.replace("https://example.org", example_org)  # lines are those of the page
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, str(DOCS / page), "exec"), names)
    lines = iter(line.strip() for line in printed.getvalue().splitlines())
    for expected in re.findall(r"^ *# -> (.*)$", block.code, re.MULTILINE):
        assert expected.strip() in lines, f"{expected!r} was not printed, or not in this order:\n{printed.getvalue()}"


def run_commands(block: Block, example_org: str, servers: Servers) -> None:
    code = block.code.replace("\\\n", " ").replace("https://example.org", example_org)
    for line in filter(None, map(str.strip, code.splitlines())):
        if line.startswith(NOT_OURS):
            continue
        program, *arguments = shlex.split(line, comments=True)
        if line.startswith("saccade cluster ") or "--executor ray" in line:
            pytest.importorskip("ray", reason="the extra ray is not installed")
            command = [sys.executable, "-m", "saccade", *arguments]  # Ray reads its settings once in a process
            done = subprocess.run(command, capture_output=True, text=True, timeout=300)
            assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        elif line.startswith("saccade serve "):
            servers.start(arguments)
        elif program == "curl":
            servers.curl(arguments)
        else:
            assert program == "saccade", f"cannot run {line!r}"
            result = CliRunner().invoke(app, arguments)
            assert result.exit_code == 0, f"{line}\n{result.output}"


class Servers:
    """The process of `saccade serve` on a page, at a free port instead of 8000, and `curl` that asks it."""

    def __init__(self) -> None:
        self.port = ""
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, arguments: list[str]) -> None:
        self.close()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = str(free.getsockname()[1])
        at_port = [self.port if argument == "8000" else argument for argument in arguments if argument != "&"]
        at_port += [] if "--port" in at_port else ["--port", self.port]
        self.process = subprocess.Popen([sys.executable, "-m", "saccade", *at_port])
        self.curl(
            ["--silent", "--retry", "240", "--retry-delay", "1", "--retry-all-errors", "http://127.0.0.1:8000/ready"]
        )

    def curl(self, arguments: list[str]) -> None:
        assert shutil.which("curl")
        at_port = [argument.replace(":8000", f":{self.port}") for argument in arguments]
        subprocess.run(["curl", "--fail-with-body", "--noproxy", "*", *at_port], check=True, timeout=300)

    def close(self) -> None:
        if self.process:
            self.process.terminate()
            assert self.process.wait(60) == 0
            self.process = None
        local_cluster.end_cluster()
        shutil.rmtree(local_cluster.folder_of_user(), ignore_errors=True)


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if any(blocks_of(page))])
def test_the_code_on_the_page_runs(page: str, desk: Path, example_org: str) -> None:
    names: dict[str, object] = {"__name__": "__main__"}
    with contextlib.closing(Servers()) as servers:
        for block in blocks_of(page):
            if block.language == "python":
                run_python(block, page, names, example_org)
            elif block.language == "sh":
                run_commands(block, example_org, servers)
            elif block.language == "toml":
                (desk / "fit.toml").write_text(block.code, encoding="utf-8")
                recipe_space(FitConfig.read(desk / "fit.toml").hyperparameters)


@pytest.mark.parametrize("page", PAGES)
def test_every_fence_names_a_language_that_is_run_or_is_text(page: str) -> None:
    assert {block.language for block in blocks_of(page)} <= {"python", "sh", "toml", "text"}
