"""A short trace takes less time to play than the whole gateway to load."""

from __future__ import annotations

import subprocess
import sys


def test_simulate_loads_nothing_of_the_gateway():
    code = (
        "import sys, headrace.cli, headrace.compose.simulate.command; "
        "from headrace.compose.simulate.input import engine_of; engine_of('h100-llama-3.1-8b'); "
        "loaded = [name for name in sys.modules if name.startswith('headrace.gateway')]; "
        "print(*loaded, sep='\\n'); sys.exit(bool(loaded))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], timeout=60, check=False, capture_output=True, text=True
    )
    assert (run.returncode, run.stderr) == (0, ""), run.stdout
