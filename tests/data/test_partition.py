from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from saccade.data.partition import stratified_parts

GROUPS = st.lists(st.integers(0, 5), max_size=120)
SHARES = st.lists(st.floats(0, 0.33), min_size=1, max_size=3)


@given(GROUPS, SHARES, st.integers(0, 1000))
def test_each_group_gives_each_part_its_share_up_to_rounding(groups, shares, seed):
    parts = stratified_parts(groups, shares, np.random.default_rng(seed))
    assert len(parts) == len(groups)
    for group in set(groups):
        of_group = parts[np.asarray(groups) == group]
        nums = np.bincount(of_group, minlength=len(shares) + 1)
        assert nums[0] >= 1
        for share, num in zip(shares, nums[1:], strict=True):
            exact = share * len(of_group)
            # Less only where that would leave nothing in the first part.
            assert num > exact - 1 - 1e-6 or nums[0] == 1
            assert num < exact + 1


@given(st.integers(1, 6), st.integers(10, 40), st.integers(0, 1000))
def test_totals_are_right_where_groups_are_large_enough(num_groups, num_rows, seed):
    groups = np.repeat(np.arange(num_groups), num_rows)
    parts = stratified_parts(groups, [0.13, 0.2], np.random.default_rng(seed))
    assert np.bincount(parts)[1:].tolist() == [round(len(groups) * share) for share in (0.13, 0.2)]


@given(GROUPS, SHARES, st.integers(0, 1000))
def test_the_same_seed_deals_the_same(groups, shares, seed):
    one, two = (stratified_parts(groups, shares, np.random.default_rng(seed)) for _ in range(2))
    assert one.tolist() == two.tolist()


def test_no_group_is_favoured_when_rounding():
    groups = np.repeat(np.arange(10), 5)  # each is due half a row
    gave = np.zeros(10)
    for seed in range(200):
        parts = stratified_parts(groups, [0.1], np.random.default_rng(seed))
        gave += np.bincount(groups[parts == 1], minlength=10)
    assert gave.sum() == 1000
    assert gave.min() > 60


def test_any_row_of_a_group_may_go():
    chosen = {int(np.argmax(stratified_parts([0] * 6, [0.17], np.random.default_rng(seed)))) for seed in range(100)}
    assert chosen == set(range(6))
