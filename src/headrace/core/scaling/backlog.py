"""What waits for its prefill, and for how long the replicas that are ready have work with it.

waiting  = (waiting prompt tokens - usual) / uncached prompt     requests; usual: ready * TTFT / 2
excess_s = waiting / requests/s of a full replica                replica-seconds of whole requests
clear_s  = excess_s / (what ready ones carry - load)
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from headrace.core.latency import attended_pairs
from headrace.core.scaling.capacity import Capacity, load_carried
from headrace.core.scaling.view import ScalingView

SHARE_OF_TTFT = 0.5
LEAST_SPARE = 0.02
"""Of what is ready: with less to spare a backlog never ends."""


@dataclass(frozen=True, slots=True)
class Backlog:
    """Requests without a first token, at gateways and in engines."""

    tokens: float = 0.0
    """Uncached ones of their prompts."""
    prefill_s: float = 0.0
    excess_s: float = 0.0
    """Replica-seconds, beyond what flows through anyway."""


def backlog_of(view: ScalingView) -> Backlog | None:
    """The backlog; None where no engine or gateway tells of one."""
    waiting = [replica.waiting_prefill_tokens for replica in view.fresh]
    if view.held_requests <= 0.0 and not any(each is not None for each in waiting):
        return None
    prompt, hit, _ = view.lengths.means()
    tokens = sum(each for each in waiting if each is not None)
    held_tokens = sum(report.held_input_tokens for report in view.observation.gateways)
    uncached_share = (prompt - hit) / prompt if prompt > 0.0 else 1.0
    tokens += held_tokens * uncached_share
    latency = view.figures.latency
    uncached = max(prompt - hit, 1.0)
    request_s = latency.per_prefill_token_s * uncached
    request_s += latency.per_attended_token_s * attended_pairs(uncached, hit)
    prefill_s = tokens * request_s / uncached
    usual_s = SHARE_OF_TTFT * view.settings.target.ttft_s * len(view.ready)
    waiting_requests = max(prefill_s - usual_s, 0.0) / max(request_s, 1e-9)
    unit = 0.0 if view.capacity is None else view.capacity.requests_per_s
    return Backlog(tokens, prefill_s, waiting_requests / unit if unit > 0.0 else 0.0)


def clear_s(excess_s: float, capacity: Capacity, ready: int, load: float) -> float:
    """Seconds until `ready` replicas have worked off a backlog beside their load."""
    if excess_s <= 0.0:
        return 0.0
    spare = load_carried(capacity, ready) - load
    return excess_s / spare if spare > LEAST_SPARE * ready else inf
