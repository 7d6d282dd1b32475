"""NVIDIA's DCGM exporter: how busy the memory of GPUs is.

A line per GPU: `DCGM_FI_PROF_DRAM_ACTIVE{gpu="0",UUID="GPU-…",pod="llama-0",…} 0.62`, the share of
cycles in which its memory moves data, from 0 to 1. A replica's GPUs work in step, so that their
mean is the replica's; an exporter tells of all GPUs of its host, and labels say which are meant.
"""

from __future__ import annotations

from collections.abc import Sequence

from headrace.engines.exposition import parse

DRAM_ACTIVE = "DCGM_FI_PROF_DRAM_ACTIVE"
_WANTED = frozenset((DRAM_ACTIVE,))


def split_label(text: str) -> tuple[str, str]:
    """`name=value`, apart. Raises ValueError for anything else."""
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier() or not value:
        raise ValueError(f"{text!r} is not name=value")
    return name, value


def memory_bandwidth_ratio(text: bytes, labels: Sequence[str] = ()) -> float | None:
    """The mean over the GPUs that have all of these labels; None if none of them tells.

    What is no share is left out: an exporter writes huge numbers for what a GPU does not tell.
    """
    wanted = [split_label(label) for label in labels]
    shares = [
        sample.value
        for sample in parse(text, _WANTED).of((DRAM_ACTIVE,))
        if 0.0 <= sample.value <= 1.0
        and all(sample.labels.get(name) == value for name, value in wanted)
    ]
    return sum(shares) / len(shares) if shares else None
