"""The memory of a process and its children."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def memory_of(pid: int) -> int | None:
    """Return the bytes that a process and its children use; None if the system does not show them.

    Pages of files that processes share, such as libraries and decoded images, count once. On macOS it is the largest
    size of this process so far, without children.
    """
    if sys.platform == "darwin" and pid == os.getpid():
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    own, shared = 0, 0
    for process in (pid, *_children(pid)):
        try:
            resident, of_files = map(int, Path(f"/proc/{process}/statm").read_text(encoding="ascii").split()[1:3])
        except (OSError, ValueError):  # not Linux, or the process has ended
            continue
        own += resident - of_files
        shared = max(shared, of_files)
    return (own + shared) * os.sysconf("SC_PAGE_SIZE") or None if hasattr(os, "sysconf") else None


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for listing in Path(f"/proc/{pid}/task").glob("*/children"):  # a list for each thread
        try:
            found += map(int, listing.read_text(encoding="ascii").split())
        except OSError:  # the thread has ended
            continue
    return found
