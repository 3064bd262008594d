"""`python -m metatree`: the command `metatree`, where the scripts of the environment are not on the path."""

from __future__ import annotations

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
