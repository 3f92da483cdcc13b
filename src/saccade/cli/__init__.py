"""The command line: it parses, calls the predictor, and prints. One file for each command."""

from saccade.cli.app import app, main

__all__ = ["app", "main"]
