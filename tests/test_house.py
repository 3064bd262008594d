"""The sizes of the house: where something grows past them, it has two jobs."""

import ast
import statistics
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("metatree", "wal", "tools", "benchmarks")


def modules() -> list[Path]:
    return [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]


def functions() -> Iterator[tuple[str, int]]:
    for path in modules():
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno is not None
                yield f"{path.relative_to(ROOT)}:{node.lineno} {node.name}", node.end_lineno - node.lineno + 1


def test_no_module_is_longer_than_300_lines() -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in modules()}
    assert {name: length for name, length in lengths.items() if length > 300} == {}


def test_no_function_is_longer_than_50_lines_and_nine_of_ten_are_within_25() -> None:
    lengths = dict(functions())
    assert {name: length for name, length in lengths.items() if length > 50} == {}
    assert statistics.quantiles(lengths.values(), n=10)[-1] <= 25


def test_no_module_is_called_utils_or_helpers() -> None:
    assert [path for path in modules() if path.stem in {"utils", "util", "helpers", "helper", "common", "misc"}] == []
