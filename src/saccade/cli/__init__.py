"""The command line: it parses, calls the predictor, and prints. Each command is a function."""

import time

STARTED_S = time.monotonic()
"""About when this process started. The time limit of a fit counts from here, so that it includes imports."""

try:
    from saccade.cli.app import app, main
except KeyboardInterrupt:  # the exit code and silence of commands that Ctrl-C ends before they have begun
    raise SystemExit(130) from None

__all__ = ["STARTED_S", "app", "main"]
