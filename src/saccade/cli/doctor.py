"""``saccade doctor``."""

from __future__ import annotations

import typer

PROBLEM = 1
"""Exit code if a fit would fail."""


def doctor() -> None:
    """Check this machine: device, memory, disk, weights, image formats.

    The exit code is 1 if there is a problem that would make a fit fail.
    """
    from saccade.apps.doctor import examine
    from saccade.cli.printing import print_remark
    from saccade.report.tables import output_console

    console = output_console()
    verdicts = set()
    for fact in examine():
        verdicts.add(fact.verdict)
        print_remark(console, fact.verdict, fact.name, [fact.text], fact.advice)
    if "problem" in verdicts:
        raise typer.Exit(PROBLEM)
