"""Replicas for the tokens that come now, in and out.

load = requests/s * mean replica-seconds of a request     by the joint lengths seen lately
replicas = load, with the margin for chance               `capacity.replicas_for_load`
"""

from __future__ import annotations

from headrace.core.scaling.plan import Signal
from headrace.core.scaling.view import ScalingView


def token_throughput(view: ScalingView) -> Signal | None:
    """What demand now needs; None while it is not known."""
    if view.capacity is None:
        return None
    prompt, hit, output = view.lengths.means()
    return Signal(
        "token_throughput",
        view.staffed(view.load),
        view.capacity.limit,
        (
            ("load", view.load),
            ("requests_per_s", view.requests_per_s),
            ("uncached_tokens_per_s", view.requests_per_s * (prompt - hit)),
            ("output_tokens_per_s", view.requests_per_s * output),
            ("replica_requests_per_s", view.capacity.requests_per_s),
        ),
    )
