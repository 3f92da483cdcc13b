"""Shared code of the benchmarks: time and memory of a task, separate processes for it, tables.

Seconds of shared machines are not comparable, so alternatives are measured in turns in one run and reported as ratios
of medians.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import Self

ROOT = Path(__file__).resolve().parent.parent
"""The folder of the package `benchmarks`."""

_WATCH = """
import select, sys
peak = {"VmRSS": 0, "RssAnon": 0}
is_over = False
print(flush=True)
while not is_over:
    is_over = bool(select.select([sys.stdin], [], [], 0.003)[0])
    with open(f"/proc/{sys.argv[1]}/status") as file:
        for line in file:
            name, _, rest = line.partition(":")
            if name in peak:
                peak[name] = max(peak[name], int(rest.split()[0]))
print(*peak.values())
"""
"""Watches the memory of a process; a thread of that process would be held up by whatever holds the interpreter."""


class Meter:
    """Time and memory of the block that it is the context of.

    Attributes
    ----------
    wall_s, cpu_s : float
        Seconds by the clock, and of all cores together, with those of processes that ended meanwhile.
    start_mb, peak_mb : float
        Megabytes of this process: at the start, and at most. The kernel keeps the peak where it lets us set it back.
    start_own_mb, peak_own_mb : float
        The same without mapped files, which the system takes back when it needs the room; the peak is what a look every
        few milliseconds shows. 0 where only Linux tells.
    """

    def __init__(self, *, with_memory: bool = False) -> None:
        self._with_memory = with_memory
        self._watch: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self._is_peak_kept = self._with_memory and _set_peak_back()
        self.start_mb, self.start_own_mb = self.peak_mb, self.peak_own_mb = memory_mb() if self._with_memory else (0, 0)
        if self._with_memory and sys.platform == "linux":
            command = [sys.executable, "-S", "-c", _WATCH, str(os.getpid())]
            self._watch = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            assert self._watch.stdout is not None
            self._watch.stdout.readline()  # it is sampling
        self._start_cpu_s, self._start_s = _cpu_s(), time.perf_counter()
        return self

    def __exit__(self, *error: object) -> None:
        self.wall_s, self.cpu_s = time.perf_counter() - self._start_s, _cpu_s() - self._start_cpu_s
        if self._watch is not None:
            said, _ = self._watch.communicate("")
            self.peak_mb, self.peak_own_mb = (int(kilobytes) * 1024 / 1e6 for kilobytes in said.split())
        elif self._with_memory:
            self.peak_mb, _ = memory_mb()
        if self._is_peak_kept:
            self.peak_mb = max(self.peak_mb, _status_mb()["VmHWM"])


def memory_mb() -> tuple[float, float]:
    """Return the megabytes of this process in memory, and those of them that are not mapped files."""
    try:
        now_mb = _status_mb()
    except OSError:  # not Linux: the most there ever were
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6, 0.0
    return now_mb["VmRSS"], now_mb["RssAnon"]


def _status_mb() -> dict[str, float]:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    rests = {name: rest for name, _, rest in (line.partition(":") for line in lines)}
    return {name: int(rest.split()[0]) * 1024 / 1e6 for name, rest in rests.items() if rest.endswith(" kB")}


def _set_peak_back() -> bool:
    """Reset the kernel's peak memory of this process; False where that is not permitted."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def _cpu_s() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


@dataclass(frozen=True)
class Ended:
    """A process that has ended.

    Attributes
    ----------
    stdout : str
        What it printed.
    wall_s, cpu_s : float
        Seconds by the clock, and of all cores together, with those of its own processes.
    peak_mb : float
        The most that it, or one of its own processes, had in memory; mapped files count.
    """

    stdout: str
    wall_s: float
    cpu_s: float
    peak_mb: float


def run_command(command: Sequence[str | Path], environment: Mapping[str, str] | None = None) -> Ended:
    """Run a command to its end.

    Raises
    ------
    RuntimeError
        When it fails; the message has the end of what it said.
    """
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        start_s = time.perf_counter()
        path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        process = subprocess.Popen(
            [str(part) for part in command],
            env={**os.environ, "PYTHONPATH": path, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
        )
        try:
            _, status, used = os.wait4(process.pid, 0)
        except BaseException:  # such as Ctrl-C
            process.kill()
            process.wait()
            raise
        process.returncode = os.waitstatus_to_exitcode(status)
        wall_s = time.perf_counter() - start_s
        stdout.seek(0)
        stderr.seek(0)
        texts = [file.read().decode("utf-8", "replace") for file in (stdout, stderr)]
    if process.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))} ended with {process.returncode}: {texts[1][-2000:]}")
    unit = 1 if sys.platform == "darwin" else 1024
    return Ended(texts[0], wall_s, used.ru_utime + used.ru_stime, used.ru_maxrss * unit / 1e6)


