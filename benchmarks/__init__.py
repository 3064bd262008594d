"""Named workloads of Metatree beside SQLite and the floor; `python -m benchmarks` prints the table."""
