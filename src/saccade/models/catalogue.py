"""The catalogue of networks: names, their timm architectures, and published accuracies."""

from __future__ import annotations

import csv
import difflib
import fnmatch
import json
import re
from collections.abc import Sequence
from functools import cache
from importlib.resources import files

import timm

from saccade.errors import UnknownModelError, UnknownNameError, near_names

_TABLES = files("saccade.models") / "tables"
_GLUONCV = json.loads((_TABLES / "gluoncv_names.json").read_text(encoding="utf-8"))

ALIASES: dict[str, str] = {old: name for group in _GLUONCV["same"] for old, name in group["names"].items()}
"""timm's architecture for each name of GluonCV's model zoo whose published network timm has.

Differences that leave the layout alone (a bias in the classifier, rounding of channel numbers, ReLU or ReLU6 in
MobileNet v1) do not count. Names that both libraries spell alike, such as ``densenet121``, need no entry.
"""

UNAVAILABLE: dict[str, tuple[str, ...]] = {
    old: tuple(near) for group in _GLUONCV["near"] for old, near in group["names"].items()
}
"""Similar networks of timm for each name of GluonCV's model zoo that timm lacks."""


FREE_LICENSES = ("apache-2.0", "mit", "bsd-3-clause", "cc-by-4.0")  # licences of weights that allow any use


def list_models(pattern: str | None = None, *, license: str | Sequence[str] | None = None) -> list[str]:  # noqa: A002
    """List the sorted names of networks, without pretraining tags: timm's architectures and GluonCV's names for them.

    `pattern` is a shell pattern (``"resnet*"``) or part of the name, in any case. `license` leaves only networks whose
    weights have such a licence (see `license_of`); ``"free"`` is all of `FREE_LICENSES`; an UnknownNameError for
    others.
    """
    names = sorted({*timm.list_models(), *ALIASES})
    if pattern is not None:
        wanted = pattern.lower()
        if not any(character in wanted for character in "*?["):
            wanted = f"*{wanted}*"
        names = [name for name in names if fnmatch.fnmatchcase(name.lower(), wanted)]
    if license is None:
        return names
    allowed: set[str] = set()
    licenses = {name: _license_of(ALIASES.get(name, name)) for name in names}
    known = sorted({_license_of(name) for name in timm.list_models()} - {""})
    for each in [license] if isinstance(license, str) else license:
        if each != "free" and each not in known:
            raise UnknownNameError.of("license", each, [*known, "free"])
        allowed.update(FREE_LICENSES if each == "free" else [each])
    return [name for name, its_license in licenses.items() if its_license in allowed]


def license_of(name: str) -> str:
    """Return the licence of a network's pretrained weights, as timm records it in its configuration.

    A name without a tag has the licence of timm's default weights. It is ``"unknown"`` if timm does not know it, and ""
    for a network without weights.
    """
    return _license_of(resolve_name(name))


def _license_of(timm_name: str) -> str:
    config = timm.models.get_pretrained_cfg(timm_name)
    if config is None or not (config.hf_hub_id or config.url):
        return ""
    return config.license or "unknown"


