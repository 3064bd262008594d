"""Several processes on one bucket of a real server: each slot has one winner, and no replacement is lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from serve_s3 import Server

from wal.storage.s3 import S3Storage

PROCESSES = 4
SLOTS = 15  # of each process
STEPS = 8

PROGRAM = f"""
import json, sys
from wal.storage import ChangedError, open_storage

url, options, me = sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3])
storage = open_storage(url, options)
sys.stdin.readline()  # until all are here

won, slot = [], 0
while len(won) < {SLOTS}:
    slot += 1
    if storage.create(f"log/{{slot:020d}}.rec", f"{{me}} {{len(won)}}".encode()):
        won.append(slot)

steps = 0
while steps < {STEPS}:
    stored = storage.read("counter")
    try:
        storage.publish("counter", stored.data + b"%d." % me, b"", durable=True, expect=stored.version)
        steps += 1
    except ChangedError:
        pass

taken = 0
for number in range(12):
    name = f"box/{{number}}"
    version = storage.versions(name).get(name)
    if version is not None:
        try:
            storage.publish(name, b"%d" % me, b"", durable=True, expect=version)
            taken += 1
        except ChangedError:
            pass
print(json.dumps([won, taken]))
storage.close()
"""


@pytest.mark.slow
def test_processes_that_race_for_slots_and_versions_win_each_once(seaweedfs: Server) -> None:
    url = f"s3://{seaweedfs.bucket}/races/{os.getpid()}"
    storage = S3Storage(url, seaweedfs.options)
    storage.publish("counter", b"", b"", durable=True)
    for number in range(12):
        storage.publish(f"box/{number}", b"full", b"", durable=True)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, url, json.dumps(seaweedfs.options), str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(PROCESSES)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    told = [json.loads(process.communicate(timeout=240)[0]) for process in processes]
    assert [process.returncode for process in processes] == [0] * PROCESSES

    winners = {slot: number for number, (won, _) in enumerate(told) for slot in won}
    assert len(winners) == PROCESSES * SLOTS  # no slot twice
    assert sorted(winners) == list(range(1, PROCESSES * SLOTS + 1))  # and none left out
    for slot, number in winners.items():
        assert storage.read(f"log/{slot:020d}.rec").data.split()[0] == b"%d" % number
    steps = storage.read("counter").data.decode().split(".")[:-1]
    assert {number: steps.count(str(number)) for number in range(PROCESSES)} == dict.fromkeys(range(PROCESSES), STEPS)
    storage.close()
