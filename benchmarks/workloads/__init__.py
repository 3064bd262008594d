"""The named workloads, a module for each family."""

from __future__ import annotations

from benchmarks.measure import Workload
from benchmarks.workloads import batches, blobs, finds, memory, opening, processes, puts, recovery
from benchmarks.workloads.sizes import Sizes

FAMILIES = (puts, batches, finds, blobs, processes, opening, recovery, memory)


def workloads(sizes: Sizes) -> list[Workload]:
    """All of them, by their numbers."""
    found = [workload for family in FAMILIES for workload in family.workloads(sizes)]
    return sorted(found, key=lambda workload: int(workload.name.split()[0][1:]))
