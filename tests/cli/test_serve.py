from __future__ import annotations

from pathlib import Path

import pytest

from saccade.serve.settings import ServerSettings


def test_every_setting_is_an_option_with_its_default(saccade) -> None:
    shown = saccade("serve", "--help").output
    for name, default in vars(ServerSettings()).items():
        assert f"--{name.replace('_', '-')}" in shown
        if default not in (None, ()):
            assert f"[default: {default}]" in " ".join(shown.split())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "is not a folder; expected a folder made by ImagePredictor.save(), or the run folder"),
        (["--port", "99999"], "port was given 99999; expected a whole number, from 0 to 65535"),
        (["--cors", "example.org"], "cors was given 'example.org'; expected an origin without a path"),
        (["--api-key-file", "missing.txt"], "missing.txt: No such file or directory"),
        (["--max-batches", "3"], "Did you mean --max-batch"),
    ],
)
def test_what_cannot_be_served_is_a_clear_error(saccade, tmp_path: Path, options: list[str], message: str) -> None:
    pytest.importorskip("fastapi", reason="the extra serve is not installed")
    result = saccade("serve", tmp_path / "run", *options)
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())
    assert "Traceback" not in result.output


def test_a_missing_library_names_the_extra(saccade, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert 'pip install "saccade[serve]"' in saccade("serve", tmp_path).output
