"""Requests as a quantity, with what they take: where long ones wait longer, no mean stands for all.

    work_s  = prefill_s + step_s          replica time that they take, the fixed part of steps aside
    step_s  = sum of o * (per_sequence + per_kv_token * (p + o/2))          what their decoding adds

over their prompts p and answers o: sums, not means, so that a part can be taken out.
"""

from __future__ import annotations

from headrace.engine_model.spec import EngineSpec
from headrace.simulator.scaling.mix import RequestMix


class Load:
    """Sums over requests; `prefill_sq` of squared seconds of prefill."""

    __slots__ = (
        "input_tokens",
        "output_tokens",
        "prefill_s",
        "prefill_sq",
        "requests",
        "step_s",
    )

    def __init__(self) -> None:
        self.requests = self.prefill_s = self.prefill_sq = self.step_s = 0.0
        self.input_tokens = self.output_tokens = 0.0

    @property
    def work_s(self) -> float:
        """See the module."""
        return self.prefill_s + self.step_s

    @property
    def tokens(self) -> float:
        """Of prompts and answers."""
        return self.input_tokens + self.output_tokens

    def times(self, factor: float) -> Load:
        """As many times as much."""
        other = Load()
        other.add(self, factor)
        return other

    def add(self, other: Load, factor: float = 1.0) -> None:
        """Put `factor` times another one to it; -1 takes it out."""
        self.requests += other.requests * factor
        self.prefill_s += other.prefill_s * factor
        self.prefill_sq += other.prefill_sq * factor
        self.step_s += other.step_s * factor
        self.input_tokens += other.input_tokens * factor
        self.output_tokens += other.output_tokens * factor

    def take(self, share: float) -> Load:
        """Take out this share of all of it alike, at most all, and return it."""
        taken = self.times(min(share, 1.0))
        self.add(taken, -1.0)
        return taken


class LongestFirst:
    """One request of a mix, and what part of it those with the longest prompts are. `inverse_sq` is
    the mean of one over the square of an answer.
    """

    __slots__ = ("_classes", "inverse_sq", "one")

    def __init__(self, mix: RequestMix, engine: EngineSpec) -> None:
        latency = engine.latency
        by_prompt: dict[float, Load] = {}
        for weight, prompt, answer in mix.points:
            prefill_s = (
                latency.per_prefill_token_s * prompt
                + latency.per_attended_token_s * prompt * prompt / 2
            )
            step_s = answer * (
                latency.per_sequence_s + latency.per_kv_token_s * (prompt + answer / 2)
            )
            point = Load()
            point.requests, point.input_tokens, point.output_tokens = 1.0, prompt, answer
            point.prefill_s, point.prefill_sq = prefill_s, prefill_s * prefill_s
            point.step_s = step_s
            by_prompt.setdefault(prompt, Load()).add(point, weight)
        self._classes = [by_prompt[prompt] for prompt in sorted(by_prompt, reverse=True)]
        self.inverse_sq = sum(weight / (answer * answer) for weight, answer in mix.answers)
        self.one = Load()
        for each in self._classes:
            self.one.add(each)

    def longest(self, work_s: float) -> Load:
        """Of one request, those with the longest prompts that are so much work; all if there is
        no more.
        """
        found, left_s = Load(), work_s
        for each in self._classes:
            if left_s <= 0.0:
                break
            share = min(left_s / each.work_s, 1.0) if each.work_s > 0.0 else 1.0
            found.add(each, share)
            left_s -= each.work_s
        return found
