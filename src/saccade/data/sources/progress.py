"""A progress bar for long transfers: a bar on a terminal, one plain line elsewhere, nothing when quiet."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.filesize import decimal
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn


@contextmanager
def transfer_progress(what: str, total_bytes: int | None, *, quiet: bool = False) -> Iterator[Callable[[int], None]]:
    """Show on standard error how much of `what` is done, for as long as the ``with`` block runs.

    Parameters
    ----------
    what
        What is going on, such as ``"Fetching shoes.zip"``.
    total_bytes
        How many bytes there are in all; None when that is not known.
    quiet
        Show nothing.

    Yields
    ------
    Callable[[int], None]
        To be called with the number of bytes that are done so far.

    Examples
    --------
    >>> with transfer_progress("Copying", total_bytes=10, quiet=True) as show_done:
    ...     show_done(10)
    """
    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        if not quiet:
            size = "" if total_bytes is None else f" ({decimal(total_bytes)})"
            console.print(f"{what}{size}", markup=False, highlight=False, soft_wrap=True)
        yield _show_nothing
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(escape(what), total=total_bytes)
        yield lambda num_bytes: progress.update(task, completed=num_bytes)


def _show_nothing(num_bytes: int) -> None:
    """Ignore how much is done."""
