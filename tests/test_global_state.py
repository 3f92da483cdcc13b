"""What a program shares with Saccade is the same before and after a call."""

# ruff: noqa: NPY002  (the legacy generator is part of the global state)
from __future__ import annotations

import logging
import random
import subprocess
import sys
import threading
import warnings

import numpy as np
import pytest
import torch

from saccade.global_state import preserved_global_state, runs_in

LOGGER = logging.getLogger("saccade_tests.global_state")


def disturb() -> None:
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    warnings.simplefilter("ignore")
    torch.set_num_threads(torch.get_num_threads() + 1)
    LOGGER.setLevel(LOGGER.level + 1)


def state() -> tuple[object, ...]:
    arrays = np.random.get_state()[1].tobytes(), torch.get_rng_state().numpy().tobytes()
    return (
        random.getstate(),
        *arrays,
        list(warnings.filters),
        torch.get_num_threads(),
        LOGGER.level,
    )


@runs_in(preserved_global_state)
class Disturbing:
    def method(self) -> str:
        """Say what it is."""
        disturb()
        return "method"

    @classmethod
    def of_class(cls) -> str:
        disturb()
        return cls.__name__

    def failing(self) -> None:
        disturb()
        raise ZeroDivisionError


def test_methods_leave_the_state_of_the_program() -> None:
    before = state()
    assert Disturbing().method() == "method"
    assert Disturbing.of_class() == "Disturbing"
    with pytest.raises(ZeroDivisionError):
        Disturbing().failing()
    assert state() == before
    assert Disturbing.method.__doc__ == "Say what it is."


def test_the_last_of_several_threads_restores_what_the_first_has_saved() -> None:
    before = state()
    inside, leave = threading.Event(), threading.Event()

    def second() -> None:
        with preserved_global_state():
            inside.set()
            leave.wait(60)

    thread = threading.Thread(target=second)
    with preserved_global_state():
        disturb()
        thread.start()
        inside.wait(60)
    assert state() != before  # the other thread still computes
    leave.set()
    thread.join()
    assert state() == before


def test_nothing_is_imported() -> None:
    code = "import sys; from saccade.global_state import preserved_global_state as p\nwith p(): pass\n"
    code += "assert not {'numpy', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
