"""Folders of images at URLs, which are listed once and never copied."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

from saccade.remote.urls import UrlFile, join

_Tree = dict[str, Any]  # the content of a folder by name: a tree for a folder, None for a file


@dataclass(frozen=True)
class UrlEntry:
    """A file or a folder in a `UrlFolder`, like `os.DirEntry`."""

    name: str
    path: str
    is_folder: bool

    def is_dir(self) -> bool:
        """Return whether it is a folder."""
        return self.is_folder

    def is_file(self) -> bool:
        """Return whether it is a file."""
        return not self.is_folder

    def is_symlink(self) -> bool:
        """Return False."""
        return False


class UrlFolder:
    """A folder at a URL, with those parts of `pathlib.Path` that reading images from folders needs."""

    def __init__(self, url: str, tree: _Tree | None = None) -> None:
        self.url = url.rstrip("/")
        if tree is not None:
            self.tree = tree

    @functools.cached_property
    def tree(self) -> _Tree:
        """All files below, from one listing; {} if there are none."""
        tree: _Tree = {}
        for path in UrlFile(self.url).files():
            *folders, name = path.split("/")
            inner = tree
            for folder in folders:
                if inner.get(folder) is None:
                    inner[folder] = {}
                inner = inner[folder]
            if name:  # some tools mark a folder by an object whose name ends with a slash
                inner.setdefault(name, None)
        return tree

    @property
    def name(self) -> str:
        """Its name."""
        return self.url.rpartition("/")[2]

    @property
    def parent(self) -> UrlFolder:
        """The folder that contains it."""
        return UrlFolder(self.url.rpartition("/")[0])

    def __truediv__(self, name: str) -> UrlFolder:
        return UrlFolder(join(self.url, name), self.tree.get(name) or {})

    def is_dir(self) -> bool:
        """Return whether there are files in it, as object stores have no empty folders."""
        return bool(self.tree)

    def entries(self) -> list[UrlEntry]:
        """Return what is directly in the folder."""
        return [UrlEntry(name, join(self.url, name), below is not None) for name, below in self.tree.items()]

    def __str__(self) -> str:
        return self.url

    def __eq__(self, other: object) -> bool:
        return isinstance(other, UrlFolder) and self.url == other.url

    def __hash__(self) -> int:
        return hash(self.url)
