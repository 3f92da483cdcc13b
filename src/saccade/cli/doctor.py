"""``saccade doctor``."""

from __future__ import annotations

import typer

PROBLEM = 1
"""Exit code when something is wrong that a fit would fail of."""


def doctor() -> None:
    """Tell what this machine can do, and what to do where something is missing.

    The exit code is 1 when there is a problem that a fit would fail of.
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
