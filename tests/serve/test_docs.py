"""The commands of docs/serve.md run against a server."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from contracts.servers import Served, photo, png

PAGE = Path(__file__).parents[2] / "docs" / "serve.md"
COMMANDS = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if re.match(r"(curl|echo) ", line)]


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("command", COMMANDS)
def test_the_commands_of_the_page_run(command: str, served: Served, tmp_path: Path) -> None:
    for number, name in enumerate(("cat.jpg", "dog.jpg")):
        (tmp_path / name).write_bytes(png(photo(number), "JPEG"))
    asked = command.replace("http://127.0.0.1:8000", served.url).replace(
        "curl ", "curl --fail --silent --noproxy '*' ", 1
    )
    done = subprocess.run(asked, shell=True, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    if "/metrics" not in command:
        assert "error" not in json.loads(done.stdout)
