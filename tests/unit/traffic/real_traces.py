"""The published traces beside this checkout, for tests of what is read from them."""

from functools import cache
from pathlib import Path

import pytest

from headrace.traffic.reader import read_trace
from headrace.traffic.trace import Trace

FOLDER = Path(__file__).parents[4] / "shared" / "traces"


def real_trace(file: str) -> Trace:
    """A trace of the folder `shared`; skips the test where there is none."""
    if not (FOLDER / file).is_file():
        pytest.skip(f"{file} (3 MB, not in this repository) is not in a folder shared/traces")
    return _read(file)


@cache
def _read(file: str) -> Trace:
    with (FOLDER / file).open(encoding="utf-8") as lines:
        return read_trace(file, lines, seed=1)
