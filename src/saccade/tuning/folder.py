"""The folder of a search: what was asked, the journal, what happened, and the trials' files."""

from __future__ import annotations

import json
import platform
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from saccade._version import __version__
from saccade.errors import HyperparameterError, SpaceError
from saccade.space import Dict

ABOUT, JOURNAL, EVENTS, TRIALS = "tune.json", "journal.log", "events.jsonl", "trials"
"""What the folder holds."""


def open_folder(folder: Path, space: Dict, metric: str, mode: str, *, resume: bool) -> bool:
    """Make the folder of a search, or find it; tell whether there is something to go on with.

    Raises
    ------
    HyperparameterError
        When the folder has a search and `resume` was not asked for, or another search than this one, or something else.
    """
    about = {"metric": metric, "mode": mode, "space": _space_to_json(space)}
    if (folder / ABOUT).is_file():
        if not resume:
            raise HyperparameterError(
                f"path={str(folder)!r} has a search already. resume=True goes on with it; for a new one name another "
                "path, or remove the folder"
            )
        _check_same(folder, about)
        return True
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise HyperparameterError(f"path={str(folder)!r} exists and has no search; name an empty or a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    started = datetime.now(timezone.utc).isoformat(timespec="seconds")
    versions = {"saccade": __version__, "python": platform.python_version()}
    text = json.dumps({**about, "started": started, "versions": versions}, indent=2)
    part = folder.with_name(folder.name + ".part")  # beside it, so that a kill leaves an empty folder behind
    part.write_text(text + "\n", encoding="utf-8")
    part.replace(folder / ABOUT)
    return False


def read_about(folder: Path) -> dict[str, Any]:
    """Return what was asked of the search in a folder.

    Raises
    ------
    HyperparameterError
        When there is none.
    """
    try:
        about: dict[str, Any] = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise HyperparameterError(f"{str(folder)!r} has no search of saccade.tune: {error}") from error
    return about


def _check_same(folder: Path, about: dict[str, Any]) -> None:
    before = read_about(folder)
    for name, now in about.items():
        # A space with objects that JSON lacks cannot be compared.
        if before[name] != now and None not in (before[name], now):
            raise HyperparameterError(
                f"path={str(folder)!r} has a search with {name}={_text(before[name])}, and now {name} is {_text(now)}. "
                "Go on with what it was begun with, or name another path"
            )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _space_to_json(space: Dict) -> Any:
    """Return the space as JSON gives it back; None where it has no such form."""
    try:
        return json.loads(json.dumps(space.to_json()))
    except SpaceError:
        return None
