"""SMG's least_load: the shortest time to drain, with a barrier before a full KV cache.

    cost = (queued tokens + tokens sent since the scrape) / tokens_per_s + kv_weight * k / (1 - k)

`k` is the KV usage of the last scrape. Queued tokens are its waiting requests times mean_tokens;
what was sent since counts with its whole prompt. Who has not been scraped yet costs as much as the
best of those that were, plus requests in flight * mean_tokens / tokens_per_s; while nobody was,
that is the shortest queue.

Inputs: the last scrape's waiting requests and KV usage, own prompts since.

Source: model_gateway/src/policies/least_load.rs of SMG.

As there: the formula, its defaults, the credit between scrapes. Different here: the rate is always
`tokens_per_s`, since no engine's own rate is scraped; tokens waiting in the engine are never told,
as with engines that export only gauges there; no cap on the waiting queue, as is the default.

Parameters:
    kv_weight: seconds that a half full KV cache is worth.
    tokens_per_s: tokens that a replica drains per second.
    mean_tokens: tokens of a waiting request.
"""

from __future__ import annotations

from headrace.core.baselines import cheapest_candidates
from headrace.core.candidates import Ask, Candidate, Scope
from headrace.core.cost_term import CostTerm
from headrace.core.model import Replica

SWEEP = {"kv_weight": (0.05, 0.15, 0.5), "tokens_per_s": (2000.0, 8000.0, 32_000.0)}
FULLEST = 0.999
"""Usage beyond which the barrier stays as high as it is."""


class SmgLeastLoad:
    """Prices in seconds; remembers the tokens that it sent where since the last scrape."""

    scope = Scope.ALL
    holds = False

    def __init__(
        self, kv_weight: float = 0.15, tokens_per_s: float = 2000.0, mean_tokens: int = 1024
    ) -> None:
        if not tokens_per_s:
            raise ValueError("tokens_per_s is 0; give more than 0")
        self._kv_weight = kv_weight
        self._tokens_per_s = tokens_per_s
        self._mean_tokens = mean_tokens
        self._sent: dict[str, tuple[float, int]] = {}
        """By replica: the scrape and the tokens sent since."""
        self._asked: tuple[int, list[Replica]] = (0, [])
        """The prompt priced last, and for whom."""

    def price(self, ask: Ask, replicas: list[Replica], now: float) -> list[Candidate]:
        """Price every replica in seconds."""
        costs = [self._scraped_cost(replica) for replica in replicas]
        best = min((cost for cost in costs if cost is not None), default=0.0)
        queue_s = self._mean_tokens / self._tokens_per_s
        seconds = [
            best + replica.in_flight * queue_s if cost is None else cost
            for replica, cost in zip(replicas, costs, strict=True)
        ]
        self._asked = (ask.prompt_tokens, replicas)
        return cheapest_candidates(ask, replicas, seconds, now)

    def chosen(self, replica: str) -> None:
        """The prompt is on its way there."""
        tokens, replicas = self._asked
        scraped_s = next((each.scraped_s for each in replicas if each.name == replica), None)
        if scraped_s is not None:
            since_s, sent = self._sent.get(replica, (scraped_s, 0))
            self._sent[replica] = (scraped_s, tokens + (sent if since_s == scraped_s else 0))

    def left(self, replica: str) -> None:
        """What was sent there is gone."""
        self._sent.pop(replica, None)

    def terms(self, candidate: Candidate) -> tuple[CostTerm, ...]:
        """The seconds; their parts come from the scrape of that moment."""
        return (CostTerm("drain and KV pressure", candidate.cost, "s"),)

    def _scraped_cost(self, replica: Replica) -> float | None:
        """The cost by the last scrape; None without one that told anything."""
        report = replica.report
        queued, usage = report.queue_depth, report.kv_usage_ratio
        if replica.scraped_s is None or (queued is None and usage is None):
            return None
        since_s, sent = self._sent.get(replica.name, (replica.scraped_s, 0))
        tokens = (queued or 0.0) * self._mean_tokens
        if since_s == replica.scraped_s:
            tokens += sent
        full = min(FULLEST, max(0.0, usage or 0.0))
        return tokens / self._tokens_per_s + self._kv_weight * full / (1.0 - full)


POLICY = SmgLeastLoad
