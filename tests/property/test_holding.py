"""Whatever happens in whatever order, nothing that arrived is lost while requests are held."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from headrace.core.admission import AdmissionSettings, Tier
from headrace.core.events import ConfigChanged, Dispatch, Effect, Left, Reject, WakeAt
from headrace.core.model import Outcome, Replica
from headrace.core.settings import DispatcherSettings
from headrace.core.specs import Alias, PoolSpec, Target
from headrace.core.waiting import LOOK_S
from tests.unit.core.driver import PROFILE, Driver

NAMES = ["a", "b", "c"]
POOL_OF = {"a": "pool", "b": "spare", "c": "spare"}
ALIASES = (Alias("chat", (Target("model"),), fallbacks=("spare",)),)
TIERS = (
    Tier(ttl_s=20.0, shed_after_factor=10.0),
    Tier("gold", ttft_s=0.5, priority=5, shed_after_factor=5.0, ttl_s=5.0),
    Tier("batch", ttft_s=60.0, priority=-5, shed_after_factor=0.0, ttl_s=60.0),
)
MAX_HELD = 8
STATUSES = st.sampled_from([None, None, 503, 503, 500, 401])
ENDS = [outcome for outcome in Outcome if outcome is not Outcome.COMPLETED]


class NothingIsLost(RuleBasedStateMachine):
    """Keeps where each request is: `waiting`, `live` (by attempt), or over.

    Wakes are delivered when they are due, as a driver must.
    """

    @initialize()
    def begin(self) -> None:
        admission = AdmissionSettings(max_held=MAX_HELD, starved_after_s=3.0)
        self.settings = DispatcherSettings(tiers=TIERS, admission=admission)
        self.driver = Driver(*self.pools("seconds"), aliases=ALIASES, settings=self.settings)
        self.waiting: set[str] = set()
        self.live: dict[int, tuple[str, Replica]] = {}
        self.fate: dict[str, str] = {}
        self.wakes: list[float] = []
        self.arrived = 0
        for name in NAMES:
            self.take(self.driver.add(name, pool=POOL_OF[name]))
            self.driver.scrape(name, max_sequences=4.0)

    def pools(self, policy: str) -> tuple[PoolSpec, ...]:
        return (
            PoolSpec("pool", "model", policy=policy, profile=PROFILE),
            PoolSpec("spare", "spare", policy=policy, profile=PROFILE),
        )

    def take(self, effects: list[Effect]) -> None:
        """Nobody is told anything twice, and only who was in the house is told anything."""
        for effect in effects:
            if isinstance(effect, WakeAt):
                self.wakes.append(effect.at_s)
            elif isinstance(effect, Dispatch):
                assert effect.request_id not in self.fate
                assert effect.request_id not in [id_ for id_, _ in self.live.values()]
                self.waiting.discard(effect.request_id)
                replica = self.driver.replica(effect.replica)
                self.live[effect.attempt] = (effect.request_id, replica)
            elif isinstance(effect, Reject):
                assert effect.request_id not in self.fate
                assert effect.request_id not in [id_ for id_, _ in self.live.values()]
                self.waiting.discard(effect.request_id)
                self.fate[effect.request_id] = "rejected"

    def some(self, which: int) -> int:
        return list(self.live)[which % len(self.live)]

    @rule(
        model=st.sampled_from(["model", "chat", "spare"]),
        tier=st.sampled_from(["", "gold", "batch", "unknown"]),
        prompt_tokens=st.sampled_from([10, 20_000, 60_000]),
        replica=st.sampled_from(["", "", "", "a"]),
        streamed=st.booleans(),
    )
    def arrive(
        self, model: str, tier: str, prompt_tokens: int, replica: str, streamed: bool
    ) -> None:
        self.arrived += 1
        name = f"r{self.arrived}"
        effects = self.driver.arrive(
            model,
            id=name,
            tier=tier,
            prompt_tokens=prompt_tokens,
            replica=replica,
            streamed=streamed,
        )
        self.waiting.add(name)
        self.take(effects)

    @precondition(lambda self: self.live)
    @rule(which=st.integers(0, 9))
    def first_token(self, which: int) -> None:
        self.take(self.driver.first_token(self.some(which)))

    @precondition(lambda self: self.live)
    @rule(which=st.integers(0, 9))
    def complete(self, which: int) -> None:
        attempt = self.some(which)
        self.fate[self.live.pop(attempt)[0]] = "completed"
        self.take(self.driver.complete(attempt))

    @precondition(lambda self: self.live)
    @rule(which=st.integers(0, 9), outcome=st.sampled_from(ENDS), status=STATUSES)
    def fail(self, which: int, outcome: Outcome, status: int | None) -> None:
        attempt = self.some(which)
        request_id, _ = self.live.pop(attempt)
        self.take(self.driver.fail(attempt, outcome, status))
        if request_id not in [id_ for id_, _ in self.live.values()]:
            self.fate.setdefault(request_id, "failed")

    @precondition(lambda self: self.waiting)
    @rule(which=st.integers(0, 9))
    def left(self, which: int) -> None:
        name = sorted(self.waiting)[which % len(self.waiting)]
        self.waiting.remove(name)
        self.fate[name] = "left"
        self.take(self.driver.send(Left(name)))

    @rule(seconds=st.sampled_from([0.01, 0.3, 1.0, 4.0]))
    def wait(self, seconds: float) -> None:
        end_s = self.driver.now + seconds
        while self.wakes and min(self.wakes) <= end_s:
            self.driver.now = max(self.driver.now, min(self.wakes))
            self.wakes.remove(min(self.wakes))
            self.take(self.driver.wake())
        self.driver.now = end_s

    @rule(name=st.sampled_from(NAMES), ready=st.booleans(), moved=st.booleans())
    def change(self, name: str, ready: bool, moved: bool) -> None:
        url = f"http://elsewhere-{name}" if moved else ""
        self.take(self.driver.add(name, pool=POOL_OF[name], ready=ready, url=url))

    @rule(name=st.sampled_from(NAMES))
    def leave(self, name: str) -> None:
        self.take(self.driver.gone(name))

    @rule(name=st.sampled_from(NAMES), healthy=st.booleans())
    def probe(self, name: str, healthy: bool) -> None:
        self.take(self.driver.probed(name, healthy))

    @rule(
        policy=st.sampled_from(["seconds", "seconds", "round_robin"]),
        spared=st.booleans(),
        tiers=st.sampled_from([TIERS, TIERS[:1]]),
    )
    def configure(self, policy: str, spared: bool, tiers: tuple[Tier, ...]) -> None:
        pools = self.pools(policy)[: 2 if spared else 1]
        changed = DispatcherSettings(tiers=tiers, admission=self.settings.admission)
        self.take(self.driver.send(ConfigChanged(pools, ALIASES, changed)))

    @invariant()
    def each_is_in_one_place_and_counted_there(self) -> None:
        if not hasattr(self, "driver"):
            return
        held = self.driver.dispatcher.held
        assert sum(held.values()) == len(self.waiting) <= MAX_HELD
        assert 0 not in held.values()
        assert len(self.waiting) + len(self.live) + len(self.fate) == self.arrived
        if self.waiting:
            assert min(self.wakes) <= self.driver.now + LOOK_S
        for name in {replica.name for _, replica in self.live.values()}:
            here = [replica for _, replica in self.live.values() if replica.name == name]
            for replica in here:
                assert replica.in_flight == sum(other is replica for other in here)

    def teardown(self) -> None:
        """Everybody is out at last, and nothing is left of them."""
        if not hasattr(self, "driver"):
            return
        seen = [replica for _, replica in self.live.values()]
        for _ in range(100):
            if not self.waiting and not self.live:
                break
            while self.live:
                self.complete(0)
            self.wait(1.0)
        assert not self.waiting
        assert self.driver.dispatcher.held == {}
        assert self.driver.dispatcher._waiting._queues == {}
        assert self.driver.dispatcher._waiting._model_of == {}
        assert self.driver.dispatcher._attempts == {}
        for replica in (*seen, *self.driver.dispatcher.fleet.replicas.values()):
            sums = (replica.in_flight, replica.prefilling, replica.decoding, replica.context_tokens)
            assert not any(sums), replica.name


TestHolding = NothingIsLost.TestCase
TestHolding.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
