"""Replicas to work off prompts that wait.

    backlog_s = seconds of prefill waiting in engines and at gateways
    excess_s = backlog_s - ready * TTFT / 2            what flows through anyway
    replicas = load + excess_s / cold_start_s          so that it is gone when help could be here

A short burst that those who are there clear before a replica could start asks for next to nothing.
"""

from __future__ import annotations

from headrace.core.latency import attended_pairs
from headrace.core.scaling_plan import Signal
from headrace.core.scaling_view import ScalingView

SHARE_OF_TTFT = 0.5


def queued_prefill(view: ScalingView) -> Signal | None:
    """What the backlog needs; None where no engine or gateway tells of one."""
    prompt, hit, _ = view.lengths.means()
    waiting = [replica.waiting_prefill_tokens for replica in view.fresh]
    tokens = sum(each for each in waiting if each is not None)
    held_tokens = sum(report.held_input_tokens for report in view.observation.gateways)
    if view.held_requests <= 0.0 and not any(each is not None for each in waiting):
        return None
    uncached_share = (prompt - hit) / prompt if prompt > 0.0 else 1.0
    backlog_tokens = tokens + held_tokens * uncached_share
    latency = view.figures.latency
    uncached = max(prompt - hit, 1.0)
    per_token_s = latency.per_prefill_token_s + (
        latency.per_attended_token_s * attended_pairs(uncached, hit) / uncached
    )
    backlog_s = backlog_tokens * per_token_s
    usual_s = SHARE_OF_TTFT * view.settings.target.ttft_s * len(view.ready)
    excess_s = max(backlog_s - usual_s, 0.0)
    replicas = view.staffed(view.load) + excess_s / max(view.cold_start_s, 1.0)
    if view.held_requests > 0.0:
        replicas = max(replicas, 1.0)
    figures = (
        ("backlog_tokens", backlog_tokens),
        ("backlog_s", backlog_s),
        ("excess_s", excess_s),
        ("held_requests", view.held_requests),
    )
    return Signal("queued_prefill", replicas, "backlog_s", figures)
