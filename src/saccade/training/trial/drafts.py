"""Files that are written while something else goes on, and get their names when it is known that they are wanted."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType


class Draft:
    """A file that is being written beside its place.

    Parameters
    ----------
    temporary : Path
        Where it is written.
    written : Future
        Ends when it is whole.
    """

    def __init__(self, temporary: Path, written: Future[None]) -> None:
        self._temporary, self._written = temporary, written

    def keep(self, path: Path) -> None:
        """Wait until the file is whole, and give it its name.

        Raises
        ------
        OSError
            When it could not be written.
        """
        self._written.result()
        self._temporary.replace(path)

    def drop(self) -> None:
        """Wait until nobody writes any more, and remove what was not kept."""
        self._written.exception()
        self._temporary.unlink(missing_ok=True)


class Drafts(AbstractContextManager["Drafts"]):
    """Begins files, one after the other in a thread of its own; those that were not kept are gone at the end.

    What is written must not change before. Writing is waiting for the system, mostly, so that what is computed
    meanwhile takes hardly longer.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> folder = Path(mkdtemp())
    >>> with Drafts(folder) as drafts:
    ...     good = drafts.begin("good", lambda path: path.write_text("good"))
    ...     bad = drafts.begin("bad", lambda path: path.write_text("bad"))
    ...     good.keep(folder / "result.txt")
    >>> [path.name for path in folder.iterdir()]
    ['result.txt']
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="saccade-drafts")
        self._begun: list[Draft] = []
        self.seconds = 0.0
        """That writing took so far."""

    def begin(self, name: str, write: Callable[[Path], object]) -> Draft:
        """Let `write`, which is given a path, write a file; should the process be killed, it is ``NAME-draft.part``."""
        temporary = self._folder / f"{name}-draft.part"

        def whole() -> None:
            start_s = time.perf_counter()
            write(temporary)
            self.seconds += time.perf_counter() - start_s

        draft = Draft(temporary, self._writer.submit(whole))
        self._begun.append(draft)
        return draft

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._writer.shutdown()
        for draft in self._begun:
            draft.drop()
