"""A tree named on the command line: its arguments, and opening it."""

from __future__ import annotations

import os
import posixpath
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import click

from metatree import ApplyPendingWarning, Metatree, UnavailableError

from .storage_options import storage_options

F = TypeVar("F", bound=Callable[..., Any])


def tree_command(command: F) -> F:
    """Decorator: adds ROOT, -o and --json as the parameters `root`, `options` and `as_json`."""
    as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object; its keys are stable.")
    root = click.argument("root", is_eager=True)  # first, so that errors of other parameters can name it
    return root(storage_options(as_json(command)))


@contextmanager
def opened(root: str, options: Mapping[str, Any], *, read_only: bool) -> Iterator[Metatree]:
    """The tree at ROOT, for a `with` block. As with any writer, opening it first includes a recovery."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ApplyPendingWarning)  # the command's report says the same
        tree = Metatree(root, read_only=read_only, storage_options=options)
        try:
            yield tree
        finally:
            with suppress(UnavailableError):
                tree.close()


def below(tree: Metatree, root: str, path: str) -> str:
    """A path as typed for --path, relative to the root: it may begin with `./`, with ROOT/ (as a shell completes it)
    or with the root's absolute path. The root itself is ''."""
    typed = posixpath.normpath(root)
    places = {tree.root, os.path.abspath(root), os.path.realpath(tree.root)}
    if typed.startswith("..") or not os.path.lexists(os.path.join(tree.root, typed)):
        places.add(typed)  # unless a node has the same name as ROOT: then that may be meant
    name = posixpath.normpath(path)  # also for a URL, whose root is normalised in the same way
    for place in map(posixpath.normpath, places):
        if f"{name}/".startswith(f"{place}/"):
            return name[len(place) :].strip("/")
    return "" if name == "." else name
