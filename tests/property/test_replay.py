"""A recorded log replays to the same effects and the same decisions, in any process."""

from __future__ import annotations

import random
from hashlib import sha256

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.core.dispatcher import Dispatcher
from headrace.core.events import (
    Arrived,
    ConfigChanged,
    Dispatch,
    Effect,
    Ended,
    Event,
    FirstToken,
    Probe,
    Probed,
    Progress,
    ReplicaChanged,
    ReplicaGone,
    Scraped,
    Wake,
)
from headrace.core.model import Endpoint, EngineReport, Outcome, Request, Usage
from headrace.core.settings import DispatcherSettings
from headrace.core.specs import Alias, PoolSpec, Target
from tests.hash_seeds import printed
from tests.unit.core.driver import PROFILE, chain

POOLS = (
    PoolSpec("fast", "model", profile=PROFILE),
    PoolSpec("plain", "model", policy="round_robin", profile=PROFILE),
    PoolSpec("young", "other"),
    PoolSpec("hashed", "third", policy="prefix_hash", profile=PROFILE),
    PoolSpec("paired", "fourth", policy="power_of_two"),
    PoolSpec("least", "fifth", policy="least_requests"),
    PoolSpec("scored", "sixth", policy="llmd_default", profile=PROFILE),
    PoolSpec("sampled", "seventh", policy="dynamo_kv:temperature=0.5", profile=PROFILE),
    PoolSpec("drained", "eighth", policy="smg_least_load"),
)
ALIASES = (Alias("chat", (Target("model", 0.7), Target("other", 0.3)), ("other",)),)
MODELS = ["chat", "model", "other", "third", "fourth", "fifth", "sixth", "seventh", "eighth"]
MODELS += ["lora", "unknown", ""]
Log = list[tuple[Event, float]]


class Live:
    """Runs a dispatcher as a gateway does: what it says happens, with chance in between."""

    def __init__(self, seed: int) -> None:
        self.log: Log = []
        self.effects: list[list[Effect]] = []
        self.rng = random.Random(seed)
        self.dispatcher = new_dispatcher()
        self.now = 0.0
        self.flying: list[int] = []

    def tell(self, event: Event) -> None:
        self.log.append((event, self.now))
        effects = self.dispatcher.handle(event, self.now)
        self.effects.append(effects)
        for effect in effects:
            if isinstance(effect, Dispatch):
                self.flying.append(effect.attempt)
            elif isinstance(effect, Probe):
                self.tell(Probed(effect.replica, self.rng.random() < 0.5))

    def run(self, steps: int) -> Live:
        self.tell(ConfigChanged(POOLS, ALIASES))
        for position in range(45):
            pool = POOLS[position % len(POOLS)].name
            adapters = (
                frozenset({"lora", "lorb", "lorc"}) if position % 7 == 0 else frozenset[str]()
            )
            self.tell(
                ReplicaChanged(f"r{position:02}", pool, f"http://r{position}", True, adapters)
            )
        for step in range(steps):
            self.now += self.rng.expovariate(50.0)
            self.step(step)
        return self

    def step(self, step: int) -> None:
        chance, rng = self.rng.random(), self.rng
        if chance < 0.35 or not self.flying:
            self.tell(Arrived(self.request(step)))
        elif chance < 0.55:
            self.tell(FirstToken(rng.choice(self.flying)))
        elif chance < 0.65:
            self.tell(Progress(rng.choice(self.flying), rng.randrange(100)))
        elif chance < 0.9:
            attempt = self.flying.pop(rng.randrange(len(self.flying)))
            self.tell(self.end(attempt))
        elif chance < 0.95:
            report = EngineReport(
                queue_depth=rng.choice([None, 0.0, 3.0]),
                kv_usage_ratio=rng.choice([None, 0.2, 0.9]),
                kv_capacity_tokens=20_000.0,
                max_sequences=rng.choice([None, 8.0]),
            )
            self.tell(Scraped(f"r{rng.randrange(45):02}", report))
        elif chance < 0.97:
            self.tell(Wake())
        else:
            self.change(f"r{rng.randrange(45):02}")

    def change(self, name: str) -> None:
        if self.rng.random() < 0.5:
            self.tell(ReplicaGone(name))
        pool = POOLS[int(name[1:]) % len(POOLS)].name
        self.tell(ReplicaChanged(name, pool, f"http://{name}", self.rng.random() < 0.8))

    def request(self, step: int) -> Request:
        rng = self.rng
        blocks = chain(*rng.choices("abcd", k=rng.randrange(1, 5)))
        return Request(
            id=f"request-{step}",
            model=rng.choice(MODELS),
            endpoint=rng.choice(list(Endpoint)),
            streamed=rng.random() < 0.8,
            text_bytes=len(blocks) * 256 + rng.randrange(256),
            blocks=blocks,
            max_output_tokens=rng.choice([None, 16]),
        )

    def end(self, attempt: int) -> Ended:
        outcome = self.rng.choice([Outcome.COMPLETED] * 6 + list(Outcome))
        if outcome is Outcome.COMPLETED:
            tokens = self.rng.randrange(200)
            usage = Usage(self.rng.randrange(50, 2000), tokens, self.rng.choice([0, 50]))
            return Ended(attempt, outcome, usage, tokens, 200)
        return Ended(attempt, outcome, status=self.rng.choice([None, 503]), detail="test")


def new_dispatcher() -> Dispatcher:
    return Dispatcher(DispatcherSettings(learn_from_streams=10), random.Random(42))


def explanations(dispatcher: Dispatcher, log: Log) -> list[object]:
    ids = [event.request.id for event, _ in log if isinstance(event, Arrived)]
    return [dispatcher.decisions.explain(request_id) for request_id in ids]


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_a_log_replays_to_the_same_effects_and_decisions(seed: int):
    live = Live(seed).run(400)
    again = new_dispatcher()
    assert [again.handle(event, now) for event, now in live.log] == live.effects
    assert explanations(again, live.log) == explanations(live.dispatcher, live.log)


def fingerprint(seed: int) -> str:
    live = Live(seed).run(2000)
    decisions = explanations(live.dispatcher, live.log)
    assert any(isinstance(effect, Dispatch) for effects in live.effects for effect in effects)
    return sha256(msgspec.json.encode([live.effects, decisions])).hexdigest()


@pytest.mark.parametrize("hash_seed", ["0", "1", "4242"])
def test_the_seed_of_string_hashes_changes_nothing(hash_seed: str):
    code = "from tests.property.test_replay import fingerprint; print(fingerprint(3))"
    assert printed("-c", code, hash_seed=hash_seed).decode().strip() == fingerprint(3)
