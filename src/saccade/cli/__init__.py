"""The command line: it parses, calls the predictor, and prints. Each command is a function."""

import time

STARTED_S = time.monotonic()
"""When this process started, nearly: the time limit of a fit counts from here, and includes all further imports."""

from saccade.cli.app import app, main  # noqa: E402

__all__ = ["STARTED_S", "app", "main"]
