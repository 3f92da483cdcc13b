from __future__ import annotations

import pytest
from benchmarks.coordination import measure


@pytest.mark.parametrize("searcher", ["random", "auto", "auto-any"])
def test_a_search_of_trials_that_do_nothing_is_timed_and_gone_on_with(searcher):
    cost = measure("inline", searcher, "fifo", num_trials=12)
    assert cost.num_reports == 36
    assert cost.trial_ms > 0
    assert cost.resume_s > 0
    assert 0 < cost.share < 0.5