def resolve_name(name: str) -> str:
    """Return the timm network for a name, with or without a pretraining tag, as the name has.

    A name is timm's, a former one of timm, or GluonCV's. Case does not matter. An UnknownModelError lists similar names
    or tags.
    """
    if not isinstance(name, str):
        raise UnknownModelError(
            f"The name of a network must be a string such as 'resnet18'; got {name!r} of type {type(name).__name__}."
        )
    lower = name.strip().lower()
    _check_available(name, lower)
    # GluonCV names may contain a point (mobilenet1.0), so the whole name is looked up before a tag is split off.
    if (current := _current_name(lower)) is not None:
        return current
    head, _, tag = lower.partition(".")
    _check_available(name, head)
    if (current := _current_name(head)) is None:
        known = list_models()
        alike = [each for each in known if _squash(each).startswith(_squash(head))] if len(head) > 2 else []
        # Of a family, the first in natural order: efficientnet_b0 before efficientnet_b1 and efficientnet_l2.
        family = [each for each in alike if published_top1(each) is not None]
        family.sort(key=lambda each: [(text, int(number or 0)) for text, number in re.findall(r"(\D*)(\d*)", each)])
        plain = head.replace("-", "_")  # ViT-B/16, or microsoft/resnet-50
        similar = (family or alike)[:3] or near_names(plain.replace("/", "_"), known)
        similar = similar or near_names(plain.rpartition("/")[2], known)
        advice = f"Did you mean {' or '.join(map(repr, similar))}? " if similar else ""
        raise UnknownModelError(f"Unknown network {name!r}. {advice}list_models() gives all names.")
    architecture = split_name(current)[0]
    all_tags = [split_name(each)[1] for each in timm.models.get_arch_pretrained_cfgs(architecture)]
    tags = [each for each in all_tags if each]
    if tag not in tags:
        close = difflib.get_close_matches(tag, tags, n=1)
        advice = f" Did you mean '{architecture}.{close[0]}'?" if close else ""
        listed = f"Known tags: {', '.join(tags)}." if tags else "It has no tags."
        raise UnknownModelError(
            f"Unknown pretraining tag {tag!r} in {name!r}: timm's {architecture!r} has no such weights."
            f"{advice} {listed} Leave the tag out to use any file of {architecture!r} in a folder of weights."
        )
    return f"{architecture}.{tag}"


def split_name(timm_name: str) -> tuple[str, str | None]:
    """Split ``architecture.tag``; the tag is None if there is none."""
    architecture, _, tag = timm_name.partition(".")
    return architecture, tag or None


def published_top1(architecture: str, tag: str | None = None) -> float | None:
    """Return the published top-1 accuracy of a network on ImageNet-1k, from 0 to 1; None if it is not in the table.

    The sources of ``tables/imagenet_top1.csv`` are timm's ``results/results-imagenet.csv`` at commit 0173a139 (at the
    test size of each file of weights), timm's README for recipe ``ra4``, and Google's TF-Slim models for names without
    a tag. If the table lacks `tag`, the accuracy of other weights of the architecture is returned.
    """
    config = timm.models.get_pretrained_cfg(architecture)
    names = [f"{architecture}.{config.tag if config is not None else None}", architecture]
    if tag is not None:
        # Weights of unknown origin are closer to the original ones than to those of the longest training since.
        names = [f"{architecture}.{tag}", *reversed(names)]
    table = published_table()
    others = [name for name in table if split_name(name)[0] == architecture]
    return next((table[name] for name in [*names, *others] if name in table), None)


@cache
def published_table() -> dict[str, float]:
    """Return published top-1 accuracies, 0 to 1, by timm's name with tag."""
    lines = (_TABLES / "imagenet_top1.csv").read_text(encoding="utf-8").splitlines()
    return {row["weights"]: round(float(row["top1_percent"]) / 100, 4) for row in csv.DictReader(lines)}


def _current_name(lower: str) -> str | None:
    """Return timm's current name for a lower-case name without a tag, or None."""
    if lower in ALIASES:  # first: GluonCV and former timm both had an 'xception', and only GluonCV's has weights
        return ALIASES[lower]
    renamed = timm.models.get_deprecated_models()
    if lower in renamed:
        return str(renamed[lower]) if renamed[lower] else None
    return lower if "." not in lower and timm.is_model(lower) else None


def _check_available(name: str, lower: str) -> None:
    """Raise if the name is one of a GluonCV network that timm lacks."""
    for unavailable, near in UNAVAILABLE.items():
        if _squash(lower) == _squash(unavailable):  # squeezenet1_1 is squeezenet1.1
            listed = " or ".join(map(repr, near))
            raise UnknownModelError(f"timm lacks GluonCV's network {name!r}. Similar ones: {listed}.")


def _squash(name: str) -> str:
    return "".join(character for character in name if character.isalnum())
