"""The durable record of a study: a journal of Optuna's, which holds all that is needed to go on with the study.

Each line is an operation as ``optuna.storages.JournalStorage`` writes them, so that optuna-dashboard, and whatever
else reads Optuna's studies, can open the file. What Optuna has no place for stands beside it under the key ``saccade``,
which Optuna does not look at. An entry is restored from one line only, the last one written for it, so that a kill in
the middle of writing loses the whole entry or nothing.

What becomes of a trial in Optuna's words:

=======================  ============================================================================================
here                     there
=======================  ============================================================================================
running                  RUNNING
paused                   RUNNING: it may go on at any time, its curve is drawn like those of others, and unlike one that
                         is WAITING it is not taken up by another program that asks Optuna for work
completed, stopped       COMPLETE, with its best score as the value, so that both have the same best trial
failed                   FAIL
=======================  ============================================================================================
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saccade.errors import JournalError, SpaceError, UnknownNameError
from saccade.events import EpochDone, JobFailed, LineFile
from saccade.space import Dict, encode, from_optuna, to_optuna
from saccade.space.constants import plain
from saccade.study.entries import Begun, BegunAgain, Ended, Entry, Reported, Started, restore
from saccade.study.json_values import LostObjectError, from_json_value, to_json_value
from saccade.study.trial import Decision, Status, Trial

if TYPE_CHECKING:
    from filelock import BaseFileLock
    from optuna.distributions import BaseDistribution
    from typing_extensions import Self

_VERSION = 1
_KEY = "saccade"

# Numbers of `optuna.storages.journal._storage.JournalOperation`, `StudyDirection` and `TrialState`.
_CREATE_STUDY, _CREATE_TRIAL, _SET_STATE_VALUES, _SET_INTERMEDIATE_VALUE, _SET_TRIAL_USER_ATTR = 0, 4, 6, 7, 8
_MAXIMIZE = 2
_RUNNING, _COMPLETE, _FAIL = 0, 1, 3


class Journal:
    """A file to which a study writes what happens to its trials, and from which another goes on.

    One process writes it at a time. An entry is with the operating system when `append` returns, so that a process that
    is killed loses nothing; a line costs some tens of microseconds, however many there are.

    Parameters
    ----------
    path : Path
        The file; it is created with its folder by the first entry.
    space : saccade.space.Dict or None
        What is searched: it says which of a configuration's values are parameters to Optuna.
    study_name : str
        What Optuna calls the study.
    encode_object : callable or None
        Returns something that JSON has for a value of a configuration that it lacks; raises TypeError if it cannot.
    decode_object : callable or None
        The way back.

    Examples
    --------
    >>> import tempfile
    >>> from saccade.space import Real
    >>> path = Path(tempfile.mkdtemp()) / "journal.log"
    >>> with Journal(path, Dict(lr=Real(0.1, 1))) as journal:
    ...     journal.append(Begun(0, {"lr": 0.5}))
    ...     journal.append(Reported(EpochDone(0, epoch=1, score=0.9)))
    >>> [trial] = Journal.load(path)
    >>> trial.config, trial.best_report.score
    ({'lr': 0.5}, 0.9)
    """

    def __init__(
        self,
        path: Path,
        space: Dict | None = None,
        *,
        study_name: str = "saccade",
        encode_object: Callable[[Any], Any] | None = None,
        decode_object: Callable[[Any], Any] | None = None,
    ) -> None:
        self.path = path
        self.space = space
        self.study_name = study_name
        self._encode_object, self._decode_object = encode_object, decode_object
        self._file = LineFile(path)
        self._lock: BaseFileLock | None = None

    @classmethod
    def load(
        cls, path: Path, space: Dict | None = None, *, decode_object: Callable[[Any], Any] | None = None
    ) -> list[Trial]:
        """Return the trials of a journal as its last entry left them, by number.

        Parameters
        ----------
        path, space, decode_object
            As above. A journal without odd objects needs neither space nor decoder.

        Raises
        ------
        JournalError
            When the file is no such journal, or when a configuration cannot be restored.
        """
        trials: list[Trial] = []
        for entry in cls(path, space, decode_object=decode_object).entries():
            restore(entry, trials)
        return trials

    def entries(self) -> Iterator[Entry]:
        """Read the entries that there are, oldest first; none when there is no file yet.

        Raises
        ------
        JournalError
            When the file is no such journal, or when a configuration cannot be restored.
        """
        if not self.path.exists():
            return
        for number, line in enumerate(self._file, start=1):
            try:
                record = json.loads(line)
                if not isinstance(record, dict):
                    raise TypeError(f"{record!r} is no object")
                if number == 1:
                    self._check_header(record)
                elif _KEY in record:  # others are the dashboard's, such as notes
                    yield self._entry(record)
            except (KeyError, TypeError, ValueError) as error:
                if isinstance(error, JournalError):
                    raise
                raise JournalError(
                    f"{self.path}, line {number}, cannot be read ({type(error).__name__}: {error}). The file is "
                    "damaged, or was written by another version of Saccade; restore a copy, or start a new run."
                ) from error

    def append(self, entry: Entry) -> None:
        """Write an entry.

        Raises
        ------
        JournalError
            When another process writes this file.
        """
        lines = list(self._lines(entry))
        if self._lock is None:
            self._lock = self._locked()
            if not self.path.exists() or not any(True for _ in self._file):
                self._file.append(_encoded(_header(self.study_name)))
        self._file.append(*(_encoded(line) for line in lines))

    def close(self) -> None:
        """Close the file, and let others write to it."""
        self._file.close()
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _locked(self) -> BaseFileLock:
        """Lock the journal for as long as it is open, so that a run cannot be continued while it goes on."""
        import filelock  # lazily, as it takes a while to import

        self.path.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(self.path.with_name(self.path.name + ".writer"))
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout as error:
            raise JournalError(
                f"{self.path} is being written already: its run still goes on, in another process or in this one. "
                "Wait for its end, or end it, before you continue it."
            ) from error
        return lock

    def _check_header(self, record: Mapping[str, Any]) -> None:
        if _KEY not in record:
            raise JournalError(
                f"{self.path} is not the journal of a study of Saccade, but of another program that uses Optuna."
            )
        version = record[_KEY]["version"]
        if version > _VERSION:
            raise JournalError(
                f"{self.path} was written by a newer version of Saccade (journal version {version}; this one reads up "
                f"to {_VERSION}). Continue the run with that version."
            )

    def _lines(self, entry: Entry) -> Iterator[dict[str, Any]]:
        """Return the operations that stand for an entry; the last one has what it is restored from."""
        match entry:
            case Begun():
                yield self._begun(entry)
            case Started():
                yield _user_attr(entry.trial, "running", {"kind": "started", "until_epoch": entry.until_epoch})
            case Reported():
                yield _reported(entry)
            case BegunAgain():
                ours = {"kind": "again", "after_epoch": entry.after_epoch, "num_retries": entry.num_retries}
                yield _user_attr(entry.trial, "to be trained again", ours)
            case Ended():
                yield from _ended(entry)

    def _begun(self, entry: Begun) -> dict[str, Any]:
        params = self._params(entry.config)
        distributions = {} if params is None else {name: self._distributions[name] for name in params}
        return {
            "op_code": _CREATE_TRIAL,
            "study_id": 0,
            "datetime_start": _now(),
            "state": _RUNNING,
            "value": None,
            "values": None,
            "distributions": {name: self._distributions_json[name] for name in distributions},
            "params": {name: kind.to_internal_repr((params or {})[name]) for name, kind in distributions.items()},
            "user_attrs": {"config": to_json_value(entry.config, self._encode_object), "folder": entry.folder},
            "system_attrs": {},
            "intermediate_values": {},
            _KEY: {"kind": "begun", "trial": entry.trial, "is_in_space": params is not None},
        }

    def _params(self, config: dict[str, Any]) -> dict[str, Any] | None:
        """Return a configuration as Optuna's parameters; None if it is not in the space, as a user's own may be."""
        try:
            return None if self.space is None else encode(self.space, config)
        except SpaceError:
            return None

    @cached_property
    def _distributions(self) -> dict[str, BaseDistribution]:
        return {} if self.space is None else to_optuna(self.space)

    @cached_property
    def _distributions_json(self) -> dict[str, str]:
        from optuna.distributions import distribution_to_json  # lazily: importing Optuna is slow

        return {name: distribution_to_json(kind) for name, kind in self._distributions.items()}

    def _entry(self, record: Mapping[str, Any]) -> Entry:
        ours = record[_KEY]
        match ours["kind"]:
            case "begun":
                return Begun(ours["trial"], self._config(record), record["user_attrs"]["folder"])
            case "started":
                return Started(record["trial_id"], ours["until_epoch"])
            case "reported":
                return _report_entry(record)
            case "again":
                return BegunAgain(record["trial_id"], ours["after_epoch"], ours["num_retries"])
            case "ended":
                failure = None if ours["failure"] is None else JobFailed(record["trial_id"], **ours["failure"])
                return Ended(record["trial_id"], Status(ours["status"]), ours["note"], failure, ours["best_score"])
        raise ValueError(f"unknown kind of entry {ours['kind']!r}")

    def _config(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """Return a trial's configuration; if it has objects that JSON lacks, they are looked up in the space."""
        try:
            config: dict[str, Any] = from_json_value(record["user_attrs"]["config"], self._decode_object)
            return config
        except LostObjectError as lost:
            if self.space is not None and record[_KEY]["is_in_space"]:
                return self._config_in_space(record, lost)
            raise self._lost(record, lost) from None

    def _config_in_space(self, record: Mapping[str, Any], lost: LostObjectError) -> dict[str, Any]:
        from optuna.distributions import json_to_distribution  # lazily: importing Optuna is slow

        kinds = {name: json_to_distribution(text) for name, text in record["distributions"].items()}
        params = {name: kinds[name].to_external_repr(value) for name, value in record["params"].items()}
        try:
            config: dict[str, Any] = from_optuna(self.space, params)  # type: ignore[arg-type]
        except (SpaceError, UnknownNameError):
            raise self._lost(record, lost) from None
        return config

    def _lost(self, record: Mapping[str, Any], lost: LostObjectError) -> JournalError:
        return JournalError(
            f"The configuration of trial {record[_KEY]['trial']} in {self.path} has the value {lost}, which JSON "
            "cannot keep. Give the journal the space that it was written with, or an encode_object and a decode_object."
        )


