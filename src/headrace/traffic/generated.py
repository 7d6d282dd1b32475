"""Generated traffic: kinds by name in default shapes, cut to a number of requests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice

from headrace.traffic.agentic import Agentic, agentic
from headrace.traffic.code_completion import CodeCompletion, code_completion
from headrace.traffic.multi_turn import MultiTurn, multi_turn
from headrace.traffic.shared_system_prompts import SharedSystemPrompts, shared_system_prompts
from headrace.traffic.single_shots import SingleShots, single_shots
from headrace.traffic.trace import Trace, TraceRequest

MOST_PER_S = 100_000.0
"""Requests per second that are made at most. Kinds with sessions first make those that began before
the start, so many milliseconds of work for each request per second: minutes here."""


def taken(name: str, block_tokens: int, stream: Iterator[TraceRequest], requests: int) -> Trace:
    """The first `requests` requests of a stream as a trace.

    Raises:
        ValueError: the number is not above 0.
    """
    if requests < 1:
        raise ValueError(f"requests {requests} is not above 0")
    return Trace(name, block_tokens, list(islice(stream, requests)))


def _agentic(requests_per_s: float, seed: int) -> Iterator[TraceRequest]:
    return agentic(Agentic(), requests_per_s=requests_per_s, seed=seed)


def _code_completion(requests_per_s: float, seed: int) -> Iterator[TraceRequest]:
    return code_completion(CodeCompletion(), requests_per_s=requests_per_s, seed=seed)


def _multi_turn(requests_per_s: float, seed: int) -> Iterator[TraceRequest]:
    return multi_turn(MultiTurn(), requests_per_s=requests_per_s, seed=seed)


def _shared_system_prompts(requests_per_s: float, seed: int) -> Iterator[TraceRequest]:
    return shared_system_prompts(SharedSystemPrompts(), requests_per_s=requests_per_s, seed=seed)


def _single_shots(requests_per_s: float, seed: int) -> Iterator[TraceRequest]:
    return single_shots(SingleShots(), requests_per_s=requests_per_s, seed=seed)


KINDS: dict[str, tuple[int, Callable[[float, int], Iterator[TraceRequest]]]] = {
    "agentic": (Agentic().block_tokens, _agentic),
    "code_completion": (CodeCompletion().block_tokens, _code_completion),
    "multi_turn": (MultiTurn().block_tokens, _multi_turn),
    "shared_system_prompts": (SharedSystemPrompts().block_tokens, _shared_system_prompts),
    "single_shots": (SingleShots().block_tokens, _single_shots),
}
"""Name → tokens of a block, and the stream of its default shape at a rate from a seed."""
