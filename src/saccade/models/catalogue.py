"""The catalogue of networks: which names exist, and which timm network a name means."""

from __future__ import annotations

import difflib
import fnmatch

import timm

from saccade.errors import UnknownModelError, near_names
from saccade.models.aliases import ALIASES, UNAVAILABLE

__all__ = ["list_models", "resolve_name", "split_name"]


def list_models(pattern: str | None = None) -> list[str]:
    """List the names of networks: timm's architectures and the old names that mean one of them.

    Parameters
    ----------
    pattern : str, optional
        A shell pattern (``"resnet*"``) or, without any of ``*?[``, a part of the name (``"mobilenetv3"``).
        Upper and lower case are the same.

    Returns
    -------
    list of str
        Sorted names, each of which can be trained. Pretraining tags (the part after the point in
        ``resnet18.a1_in1k``) are left out.

    Examples
    --------
    >>> list_models("mobilenetv3_small*")[:2]
    ['mobilenetv3_small', 'mobilenetv3_small_050']
    """
    names = sorted({*timm.list_models(), *ALIASES})
    if pattern is None:
        return names
    wanted = pattern.lower()
    if not any(character in wanted for character in "*?["):
        wanted = f"*{wanted}*"
    return [name for name in names if fnmatch.fnmatchcase(name.lower(), wanted)]


def resolve_name(name: str) -> str:
    """Find the timm network that a name means.

    Parameters
    ----------
    name : str
        A timm name with or without a pretraining tag, one that timm itself has renamed, or a GluonCV name.
        Upper and lower case are the same.

    Returns
    -------
    str
        ``architecture`` or ``architecture.tag``; a tag is there only where the name asked for one.

    Raises
    ------
    UnknownModelError
        If there is no such network, or timm knows no such tag of it; the message names near ones.

    Examples
    --------
    >>> resolve_name("resnet50_v1d")
    'resnet50d'
    >>> resolve_name("ResNet18.a1_in1k")
    'resnet18.a1_in1k'
    """
    if not isinstance(name, str):
        raise UnknownModelError(
            f"The name of a network must be a string such as 'resnet18'; got {name!r} of type {type(name).__name__}."
        )
    lower = name.strip().lower()
    _check_available(name, lower)
    # An old name may hold a point itself (mobilenet1.0): look whole names up before splitting tags off.
    whole = _current_name(lower)
    if whole is not None:
        return whole
    head, _, tag = lower.partition(".")
    _check_available(name, head)
    current = _current_name(head)
    if current is None:
        raise _unknown(name, head)
    architecture = split_name(current)[0]
    _check_tag(name, architecture, tag)
    return f"{architecture}.{tag}"


def split_name(timm_name: str) -> tuple[str, str | None]:
    """Split ``architecture.tag`` into its two parts; the tag is None where there is none.

    Examples
    --------
    >>> split_name("resnet18.a1_in1k")
    ('resnet18', 'a1_in1k')
    """
    architecture, _, tag = timm_name.partition(".")
    return architecture, tag or None


def _current_name(lower: str) -> str | None:
    """Give today's timm name for a lower-case name without a user's tag, or None."""
    if lower in ALIASES:  # first: GluonCV and old timm both had an 'xception', and only GluonCV's has weights
        return ALIASES[lower]
    renamed = timm.models.get_deprecated_models()
    if lower in renamed:
        return str(renamed[lower]) if renamed[lower] else None
    return lower if "." not in lower and timm.is_model(lower) else None


def _check_tag(name: str, architecture: str, tag: str) -> None:
    """Raise unless timm knows the tag of the architecture."""
    known = [split_name(known)[1] for known in timm.models.get_arch_pretrained_cfgs(architecture)]
    tags = [known_tag for known_tag in known if known_tag]
    if tag in tags:
        return
    near = difflib.get_close_matches(tag, tags, n=1)
    advice = f" Did you mean '{architecture}.{near[0]}'?" if near else ""
    listed = f"Known tags: {', '.join(tags)}." if tags else "It has no tags."
    raise UnknownModelError(
        f"Unknown pretraining tag {tag!r} in {name!r}: timm's {architecture!r} has no such weights."
        f"{advice} {listed} Leave the tag out to use any file of {architecture!r} in a folder of weights."
    )


def _check_available(name: str, lower: str) -> None:
    """Raise, with near networks, if the name is one of a GluonCV network that timm does not have."""
    for unavailable, near in UNAVAILABLE.items():
        if _squash(lower) == _squash(unavailable):  # squeezenet1_1 is squeezenet1.1
            listed = " or ".join(repr(near_name) for near_name in near)
            raise UnknownModelError(f"timm has no network that is the same as GluonCV's {name!r}. Near ones: {listed}.")


def _unknown(name: str, lower: str) -> UnknownModelError:
    """Build the error for an unknown name: suggest names that begin alike, or near ones."""
    names = list_models()
    alike = [known for known in names if _squash(known).startswith(_squash(lower))] if len(lower) > 3 else []
    near = near_names(lower, alike) or sorted(alike, key=len)[:3] or near_names(lower, names)
    advice = f"Did you mean {' or '.join(repr(near_name) for near_name in near)}? " if near else ""
    return UnknownModelError(f"Unknown network {name!r}. {advice}list_models() gives all names.")


def _squash(name: str) -> str:
    return "".join(character for character in name if character.isalnum())
