"""The worker's side of `ProcessExecutor`: a loop that takes jobs from its standard input until that closes."""

from __future__ import annotations

import importlib
import os
import pickle
import signal
import sys
from typing import BinaryIO

from saccade.events import EpochDone
from saccade.executor.base import run_job
from saccade.trial import Decision, Trainable


def main() -> None:
    """Serve jobs until the parent goes away."""
    inbox, outbox = sys.stdin.buffer, _private_stdout()
    # Ctrl-C reaches the whole process group; the parent decides what becomes of its worker.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    trainable: Trainable | None = None
    while True:
        try:
            message = pickle.load(inbox)  # noqa: S301  written by our own parent
        except EOFError:
            return
        match message:
            case ("start", path, preload):
                sys.path[:] = path
                for module in preload:
                    importlib.import_module(module)
            case ("trainable", pickled):
                trainable = pickle.loads(pickled)  # noqa: S301  written by our own parent
            case ("job", job):
                assert trainable is not None

                def report(event: EpochDone) -> Decision:
                    _send(outbox, event)
                    decision = pickle.load(inbox)  # noqa: S301  written by our own parent
                    assert isinstance(decision, Decision)
                    return decision

                _send(outbox, run_job(trainable, job, report))


def _send(outbox: BinaryIO, message: object) -> None:
    pickle.dump(message, outbox)
    outbox.flush()


def _private_stdout() -> BinaryIO:
    """Keep the pipe to the parent for messages; whatever is printed goes to standard error instead."""
    private = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return private


if __name__ == "__main__":
    main()
