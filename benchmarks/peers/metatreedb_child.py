"""Runs inside the environment of metatreedb 0.2.3: one JSON line in is a verb, one out is its time and result."""

from __future__ import annotations

import importlib
import json
import logging
import sys
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
    tree = importlib.import_module("metatree").Metatree(sys.argv[1], ("model", "version"))
    for line in sys.stdin:
        begin = perf_counter_ns()
        answer: dict[str, object]
        try:
            result = perform(tree, *json.loads(line))
            answer = {"micros": (perf_counter_ns() - begin) / 1000, "result": result}
        except Exception as error:  # noqa: BLE001 (it raises bare Exceptions; the parent decides)
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