def in_own_process(
    function: Callable[..., dict[str, Any]], environment: Mapping[str, str] | None = None, **arguments: Any
) -> dict[str, Any]:
    """Return what a function of a benchmark's module returns, called in a new interpreter.

    Parameters
    ----------
    function : callable
        Of a module; arguments and result are such as JSON has.
    environment : mapping or None
        Variables to set.
    """
    module = function.__module__
    if module == "__main__":
        spec = sys.modules[module].__spec__
        assert spec is not None, "run the benchmark by python -m benchmarks.NAME"
        module = spec.name
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        command = [sys.executable, "-m", "benchmarks.measuring", module, function.__name__, json.dumps(arguments)]
        run_command([*command, result], environment)
        value: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
    return value


def in_this_process(
    function: Callable[..., dict[str, Any]], environment: Mapping[str, str] | None = None, **arguments: Any
) -> dict[str, Any]:
    """Do the same as `in_own_process`, in this process: for tests, where new interpreters take too long."""
    before = dict(os.environ)
    os.environ.update(environment or {})
    try:
        value: dict[str, Any] = json.loads(json.dumps(function(**json.loads(json.dumps(arguments)))))
        return value
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextlib.contextmanager
def busy_core() -> Iterator[None]:
    """Keep a core busy with another program meanwhile."""
    other = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        other.kill()
        other.wait()


def in_turns(num_rounds: int, measures: Mapping[str, Callable[[], dict[str, float]]]) -> dict[str, dict[str, float]]:
    """Measure in turns, and return the median of each value of each."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in measures}
    for _ in range(num_rounds):
        for name, measure in measures.items():
            found[name].append(measure())
    return {name: medians(results) for name, results in found.items()}


def medians(results: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the median of each value.

    Examples
    --------
    >>> medians([{"wall_s": 1.0}, {"wall_s": 5.0}, {"wall_s": 2.0}])
    {'wall_s': 2.0}
    """
    return {name: statistics.median(one[name] for one in results) for name in results[0]}


def table(heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Return a table of text; the first column is a name, and floats have three significant digits.

    Examples
    --------
    >>> print(table(["what", "ratio"], [["resnet18", 1.0512], ["vit", None]]))
    what      ratio
    resnet18   1.05
    vit           -
    """
    texts = [list(heads), *([_cell(value) for value in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    lines = []
    for name, *others in texts:
        cells = [f"{name:<{widths[0]}}", *(f"{text:>{width}}" for text, width in zip(others, widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:#.3g}".rstrip(".")
    return str(value)


def arguments_of(doc: str, *, has_rounds: bool = True) -> argparse.ArgumentParser:
    """Return a parser with the shared arguments, ``--rounds`` only if there are any; `doc` is the benchmark's."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="file for all measurements")
    if has_rounds:
        parser.add_argument("--rounds", type=int, default=3, help="number of repetitions")
    return parser


def write_json(path: Path | None, given: argparse.Namespace, figures: Any) -> None:
    """Write the measurements and the machine, if a file was requested."""
    if path is None:
        return
    record = {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "num_cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "arguments": {name: value for name, value in vars(given).items() if name != "json"},
        "figures": figures,
    }
    part = path.with_name(f"{path.name}.part")  # so that there is always a whole file
    part.write_text(json.dumps(record, indent=1, default=str) + "\n", encoding="utf-8")
    part.replace(path)


def read_figures(path: Path | None) -> Any:
    """Return the measurements that `write_json` wrote; None if there is no such file."""
    if path is None or not path.is_file():
        return None
    return json.loads(path.read_text(encoding="utf-8"))["figures"]


@contextlib.contextmanager
def work_folder(parent: Path | None = None) -> Iterator[Path]:
    """Return a temporary folder; `parent` is its location, for tasks that need much space."""
    with tempfile.TemporaryDirectory(prefix="saccade-benchmark-", dir=parent) as name:
        yield Path(name)


def main() -> None:
    """Call one function of a module, for `in_own_process`."""
    module, name, arguments, result = sys.argv[1:]
    value = getattr(importlib.import_module(module), name)(**json.loads(arguments))
    Path(result).write_text(json.dumps(value), encoding="utf-8")


if __name__ == "__main__":
    main()
