"""Small fleets and workloads for tests of the simulator."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from headrace.core.dispatcher import Dispatcher
from headrace.core.events import Effect, Event
from headrace.core.latency import LatencyProfile
from headrace.engine_model import EngineSpec
from headrace.simulator import driver
from headrace.simulator.driver import Simulation
from headrace.simulator.engines import engine_specs
from headrace.simulator.results import Results
from headrace.simulator.settings import SimulationSettings
from headrace.traffic.trace import Trace, TraceRequest

PROFILE = LatencyProfile(
    name="test",
    source="a test",
    per_step_s=0.01,
    per_prefill_token_s=1e-4,
    per_attended_token_s=1e-9,
    per_sequence_s=1e-4,
    per_kv_token_s=1e-7,
)
ENGINE = EngineSpec(PROFILE, kv_capacity_tokens=64_000)
BLOCK_TOKENS = 512


def settings(**changes: Any) -> SimulationSettings:
    given: dict[str, Any] = {"engine": ENGINE, "replicas": 3, **changes}
    return SimulationSettings(**given)


def requests(*times_s: float, tokens: int = 1000, output: int = 11) -> list[TraceRequest]:
    return [TraceRequest(at_s, tokens, output) for at_s in times_s]


def trace(count: int = 120, *, seed: int = 1) -> Trace:
    """Conversations over a few seconds: prompts that share prefixes and grow."""
    rng = random.Random(seed)
    made: list[TraceRequest] = []
    talks: list[tuple[int, ...]] = [(head,) for head in range(8)]
    at_s, fresh = 0.0, 1000
    for _ in range(count):
        at_s += rng.expovariate(8.0)
        place = rng.randrange(len(talks))
        more = rng.randrange(1, 5)
        talks[place] += tuple(range(fresh, fresh + more))
        fresh += more
        blocks = talks[place][:20]
        tokens = len(blocks) * BLOCK_TOKENS + rng.randrange(1, BLOCK_TOKENS)
        made.append(TraceRequest(at_s, tokens, rng.randrange(1, 200), blocks))
    return Trace("made", BLOCK_TOKENS, made)


def play(
    arriving: Sequence[TraceRequest], policy: str = "seconds", **changes: Any
) -> tuple[Results, Simulation]:
    chosen = settings(**changes)
    simulation = Simulation(chosen, policy, engine_specs(chosen), arriving, BLOCK_TOKENS)
    return simulation.run(), simulation


class Listener:
    """Notes what a dispatcher hears; `answers` may stand in for what it would say."""

    def __init__(
        self,
        heard: list[tuple[Event, float]],
        answers: Callable[[Event], list[Effect] | None],
        *arguments: Any,
        **keywords: Any,
    ) -> None:
        self._heard = heard
        self._answers = answers
        self._core = Dispatcher(*arguments, **keywords)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._core, name)

    def handle(self, event: Event, now: float) -> list[Effect]:
        self._heard.append((event, now))
        answer = self._answers(event)
        return self._core.handle(event, now) if answer is None else answer


def listen(
    monkeypatch: Any, answers: Callable[[Event], list[Effect] | None] = lambda _event: None
) -> list[tuple[Event, float]]:
    """Let the simulator's core note its events; returns the notes."""
    heard: list[tuple[Event, float]] = []
    monkeypatch.setattr(driver, "Dispatcher", partial(Listener, heard, answers))
    return heard
