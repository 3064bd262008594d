"""Small changes of the product's source, each of which a test should notice: what is mutated, and how.

A mutant is one replacement in the text of one function. It is named by what it says, not by its line, so that its name
outlives changes elsewhere in the file. `tests/trust/mutated.py` draws mutants and runs the tests on them.
"""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
EQUIVALENTS = Path(__file__).with_name("equivalent_mutants.toml")
MUTATED = {  # what keeps the promises, by package
    "wal": (*sorted(f"wal/{path.name}" for path in (ROOT / "wal").glob("*.py")), "wal/storage/filelock.py"),
    "metatree": tuple(
        f"metatree/{name}.py"
        for name in (
            *("apply", "checkpoint", "commit", "committer", "flushing", "fold"),
            *("object_plan", "objects", "recovery", "window"),
        )
    ),
}

SWAPPED: dict[type[ast.AST], tuple[str, str]] = {
    ast.Lt: ("<", "<="),
    ast.LtE: ("<=", "<"),
    ast.Gt: (">", ">="),
    ast.GtE: (">=", ">"),
    ast.Eq: ("==", "!="),
    ast.NotEq: ("!=", "=="),
    ast.Is: ("is", "is not"),
    ast.IsNot: ("is not", "is"),
    ast.In: ("in", "not in"),
    ast.NotIn: ("not in", "in"),
    ast.And: ("and", "or"),
    ast.Or: ("or", "and"),
    ast.Add: ("+", "-"),
    ast.Sub: ("-", "+"),
    ast.Mult: ("*", "//"),
    ast.FloorDiv: ("//", "*"),
    ast.Div: ("/", "*"),
    ast.Mod: ("%", "*"),
    ast.LShift: ("<<", ">>"),
    ast.RShift: (">>", "<<"),
    ast.BitAnd: ("&", "|"),
    ast.BitOr: ("|", "&"),
}
OPPOSITES = (ast.Eq, ast.NotEq, ast.Is, ast.IsNot, ast.In, ast.NotIn)  # swapped: their condition is negated
TYPES = ("annotation", "returns", "decorator_list", "bases", "type_params")  # fields without code of the function's


@dataclass(frozen=True, slots=True)
class Mutant:
    """One replacement."""

    file: str
    function: str  # qualified; "" outside of all
    old: str  # the lines that it is in, joined
    new: str  # the same lines, changed
    lines: range = field(compare=False)
    start: int = field(compare=False)  # the lines, in bytes from the beginning of the module
    end: int = field(compare=False)
    changed: bytes = field(compare=False, repr=False)

    @property
    def name(self) -> str:
        """The same as long as the function has these lines."""
        words = "\0".join((self.file, self.function, self.old, self.new))
        return blake2b(words.encode(), digest_size=4).hexdigest()

    @property
    def half(self) -> str:
        """The package that it is in."""
        return self.file.partition("/")[0]

    def planted(self, source: bytes) -> bytes:
        """The module with it."""
        return source[: self.start] + self.changed + source[self.end :]

    def __str__(self) -> str:
        again = f"python -m tests.trust.mutated --only {self.name}"
        return f"{self.file}:{self.lines[0]} {self.function}\n  - {self.old}\n  + {self.new}\n  again: {again}"


def mutants(file: str) -> list[Mutant]:
    """All of one module, in the order of its text; of those that read the same, the first."""
    return mutants_of(file, (ROOT / file).read_bytes())


def mutants_of(file: str, source: bytes) -> list[Mutant]:
    found: dict[str, Mutant] = {}
    for mutant in _Finder(file, source).found():
        found.setdefault(mutant.name, mutant)
    return sorted(found.values(), key=lambda mutant: mutant.lines[0])


@cache
def equivalents() -> dict[tuple[str, str, str, str], str]:
    """Those that no test can notice, by (file, function, old, new), with the reason."""
    entries = tomllib.loads(EQUIVALENTS.read_text())["equivalent"]
    return {(each["file"], each["function"], each["old"], each["new"]): each["why"] for each in entries}


def is_equivalent(mutant: Mutant) -> bool:
    return (mutant.file, mutant.function, mutant.old, mutant.new) in equivalents()