def _header(study_name: str) -> dict[str, Any]:
    return {
        "op_code": _CREATE_STUDY,
        "study_name": study_name,
        "directions": [_MAXIMIZE],
        _KEY: {"version": _VERSION},
    }


def _reported(entry: Reported) -> dict[str, Any]:
    report = entry.report
    return {
        "op_code": _SET_INTERMEDIATE_VALUE,
        "trial_id": report.trial,
        "step": plain(report.epoch),
        "intermediate_value": plain(report.score),
        _KEY: {
            "kind": "reported",
            "seconds": plain(report.seconds),
            "metrics": to_json_value(report.metrics, None),
            "checkpoint": report.checkpoint,
            "is_last": report.is_last,
            "decision": entry.decision.value,
        },
    }


def _report_entry(record: Mapping[str, Any]) -> Reported:
    ours = record[_KEY]
    report = EpochDone(
        record["trial_id"],
        record["step"],
        record["intermediate_value"],
        ours["seconds"],
        from_json_value(ours["metrics"], None),
        ours["checkpoint"],
        ours["is_last"],
    )
    return Reported(report, Decision(ours["decision"]))


def _ended(entry: Ended) -> Iterator[dict[str, Any]]:
    failure = entry.failure
    why = entry.note if failure is None else failure.reason
    text = f"{entry.status.value}: {why}" if why else entry.status.value
    ours = {
        "kind": "ended",
        "status": entry.status.value,
        "note": entry.note,
        "failure": failure
        and {"reason": failure.reason, "traceback": failure.traceback, "is_worker_lost": failure.is_worker_lost},
        "best_score": plain(entry.best_score),
    }
    if entry.status in (Status.RUNNING, Status.PAUSED):
        yield _user_attr(entry.trial, text, ours)
        return
    has_failed = entry.status is Status.FAILED
    yield _user_attr(entry.trial, text)
    yield {
        "op_code": _SET_STATE_VALUES,
        "trial_id": entry.trial,
        "state": _FAIL if has_failed else _COMPLETE,
        "values": None if has_failed else [plain(entry.best_score)],
        "datetime_complete": _now(),
        _KEY: ours,
    }


def _user_attr(trial: int, status: str, ours: dict[str, Any] | None = None) -> dict[str, Any]:
    line: dict[str, Any] = {"op_code": _SET_TRIAL_USER_ATTR, "trial_id": trial, "user_attr": {"status": status}}
    return line if ours is None else {**line, _KEY: ours}


def _encoded(line: dict[str, Any]) -> bytes:
    # Optuna raises errors at a worker whose own lines are wrong; to readers, we are always another one.
    return json.dumps({"worker_id": _KEY, **line}, separators=(",", ":"), allow_nan=False).encode("ascii")


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="microseconds")
