"""Fuzzed decoders: whatever the bytes are, they are decoded or refused with an error of ours. No hang, bounded memory.

`METATREE_FUZZ_SEED` repeats a run; a failure prints the command that does.
"""

from __future__ import annotations

import importlib.util
import os
import random
import re
import subprocess
import sys
import tempfile
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.figures import Layer
from tests.trust.decoders import DECODERS
from wal.format import LENGTH, LENGTHS

ROOT = Path(__file__).parents[2]
CORPUS = Path(__file__).parent / "corpus"
SEED = int(os.environ.get("METATREE_FUZZ_SEED", "0")) or random.randrange(1, 2**31)
INPUTS = {  # in an ordinary run: decoders that refuse fast get many, so that all have about the same time
    "attribute": 1_300_000,
    "claim": 1_000_000,
    "header": 800_000,
    "config": 550_000,
    "facts": 450_000,
    "slot": 400_000,
    "checkpoint": 300_000,
    "frame": 60_000,
    "location": 50_000,
    "metadata": 40_000,
    "segment": 30_000,
    "head": 30_000,
    "jsonl": 12_000,
    "csv": 12_000,
}
GROUPS = (("attribute", "header", "facts", "checkpoint", "location", "segment", "jsonl"),
          ("claim", "config", "slot", "frame", "metadata", "head", "csv"))  # fmt: skip
NAME = "fuzzed decoders"
NIGHT = 500_000_000


@pytest.fixture
def folder() -> Iterator[Path]:
    """In memory where the machine has such a place: libFuzzer writes each input that reaches something new."""
    base = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="metatree-fuzz-", dir=base) as name:
        yield Path(name)


@pytest.mark.parametrize("group", [0, 1])
def test_no_input_makes_a_decoder_fail_hang_or_take_memory(group: int, layer: Layer, folder: Path) -> None:
    if importlib.util.find_spec("atheris") is None:
        layer.not_run(NAME, "atheris is not installed: it has no wheel for this Python or system")
    names = GROUPS[group]
    floor = sum(INPUTS[name] for name in names)
    done = _fuzz(folder, 0, [f"{name}={INPUTS[name]}" for name in names])
    if more := int(layer.seconds(NAME, len(GROUPS)) / len(names)):
        done += _fuzz(folder, more, [f"{name}=-1" for name in names])
    layer.report(NAME, done, floor=floor, night=NIGHT // 2, unit="inputs", note=f"seed {SEED}")


def _fuzz(folder: Path, seconds: int, tasks: list[str]) -> int:
    """How many inputs there were. Fails with what was found, and how to see it again."""
    words = [sys.executable, "-m", "tests.trust.fuzzer", str(SEED), str(seconds), str(folder), *tasks]
    paths = f"{ROOT}{os.pathsep}{ROOT / 'tools'}"
    run = subprocess.run(words, cwd=ROOT, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, check=False)
    output = run.stderr.decode(errors="replace") + run.stdout.decode(errors="replace")
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.glob("*/found-*")}
    again = f"PYTHONPATH=.:tools python -m tests.trust.fuzzer {SEED} {seconds} FOLDER {' '.join(tasks)}"
    assert not run.returncode and not found, f"{output[-6000:]}\ninputs for tests/trust/corpus: {found}\nagain: {again}"
    counts = [int(number) for number in re.findall(r"^stat::number_of_executed_units:\s+(\d+)", output, re.MULTILINE)]
    assert len(counts) == len(tasks), output[-2000:]
    return sum(counts)


def test_every_decoder_is_fuzzed() -> None:
    assert sorted(INPUTS) == sorted(DECODERS) == sorted(sum(GROUPS, ()))
    assert sum(INPUTS.values()) >= 5_000_000


@pytest.mark.parametrize("name", DECODERS)
def test_what_was_once_found_or_reached_is_still_decoded_or_refused(name: str) -> None:
    decoder = DECODERS[name]
    kept = [path.read_bytes() for path in sorted((CORPUS / name).iterdir())]
    assert kept, "a decoder has a corpus"
    for data in (*kept, *decoder.seeds):
        decoder.run(data)
        if decoder.mend is not None:
            decoder.run(decoder.mend(data))


@pytest.mark.parametrize("name", DECODERS)
def test_a_length_field_of_a_gigabyte_allocates_nothing(name: str) -> None:
    """Every place in the bytes may be a length field; with a right checksum or without."""
    decoder = DECODERS[name]
    huge = (LENGTH.pack(2**30), LENGTHS.pack(2**30, 2**30), LENGTH.pack(2**32 - 1), (2**40).to_bytes(8, "little"))
    decoder.run(decoder.seeds[0])
    tracemalloc.start()
    try:
        for seed in decoder.seeds:
            for at in range(len(seed) - 3):
                for field in huge:
                    changed = seed[:at] + field + seed[at + len(field) :]
                    decoder.run(changed)
                    if decoder.mend is not None:
                        decoder.run(decoder.mend(changed))
        assert tracemalloc.get_traced_memory()[1] < 2 * 2**20
    finally:
        tracemalloc.stop()
