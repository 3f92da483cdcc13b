"""Every error that Saccade raises on purpose.

SaccadeError
├── SpaceError                    an invalid search space (also ValueError, AssertionError)
│   └── ExhaustedSearchSpaceError every configuration has been proposed
├── HyperparameterError           an unknown hyperparameter or invalid value (also ValueError)
├── UnknownNameError              a name that is not in a list of names (also ValueError)
│   ├── UnknownArgumentError      an unknown keyword argument (also TypeError, KeyError)
│   ├── UnknownFrameError         a section that a report does not have (also KeyError)
│   └── UnknownModelError         a network that is not in the catalogue
├── WeightsNotFoundError          pretrained weights that are not available (also FileNotFoundError)
├── HubError                      the Hugging Face hub refuses, or is not reached (also OSError)
├── DataError                     data that cannot be used (also ValueError)
│   ├── ArchiveError              an archive that is broken or unsafe to unpack
│   ├── DownloadError             a file that could not be fetched (also OSError)
│   │   └── RemoteError           a URL such as s3://… that cannot be read or written
│   └── ImageReadError            one image that cannot be decoded
├── JournalError                  an event log that is invalid or in use (also ValueError)
│   └── RunInUseError             a run folder that another run is using (also DataError)
├── SearchFailedError             no trial of a search succeeded (also RuntimeError)
├── DivergedError                 a loss that is no longer finite (also RuntimeError)
├── OutOfMemoryError              a trial that does not fit the device (also MemoryError)
├── DiskFullError                 a full disk (also OSError)
├── ClusterError                  a cluster that cannot be used (also RuntimeError)
├── WorkerDiedError               a worker process that ended in the middle of a job (also RuntimeError)
├── NotFittedError                a predictor used before it was fitted (also ValueError, AttributeError)
└── SavedPredictorError           a folder without a predictor that can be loaded (also ValueError)

Messages say what was given, what was expected and what to do.
"""

from __future__ import annotations

import contextlib
import difflib
import dis
import errno
import functools
import importlib
import inspect
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn, TypeVar, cast

_IMPORT_FROM = dis.opmap["IMPORT_FROM"]
_Class = TypeVar("_Class", bound=type)
_Function = TypeVar("_Function", bound=Callable[..., Any])


class SaccadeError(Exception):
    """The root of all errors that Saccade raises on purpose."""


class SpaceError(SaccadeError, ValueError, AssertionError):
    """An invalid search space: wrong bounds, NaN, an empty choice.

    It is an ``AssertionError`` as well, because the API that Saccade revives raised that.
    """


class ExhaustedSearchSpaceError(SpaceError):
    """Every configuration of the search space has been proposed already."""


class HyperparameterError(SaccadeError, ValueError):
    """An unknown hyperparameter, or an invalid value or argument."""


class UnknownNameError(SaccadeError, ValueError):
    """An unknown name; the message suggests similar ones."""

    @classmethod
    def of(
        cls,
        kind: str,
        given: object,
        known: Iterable[str],
        hint: str = "",
        elsewhere: Mapping[str, str] | None = None,
    ) -> UnknownNameError:
        """Build the error for `given`, which is not among the `known` names of this kind; see `suggestion`."""
        names = sorted(map(str, known))
        advice = suggestion(str(given), names, elsewhere) or (f"Known: {', '.join(names)}." if len(names) <= 40 else "")
        return cls(" ".join(part for part in (f"Unknown {kind} {given!r}.", advice, hint) if part))


class UnknownArgumentError(UnknownNameError, TypeError, KeyError):
    """A keyword argument that does not exist; a ``KeyError`` as well, as in the API that Saccade revives."""

    __str__ = Exception.__str__  # KeyError would put the message in quotes


class UnknownFrameError(UnknownNameError, KeyError):
    """A report has no section of that name; a ``KeyError`` as well, as its frames are a mapping."""

    __str__ = Exception.__str__


