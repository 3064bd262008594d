"""Feeds decoders with mutated inputs: `python -m tests.trust.fuzzer SEED SECONDS FOLDER DECODER=INPUTS...`.

Each ends after its number of inputs or, if SECONDS is not 0, after so many seconds; then the next one begins, in a
process of its own. Prints "DECODER INPUTS" for each. An input that finds something is kept in FOLDER/DECODER as
`found-...`, and the exit code is 1. `mend` is told apart by the number of a mutation: so a seed repeats a run.
Needs atheris.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["wal", "metatree", "ingest_manifest"], enable_loader_override=False):
    from tests.trust.decoders import DECODERS

MAX_INPUT = 1024  # bytes; length fields promise far more
MEMORY = 400  # MiB of the whole process: believing a length field of a gigabyte would need more
HANG = 10  # seconds for one input


def main(seed: str, seconds: str, folder: str, *tasks: str) -> None:
    failed = False
    for task in tasks:
        name, _, inputs = task.partition("=")
        child = os.fork()  # what is imported and instrumented is so once
        if not child:
            _feed(name, inputs, seed, seconds, Path(folder, name))
        failed |= bool(os.waitpid(child, 0)[1])
    sys.exit(failed)


def _feed(name: str, inputs: str, seed: str, seconds: str, place: Path) -> None:
    """Never returns: libFuzzer ends the process."""
    decoder = DECODERS[name]
    place.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(decoder.seeds):
        (place / f"seed-{number}").write_bytes(data)
    kept = Path(__file__).parent / "corpus" / name
    arguments = [name, str(place), *([str(kept)] if kept.is_dir() else [])]
    arguments += [f"-runs={inputs}", f"-seed={seed}", f"-max_total_time={seconds}", f"-max_len={MAX_INPUT}"]
    arguments += [f"-rss_limit_mb={MEMORY}", f"-timeout={HANG}", f"-artifact_prefix={place}/found-"]
    arguments += ["-print_final_stats=1", "-reload=0"]
    mend = decoder.mend

    def mutate(data: bytes, size: int, number: int) -> bytes:
        changed = atheris.Mutate(data, size)
        return changed if mend is None or number & 1 else mend(changed)[:size]

    sys.stderr.write(f"decoder {name}\n")
    sys.stderr.flush()
    atheris.Setup(arguments, decoder.run, custom_mutator=mutate if mend else None)
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
