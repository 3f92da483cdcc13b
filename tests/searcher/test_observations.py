from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from saccade.searcher.observations import Observations


def made(scores_by_name, num_needed=2, running=(), complete=(), failed=()):
    observations = Observations(num_needed)
    for name, scores in scores_by_name.items():
        observations.begin({"name": name})
        for epoch, score in scores.items():
            observations.observe({"name": name}, epoch, score)
        if name not in running:
            observations.end({"name": name}, has_failed=name in failed, is_complete=name in complete)
    return observations


def names(items):
    return "".join(item.config["name"] for item in items)


def test_the_highest_epoch_with_enough_scores_counts():
    scores = {"a": {0: 9, 1: 0.1, 2: 0.2, 3: 0.9}, "b": {0: 8, 1: 0.3, 2: 0.4}, "c": {0: 7, 1: 0.2}, "d": {0: 99}}
    for num_needed, epoch, order in [(1, 3, "abcd"), (2, 2, "bacd"), (3, 1, "bcad"), (4, 0, "dabc"), (9, 0, "dabc")]:
        standing = made(scores, num_needed).standing()
        assert standing.epoch == epoch
        assert names(standing.ranked) == order


def test_a_complete_configuration_counts_with_its_last_score():
    scores = {"a": {1: 0.5}, "b": {1: 0.9}, "c": {1: 0.1, 2: 0.6}, "d": {1: 0.1, 2: 0.4}}
    assert names(made(scores).standing().ranked) == "cdba"
    assert names(made(scores, complete="a").standing().ranked) == "cadb"
    standing = made(scores, complete="abcd").standing()
    assert (standing.epoch, names(standing.ranked)) == (math.inf, "bcad")


def test_running_configurations_have_no_rank_before_that_epoch():
    scores = {"a": {1: 0.5, 2: 0.6}, "b": {1: 0.5, 2: 0.7}, "c": {1: 0.9}, "d": {1: 0.1, 2: 0.1, 3: 0.1}, "e": {}}
    standing = made(scores, num_needed=3, running="cde").standing()
    assert (names(standing.ranked), names(standing.pending)) == ("bad", "ce")


def test_failures_rank_last():
    standing = made({"a": {1: 0.9}, "b": {1: 0.1}, "c": {}, "d": {1: -math.inf}}, failed="ac").standing()
    assert names(standing.ranked) == "bdac"
    assert standing.pending == []


def test_without_scores_there_is_no_order():
    standing = made({"a": {}, "b": {}}, running="a").standing()
    assert (standing.epoch, standing.ranked, names(standing.pending)) == (-math.inf, [], "a")


def test_reports_may_be_missing_and_scores_nan():
    scores = {"a": {5: 0.5}, "b": {1: 0.9, 2: math.nan}, "c": {2: 0.1}}
    standing = made(scores).standing()
    assert (standing.epoch, names(standing.ranked)) == (2, "acb")


def test_a_paused_configuration_that_continues_moves_up():
    observations = made({"a": {1: 0.5, 2: 0.5}, "b": {1: 0.4, 2: 0.4}, "c": {1: 0.1}})
    assert names(observations.standing().ranked) == "abc"
    observations.observe({"name": "c"}, 2, 0.45)
    assert names(observations.standing().ranked) == "acb"


def test_given_configurations_may_be_changed_later():
    observations = Observations(1)
    config = {"sizes": [1, 2]}
    observations.begin(config)
    config["sizes"].append(3)
    assert observations.standing().pending[0].config == {"sizes": [1, 2]}


SCORES = st.dictionaries(st.integers(0, 4), st.floats(0, 1), max_size=5)


@given(scores=st.lists(SCORES, max_size=8), num_needed=st.integers(1, 5), data=st.data())
def test_no_score_outranks_one_that_was_reached_at_a_higher_epoch(scores, num_needed, data):
    by_name = {chr(97 + index): given for index, given in enumerate(scores)}
    kinds = {name: data.draw(st.sampled_from(["running", "paused", "failed"])) for name in by_name}
    observations = made(
        by_name,
        num_needed,
        running=[name for name in kinds if kinds[name] == "running"],
        failed=[name for name in kinds if kinds[name] == "failed"],
    )
    epoch, ranked, pending = observations.standing()
    reached = [min(item.last_epoch, epoch) for item in ranked]
    assert reached == sorted(reached, reverse=True)
    assert len({item.number for item in [*ranked, *pending]}) == len(ranked) + len(pending) <= len(by_name)
    with_scores = [name for name in by_name if by_name[name] and kinds[name] != "failed"]
    assert sum(at == epoch for at in reached if at > -math.inf) >= min(num_needed, len(with_scores))


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["begin", "observe", "pause", "complete", "fail"]),
            st.integers(0, 5),
            st.integers(1, 4),
            st.sampled_from([0.1, 0.2, 0.3, math.nan]),
        ),
        max_size=40,
    )
)
def test_queries_in_between_do_not_change_the_ranking(steps):
    often, once = Observations(num_needed=2), Observations(num_needed=2)
    for what, name, epoch, score in steps:
        for observations in (often, once):
            config = {"name": name}
            if what == "begin":
                observations.begin(config)
            elif what == "observe":
                observations.observe(config, epoch, score)
            else:
                observations.end(config, has_failed=what == "fail", is_complete=what == "complete")
        often.standing()
    asked, expected = often.standing(), once.standing()
    assert asked.epoch == expected.epoch
    assert [item.number for item in asked.ranked] == [item.number for item in expected.ranked]
    assert [item.number for item in asked.pending] == [item.number for item in expected.pending]
    numbers = [item.number for item in asked.ranked + asked.pending]
    assert len(numbers) == len(set(numbers))