class UnknownModelError(UnknownNameError):
    """No network of that name is in the catalogue."""


class WeightsNotFoundError(SaccadeError, FileNotFoundError):
    """Pretrained weights are not available; the message lists the places that were tried."""


class HubError(SaccadeError, OSError):
    """The Hugging Face hub refuses a request, or cannot be reached; the message has the reason, and what to do."""


class DataError(SaccadeError, ValueError):
    """Data that cannot be used: no images, one class, a missing column."""


class DataWarning(UserWarning):
    """Data that are left out, or may not be what was meant."""


class ArchiveError(DataError):
    """An archive that is broken, or that would write outside its folder."""


class DownloadError(DataError, OSError):
    """A file that could not be downloaded."""


class RemoteError(DownloadError):
    """A URL of an object store or a cluster's file system that cannot be read or written."""

    kind: str = "broken"
    """``"missing"`` (no such object or bucket), ``"denied"`` (by permissions), or ``"broken"``."""
    is_temporary: bool = False
    """Whether another attempt may succeed."""


class ImageReadError(DataError):
    """One image that cannot be decoded; the message is the reason."""


class JournalError(SaccadeError, ValueError):
    """An event log that is damaged, was written by another version, or is being written by another process."""


class RunInUseError(JournalError, DataError):
    """Another run, in this process or another one, is using the run folder."""


class SearchFailedError(SaccadeError, RuntimeError):
    """No trial of a search succeeded."""


class DivergedError(SaccadeError, RuntimeError):
    """The training loss is no longer a finite number."""


class OutOfMemoryError(SaccadeError, MemoryError):
    """A trial does not fit the memory of its device."""


class DiskFullError(SaccadeError, OSError):
    """The disk is full."""


class ClusterError(SaccadeError, RuntimeError):
    """A cluster that is not reached, or has no node on which trials can run."""


class WorkerDiedError(SaccadeError, RuntimeError):
    """A worker process ended in the middle of a job."""


class NotFittedError(SaccadeError, ValueError, AttributeError):
    """A predictor was used before it was fitted."""


class SavedPredictorError(SaccadeError, ValueError):
    """A folder without a predictor that this version can load."""


def is_disk_full(error: BaseException) -> bool:
    """Return whether an error, or one of its causes, is that a file could not be written for lack of space or quota.

    NumPy, safetensors and torch report it in their messages only.
    """
    found = re.search(r"os error (\d+)", str(error))
    code = int(found[1]) if found else getattr(error, "errno", None)
    is_full = code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) or isinstance(error, DiskFullError)
    cause = error.__cause__ or error.__context__
    return is_full or bool(_CUT_SHORT.search(str(error))) or (cause is not None and is_disk_full(cause))


_CUT_SHORT = re.compile(r"\d+ requested and \d+ written|PytorchStreamWriter failed writing")

_ADVICE: dict[type[OSError], str] = {
    IsADirectoryError: "Pass the path of a file.",
    NotADirectoryError: "Pass a path whose folders are not files.",
    FileExistsError: "Pass another path.",
    FileNotFoundError: "Check the path.",
}


@contextlib.contextmanager
def explained_file_errors(
    path: Path | None = None, error_class: type[SaccadeError] = DataError, advice: str = ""
) -> Iterator[None]:
    """Raise errors of the file system as `error_class`, or a DiskFullError, with the path and what to do."""
    try:
        yield
    except (SaccadeError, ConnectionError):  # a closed pipe is one
        raise
    except Exception as error:
        found = error if isinstance(error, OSError) else None
        where = (found and found.filename) or path
        if where is not None and len(str(where)) > 1000:  # the text of something else, given as a path
            where = f"{str(where)[:100]}…"
        if is_disk_full(error):
            where = (found and found.filename2) or where  # the target of a copy
            disk = "The disk is full" if where is None else f"The disk of {where} is full"
            raise DiskFullError(f"{disk}. Make room, or pass a path on another disk. {advice}".strip()) from error
        if found is None or (found.errno is None and type(found) not in (*_ADVICE, PermissionError)):
            raise
        why = found.strerror or str(found) or type(found).__name__
        what_to_do = _ADVICE.get(type(found), "Check the permissions, or pass another path.")
        raise error_class(f"{why if where is None else f'{where}: {why}'}. {what_to_do} {advice}".strip()) from error


