"""Runs of Python under another seed of string hashes, which must change nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
HANG_S = 120.0


def printed(*arguments: str | Path, hash_seed: str) -> bytes:
    """What Python, called with these arguments, prints in a process of its own."""
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=ROOT,  # where `tests` can be imported from
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        check=False,
        timeout=HANG_S,
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout
