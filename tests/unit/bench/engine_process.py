"""`headrace engine` in a process of its own, so that a test can stop it as a kernel would."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

HEADRACE = (sys.executable, "-m", "headrace")
_URL = re.compile(r"http://127\.0\.0\.1:[0-9]+")


@dataclass(frozen=True)
class EngineProcess:
    """A running engine."""

    url: str
    pid: int


@contextmanager
def engine_process(
    script: str = "ttft=20ms,itl=2ms", model: str = "emulated"
) -> Iterator[EngineProcess]:
    """An engine that serves this model; killed at the end, even if it is stopped."""
    line = (*HEADRACE, "engine", "--script", script, "--port", "0", "--model", model)
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        try:
            assert process.stdout is not None
            found = _URL.search(process.stdout.readline().decode())
            assert found is not None
            yield EngineProcess(found[0], process.pid)
        finally:
            process.kill()
