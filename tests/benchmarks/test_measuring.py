from __future__ import annotations

import argparse
import json
import mmap
import os
import sys
import time
from pathlib import Path

import pytest
from benchmarks.measuring import Meter, in_own_process, in_this_process, in_turns, run_command, table, write_json
from benchmarks.startup import by_package

from benchmarks import measuring


def test_a_function_runs_alike_here_and_in_its_own_process() -> None:
    said = "import time: 1500 | 4000 | größer.b\nimport time: 500 | 500 | größer"
    for run in (in_own_process, in_this_process):
        assert run(by_package, importtime=said) == {"größer": 0.002}


def test_a_command_that_fails_tells_what_it_said() -> None:
    with pytest.raises(RuntimeError, match=r"ended with 3.*no luck"):
        run_command([sys.executable, "-c", "import sys; print('no luck', file=sys.stderr); sys.exit(3)"])


def test_a_command_gets_variables_and_tells_what_it_took() -> None:
    code = "import os; data = bytearray(100_000_000); print(os.environ['GIVEN'])"
    ended = run_command([sys.executable, "-c", code], {"GIVEN": "here"})
    assert ended.stdout == "here\n"
    assert ended.peak_mb > 100
    assert ended.cpu_s > 0


def new_memory(num_bytes: int) -> mmap.mmap:
    """Return memory that the process did not have, whatever it has left of earlier work, every page of it in use."""
    memory = mmap.mmap(-1, num_bytes) if sys.platform == "win32" else mmap.mmap(-1, num_bytes, mmap.MAP_PRIVATE)
    memory[::1024] = b"x" * len(range(0, num_bytes, 1024))
    return memory


def test_memory_of_a_block_is_seen_though_it_is_given_back() -> None:
    with Meter(with_memory=True) as meter, new_memory(80_000_000):
        time.sleep(0.5)  # a busy machine lets the watching process wait
    assert meter.peak_mb >= meter.start_mb + 60
    assert meter.peak_own_mb >= meter.start_own_mb + 60 or sys.platform != "linux"
    assert meter.wall_s > 0


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux keeps the peak")
def test_a_peak_is_that_of_the_block_alone_however_short(monkeypatch: pytest.MonkeyPatch) -> None:
    if not os.access("/proc/self/clear_refs", os.W_OK):
        pytest.skip("the kernel does not let its record be set back")
    too_late = "import sys; print(flush=True); sys.stdin.read(); print(0, 0)"
    monkeypatch.setattr(measuring, "_WATCH", too_late)
    new_memory(200_000_000).close()
    with Meter(with_memory=True) as meter:
        new_memory(80_000_000).close()
    assert meter.start_mb + 60 <= meter.peak_mb <= meter.start_mb + 120


def test_everything_is_measured_in_turns() -> None:
    calls: list[str] = []

    def measure(name: str) -> dict[str, float]:
        calls.append(name)
        return {"wall_s": float(len(calls))}

    found = in_turns(3, {"a": lambda: measure("a"), "b": lambda: measure("b")})
    assert calls == ["a", "b"] * 3
    assert found == {"a": {"wall_s": 3.0}, "b": {"wall_s": 4.0}}


def test_columns_of_a_table_stand_below_each_other() -> None:
    lines = table(["name", "x"], [["a long name", 1234.5], ["b", 0.00123]]).splitlines()
    assert lines == ["name               x", "a long name    1,234", "b            0.00123"]


def test_figures_are_written_with_machine_and_arguments(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    write_json(path, argparse.Namespace(json=path, rounds=2, data=Path("photos")), {"ratio": 1.5})
    record = json.loads(path.read_text())
    assert record["arguments"] == {"rounds": 2, "data": "photos"}
    assert record["figures"] == {"ratio": 1.5}
    assert record["num_cpus"] >= 1
