"""Generate tables of the documentation from the code while the pages are built, so that they stay up to date.

A comment such as ``<!-- table: hyperparameters -->`` in a page is replaced by the table.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, get_args, get_origin

from pydantic import BaseModel

from saccade.cli.results import RESULTS, schema_of
from saccade.fit.config_file import FitConfig
from saccade.fit.options import option_flag, option_rows, options_of
from saccade.models.catalogue import ALIASES as NETWORKS
from saccade.models.catalogue import UNAVAILABLE
from saccade.training.recipes.recipe import ALIASES, Recipe


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Insert the tables into a page; a hook of MkDocs."""
    return re.sub(r"<!-- table: (\w+) -->", lambda match: _TABLES[match[1]](), markdown)


def _hyperparameters() -> str:
    others: dict[str, list[str]] = {}
    for other, name in ALIASES.items():
        others.setdefault(name, []).append(other)
    return _table(
        ("name", "meaning", "default", "range", "aliases"),
        [
            (
                f"`{name}`",
                _in_cell(field.description or ""),
                _in_cell(f"`{field.default!r}`"),
                _in_cell(_range(field)),
                ", ".join(f"`{other}`" for other in others.get(name, [])),
            )
            for name, field in Recipe.model_fields.items()
        ],
    )


def _fit_options() -> str:
    return _table(
        ("name", "type", "default", "meaning"),
        [
            (f"`{name}`", _in_cell(kind), _in_cell(f"`{default}`"), _in_cell(text))
            for name, kind, default, text in option_rows()
        ],
    )


def _cli_options() -> str:
    rows = [
        (f"`--{option_flag(FitConfig, name).replace('_', '-')}`", _in_cell(option.summary))
        for name, option in options_of(FitConfig)
        if option.is_in_cli
    ]
    return _table(("option of `fit`", "meaning"), rows)


def _results() -> str:
    """Return the fields of each command's result, and of the models that are parts of them."""
    commands: dict[type[BaseModel], list[str]] = {}
    for command, model in RESULTS.items():
        commands.setdefault(model, []).append(f"`{command}`")
    rows = []
    for model, names in commands.items():
        schema = schema_of(names[0].strip("`"))["$defs"]
        for name in (model.__name__, *_parts(schema, model.__name__)):
            fields = [
                f"`{field}`" + (f": {about['description']}" if "description" in about else "")
                for field, about in schema[name]["properties"].items()
                if field != "kind"
            ]
            of = ", ".join(names) if name == model.__name__ else f"{name}: {schema[name]['description']}"
            rows.append((_in_cell(of), _in_cell("<br>".join(fields))))
    return _table(("result of", "fields"), list(dict.fromkeys(rows)))


def _parts(schema: dict[str, Any], name: str) -> list[str]:
    """Return the names of the models in a model."""
    found = re.findall(r"#/\$defs/(\w+)", json.dumps(schema[name]))
    return list(dict.fromkeys(part for each in found for part in (each, *_parts(schema, each))))


def _networks() -> str:
    return _table(("GluonCV's name", "timm's"), [(f"`{old}`", f"`{new}`") for old, new in sorted(NETWORKS.items())])


def _unavailable_networks() -> str:
    rows = [(f"`{old}`", ", ".join(f"`{name}`" for name in near)) for old, near in sorted(UNAVAILABLE.items())]
    return _table(("GluonCV's name", "similar ones"), rows)


def _range(field: Any) -> str:
    """Return the choices or bounds of a field as text."""
    if get_origin(field.annotation) is not None and (choices := _choices(field.annotation)):
        return ", ".join(f"`{choice}`" for choice in choices)
    signs = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}
    bounds = [
        f"{sign} {getattr(part, name):g}"
        for part in field.metadata
        for name, sign in signs.items()
        if getattr(part, name, None) is not None
    ]
    return ", ".join(bounds)


def _choices(annotation: Any) -> list[str]:
    return [choice for part in (annotation, *get_args(annotation)) for choice in get_args(part) if type(choice) is str]


def _in_cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


_TABLES: dict[str, Callable[[], str]] = {
    "cli_options": _cli_options,
    "fit_options": _fit_options,
    "hyperparameters": _hyperparameters,
    "networks": _networks,
    "results": _results,
    "unavailable_networks": _unavailable_networks,
}
