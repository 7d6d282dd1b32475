"""The scorers of llm-d's router (pkg/epp/framework/plugins/scheduling/scorer), each from 0 to 1.

    queue  = (max - q) / (max - min) over the waiting queues that were reported; all equal: 1
    kv     = 1 - KV cache usage
    prefix = cached blocks / blocks of the prompt
    token  = 1 - min(1, uncached tokens in flight, this request's included / 4,194,304)

Queue and KV usage are what the last scrape said. Who has not reported is left unscored, which
weighs like 0.
"""

from __future__ import annotations

from headrace.core.model import Replica

TOKEN_LOAD_LIMIT = 4_194_304.0
"""128 requests of 32k tokens: where the token load scorer reaches 0."""


def queue_scores(replicas: list[Replica]) -> list[float]:
    """Short queues first, by the waiting requests that the engines last reported."""
    queues = [replica.report.queue_depth for replica in replicas]
    known = [queue for queue in queues if queue is not None]
    if not known:
        return [0.0] * len(replicas)
    longest = max(known)
    spread = longest - min(known)
    if not spread:
        return [0.0 if queue is None else 1.0 for queue in queues]
    return [0.0 if queue is None else (longest - queue) / spread for queue in queues]


def kv_scores(replicas: list[Replica]) -> list[float]:
    """Free KV caches first, by the usage that the engines last reported."""
    usages = [replica.report.kv_usage_ratio for replica in replicas]
    return [0.0 if usage is None else min(1.0, max(0.0, 1.0 - usage)) for usage in usages]


def token_load_score(tokens: float) -> float:
    """Few tokens to prefill first; `tokens` are those in flight and the request's own."""
    return 1.0 - min(1.0, tokens / TOKEN_LOAD_LIMIT)
