"""How an engine's latencies are distributed: its histograms, bucket by bucket.

Read only of engines whose requests do not pass the gateway; it measures the others better, and
buckets are the greater part of a page of metrics.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from math import inf
from typing import NamedTuple

from headrace.engines.exposition import MOST, Accept, Exposition, parse
from headrace.engines.reading import Answers


class Buckets(NamedTuple):
    """A histogram since its engine's start, over all its labels."""

    bounds_s: tuple[float, ...]
    """The last one is infinite."""
    counts: tuple[int, ...]
    """Of each bucket, above the bound before it and up to its own."""
    total_s: float


class Latencies(NamedTuple):
    """What an engine measured, a figure per request. None where it does not tell."""

    ttft: Buckets | None = None
    tpot: Buckets | None = None


def read_latencies(
    answers: Answers, names: Mapping[str, Sequence[str]], accepts: Mapping[str, Accept]
) -> Latencies:
    """Read the histograms of `ttft` and `tpot`, of their names the first that is there.

    Only samples whose labels `accepts` agrees to are meant, where it says so. Never raises.
    """
    wanted = frozenset(
        f"{name}_{part}" for each in names.values() for name in each for part in ("bucket", "sum")
    )
    found = [parse(body, wanted) for status, body in answers.values() if status == 200]

    def first(fact: str) -> Buckets | None:
        accept = accepts.get(fact)
        told = (_buckets(page, name, accept) for name in names.get(fact, ()) for page in found)
        return next((each for each in told if each is not None), None)

    return Latencies(first("ttft"), first("tpot"))


def _buckets(page: Exposition, name: str, accept: Accept | None) -> Buckets | None:
    at_most: dict[float, float] = {}
    for sample in page.of((f"{name}_bucket",)):
        bound = _bound(sample.labels.get("le", ""))
        if bound is not None and (accept is None or accept(sample.labels)):
            at_most[bound] = at_most.get(bound, 0.0) + sample.value
    sums = [
        sample.value
        for sample in page.of((f"{name}_sum",))
        if accept is None or accept(sample.labels)
    ]
    if inf not in at_most or not sums:
        return None
    bounds = tuple(sorted(at_most))
    counts = _apart([at_most[bound] for bound in bounds])
    return None if counts is None else Buckets(bounds, counts, sum(sums))


def _bound(text: str) -> float | None:
    try:
        bound = float(text)
    except ValueError:
        return None
    return bound if 0 < bound <= MOST or bound == inf else None


def _apart(cumulative: Collection[float]) -> tuple[int, ...] | None:
    """Counts of each bucket; None if they do not add up."""
    counts: list[int] = []
    before = 0.0
    for up_to in cumulative:
        if up_to < before:
            return None
        counts.append(round(up_to - before))
        before = up_to
    return tuple(counts)
