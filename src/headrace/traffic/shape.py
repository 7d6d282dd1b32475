"""Cutting and scaling a trace, and what it consists of.

    repeat_share = blocks already seen in an earlier request / blocks of all prompts

counted in order of arrival with a cache that never evicts; blocks of all prompts include each
prompt's last one that is not full, as in Mooncake's own count. It bounds the hit ratio of any
routing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from random import Random

from headrace.traffic.trace import Trace, TraceRequest

COPY_WITHIN_S = 2.0
"""Of a request that is multiplied: close enough that minutes keep their shape."""


@dataclass(frozen=True, slots=True)
class TraceSummary:
    """What a trace consists of; lengths in tokens, `repeat_share` from 0 to 1."""

    requests: int
    span_s: float
    requests_per_s: float
    mean_input_tokens: float
    mean_output_tokens: float
    repeat_share: float
    sessions: int


def cut(trace: Trace, duration_s: float) -> Trace:
    """The requests that arrive in the first `duration_s` seconds.

    Raises:
        ValueError: the duration is not positive, or nothing arrives within it.
    """
    if not duration_s > 0:
        raise ValueError(f"duration {duration_s:g} s is not above 0")
    requests = [request for request in trace.requests if request.arrival_s < duration_s]
    if not requests:
        raise ValueError(f"no request of {trace.name} arrives within {duration_s:g} s")
    return Trace(trace.name, trace.block_tokens, requests, trace.notes)


def part(trace: Trace, first: int, count: int) -> Trace:
    """`count` requests from the one at place `first` on; the first of them arrives at 0 s.

    Raises:
        ValueError: the trace has no request at that place, or the count is not above 0.
    """
    if not (0 <= first < len(trace.requests) and count > 0):
        raise ValueError(
            f"requests {first} to {first + count} of {trace.name}, which has {len(trace.requests)}"
        )
    chosen = trace.requests[first : first + count]
    start_s = chosen[0].arrival_s
    requests = [request._replace(arrival_s=request.arrival_s - start_s) for request in chosen]
    return Trace(trace.name, trace.block_tokens, requests, trace.notes)


def sped_up(trace: Trace, speed: float) -> Trace:
    """The same requests, `speed` times as fast: arrival times are divided by it.

    Raises:
        ValueError: the speed is not a positive number.
    """
    if not (isfinite(speed) and speed > 0):
        raise ValueError(f"speed {speed:g} is not above 0")
    if speed == 1:
        return trace
    requests = [request._replace(arrival_s=request.arrival_s / speed) for request in trace.requests]
    return Trace(trace.name, trace.block_tokens, requests, trace.notes)


def multiplied(trace: Trace, factor: float, seed: int) -> Trace:
    """`factor` times as many requests in the same time: copies, or a random part.

    Copies arrive within `COPY_WITHIN_S` behind their original. They share its prefix.

    Raises:
        ValueError: the factor is not a positive number, or nothing is left.
    """
    if not (isfinite(factor) and factor > 0):
        raise ValueError(f"factor {factor:g} is not above 0")
    if factor == 1:
        return trace
    rng = Random(f"multiplied {seed}")
    whole, part = divmod(factor, 1.0)
    requests: list[TraceRequest] = []
    for request in trace.requests:
        for copy in range(int(whole) + (rng.random() < part)):
            later_s = rng.random() * COPY_WITHIN_S if copy else 0.0
            requests.append(request._replace(arrival_s=request.arrival_s + later_s))
    if not requests:
        raise ValueError(f"no request of {trace.name} is left at a factor of {factor:g}")
    requests.sort(key=lambda request: request.arrival_s)
    return Trace(trace.name, trace.block_tokens, requests, trace.notes)


def rate(trace: Trace) -> float:
    """Requests per second between the first arrival and the last; 0 where all arrive at once."""
    span_s = _span_s(trace.requests)
    return (len(trace.requests) - 1) / span_s if span_s > 0 else 0.0


def summarise(trace: Trace) -> TraceSummary:
    """Count what the trace consists of.

    Raises:
        ValueError: it has no requests.
    """
    count = len(trace.requests)
    if not count:
        raise ValueError(f"{trace.name} has no requests")
    return TraceSummary(
        requests=count,
        span_s=_span_s(trace.requests),
        requests_per_s=rate(trace),
        mean_input_tokens=sum(request.input_tokens for request in trace.requests) / count,
        mean_output_tokens=sum(request.output_tokens for request in trace.requests) / count,
        repeat_share=_repeat_share(trace),
        sessions=len({request.session for request in trace.requests if request.session}),
    )


def _repeat_share(trace: Trace) -> float:
    seen: set[int] = set()
    repeated = total = 0
    for request in trace.requests:
        total += -(-request.input_tokens // trace.block_tokens)
        repeated += sum(block in seen for block in request.blocks)
        seen.update(request.blocks)
    return repeated / total


def _span_s(requests: Sequence[TraceRequest]) -> float:
    return requests[-1].arrival_s - requests[0].arrival_s if requests else 0.0
