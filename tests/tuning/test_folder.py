from __future__ import annotations

import pytest

from saccade.errors import HyperparameterError
from saccade.space import Categorical, Dict, Real
from saccade.tuning.folder import ABOUT, check_path, read_about, start_or_resume

SPACE = Dict(x=Real(0, 1))


def opened(folder, space=SPACE, metric="score", mode="max", resume=False):
    check_path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    return start_or_resume(folder, space, metric, mode, resume=resume)


def test_a_new_folder_tells_what_was_asked(tmp_path):
    folder = tmp_path / "a" / "run"
    assert opened(folder, metric="loss", mode="min") is False
    about = read_about(folder)
    assert (about["metric"], about["mode"]) == ("loss", "min")
    assert [path.name for path in folder.iterdir()] == [ABOUT]
    assert [path.name for path in folder.parent.iterdir()] == ["run"]


def test_an_empty_folder_will_do_and_so_will_none_to_resume(tmp_path):
    (tmp_path / "empty").mkdir()
    assert opened(tmp_path / "empty") is False
    assert opened(tmp_path / "none", resume=True) is False


def test_a_search_is_resumed_only_when_asked(tmp_path):
    opened(tmp_path / "run")
    assert opened(tmp_path / "run", resume=True) is True
    with pytest.raises(HyperparameterError, match=r"contains a search\. Pass resume=True"):
        opened(tmp_path / "run")


def test_other_things_are_left_alone(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(HyperparameterError, match="exists and contains no search"):
        opened(tmp_path)
    with pytest.raises(HyperparameterError, match="exists and contains no search"):
        opened(tmp_path / "thesis.tex")
    with pytest.raises(HyperparameterError, match="contains no search of saccade"):
        read_about(tmp_path)
    (tmp_path / ABOUT).write_text("[]")
    with pytest.raises(HyperparameterError, match="contains no search of saccade"):
        read_about(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metric": "loss"}, "contains a search with metric=score, but metric is loss"),
        ({"mode": "min"}, "contains a search with mode=max, but mode is min"),
        ({"space": Dict(x=Real(0, 2))}, "contains a search with space="),
    ],
)
def test_another_search_is_not_mixed_with_it(tmp_path, changes, message):
    opened(tmp_path / "run")
    with pytest.raises(HyperparameterError, match=message):
        opened(tmp_path / "run", resume=True, **changes)


def test_spaces_that_json_lacks_are_not_compared(tmp_path):
    opened(tmp_path / "run", Dict(f=Categorical(min, max)))
    assert opened(tmp_path / "run", Dict(f=Categorical(max, min)), resume=True)
