"""What is learned of how many sequences an engine runs side by side is true, or it is nothing."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace

from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.core.events import Event, ReplicaChanged, Scraped
from headrace.core.latency import LatencyProfile
from headrace.engine_model import EngineSpec
from headrace.simulator.driver import POOL, Simulation
from headrace.simulator.settings import SimulationSettings
from headrace.traffic.trace import TraceRequest
from tests.unit.core.driver import Driver

RUNS = 20
SECONDS = 60.0
MOST_PER_S = 60.0


@dataclass(frozen=True, slots=True)
class Scrape:
    """One scrape, and what happened at the replica before it."""

    running: int
    waiting: int
    kv_usage_ratio: float
    output_tokens_total: int
    restarts: bool
    turns: int


SCRAPES = st.lists(
    st.builds(
        Scrape,
        running=st.sampled_from([3, 4, 4, 4, 4, 5]),
        waiting=st.sampled_from([0, 3, 3, 3]),
        kv_usage_ratio=st.sampled_from([0.2, 0.2, 0.2, 0.95]),
        output_tokens_total=st.sampled_from([50, 50, 50, 50, 10]),
        restarts=st.sampled_from([False] * 9 + [True]),
        turns=st.sampled_from([0, 1, 1]),
    ),
    max_size=60,
)


@given(scrapes=SCRAPES)
@settings(deadline=None, max_examples=150)
def test_it_never_is_below_what_was_seen_running_since_the_engine_started(scrapes: list[Scrape]):
    driver = Driver()
    driver.add("a")
    attempts = [driver.dispatched().attempt for _ in range(9)]
    for attempt in attempts[:6]:
        driver.first_token(attempt)
    most, counted = 0, 0
    for scrape in scrapes:
        if scrape.restarts:
            driver.add("a", ready=False)
            driver.add("a")
            most, counted = 0, 0
        if scrape.output_tokens_total < counted:
            most = 0
        counted = scrape.output_tokens_total
        for _ in range(scrape.turns):
            driver.complete(attempts.pop(0))
            driver.first_token(attempts[5])
            attempts.append(driver.dispatched().attempt)
        driver.scrape(
            "a",
            running=float(scrape.running),
            waiting_for_room=float(scrape.waiting),
            kv_usage_ratio=scrape.kv_usage_ratio,
            kv_capacity_tokens=1e6,
            output_tokens_total=float(scrape.output_tokens_total),
        )
        most = max(most, scrape.running)
        known = driver.replica("a").max_sequences
        assert known is None or known == most


class Engine:
    """A random engine, and traffic that is about what it can do."""

    def __init__(self, seed: int) -> None:
        rng = random.Random(seed)
        self.limit = rng.choice([2, 4, 16, 64, 256, 1024])
        token_s, sequence_s = rng.choice([2e-5, 1e-4, 1e-3]), rng.choice([0.0, 2e-5, 1e-3])
        step_s = rng.choice([0.008, 0.032])
        self.prompt, self.answer = rng.choice([20, 200, 2000, 8000]), rng.choice([1, 10, 50, 800])
        self.spread = rng.choice([0.0, 0.0, 0.3, 1.0])
        kv_tokens = rng.choice([10, 40, 4000]) * (self.prompt + self.answer)
        self.spec = EngineSpec(
            LatencyProfile("random", "random", step_s, token_s, 1e-9, sequence_s, 3e-8),
            kv_tokens,
            max_sequences=self.limit,
            max_batched_tokens=max(self.limit, rng.choice([64, 256, 512, 2048, 8192])),
        )
        batch = min(self.limit, kv_tokens / (self.prompt + self.answer))
        own_s = max(self.prompt * token_s, self.answer * (step_s / batch + sequence_s))
        self.per_s = min(rng.choice([0.8, 1.2, 2.0]) / own_s, MOST_PER_S)
        self.lag_s = rng.choice([0.0, 1.0])
        self._rng = rng

    def requests(self) -> Iterator[TraceRequest]:
        at_s = 0.0
        sigma = math.sqrt(math.log(1 + self.spread**2))
        while (at_s := at_s + self._rng.expovariate(self.per_s)) < SECONDS:
            prompt, answer = (
                max(1, round(mean * math.exp(sigma * self._rng.gauss(0, 1) - sigma**2 / 2)))
                for mean in (self.prompt, self.answer)
            )
            most = self.spec.kv_capacity_tokens // 4
            yield TraceRequest(at_s, min(prompt, most), min(answer, most))


def learned_of(engine: Engine) -> set[float]:
    """All limits that were believed in the course of a run."""
    settings = SimulationSettings(
        engine=engine.spec, replicas=1, scrape_lag_s=engine.lag_s, drain_limit_s=30.0
    )
    believed = set[float]()

    class Watched(Simulation):
        def _tell(self, event: Event) -> None:
            super()._tell(event)
            if isinstance(event, Scraped):
                known = self._core.fleet.replicas[event.replica].max_sequences
                believed.update(() if known is None else (known,))

    Watched(settings, "round_robin", [engine.spec], engine.requests(), 512).run()
    return believed


def test_of_modelled_engines_the_limit_is_learned_or_nothing():
    """Whatever makes requests wait there: the limit, a full KV cache, the tokens of a step."""
    learned = 0
    for seed in range(RUNS):
        engine = Engine(seed)
        believed = learned_of(engine)
        assert believed <= {engine.limit}, seed
        learned += bool(believed)
    assert learned >= RUNS // 5


SMALL = EngineSpec(
    LatencyProfile("plain", "plain", 0.02, 2e-5, 1e-9, 2e-5, 3e-8),
    400_000,
    max_sequences=8,
    max_batched_tokens=2048,
)
LARGE = replace(SMALL, max_sequences=16)
LATE, COMES_S = "replica-2", 150.0


class Joined(Simulation):
    """Two small engines that are busy; a large one comes while hardly anybody asks, so that it is
    not flooded before anything is known of it. Then it is as busy as before.
    """

    def __init__(self) -> None:
        self.seen = dict[str, tuple[float, float | None]]()
        """By replica: the most that ran there, and what was known of its limit last."""
        settings = SimulationSettings(engine=SMALL, replicas=3, drain_limit_s=60.0)
        super().__init__(settings, "seconds", [SMALL, SMALL, LARGE], self._asked(), 512)

    def _asked(self) -> Iterator[TraceRequest]:
        rng, at_s = random.Random(0), 0.0
        for until_s, per_s in ((120.0, 1.9), (200.0, 0.6), (300.0, 3.1)):
            while (at_s := at_s + rng.expovariate(per_s)) < until_s:
                yield TraceRequest(at_s, 200, rng.randrange(200, 600))

    def _begin(self, policy: str) -> None:
        super()._begin(policy)
        there = ReplicaChanged(LATE, POOL, f"http://{LATE}", ready=True)
        self._at(COMES_S, lambda: self._tell(there))

    def _tell(self, event: Event) -> None:
        if isinstance(event, ReplicaChanged) and event.replica == LATE and self.now < COMES_S:
            event = replace(event, ready=False)
        super()._tell(event)
        if isinstance(event, Scraped) and self.now:
            most, _ = self.seen.get(event.replica, (0.0, None))
            known = self._core.fleet.replicas[event.replica].max_sequences
            self.seen[event.replica] = (max(most, event.report.running or 0.0), known)


def test_a_larger_engine_that_comes_when_the_others_have_shown_their_limit_is_filled():
    pool = Joined()
    pool.run()
    assert pool.seen["replica-0"] == (SMALL.max_sequences, SMALL.max_sequences)
    most, _ = pool.seen[LATE]
    assert most > SMALL.max_sequences + 1
