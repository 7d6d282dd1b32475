"""A few replicas in a given state, and one request in front of a policy."""

from __future__ import annotations

from dataclasses import dataclass, field

from headrace.core.candidates import RANK, Ask, Candidate, Policy
from headrace.core.cost_term import CostTerm
from headrace.core.latency import LatencyProfile
from headrace.core.model import EngineReport, Replica
from headrace.core.policies import make_policy
from headrace.core.reasons import reason_for
from headrace.core.specs import PoolSpec
from tests.unit.core.driver import Driver


@dataclass
class State:
    """What is known of one replica; `hit` blocks of the prompt are cached there."""

    in_flight: int = 0
    backlog: int = 0
    context: int = 0
    hit: int = 0
    report: EngineReport = field(default_factory=EngineReport)
    scraped_s: float | None = None


class Bench:
    """Replicas by name, `r00` onwards if none is given."""

    def __init__(
        self, policy: str, profile: LatencyProfile | None = None, /, **states: State
    ) -> None:
        self.policy: Policy = make_policy(policy)
        driver = Driver(PoolSpec("pool", "model", profile=profile))
        driver.add(*states)
        self.replicas: list[Replica] = list(driver.dispatcher.fleet.replicas.values())
        self.states = states
        for replica in self.replicas:
            state = states[replica.name]
            replica.in_flight = replica.sequences = state.in_flight
            replica.context_tokens = replica.attended_tokens = state.context
            replica.backlog_tokens = state.backlog
            replica.prefilling = int(state.backlog > 0)
            replica.report, replica.scraped_s = state.report, state.scraped_s

    def ask(self, prompt_tokens: int, block_tokens: int = 64) -> Ask:
        """A prompt of which `State.hit` blocks of this size are cached."""
        marks = tuple(range(1, prompt_tokens // block_tokens + 1))
        ask = Ask(prompt_tokens, float(block_tokens), 100.0, marks)
        ask.fine_blocks = 1000
        by_depth: dict[int, int] = {}
        for replica in self.replicas:
            if hit := self.states[replica.name].hit:
                by_depth[hit] = by_depth.get(hit, 0) | 1 << replica.index
        ask.hits = sorted(by_depth.items(), reverse=True)
        return ask

    def price(self, prompt_tokens: int, block_tokens: int = 64) -> list[Candidate]:
        """Every candidate that was priced, the pick first."""
        rows = self.policy.price(self.ask(prompt_tokens, block_tokens), self.replicas, 0.0)
        candidates = sorted(rows, key=RANK)
        for each in candidates:
            terms = self.policy.terms(each)
            total = sum(term.value for term in terms)
            assert abs(total - each.cost) <= 1e-6 * max(1.0, abs(each.cost)), terms
            assert len({term.unit for term in terms}) == 1
        return candidates

    def costs(self, prompt_tokens: int, block_tokens: int = 64) -> dict[str, float]:
        """What each replica costs."""
        return {each.replica: each.cost for each in self.price(prompt_tokens, block_tokens)}

    def pick(self, prompt_tokens: int, block_tokens: int = 64) -> str:
        """Who gets the request; the policy is told."""
        name = self.price(prompt_tokens, block_tokens)[0].replica
        self.policy.chosen(name)
        return name

    def reason(self, prompt_tokens: int, block_tokens: int = 64) -> str:
        """The pick in words."""
        return reason_for(self.price(prompt_tokens, block_tokens), self.policy.terms)

    def terms(self, name: str, prompt_tokens: int, block_tokens: int = 64) -> dict[str, CostTerm]:
        """A replica's terms by name."""
        found = next(e for e in self.price(prompt_tokens, block_tokens) if e.replica == name)
        return {term.name: term for term in self.policy.terms(found)}


def scraped(queue: float | None = None, kv: float | None = None, **more: float) -> EngineReport:
    return EngineReport(queue_depth=queue, kv_usage_ratio=kv, **more)