def count_of(num: int, singular: str, plural: str | None = None) -> str:
    """Return a number with its noun: ``3 images``, ``1 class``."""
    return f"{num} {singular if num == 1 else plural or singular + 's'}"


def near_names(given: str, known: Iterable[str], num: int = 3) -> list[str]:
    """Return up to `num` of the `known` names that mean or resemble `given`, nearest first.

    Words of AutoGluon, Ray, Ultralytics, fastai and others are translated by the table ``foreign_words.json``.
    """
    by_lower = {name.lower(): name for name in known}
    if ours := [by_lower[word.lower()] for word in _translations(given) if word.lower() in by_lower]:
        return list(dict.fromkeys(ours))[:num]
    text = given.lower()
    near = {}
    for name in by_lower:
        ratio = difflib.SequenceMatcher(None, name, text).ratio()
        # A lower ratio is chance, unless one name contains the other, such as holdout and holdout_frac, or short names
        # differ by one letter or two that are exchanged.
        contains = min(len(name), len(text)) >= 4 and (name in text or text in name)
        differences = [index for index, pair in enumerate(zip(name, text, strict=False)) if pair[0] != pair[1]]
        is_typing_error = len(name) == len(text) > 2 and (len(differences) == 1 or sorted(name) == sorted(text))
        if ratio >= 0.68 or (ratio >= 0.5 and (contains or is_typing_error)):
            near[name] = ratio
    best = sorted(near, key=lambda name: (-near[name], name))[:num]
    return [by_lower[name] for name in best if near[name] > near[best[0]] - 0.2]


def suggestion(given: str, known: Iterable[str], elsewhere: Mapping[str, str] | None = None) -> str:
    """Return what to write instead of an unknown name, as a sentence; "" if nothing resembles it.

    `known` are the names that are valid in its place, `elsewhere` those valid in another place, with a sentence for
    each.
    """
    names = list(known)
    words = _translations(given)
    near = near_names(given, names)
    is_certain = near and (near[0] in words or difflib.SequenceMatcher(None, near[0], given.lower()).ratio() > 0.85)
    if not is_certain:
        sentences = [word if " " in word else (elsewhere or {}).get(word, "") for word in words]
        if sentence := next(filter(None, [*sentences, (elsewhere or {}).get(given, "")]), ""):
            return sentence
    return f"Did you mean {' or '.join(map(repr, near))}?" if near else ""


@functools.cache
def _foreign_words() -> dict[str, list[str]]:
    words = json.loads(Path(__file__).with_name("foreign_words.json").read_text(encoding="utf-8"))
    table: dict[str, list[str]] = {}
    for word, ours in words.items():
        table.setdefault(word.lower(), []).extend(ours)  # Ray's Tuner, and a tuner
    return table


def _translations(given: str) -> list[str]:
    """Return the names, and then sentences, that stand for a word of another library.

    Of ``optim.lr`` and the like, which have a prefix, the last part is a candidate as well.
    """
    head, _, last = given.rpartition(".")
    table = _foreign_words()
    ours = table.get(given.lower(), []) + ([last, *table.get(last.lower(), [])] if head and " " not in last else [])
    return ours + [text for word in ours for text in table.get(word, []) if " " in text]


