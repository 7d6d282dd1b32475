"""A dispatcher with a clock of its own, and short words for what happens to it."""

from __future__ import annotations

import random
from math import inf
from typing import Any, TypeVar

from headrace.core.admission import AdmissionSettings
from headrace.core.dispatcher import Dispatcher
from headrace.core.events import (
    Arrived,
    ConfigChanged,
    Dispatch,
    Effect,
    Ended,
    Event,
    FirstToken,
    Probed,
    Progress,
    Reject,
    ReplicaChanged,
    ReplicaGone,
    Scraped,
    Wake,
)
from headrace.core.latency import LatencyProfile
from headrace.core.model import Endpoint, EngineReport, Outcome, Replica, Request, Usage
from headrace.core.settings import DispatcherSettings
from headrace.core.specs import Alias, PoolSpec

PROFILE = LatencyProfile(
    name="test-8b",
    source="profile test-8b",
    per_step_s=0.006,
    per_prefill_token_s=2e-5,
    per_attended_token_s=1e-9,
    per_sequence_s=2e-5,
    per_kv_token_s=3e-8,
)
POOL = PoolSpec("pool", "model", profile=PROFILE)
AT_ONCE = DispatcherSettings(admission=AdmissionSettings(hold_above_s=inf))
"""Nothing is held: each arrival is dispatched or refused at once."""


def chain(*parts: str, blocks_each: int = 8) -> tuple[int, ...]:
    """A prompt's chain: equal leading parts give equal leading blocks."""
    digest, blocks = 17, list[int]()
    for part in parts:
        for position in range(blocks_each):
            seed = int.from_bytes(part.encode()) * 1009 + position
            digest = (digest * 6364136223846793005 + seed * 2654435761 + 1) & (2**64 - 1)
            blocks.append(digest)
    return tuple(blocks)


class Driver:
    """Sends events at `now`, which only `wait` moves."""

    def __init__(
        self,
        *pools: PoolSpec,
        aliases: tuple[Alias, ...] = (),
        settings: DispatcherSettings | None = None,
        seed: int = 1,
    ) -> None:
        self.now = 100.0
        self.dispatcher = Dispatcher(settings or AT_ONCE, random.Random(seed))
        self._requests = 0
        self.send(ConfigChanged(pools or (POOL,), aliases))

    def send(self, event: Event) -> list[Effect]:
        return self.dispatcher.handle(event, self.now)

    def wait(self, seconds: float) -> None:
        self.now += seconds

    def replica(self, name: str) -> Replica:
        return self.dispatcher.fleet.replicas[name]

    def add(
        self,
        *names: str,
        pool: str = "pool",
        ready: bool = True,
        url: str = "",
        adapters: tuple[str, ...] = (),
        max_context_tokens: int | None = None,
        draining: bool = False,
    ) -> list[Effect]:
        effects = list[Effect]()
        for name in names:
            address = url or f"http://{name}"
            held = frozenset(adapters)
            effects += self.send(
                ReplicaChanged(name, pool, address, ready, held, max_context_tokens, draining)
            )
        return effects

    def gone(self, name: str) -> list[Effect]:
        return self.send(ReplicaGone(name))

    def scrape(self, name: str, **report: float) -> None:
        self.send(Scraped(name, EngineReport(**report)))

    def arrive(
        self, model: str = "model", *, streamed: bool = True, **details: Any
    ) -> list[Effect]:
        self._requests += 1
        facts: dict[str, Any] = {
            "id": f"request-{self._requests}",
            "endpoint": Endpoint.CHAT,
            "text_bytes": 4000,
        }
        return self.send(Arrived(Request(model=model, streamed=streamed, **(facts | details))))

    def dispatched(self, model: str = "model", **details: Any) -> Dispatch:
        return only(self.arrive(model, **details), Dispatch)

    def rejected(self, model: str = "model", **details: Any) -> Reject:
        return only(self.arrive(model, **details), Reject)

    def first_token(self, attempt: int) -> list[Effect]:
        return self.send(FirstToken(attempt))

    def progress(self, attempt: int, output_tokens: int) -> None:
        self.send(Progress(attempt, output_tokens))

    def complete(
        self, attempt: int, input_tokens: int = 1000, output_tokens: int = 100, cached: int = 0
    ) -> list[Effect]:
        usage = Usage(input_tokens, output_tokens, cached)
        return self.send(Ended(attempt, Outcome.COMPLETED, usage, output_tokens, 200))

    def fail(
        self,
        attempt: int,
        outcome: Outcome = Outcome.UNAVAILABLE,
        status: int | None = None,
        detail: str = "connection refused",
        *,
        reached: bool = True,
    ) -> list[Effect]:
        ended = Ended(attempt, outcome, status=status, detail=detail, reached=reached)
        return self.send(ended)

    def probed(self, name: str, healthy: bool) -> list[Effect]:
        return self.send(Probed(name, healthy))

    def wake(self) -> list[Effect]:
        return self.send(Wake())

    def serve(self, *, prefill_s: float = 0.05, decode_s: float = 1.0, **details: Any) -> str:
        """One request from its arrival to its end; the name of the replica that served it."""
        dispatch = self.dispatched(**details)
        self.wait(prefill_s)
        self.first_token(dispatch.attempt)
        self.wait(decode_s)
        self.complete(dispatch.attempt, input_tokens=details.get("text_bytes", 4000) // 4)
        return dispatch.replica


E = TypeVar("E")


def only(effects: list[Effect], kind: type[E]) -> E:
    """The one effect of this kind."""
    found = [effect for effect in effects if isinstance(effect, kind)]
    assert len(found) == 1, effects
    return found[0]
