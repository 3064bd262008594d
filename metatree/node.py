"""`Node`: a lightweight handle on a path. It caches nothing; each property reads the current committed state."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from .reading import Reading
    from .tree import Metatree


class Node:
    """A node of a tree, named by its path. Inside a transaction it reads and changes the state of the transaction."""

    __slots__ = ("_path", "_tree")

    def __init__(self, tree: Reading, path: tuple[str, ...]) -> None:
        self._tree: Metatree = tree  # type: ignore[assignment]  # all are made as `Metatree`
        self._path = path

    @property
    def path(self) -> str:
        """`"model/v1"`; the root is `""`."""
        return "/".join(self._path)

    @property
    def name(self) -> str:
        """The last segment; the root is `""`."""
        return self._path[-1] if self._path else ""

    @property
    def parent(self) -> Node | None:
        """The parent node; None for the root."""
        return Node(self._tree, self._path[:-1]) if self._path else None

    @property
    def location(self) -> str:
        """The path or URL of the node's folder."""
        return "/".join((self._tree.root, *self._path)) if self._path else self._tree.root

    @property
    def metadata(self) -> Mapping[str, Any]:
        """The node's keys at this moment, as a read-only mapping. Raises NodeNotFoundError."""
        found = self._tree._engine.warm(self._path)
        return self._tree._metadata(self._path) if found is None else found[1]

    @property
    def children(self) -> list[str]:
        """The names of the child nodes, in the order they were added. Raises NodeNotFoundError."""
        return self._tree.children(self._path)

    def update(self, values: Mapping[str, Any] | None = None, /, **more: Any) -> None:
        """Set keys; see `Metatree.update`."""
        self._tree.update(self._path, values, **more)

    def unset(self, *keys: str) -> None:
        """Remove keys; see `Metatree.unset`."""
        self._tree.unset(self._path, *keys)

    def put(self, source: Any, *, name: str | None = None, force: bool = False, recursive: bool = False) -> bool:
        """Store a blob; see `Metatree.put`."""
        return self._tree.put(self._path, source, name=name, force=force, recursive=recursive)

    def get(
        self, blob: str, outfile: str | bytes | os.PathLike[str] | None = None, *, recursive: bool = False
    ) -> Iterator[bytes]:
        """A blob's bytes; see `Metatree.get`."""
        return self._tree.get(self._below(blob), outfile, recursive=recursive)

    def open(self, blob: str, mode: str = "rb") -> BinaryIO:
        """A blob as a file object; see `Metatree.open`."""
        return self._tree.open(self._below(blob), mode)

    def list(self) -> list[str]:
        """The names of the node's blobs, sorted."""
        return self._tree.list(self._path)

    def delete(self, *, recursive: bool = False) -> None:
        """Delete the node; see `Metatree.delete`."""
        self._tree.delete(self._path, recursive=recursive)

    def _below(self, blob: str) -> tuple[str, ...]:
        return (*self._path, *blob.split("/"))

    def __truediv__(self, name: str) -> Node:
        return self._tree._node_at((*self._path, name))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Node) and (self._tree.root, self._path) == (other._tree.root, other._path)

    def __hash__(self) -> int:
        return hash((self._tree.root, self._path))

    def __repr__(self) -> str:
        return f"<metatree.Node {self.path!r} of {self._tree.root}>"

    def _repr_html_(self) -> str:
        import html  # imported on first use: only notebooks need it

        text = json.dumps(dict(self.metadata), indent=2, ensure_ascii=False)
        children = ", ".join(self.children[:20]) + (", …" if len(self.children) > 20 else "")
        below = f"<div>children: {html.escape(children)}</div>" if children else ""
        return f"<div><b>{html.escape(self.path or '/')}</b><pre>{html.escape(text)}</pre>{below}</div>"
