"""What requests of a mix of lengths cost a replica: moments and marginals of the joint lengths.

    prefill_s     = E[w]      w = per_prefill_token * uncached + per_attended_token * pairs
    decode_steps  = E[d]      d = output tokens behind the first
    context       = E[d * (input + output / 2)] / E[d]        of a decoding sequence, at any time
    work_s        = prefill_s + decode_steps * (per_sequence + per_kv_token * context)

`work_s` is all of a replica's time that a request takes, the fixed part of steps aside.
"""

from __future__ import annotations

from dataclasses import dataclass

from headrace.core.latency import attended_pairs
from headrace.core.length_sketch import LengthSketch
from headrace.core.scaling.settings import EngineFigures


@dataclass(frozen=True, slots=True)
class RequestWork:
    """Means of a request. `answers` and `prompts` are (share of requests, value) pairs."""

    prefill_s: float = 0.0
    prefill_sq: float = 0.0
    """E[w²], in s²."""
    decode_steps: float = 0.0
    context_tokens: float = 0.0
    sequence_step_s: float = 0.0
    """What a decoding sequence adds to a step."""
    work_s: float = 0.0
    work_sq: float = 0.0
    """E[work²], in s²: how unequal requests are."""
    uncached_tokens: float = 0.0
    answers: tuple[tuple[float, float], ...] = ()
    """Decode steps, of requests that have any."""
    prompts: tuple[tuple[float, float], ...] = ()
    """Seconds of prefill."""
    least_steps: float = 1.0
    """Of `answers`."""


def request_work(figures: EngineFigures, lengths: LengthSketch) -> RequestWork:
    """The work of requests of these lengths; zeros where there are none."""
    count = lengths.requests
    if count <= 0.0:
        return RequestWork()
    latency = figures.latency
    rows: list[tuple[float, float, float, float]] = []  # share, prefill seconds, steps, context
    uncached_tokens = 0.0
    answers: dict[int, list[float]] = {}
    prompts: dict[int, list[float]] = {}
    for cell in lengths.cells:
        n = cell.requests
        if n <= 0.0:
            continue
        prompt, hit, output = cell.input_tokens / n, cell.hit_tokens / n, cell.output_tokens / n
        uncached = max(prompt - hit, 1.0)
        prefill_s = latency.per_prefill_token_s * uncached
        prefill_s += latency.per_attended_token_s * attended_pairs(uncached, hit)
        share, steps = n / count, max(output - 1.0, 0.0)
        rows.append((share, prefill_s, steps, prompt + output / 2.0))
        uncached_tokens += share * uncached
        _gather(answers, cell.key[1], share, steps)
        _gather(prompts, cell.key[0], share, prefill_s)
    steps = sum(share * each for share, _, each, _ in rows)
    context = sum(share * each * c for share, _, each, c in rows) / steps if steps > 0.0 else 0.0
    sequence_step_s = latency.per_sequence_s + latency.per_kv_token_s * context
    prefill_s = sum(share * w for share, w, _, _ in rows)
    by_steps = tuple((share, total / share) for share, total in answers.values() if total > 0.0)
    return RequestWork(
        prefill_s,
        sum(share * w * w for share, w, _, _ in rows),
        steps,
        context,
        sequence_step_s,
        prefill_s + steps * sequence_step_s,
        sum(share * (w + each * sequence_step_s) ** 2 for share, w, each, _ in rows),
        uncached_tokens,
        by_steps,
        tuple((share, total / share) for share, total in prompts.values()),
        min((steps for _, steps in by_steps), default=1.0),
    )


def _gather(marginal: dict[int, list[float]], key: int, share: float, value: float) -> None:
    sums = marginal.setdefault(key, [0.0, 0.0])
    sums[0] += share
    sums[1] += share * value