class _Finder:
    def __init__(self, file: str, source: bytes) -> None:
        self._file, self._source = file, source
        self._starts = [0]
        for line in source.splitlines(keepends=True):
            self._starts.append(self._starts[-1] + len(line))

    def found(self) -> Iterator[Mutant]:
        tree = ast.parse(self._source)
        self._idle = set(_idle_defaults(tree))
        yield from self._of(tree, "")

    def _of(self, node: ast.AST, function: str) -> Iterator[Mutant]:
        if isinstance(node, ast.JoinedStr | ast.Assert) or _is_for_types(node) or node in self._idle:
            return
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            function = f"{function}.{node.name}".lstrip(".")
        for start, end, new in self._changes(node):
            yield self._mutant(function, start, end, new)
        for name, value in ast.iter_fields(node):
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST) and name not in TYPES:
                    yield from self._of(child, function)

    def _changes(self, node: ast.AST) -> Iterator[tuple[int, int, str]]:
        match node:
            case ast.Compare(left, [op], [right]):
                yield self._swap(op, left, right)
            case ast.BoolOp(op, values):
                for left, right in pairwise(values):
                    yield self._swap(op, left, right)
            case ast.BinOp(left, op, right) if type(op) in SWAPPED and not _is_type(node):
                yield self._swap(op, left, right)
            case ast.AugAssign(target, op, value) if type(op) in SWAPPED:
                yield self._swap(op, target, value)
            case ast.UnaryOp(ast.Not(), operand):
                yield *self._span(node), self._text(operand)
            case ast.Constant(bool() as value):
                yield *self._span(node), str(not value)
            case ast.Constant(int() as value):
                yield *self._span(node), str(value + 1)
                yield *self._span(node), str(value - 1)
            case ast.Return(value) if value is not None and not _is_falsy(value):
                yield *self._span(value), "None"
            case ast.Expr(ast.Call() | ast.Await()):
                yield *self._span(node), "pass"
            case ast.Break():
                yield *self._span(node), "continue"
            case ast.Continue():
                yield *self._span(node), "break"
            case _:
                pass
        if isinstance(node, ast.If | ast.While | ast.IfExp) and _is_negated_in_no_other_way(node.test):
            yield *self._span(node.test), f"not ({self._text(node.test)})"

    def _swap(self, op: ast.AST, left: ast.expr, right: ast.expr) -> tuple[int, int, str]:
        old, new = SWAPPED[type(op)]
        start, end = self._span(left)[1], self._span(right)[0]
        return start, end, self._source[start:end].decode().replace(old, new, 1)

    def _span(self, node: ast.stmt | ast.expr) -> tuple[int, int]:
        assert node.end_lineno is not None and node.end_col_offset is not None
        start = self._starts[node.lineno - 1] + node.col_offset
        return start, self._starts[node.end_lineno - 1] + node.end_col_offset

    def _text(self, node: ast.expr) -> str:
        start, end = self._span(node)
        return self._source[start:end].decode()

    def _mutant(self, function: str, start: int, end: int, new: str) -> Mutant:
        first = self._source.rfind(b"\n", 0, start) + 1
        last = self._source.find(b"\n", end)
        before, after = self._source[first:start], self._source[end:last]
        changed = before + new.encode() + after
        lines = range(self._source.count(b"\n", 0, start) + 1, self._source.count(b"\n", 0, end) + 2)
        old, new_lines = _joined(self._source[first:last]), _joined(changed)
        return Mutant(self._file, function, old, new_lines, lines, first, last, changed)


def _joined(lines: bytes) -> str:
    return " ".join(lines.decode().split())


def _is_none(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _is_falsy(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and not node.value


def _is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def _idle_defaults(tree: ast.AST) -> Iterator[ast.expr]:
    """The defaults of parameters that their function does not use, or only declares: others have to know them."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            used = {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}
            given = node.args.posonlyargs + node.args.args
            defaults = [*zip(given[::-1], node.args.defaults[::-1], strict=False)]
            for parameter, default in [*defaults, *zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)]:
                if default is not None and parameter.arg not in used:
                    yield default


def _is_type(node: ast.BinOp) -> bool:
    """A union, as in isinstance(x, A | B)."""
    names = (node.left, node.right)
    return isinstance(node.op, ast.BitOr) and all(
        _is_none(each) or ast.unparse(each).rpartition(".")[2][:1].isupper() for each in names
    )


def _is_negated_in_no_other_way(test: ast.expr) -> bool:
    negated = isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not)
    compared = isinstance(test, ast.Compare) and len(test.ops) == 1 and isinstance(test.ops[0], OPPOSITES)
    return not negated and not compared
