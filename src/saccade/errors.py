"""Every error that Saccade raises on purpose.

SaccadeError
├── SpaceError                    an invalid search space (also ValueError, AssertionError)
│   └── ExhaustedSearchSpaceError every configuration has been proposed
├── HyperparameterError           an unknown hyperparameter or invalid value (also ValueError)
├── UnknownNameError              a name that is not in a list of names (also ValueError)
│   ├── UnknownArgumentError      an unknown keyword argument (also TypeError, KeyError)
│   └── UnknownModelError         a network that is not in the catalogue
├── WeightsNotFoundError          pretrained weights that are not available (also FileNotFoundError)
├── DataError                     data that cannot be used (also ValueError)
│   ├── ArchiveError              an archive that is broken or unsafe to unpack
│   ├── DownloadError             a file that could not be fetched (also OSError)
│   └── ImageReadError            one image that cannot be decoded
├── JournalError                  an event log that is invalid or in use (also ValueError)
│   └── RunInUseError             a run folder that another run is using (also DataError)
├── SearchFailedError             no trial of a search succeeded (also RuntimeError)
├── DivergedError                 a loss that is no longer finite (also RuntimeError)
├── OutOfMemoryError              a trial that does not fit the device (also MemoryError)
├── DiskFullError                 a full disk (also OSError)
├── WorkerDiedError               a worker process that ended in the middle of a job (also RuntimeError)
├── NotFittedError                a predictor used before it was fitted (also ValueError, AttributeError)
└── SavedPredictorError           a folder without a predictor that can be loaded (also ValueError)

Messages say what was given, what was expected and what to do.
"""

from __future__ import annotations

import difflib
import errno
import re
from collections.abc import Iterable


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
    def of(cls, kind: str, given: object, known: Iterable[str], hint: str = "") -> UnknownNameError:
        """Build the error for `given`, which is not among the `known` names of this kind."""
        names = sorted(known)
        near = near_names(str(given), names)
        if near:
            advice = f"Did you mean {' or '.join(repr(name) for name in near)}?"
        elif len(names) <= 30:
            advice = f"Known: {', '.join(names)}."
        else:
            advice = ""
        return cls(" ".join(part for part in (f"Unknown {kind} {given!r}.", advice, hint) if part))


class UnknownArgumentError(UnknownNameError, TypeError, KeyError):
    """A keyword argument that does not exist; a ``KeyError`` as well, as in the API that Saccade revives."""

    __str__ = Exception.__str__  # KeyError would put the message in quotes


class UnknownModelError(UnknownNameError):
    """No network of that name is in the catalogue."""


class WeightsNotFoundError(SaccadeError, FileNotFoundError):
    """Pretrained weights are not available; the message lists the places that were tried."""


class DataError(SaccadeError, ValueError):
    """Data that cannot be used: no images, one class, a missing column."""


class ArchiveError(DataError):
    """An archive that is broken, or that would write outside its folder."""


class DownloadError(DataError, OSError):
    """A file that could not be downloaded."""


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


class WorkerDiedError(SaccadeError, RuntimeError):
    """A worker process ended in the middle of a job."""


class NotFittedError(SaccadeError, ValueError, AttributeError):
    """A predictor was used before it was fitted."""


class SavedPredictorError(SaccadeError, ValueError):
    """A folder without a predictor that this version can load."""


def is_disk_full(error: BaseException) -> bool:
    """Return whether an error, or one of its causes, is that a file could not be written for lack of space or quota.

    NumPy, safetensors and torch say so in their messages only.

    Examples
    --------
    >>> is_disk_full(OSError(errno.ENOSPC, "No space left on device")), is_disk_full(OSError("no such file"))
    (True, False)
    """
    found = re.search(r"os error (\d+)", str(error))
    code = int(found[1]) if found else getattr(error, "errno", None)
    is_full = code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) or isinstance(error, DiskFullError)
    cause = error.__cause__ or error.__context__
    return is_full or bool(_CUT_SHORT.search(str(error))) or (cause is not None and is_disk_full(cause))


_CUT_SHORT = re.compile(r"\d+ requested and \d+ written|PytorchStreamWriter failed writing")


def near_names(given: str, known: Iterable[str], num: int = 3) -> list[str]:
    """Return up to `num` of the `known` names that resemble `given`, nearest first.

    Examples
    --------
    >>> near_names("learning_rat", ["lr", "learning_rate", "epochs"])
    ['learning_rate']
    """
    by_lower = {name.lower(): name for name in known}
    matches = difflib.get_close_matches(given.lower(), by_lower, n=num, cutoff=0.6)
    return [by_lower[match] for match in matches]
