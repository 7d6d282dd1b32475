"""What a run keeps of its requests until it is over, against the memory that there is.

    bytes ≈ requests · (RECORD_BYTES + GAP_BYTES · output tokens)

Every request is kept whole, each gap between its tokens too, so that all figures are of all
requests and none of a sample. An hour of 200 requests a second, 256 tokens each, takes 1.5 GB.
"""

from __future__ import annotations

import ctypes
import sys
from math import inf
from pathlib import Path

from headrace.bench.settings import BenchError, BenchSettings
from headrace.traffic.load import Load

RECORD_BYTES, GAP_BYTES = 950, 4.5
"""Measured, in all processes together while the records are handed over: that is the most."""
WARNED_SHARE = 0.5
"""Above this share of the memory that is free, a note says so."""
_MEMINFO = Path("/proc/meminfo")
_TRIM = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None


def kept_bytes(load: Load, settings: BenchSettings) -> float:
    """About how much a run keeps; 0 where nobody knows how many requests there will be."""
    requests = load.requests or load.peak_rps * load.duration_s
    if not 0 < requests < inf:
        return 0.0
    gaps = load.mean_output_tokens if settings.stream else 0.0
    return requests * (RECORD_BYTES + GAP_BYTES * gaps)


def free_bytes() -> float:
    """What the machine has left; infinite where it does not tell."""
    try:
        lines = _MEMINFO.read_text().splitlines()
    except OSError:  # not Linux
        return inf
    found = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return int(found[0]) * 1024 if found else inf


def check_memory(load: Load, settings: BenchSettings) -> str:
    """A note where a run will take much of the memory, or nothing.

    Raises:
        BenchError: it will take more than there is.
    """
    kept, free = kept_bytes(load, settings), free_bytes()
    if kept <= WARNED_SHARE * free:
        return ""
    said = (
        f"the run keeps about {_gb(kept)} of its requests in memory, of {_gb(free)} that are free"
    )
    if kept > free:
        raise BenchError(f"{said}: make it shorter with --duration, or part it between machines")
    return said


def let_go() -> None:
    """Give the system back what was freed: glibc keeps it, and the parent needs as much."""
    if _TRIM is not None:
        _TRIM(0)


def _gb(count: float) -> str:
    return f"{count / 1e9:.1f} GB"
