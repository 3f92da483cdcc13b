from __future__ import annotations

import inspect
import pickle
import re

import pytest

from saccade import errors
from saccade.errors import SaccadeError, UnknownArgumentError, UnknownNameError, near_names

CLASSES = [cls for _, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, SaccadeError)]


def drawn_tree():
    """Return the name, the base, and the further bases of every class in the picture atop the module."""
    stack, rows = ["SaccadeError"], []
    for line in errors.__doc__.splitlines():
        found = re.match(r"([│ ]*[├└]── )(\w+) .*?(?:\(also (.*)\))?$", line)
        if found:
            depth = len(found[1]) // 4
            del stack[depth:]
            rows.append((found[2], stack[-1], found[3].split(", ") if found[3] else []))
            stack.append(found[2])
    return rows


def test_the_picture_atop_the_module_is_true():
    rows = drawn_tree()
    assert sorted(name for name, *_ in rows) == sorted(cls.__name__ for cls in CLASSES if cls is not SaccadeError)
    for name, base, also in rows:
        bases = [cls.__name__ for cls in getattr(errors, name).__bases__]
        assert (bases[0], bases[1:]) == (base, also), name


@pytest.mark.parametrize("cls", CLASSES)
def test_an_error_shows_its_message_and_can_be_sent(cls):
    error = pickle.loads(pickle.dumps(cls("what was given, what was expected")))
    assert type(error) is cls
    assert str(error) == "what was given, what was expected"
    assert cls.__doc__


@pytest.mark.parametrize(
    ("given", "known", "message"),
    [
        ("lrr", ["lr", "epochs"], "Unknown thing 'lrr'. Did you mean 'lr'?"),
        ("RESNET18", ["resnet18", "vgg"], "Unknown thing 'RESNET18'. Did you mean 'resnet18'?"),
        ("epoch", ["epoch_s", "epochs"], "Unknown thing 'epoch'. Did you mean 'epochs' or 'epoch_s'?"),
        ("zzz", ["b", "a"], "Unknown thing 'zzz'. Known: a, b."),
        ("zzz", [f"n{i}" for i in range(31)], "Unknown thing 'zzz'."),
        (7, ["a"], "Unknown thing 7. Known: a."),
        ("", ["a"], "Unknown thing ''. Known: a."),
    ],
)
def test_an_unknown_name_is_answered_with_near_or_all_names(given, known, message):
    assert str(UnknownNameError.of("thing", given, iter(known))) == message
    assert str(UnknownNameError.of("thing", given, known, "See the list.")) == f"{message} See the list."


def test_the_error_has_the_class_it_was_asked_of():
    error = UnknownArgumentError.of("argument", "lrr", ["lr"])
    assert type(error) is UnknownArgumentError
    assert isinstance(error, (KeyError, TypeError, ValueError))
    assert str(error) == "Unknown argument 'lrr'. Did you mean 'lr'?"


def test_near_names_are_few_and_the_nearest_comes_first():
    known = ["resnet18", "resnet34", "resnet50", "resnet101", "vgg16"]
    assert near_names("resnet5", known, num=2)[0] == "resnet50"
    assert len(near_names("resnet5", known, num=2)) == 2
    assert near_names("transformer", known) == []
