"""The traffic of the routing grid: published traces and generated traffic, at any speed.

A published trace is sped up by dividing its arrival times. Generated traffic is made anew at a
higher rate of sessions, one request per second and replica at speed 1; pauses within a session stay
what they are. Seeds play different parts of a published trace where it is long enough.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from headrace.traffic.agentic import Agentic, agentic
from headrace.traffic.code_completion import CodeCompletion, code_completion
from headrace.traffic.generated import taken
from headrace.traffic.lengths import LognormalSeconds, LognormalTokens
from headrace.traffic.multi_turn import MultiTurn, multi_turn
from headrace.traffic.reader import read_trace
from headrace.traffic.shape import part, sped_up
from headrace.traffic.single_shots import SingleShots, single_shots
from headrace.traffic.trace import Trace, TraceRequest

TRACES = Path(__file__).parents[2] / "shared" / "traces"
SEEDS = 3
"""How many parts a published trace is divided into, as far as it goes."""


@dataclass(frozen=True, slots=True)
class Workload:
    """One kind of traffic, for a small fleet, one of 8 replicas and a large one."""

    name: str
    about: str
    fleets: tuple[int, int, int]
    requests: tuple[int, int, int]
    """How many a run plays, in each fleet: a few minutes near capacity where they are heavy."""
    has_reuse: bool = True
    file: str = ""

    def count(self, replicas: int, scale: float) -> int:
        """How many requests a run of so many replicas plays."""
        small, middle, large = self.requests
        full = small if replicas < 8 else middle if replicas == 8 else large
        return max(200, round(full * scale))


WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload(
            "conversation",
            "Mooncake's conversation trace",
            fleets=(4, 8, 32),
            requests=(2000, 4000, 8000),
            file="mooncake_conversation.jsonl",
        ),
        Workload(
            "azure",
            "Azure's conversation trace of 2023; no prefixes known",
            fleets=(2, 8, 16),
            requests=(2000, 5000, 10_000),
            has_reuse=False,
            file="azure2023_conv.csv",
        ),
        Workload(
            "multi_turn",
            "generated conversations with long messages, 64 % of the input reusable",
            fleets=(2, 8, 32),
            requests=(1500, 5000, 10_000),
        ),
        Workload(
            "agentic",
            "generated agents' sessions behind contexts of 100k tokens, 2.5 contexts a replica",
            fleets=(2, 8, 32),
            requests=(1000, 2500, 5000),
        ),
        Workload(
            "single_shots",
            "generated single requests without reuse",
            fleets=(2, 8, 32),
            requests=(2000, 6000, 12_000),
            has_reuse=False,
        ),
        Workload(
            "code_completion",
            "generated completions in bursts, 80 developers a replica",
            fleets=(2, 8, 32),
            requests=(2000, 6000, 12_000),
        ),
    )
}


@lru_cache(maxsize=3)
def traffic(name: str, replicas: int, speed: float, seed: int, scale: float) -> Trace:
    """What arrives at a fleet of so many replicas."""
    workload = WORKLOADS[name]
    count = workload.count(replicas, scale)
    if workload.file:
        trace = _published(workload.file, seed)
        spare = max(0, len(trace.requests) - count)
        first = min(spare, seed % SEEDS * max(count, spare // (SEEDS - 1)))
        return sped_up(part(trace, first, count), speed)
    block_tokens, stream = GENERATORS[name](replicas, speed * replicas, seed)
    return taken(name, block_tokens, stream, count)


@lru_cache(maxsize=2)
def _published(file: str, seed: int) -> Trace:
    with (TRACES / file).open(encoding="utf-8") as lines:
        return read_trace(file, lines, seed=seed)


Stream = tuple[int, Iterator[TraceRequest]]


def _multi_turn(_: int, requests_per_s: float, seed: int) -> Stream:
    """Long messages, as in Mooncake's chats, so that conversations fill the caches."""
    shape = MultiTurn(
        system_tokens=LognormalTokens(2000, 0.4),
        message_tokens=LognormalTokens(3000, 1.5, most=60_000),
        pause=LognormalSeconds(10, 1.0),
    )
    return shape.block_tokens, multi_turn(shape, requests_per_s=requests_per_s, seed=seed)


def _agentic(replicas: int, requests_per_s: float, seed: int) -> Stream:
    """More contexts than a replica holds, about 60 % of what the fleet holds."""
    shape = Agentic(projects=max(2, 5 * replicas // 2))
    return shape.block_tokens, agentic(shape, requests_per_s=requests_per_s, seed=seed)


def _single_shots(_: int, requests_per_s: float, seed: int) -> Stream:
    shape = SingleShots()
    return shape.block_tokens, single_shots(shape, requests_per_s=requests_per_s, seed=seed)


def _code_completion(replicas: int, requests_per_s: float, seed: int) -> Stream:
    shape = CodeCompletion(developers=80 * replicas)
    return shape.block_tokens, code_completion(shape, requests_per_s=requests_per_s, seed=seed)


GENERATORS: dict[str, Callable[[int, float, int], Stream]] = {
    "multi_turn": _multi_turn,
    "agentic": _agentic,
    "single_shots": _single_shots,
    "code_completion": _code_completion,
}
