"""Work in a process of its own: what is cold, what is weighed, what is killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[1]


def environment() -> dict[str, str]:
    """One in which a child finds this checkout's packages, and their bytecode, as where they are installed."""
    path = os.pathsep.join(filter(None, (str(CHECKOUT), os.environ.get("PYTHONPATH"))))
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**inherited, "PYTHONPATH": path}


def ask(module: str, *arguments: object) -> Any:
    """The JSON that `main` of a module prints."""
    done = subprocess.run(
        _command(module, arguments), stdout=subprocess.PIPE, text=True, cwd=CHECKOUT, env=environment(), check=True
    )
    return json.loads(done.stdout)


def run_to_death(module: str, *arguments: object) -> None:
    """Let `main` kill its process with SIGKILL. Raises RuntimeError if that ended otherwise."""
    done = subprocess.run(_command(module, arguments), cwd=CHECKOUT, env=environment())
    if done.returncode != -9:
        raise RuntimeError(f"{module} was to die of SIGKILL, and ended with {done.returncode}")


def start(module: str, function: str, *arguments: object) -> subprocess.Popen[bytes]:
    """Let a function of a module run until the caller kills it."""
    return subprocess.Popen(_command(module, arguments, function), cwd=CHECKOUT, env=environment())


def _command(module: str, arguments: tuple[object, ...], function: str = "main") -> list[str]:
    # not -m: a module of a package that imports it would be there twice
    return [sys.executable, "-c", f"from {module} import {function}; {function}()", *map(str, arguments)]
