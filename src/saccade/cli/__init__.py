"""The command line: it parses, calls the predictor, and prints. Each command is a function."""

import time

STARTED_S = time.monotonic()
"""About when this process started. The time limit of a fit counts from here, so that it includes imports."""

from saccade.cli.app import app, main  # noqa: E402

__all__ = ["STARTED_S", "app", "main"]
