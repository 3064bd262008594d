"""Runs inside the environment of metatreedb 0.2.3: one JSON line in is a verb, one out is its time and result."""

from __future__ import annotations

import importlib
import json
import logging
import sys
from collections.abc import Callable
from functools import partial
from time import perf_counter_ns
from typing import Any


def perform(tree: Any, verb: str, location: str, *arguments: Any) -> Any:
    if verb == "put":
        return tree.put(location, *arguments)
    if verb == "update":
        return tree.find(location).update(**arguments[0])
    if verb == "metadata":
        return tree.find(location).metadata
    if verb == "get":
        return sum(map(len, tree.get(location)))
    if verb == "download":
        tree.get(location, *arguments)  # the generator that it returns reads the blob once more: left alone
        return None
    raise ValueError(verb)


def main() -> None:
    logging.disable()  # each attempt to take its lock is a warning
    # by name: this checkout has a package of the same name, which must be neither found nor type-checked here
    library = importlib.import_module("metatree")
    tree = answer(lambda: library.Metatree(sys.argv[1], ("model", "version")), keep=True)
    for line in sys.stdin:
        answer(partial(perform, tree, *json.loads(line)))


def answer(work: Callable[[], Any], *, keep: bool = False) -> Any:
    """Do it, and print how long it took, with its result if that is not to be kept here."""
    begin = perf_counter_ns()
    try:
        result = work()
    except Exception as error:  # noqa: BLE001 (it raises bare Exceptions; the parent decides)
        print(json.dumps({"error": f"{type(error).__name__}: {error}"}), flush=True)
        return None
    micros = (perf_counter_ns() - begin) / 1000
    print(json.dumps({"micros": micros, "result": None if keep else result}), flush=True)
    return result


if __name__ == "__main__":
    main()
