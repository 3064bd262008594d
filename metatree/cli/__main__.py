"""`python -m metatree.cli`: the same command where the environment's scripts are not on the path."""

from __future__ import annotations

import sys

from . import main

if __name__ == "__main__":
    sys.exit(main())
