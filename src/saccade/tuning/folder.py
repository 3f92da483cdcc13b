"""The folder of a search of `tune`."""

from __future__ import annotations

import json
import platform
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from saccade._version import __version__
from saccade.errors import HyperparameterError, SpaceError
from saccade.space import Dict
from saccade.study.run_folder import other_entries, write_json_atomically

ABOUT, JOURNAL, EVENTS, TRIALS = "tune.json", "journal.log", "events.jsonl", "trials"
"""Files and folders in it."""


def start_or_resume(folder: Path, space: Dict, metric: str, mode: str, *, resume: bool) -> bool:
    """Record what a locked folder is used for, or check that it was used for the same; return whether to resume.

    Raises
    ------
    HyperparameterError
        If the folder has a search and `resume` was not requested, or a different search.
    """
    about = {"metric": metric, "mode": mode, "space": _space_to_json(space)}
    if not (folder / ABOUT).is_file():
        started = datetime.now(timezone.utc).isoformat(timespec="seconds")
        versions = {"saccade": __version__, "python": platform.python_version()}
        write_json_atomically(folder / ABOUT, {**about, "started": started, "versions": versions})
        return False
    if not resume:
        raise HyperparameterError(
            f"path={str(folder)!r} contains a search. Pass resume=True to continue it, or choose another path for a "
            "new one"
        )
    before = read_about(folder)
    for name, now in about.items():
        # Spaces with objects that have no JSON form cannot be compared.
        if before[name] != now and None not in (before[name], now):
            raise HyperparameterError(
                f"path={str(folder)!r} contains a search with {name}={_text(before[name])}, but {name} is "
                f"{_text(now)}. Pass the arguments of that search, or choose another path"
            )
    return True


def check_path(folder: Path) -> None:
    """Check that a folder contains a search, or is new or empty, without changing it.

    Raises
    ------
    HyperparameterError
        If it contains something else.
    """
    # A kill between the lock and the first file leaves nothing but ABOUT.part behind.
    is_used = any(entry.name != f"{ABOUT}.part" for entry in other_entries(folder))
    if not (folder / ABOUT).is_file() and (is_used or (folder.exists() and not folder.is_dir())):
        raise HyperparameterError(f"path={str(folder)!r} exists and contains no search; choose an empty or new folder")


def read_about(folder: Path) -> dict[str, Any]:
    """Return ``metric``, ``mode`` and ``space`` of the search in a folder.

    Raises
    ------
    HyperparameterError
        If there is none, or if its record is damaged.
    """
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        _ = about["metric"], about["mode"], about["space"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise HyperparameterError(
            f"{str(folder)!r} contains no search of saccade.tune ({type(error).__name__}: {error})"
        ) from error
    found: dict[str, Any] = about
    return found


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _space_to_json(space: Dict) -> Any:
    """Return the space as it is read from JSON; None if it has no JSON form."""
    try:
        return json.loads(json.dumps(space.to_json()))
    except SpaceError:
        return None
