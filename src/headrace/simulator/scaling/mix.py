"""What requests of one mix of lengths cost a replica: moments, and a few points that stand for all.

With p the prompt and o the answer, over the joint points of a `LengthSpread`:

    prefill_s        = E[w],  w = per_prefill_token * p + per_attended_token * p²/2
    prefill_sq       = E[w²]
    context_tokens   = E[o * p + o²/2] / E[o]         of a decoding sequence, at any time
    sequence_step_s  = per_sequence + per_kv_token * context_tokens
    work_s           = prefill_s + E[o] * sequence_step_s

`work_s` is all of a replica's time that a request takes, the fixed part of steps aside: λ requests
a second at a replica leave 1 - λ * work_s of it, and a step is per_step / (1 - λ * work_s) long.
"""

from __future__ import annotations

from headrace.engine_model.spec import EngineSpec
from headrace.traffic.length_spread import Point

Weighted = tuple[tuple[float, float], ...]
KV_FILL = 0.9
"""Of the KV cache that running sequences fill before prompts wait: a prompt needs room for all of
it at once, and lengths vary."""


class RequestMix:
    """The costs of one mix; see the module. `prompts` and `answers` are (weight, value) pairs."""

    __slots__ = (
        "answers",
        "context_tokens",
        "input_tokens",
        "inverse_answer",
        "most_sequences",
        "output_tokens",
        "points",
        "prefill_s",
        "prefill_sq",
        "prompt_p90_s",
        "prompts",
        "sequence_step_s",
        "tpot_points",
        "work_s",
    )

    def __init__(
        self,
        engine: EngineSpec,
        points: tuple[Point, ...],
        input_tokens: float,
        output_tokens: float,
    ) -> None:
        latency = engine.latency
        lengths = [
            (w, max(i * input_tokens, 1.0), max(o * output_tokens, 1.0)) for w, i, o in points
        ]
        self.points = tuple(lengths)
        self.input_tokens = sum(w * p for w, p, _ in lengths)
        self.output_tokens = sum(w * o for w, _, o in lengths)
        stays = sum(w * (o * p + o * o / 2) for w, p, o in lengths)
        self.context_tokens = stays / self.output_tokens
        self.sequence_step_s = latency.per_sequence_s + latency.per_kv_token_s * self.context_tokens
        costs = [
            (w, latency.per_prefill_token_s * p + latency.per_attended_token_s * p * p / 2)
            for w, p, _ in lengths
        ]
        self.prefill_s = sum(w * cost for w, cost in costs)
        self.prefill_sq = sum(w * cost * cost for w, cost in costs)
        self.work_s = self.prefill_s + self.output_tokens * self.sequence_step_s
        self.prompts = _together(costs)
        self.prompt_p90_s = (_quantile(self.prompts, 0.88) + _quantile(self.prompts, 0.92)) / 2
        self.answers = _together([(w, o) for w, _, o in lengths])
        self.inverse_answer = sum(w / o for w, _, o in lengths)
        # What a token share weighs: prompt and answer of those with this answer.
        self.tpot_points = tuple((w, o, w * (self.input_tokens + o)) for w, o in self.answers)
        room = KV_FILL * engine.kv_capacity_tokens / max(self.context_tokens, 1.0)
        self.most_sequences = max(min(float(engine.max_sequences), room), 1.0)

    def rate_at(self, tpot_s: float, per_step_s: float) -> float:
        """Requests/s at one replica whose steps then take `tpot_s` in the mean, 0 if none do."""
        by_time = max(1.0 - per_step_s / tpot_s, 0.0) / self.work_s
        most = self.most_sequences
        by_room = most / (self.output_tokens * per_step_s + most * self.work_s)
        return min(by_time, by_room)


def _together(pairs: list[tuple[float, float]]) -> Weighted:
    """Weights of equal values added up, in order of value."""
    weights: dict[float, float] = {}
    for weight, value in pairs:
        weights[value] = weights.get(value, 0.0) + weight
    return tuple((weights[value], value) for value in sorted(weights))


def _quantile(ranked: Weighted, share: float) -> float:
    below = 0.0
    for weight, value in ranked:
        below += weight
        if below >= share:
            return value
    return ranked[-1][1]
