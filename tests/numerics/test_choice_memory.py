from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from saccade.numerics.choice import MEMORY, NumericsMemory, machine, processor
from saccade.remote.urls import cache_folder

CHOICES = st.dictionaries(st.text(max_size=5), st.dictionaries(st.text(max_size=3), st.integers()), max_size=5)


@given(choices=CHOICES)
def test_choices_are_read_by_later_processes(
    tmp_path_factory: pytest.TempPathFactory, choices: dict[str, dict[str, int]]
) -> None:
    path = tmp_path_factory.mktemp("memory") / "deep" / "numerics.json"
    memory = NumericsMemory(path)
    for key, choice in choices.items():
        memory.put(key, choice)
    later = NumericsMemory(path)
    for key, choice in choices.items():
        assert memory.get(key) == later.get(key) == choice
    assert later.get("something else") is None


def test_the_oldest_choices_are_dropped_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NumericsMemory, "MAX_CHOICES", 2)
    memory = NumericsMemory(tmp_path / "numerics.json")
    for key in ("a", "b", "a", "c"):
        memory.put(key, {})
    assert list(json.loads(memory.path.read_text())["choices"]) == ["a", "c"]


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[]", b'{"choices": {"a": 1}}', b'{"choices": 3}'])
def test_a_damaged_file_is_warned_of_once_and_replaced(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "numerics.json"
    path.write_bytes(content)
    memory = NumericsMemory(path)
    with pytest.warns(UserWarning, match="damaged"):
        assert memory.get("a") is None
    assert memory.get("a") is None
    memory.put("a", {"dtype": "float32"})
    assert NumericsMemory(path).get("a") == {"dtype": "float32"}


def test_choices_stay_in_the_process_if_the_file_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    memory = NumericsMemory(tmp_path / "file" / "numerics.json")
    memory.put("a", {"dtype": "float32"})
    assert memory.get("a") == {"dtype": "float32"}
    assert NumericsMemory(memory.path).get("a") is None


def test_concurrent_writers_leave_a_valid_file(tmp_path: Path) -> None:
    path = tmp_path / "numerics.json"
    memories = [NumericsMemory(path) for _ in range(4)]  # each with a view of its own, as processes have

    def write(number: int) -> None:
        for count in range(30):
            memories[number].put(f"{number} {count}", {"dtype": "float32", "long": "x" * 1000})

    with ThreadPoolExecutor() as pool:
        writing = [pool.submit(write, number) for number in range(4)]
        while not all(future.done() for future in writing):
            if path.exists():
                json.loads(path.read_text())  # never half a file
        for future in writing:
            future.result()
    choices = json.loads(path.read_text())["choices"]
    assert any(f"{number} 29" in choices for number in range(4))
    assert list(tmp_path.iterdir()) == [path]


def test_the_memory_of_a_process_is_in_the_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MEMORY.path.parent == cache_folder()
    monkeypatch.setenv("SACCADE_CACHE", str(tmp_path))
    assert MEMORY.path.is_relative_to(tmp_path)


def test_the_machine_name_depends_on_the_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    before, name = machine(cpu), processor(cpu)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1000)
    assert machine(cpu) != before
    assert processor(cpu) == name
    assert name in before
