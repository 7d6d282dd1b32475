"""What to type to run this program again, for lines that people copy."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path


def own_command() -> str:
    """`headrace` where it is on PATH, else the path of the installed script, relative if shorter.

    Run as a module without such a script, the interpreter and the module.
    """
    script = Path(sys.executable).with_name("headrace")
    if not script.exists():
        return f"{_short(Path(sys.executable))} -m headrace"
    found = shutil.which("headrace")
    if found is not None and Path(found).resolve() == script.resolve():
        return "headrace"
    return _short(script)


def other_port(flag: str, port: int) -> str:
    """How to say another port than `port`, which is taken."""
    another = f"{flag} {port + 1 if port < 65535 else port - 1}"
    # make's own environment tells that a recipe started this; only `up` has one.
    by_make = "MAKELEVEL" in os.environ and sys.argv[1:2] == ["up"]
    return f"make up ARGS='{another}'" if by_make else another


def _short(path: Path) -> str:
    relative = os.path.relpath(path)
    return relative if len(relative) < len(str(path)) else str(path)
