"""Nearly every small change of the code that keeps the promises is noticed by a test.

Which ones are tried is drawn: `METATREE_MUTANTS_SEED` repeats a run. Each that was not noticed is named with the
command that tries it again. It then lacks a test or, if nobody could notice it, an entry in `equivalent_mutants.toml`.
"""

from __future__ import annotations

import ast
import os
import random
from pathlib import Path

import pytest

from tests.figures import Layer
from tests.trust.mutants import MUTATED, ROOT, Mutant, equivalents, mutants, mutants_of
from tests.trust.mutated import TESTS, Trial, drawn

SEED = os.environ.get("METATREE_MUTANTS_SEED", f"{random.randrange(1 << 32):08x}")
NAME = "mutants"
FLOOR, NIGHT = 20, {"wal": 1_000, "metatree": 300}
ASKED = 0.95  # of those that were tried


@pytest.mark.parametrize("half", MUTATED)
def test_nearly_all_mutants_are_noticed(half: str, layer: Layer, tmp_path: Path) -> None:
    if not layer.torture:
        layer.not_run(NAME, "takes minutes: `make torture` runs it")
    done, aims, survivors = 0, {"floor": FLOOR, "night": NIGHT[half]}, list[Mutant]()
    trial = Trial(tmp_path / "trial", TESTS[half])
    for mutant in drawn(SEED, MUTATED[half]):
        if not layer.more(NAME, done, **aims, among=len(MUTATED)):
            break
        survivors += [] if trial.noticed(mutant) else [mutant]
        done += 1
    noticed = 1 - len(survivors) / done
    names = f", all but {' '.join(mutant.name for mutant in survivors)}" if survivors else ""
    layer.report(NAME, done, **aims, unit="mutants", note=f"{half}: {noticed:.1%} noticed{names}; seed {SEED}")
    assert noticed >= ASKED, "\n".join(map(str, survivors))


# --- what a mutant is -------------------------------------------------------------------------------------------------

MUTATIONS = {
    "a = b < c": ["a = b <= c"],
    "a = b not in c": ["a = b in c"],
    "a = b and c and d": ["a = b or c and d", "a = b and c or d"],
    "a = not b": ["a = b"],
    "a = b % c": ["a = b * c"],
    "a += b": ["a -= b"],
    "a = 7": ["a = 8", "a = 6"],
    "a = True": ["a = False"],
    "a(b)": ["pass"],
    "def f():\n    return a": ["return None"],
    "while a:\n    break": ["while not (a):", "continue"],
    "if a == b:\n    pass": ["if a != b:"],
    "a = b if c else d": ["a = b if not (c) else d"],
    "a: Literal[1] = b": [],
    "a = isinstance(b, C | None)": [],
    "if TYPE_CHECKING:\n    a = 1": [],
    "a = f'{b + 1}'": [],
    "assert a < 1": [],
    "def f(a=1, b=False):\n    'What it does.'\n    ...": [],
    "def f(a=1, *, b=False, c=True):\n    g(c)": ["def f(a=1, *, b=False, c=False):", "pass"],
}


@pytest.mark.parametrize("text", MUTATIONS)
def test_the_mutants_of_a_text(text: str) -> None:
    assert [mutant.new for mutant in mutants_of("a.py", f"{text}\n".encode())] == MUTATIONS[text]


def test_a_mutant_changes_only_what_it_says_and_compiles() -> None:
    source = (ROOT / "wal/chain.py").read_bytes()
    found = mutants("wal/chain.py")
    for mutant in found:
        changed = mutant.planted(source)
        assert ast.dump(ast.parse(changed)) != ast.dump(ast.parse(source)), mutant
        compile(changed, mutant.file, "exec")
    assert len({mutant.name for mutant in found}) == len(found) > 100


def test_each_equivalent_one_is_still_there_and_has_a_reason() -> None:
    found = [mutant for file in {key[0] for key in equivalents()} for mutant in mutants(file)]
    there = {(mutant.file, mutant.function, mutant.old, mutant.new) for mutant in found}
    assert all(len(why) > 10 for why in equivalents().values())
    assert set(equivalents()) <= there, f"gone: {set(equivalents()) - there}"


def test_a_mutant_is_noticed_by_a_test_that_fails_and_one_that_changes_nothing_is_not(tmp_path: Path) -> None:
    trial = Trial(tmp_path / "trial", [str(ROOT / "tests/wal/test_process.py")])
    source = (ROOT / "wal/process.py").read_bytes()
    line = source.index(b"    ")
    harmless = Mutant("wal/process.py", "", "", "", range(1, 2), line, line, b"")
    assert trial.noticed(harmless) == ""
    assert all("test_process" in trial.noticed(mutant) for mutant in mutants("wal/process.py")[:1])
    assert (tmp_path / "trial/product/wal/process.py").read_bytes() == source