def missing_attributes(
    module: str, known: Iterable[str], lazy: Mapping[str, str] | None = None
) -> Callable[[str], Any]:
    """Return a ``__getattr__`` for a module, which imports `lazy` names from their modules, and suggests names.

    In a statement ``from module import name`` the error is an ImportError, since Python would replace the message of an
    AttributeError there.
    """
    places = lazy or {}
    names = [*known, *places]

    def __getattr__(name: str) -> Any:  # noqa: N807
        if name in places:
            found = importlib.import_module(places[name])
            return found if found.__name__ == f"{module}.{name}" else getattr(found, name)
        error = _no_attribute(f"module {module!r}", name, names)
        caller = inspect.currentframe()
        while caller is not None and caller.f_code.co_name == "__getattr__":
            caller = caller.f_back
        is_import = caller is not None and caller.f_code.co_code[caller.f_lasti] == _IMPORT_FROM
        raise ImportError(str(error)) if is_import and ". " in str(error) else error

    return __getattr__


def suggests_names(elsewhere: Callable[[], Mapping[str, str]] = dict) -> Callable[[_Class], _Class]:
    """Make unknown arguments and attributes of a class errors that suggest names: see `suggestion`.

    `elsewhere` returns the names that are valid in another place, with a sentence for each.
    """

    def decorate(cls: _Class) -> _Class:
        for name, member in list(vars(cls).items()):
            function = getattr(member, "__func__", member)
            if inspect.isfunction(function) and (name == "__init__" or not name.startswith("_")):
                checked = _with_checked_names(function, elsewhere)
                setattr(cls, name, type(member)(checked) if member is not function else checked)
        if not any("__getattr__" in vars(base) for base in cls.__mro__):
            cls.__getattr__ = _missing_attribute  # type: ignore[attr-defined]
        return cls

    return decorate


def suggesting_function(module: str, attributes: Iterable[str]) -> Callable[[_Function], _Function]:
    """Make unknown arguments of a function errors that suggest names, and its attributes those of a module.

    Ray's ``tune`` is a module: the error for ``tune.loguniform`` names what Saccade has instead.
    """
    missing = missing_attributes(module, attributes)

    def decorate(function: _Function) -> _Function:
        return cast("_Function", _SuggestingFunction(function, missing))

    return decorate


class _SuggestingFunction:
    def __init__(self, function: Callable[..., Any], missing: Callable[[str], NoReturn]) -> None:
        functools.update_wrapper(self, function)
        self._checked, self._missing = _with_checked_names(function), missing

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._checked(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        self._missing(name)

    def __reduce__(self) -> str:
        return str(self.__name__)  # pickled by name, as functions are


def _with_checked_names(
    function: Callable[..., Any], elsewhere: Callable[[], Mapping[str, str]] = dict
) -> Callable[..., Any]:
    parameters = inspect.signature(function).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return function  # it checks them itself

    @functools.wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        for name in kwargs:
            if name not in parameters:
                known = [each for each in parameters if each not in ("self", "cls")]
                called = type(args[0]).__name__ if function.__name__ == "__init__" else function.__name__
                raise UnknownArgumentError.of(f"argument of {called}()", name, known, elsewhere=elsewhere())
        return function(*args, **kwargs)

    return checked


class SuggestingClass(type):
    """A class whose missing attributes, such as constructors of other libraries, are errors that suggest names."""

    def __getattr__(cls, name: str) -> NoReturn:
        raise _no_attribute(f"{cls.__name__!r}", name, dir(cls))


def _missing_attribute(self: object, name: str) -> Any:
    cls = type(self)
    if name in dir(cls):
        return object.__getattribute__(self, name)  # a property whose own AttributeError led here
    raise _no_attribute(f"{cls.__name__!r} object", name, (*dir(cls), *vars(self)))


def _no_attribute(owner: str, name: str, known: Iterable[str]) -> AttributeError:
    advice = "" if name.startswith("_") else suggestion(name, [each for each in known if not each.startswith("_")])
    message = f"{owner} has no attribute {name!r}"
    return AttributeError(f"{message}. {advice}" if advice else message)
