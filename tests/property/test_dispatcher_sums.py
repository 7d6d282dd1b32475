"""Whatever happens in whatever order, the sums of replicas are those of what is in flight."""

from __future__ import annotations

from dataclasses import dataclass, replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from headrace.core.events import ConfigChanged, Dispatch, Effect, Reject
from headrace.core.model import Endpoint, Outcome, Replica
from headrace.core.policies import POLICIES
from headrace.core.specs import PoolSpec
from tests.unit.core.driver import AT_ONCE, POOL, Driver, chain

NAMES = ["a", "b", "c"]
EXPIRY_S = 60.0
OUTCOMES = [outcome for outcome in Outcome if outcome is not Outcome.COMPLETED]


@dataclass
class Live:
    """What a naive bookkeeper keeps of an attempt."""

    replica: Replica
    prompt_tokens: int
    hit_tokens: int
    began_s: float
    streamed: bool
    decoding: bool = False
    output_tokens: int = 0


class SumsAgainstNaive(RuleBasedStateMachine):
    @initialize(profile=st.booleans())
    def begin(self, profile: bool) -> None:
        pool = POOL if profile else PoolSpec("pool", "model")
        settings = replace(AT_ONCE, attempt_expiry_s=EXPIRY_S, learn_from_streams=3)
        self.driver = Driver(pool, settings=settings)
        self.pool = pool
        self.live: dict[int, Live] = {}
        self.seen: list[Replica] = []
        self.driver.add(*NAMES)

    def take(self, effects: list[Effect], streamed: bool) -> None:
        """Write down what was dispatched, by what the explanation says of it."""
        for effect in effects:
            if isinstance(effect, Dispatch):
                explanation = self.driver.dispatcher.decisions.explain(effect.request_id)
                assert explanation is not None
                chosen = explanation.attempts[-1].candidates[0]
                replica = self.driver.replica(effect.replica)
                self.seen.append(replica)
                prompt = chosen.hit_tokens + chosen.uncached_tokens
                hit, now = chosen.hit_tokens, self.driver.now
                self.live[effect.attempt] = Live(replica, prompt, hit, now, streamed)

    def some(self, which: int) -> int | None:
        return list(self.live)[which % len(self.live)] if self.live else None

    @rule(
        parts=st.lists(st.sampled_from("xyz"), max_size=3),
        extra_bytes=st.integers(0, 5000),
        streamed=st.booleans(),
        embeddings=st.booleans(),
        prompts=st.sampled_from([1, 3]),
    )
    def arrive(
        self, parts: list[str], extra_bytes: int, streamed: bool, embeddings: bool, prompts: int
    ) -> None:
        blocks = chain(*parts)
        effects = self.driver.arrive(
            blocks=blocks,
            text_bytes=len(blocks) * 256 + extra_bytes,
            streamed=streamed and not embeddings,
            endpoint=Endpoint.EMBEDDINGS if embeddings else Endpoint.CHAT,
            sequences=prompts,
            prompts=prompts,
        )
        # Prefills of answers that are not streamed may have been taken for done by now.
        for attempt in list(self.live):
            live = self.live[attempt]
            if not live.streamed and not live.decoding:
                live.decoding = self.assumed_done(attempt)
        self.take(effects, streamed and not embeddings)
        assert any(isinstance(effect, Dispatch | Reject) for effect in effects)

    def assumed_done(self, attempt: int) -> bool:
        """Asks the dispatcher itself: when it assumes so is its own business."""
        return self.driver.dispatcher._attempts[attempt].first_token_s is not None

    @rule(which=st.integers(0, 9))
    def first_token(self, which: int) -> None:
        attempt = self.some(which)
        if attempt is not None:
            self.driver.first_token(attempt)
            self.live[attempt].decoding = True

    @rule(which=st.integers(0, 9), output_tokens=st.integers(0, 300))
    def progress(self, which: int, output_tokens: int) -> None:
        attempt = self.some(which)
        if attempt is not None:
            self.driver.progress(attempt, output_tokens)
            live = self.live[attempt]
            if live.decoding:
                live.output_tokens = max(live.output_tokens, output_tokens)

    @rule(which=st.integers(0, 9), output_tokens=st.integers(0, 300), cached=st.integers(0, 100))
    def complete(self, which: int, output_tokens: int, cached: int) -> None:
        attempt = self.some(which)
        if attempt is not None:
            live = self.live.pop(attempt)
            self.driver.complete(attempt, live.prompt_tokens + 3, output_tokens, cached)

    @rule(which=st.integers(0, 9), outcome=st.sampled_from(OUTCOMES), busy=st.booleans())
    def fail(self, which: int, outcome: Outcome, busy: bool) -> None:
        attempt = self.some(which)
        if attempt is not None:
            live = self.live.pop(attempt)
            effects = self.driver.fail(attempt, outcome, 503 if busy else None)
            self.take(effects, live.streamed)

    @rule(seconds=st.sampled_from([0.001, 0.1, 3.0, 40.0]))
    def wait(self, seconds: float) -> None:
        self.driver.wait(seconds)

    @rule()
    def wake(self) -> None:
        self.driver.wake()
        horizon = self.driver.now - EXPIRY_S
        self.live = {id_: live for id_, live in self.live.items() if live.began_s > horizon}

    @rule(name=st.sampled_from(NAMES), ready=st.booleans(), moved=st.booleans())
    def change(self, name: str, ready: bool, moved: bool) -> None:
        self.driver.add(name, ready=ready, url=f"http://elsewhere-{name}" if moved else "")

    @rule(name=st.sampled_from(NAMES))
    def leave(self, name: str) -> None:
        self.driver.gone(name)

    @rule(name=st.sampled_from(NAMES), capacity=st.sampled_from([500.0, 5000.0]))
    def scrape(self, name: str, capacity: float) -> None:
        self.driver.scrape(name, kv_capacity_tokens=capacity, max_sequences=4.0)

    @rule(name=st.sampled_from(NAMES), healthy=st.booleans())
    def probe(self, name: str, healthy: bool) -> None:
        self.driver.probed(name, healthy)

    @rule(policy=st.sampled_from(list(POLICIES)))
    def configure(self, policy: str) -> None:
        profile = self.pool.profile
        self.driver.send(
            ConfigChanged((PoolSpec("pool", "model", policy=policy, profile=profile),), ())
        )

    @invariant()
    def sums_are_those_of_what_is_in_flight(self) -> None:
        for replica in getattr(self, "seen", []):
            here = [live for live in self.live.values() if live.replica is replica]
            prefilling = [live for live in here if not live.decoding]
            decoding = [live for live in here if live.decoding]
            uncached = [live.prompt_tokens - live.hit_tokens for live in prefilling]
            assert replica.in_flight == len(here)
            assert replica.prefilling == len(prefilling)
            assert replica.decoding == len(decoding)
            assert replica.silent == sum(not live.streamed for live in here)
            assert 0 <= replica.late_prefilling <= replica.prefilling
            assert 0 <= replica.late_decoding <= replica.decoding
            assert replica.backlog_tokens == sum(uncached)
            assert replica.backlog_pairs == sum(
                tokens * (live.hit_tokens + tokens / 2)
                for tokens, live in zip(uncached, prefilling, strict=True)
            )
            assert replica.uncached_tokens == sum(
                live.prompt_tokens - live.hit_tokens for live in here
            )
            assert replica.decoding_context_tokens == sum(
                live.prompt_tokens + live.output_tokens for live in decoding
            )
            assert replica.context_tokens == sum(
                live.prompt_tokens + live.output_tokens for live in here
            )
            assert replica.backlog_s >= 0.0

    def teardown(self) -> None:
        """When everything has ended, nothing is left, in the sums or in the index."""
        for attempt in list(getattr(self, "live", [])):
            self.driver.fail(attempt, Outcome.ABORTED)
        for replica in getattr(self, "seen", []):
            sums = (
                replica.in_flight,
                replica.prefilling,
                replica.silent,
                replica.late_prefilling,
                replica.decoding,
                replica.late_decoding,
                replica.backlog_tokens,
                replica.backlog_pairs,
                replica.backlog_s,
                replica.uncached_tokens,
                replica.context_tokens,
                replica.decoding_context_tokens,
                replica.sequences,
                replica.attended_tokens,
                replica.decoding_sequences,
            )
            assert not any(sums), replica.name
        if hasattr(self, "driver"):
            assert self.driver.dispatcher._attempts == {}
            for name in NAMES:
                self.driver.gone(name)
            assert self.driver.dispatcher._index._holders == {}


TestDispatcherSums = SumsAgainstNaive.TestCase
TestDispatcherSums.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
