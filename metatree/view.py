"""A tree's state with changes overlaid on a reader's head: those of records in the same batch, and a transaction's own.

The lowest layer is the reader; above it are effects, the latest on top. A question goes from the top down and stops at
the first layer that decides it. All answers belong to one state if they are asked under the reader's lock or within
`Reader.ask`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from . import folders, layout
from .errors import CorruptionError
from .facts import BlobFact
from .fold import Effect
from .location import Path, fold_name
from .reader import Reader


class View:
    """A readable state of the tree."""

    def __init__(self, reader: Reader, layers: Sequence[Effect] = ()) -> None:
        self.reader = reader
        self.layers = tuple(layers)

    def exists(self, path: Path) -> bool:
        """Whether there is a node at `path`."""
        for layer in reversed(self.layers):
            effect, covered = layer.find(path)
            if effect is not None and effect.exists is not None:
                return effect.exists
            if covered:
                return False
        return self.reader.node(path) is not None

    def stands(self, path: Path) -> bool:
        """Like `exists`, but also True for a node that its parent lists but whose file is missing or cannot be parsed:
        such a node can only be dropped."""
        try:
            return self.exists(path)
        except CorruptionError as error:
            if not isinstance(error.__cause__, folders.NO_NODE_FILE):
                raise
            return path[-1:] != () and path[-1] in self.children(path[:-1])

    def keys(self, path: Path) -> dict[str, Any]:
        """The node's keys; {} if there is no node. The caller must not change it."""
        return self._keys(path, len(self.layers))

    def _keys(self, path: Path, depth: int) -> dict[str, Any]:
        if depth == 0:
            node = self.reader.node(path)
            return {} if node is None else node.keys
        effect, covered = self.layers[depth - 1].find(path)
        if effect is None:
            return {} if covered else self._keys(path, depth - 1)
        below = {} if covered or effect.whole else self._keys(path, depth - 1)
        return effect.over_keys(below)

    def key(self, path: Path, name: str) -> tuple[Any, bool]:
        """(value of a key of the node, whether it has that key). The cost does not depend on the number of keys."""
        for layer in reversed(self.layers):
            effect, covered = layer.find(path)
            if effect is not None:
                if name in effect.keys:
                    return effect.keys[name], True
                covered = covered or effect.whole or name in effect.unset
            if covered:
                return None, False
        node = self.reader.node(path)
        return (None, False) if node is None else (node.keys.get(name), name in node.keys)

    def children(self, path: Path) -> dict[str, bool]:
        """The node's children in order; {} if there is no node. The caller must not change it."""
        return self._children(path, len(self.layers))

    def _children(self, path: Path, depth: int) -> dict[str, bool]:
        if depth == 0:
            node = self.reader.node(path)
            return {} if node is None else node.children
        effect, covered = self.layers[depth - 1].find(path)
        if effect is None:
            return {} if covered else self._children(path, depth - 1)
        if effect.whole:
            return effect.children
        below = {} if covered else self._children(path, depth - 1)
        return effect.over_children(below) if effect.children else below

    def twin(self, path: Path, name: str) -> str | None:
        """The child or top-level blob of the node with this name, or one that differs only in case or Unicode form."""
        folded = fold_name(name)
        for layer in reversed(self.layers):
            effect, covered = layer.find(path)
            if effect is not None:
                taken, said = effect.name_taken(folded)
                if said:
                    return taken
            if covered:
                return None
        node = self.reader.node(path)
        return None if node is None else self.reader.names(path, node).get(folded)

    def metadata(self, path: Path) -> tuple[dict[str, Any], int, bool] | None:
        """(the node's keys, the approximate bytes of its metadata.json, whether that was changed by hand); None if
        there is no node. The caller must not change the keys."""
        if self.layers and not self.exists(path):
            return None
        node = self.reader.node(path)
        if not self.layers:
            return None if node is None else (node.keys, node.weight, node.edited)
        weight, edited = (0, False) if node is None else (node.weight, node.edited)
        for layer in self.layers:
            effect, _ = layer.find(path)
            if effect is not None:
                weight += sum(map(len, effect.children)) + 8 * len(effect.children)
                weight += sum(len(key) + len(str(value)) + 8 for key, value in effect.keys.items())
        return self.keys(path), weight, edited

    def require_unedited(self, path: Path) -> None:
        """Raises CorruptionError if the node's file was changed by hand."""
        node = self.reader.node(path)
        if node is not None and node.edited:
            raise CorruptionError(
                f"{layout.metadata(path)} was edited by hand; nothing was changed. Put the file back as "
                "it was, then make the change with update, or adopt the edit: metatree repair --adopt"
            )

    def blob(self, path: Path, name: str) -> tuple[BlobFact | None, bool]:
        """(the blob's fact, if its content is not applied yet; whether its file is out of date)."""
        for layer in reversed(self.layers):
            effect, covered = layer.find(path)
            if effect is not None:
                fact, said = effect.blob(name)
                if said:
                    return fact, True
            if covered:
                return None, True
        return self.reader.blob(path, name)

    def has_blob(self, path: Path, name: str, *, new: bool = False) -> bool:
        """Whether a blob, or a directory blob, of this name exists. `new`: the node is known not to exist yet."""
        for layer in reversed(self.layers):
            effect, covered = layer.find(path)
            if effect is not None:
                fact, said = effect.blob(name)
                if fact is not None or effect.blob_below(name):
                    return True
                if said:
                    return False
            if covered:
                return False
        return self.reader.has_foreign(path, name) if new else self.reader.has_blob(path, name)

    def blobs(self, path: Path) -> list[str]:
        """The names of the node's top-level blobs, sorted."""
        names: set[str] = set()
        start = self._visible_from(path)
        node = self.reader.node(path) if start < 0 else None
        if node is not None:
            names = self.reader.blobs(path, node)
        for layer in self.layers[max(start, 0) :]:
            effect, _ = layer.find(path)
            names = names if effect is None else effect.over_names(names)
        children = self.children(path)
        return sorted(name for name in names if name not in children)

    def blob_files(self, path: Path, name: str, *, whole: bool = False) -> list[str]:
        """The files of a directory blob, as blob names, sorted; empty if there is none. `whole`: raises UnsafePathError
        if it holds a link."""
        files: set[str] = set()
        layers: list[Effect] = []  # topmost first, to the one that hides all below it
        for layer in reversed(self.layers):
            effect, covered = layer.find(path)
            if effect is not None:
                layers.append(effect)
                covered = covered or effect.blob(name)[1]
            if covered:
                break
        else:
            files = self.reader.blob_files(path, name, whole=whole)
        for effect in reversed(layers):
            files = effect.over_blob_files(name, files)
        return sorted(files)

    def _visible_from(self, path: Path) -> int:
        """The index of the topmost layer that hides all layers below it; -1: none, the reader is visible."""
        for depth in range(len(self.layers) - 1, -1, -1):
            if self.layers[depth].find(path)[1]:
                return depth
        return -1
