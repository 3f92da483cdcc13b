"""What timm leaves unsaid when it loads a file of weights."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.nn.modules.module import register_module_module_registration_hook


@contextmanager
def watch_loading() -> Iterator[dict[nn.Module, tuple[list[str], list[str]]]]:
    """Note which keys were missing, and which had no place, when modules that are built meanwhile are loaded.

    timm loads a file leniently as soon as its head is not wanted, and only logs what was missing. The keys
    are those after timm's checkpoint filters, which may rename all that is in the file.
    """
    loaded: dict[nn.Module, tuple[list[str], list[str]]] = {}
    handles: dict[nn.Module, Any] = {}

    def note(module: nn.Module, incompatible: Any) -> None:
        loaded[module] = (incompatible.missing_keys, incompatible.unexpected_keys)

    def watch(module: nn.Module, _name: str, _submodule: nn.Module | None) -> None:
        if module not in handles:
            handles[module] = module.register_load_state_dict_post_hook(note)  # type: ignore[no-untyped-call]

    def is_news(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith("Unexpected keys")  # every one of them; whoever asks counts

    log = logging.getLogger("timm.models._builder")
    log.addFilter(is_news)
    registration = register_module_module_registration_hook(watch)
    try:
        yield loaded
    finally:
        registration.remove()
        log.removeFilter(is_news)
        for handle in handles.values():
            handle.remove()
