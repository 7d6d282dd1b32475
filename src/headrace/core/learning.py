"""What relayed answers teach about a pool and a replica.

Lengths of prompts and answers come from the usage that engines count; seconds come from the times
of first and last tokens, each compared with what the model says of the work done meanwhile.
"""

from __future__ import annotations

from typing import Final

from headrace.core.attempts import Attempt
from headrace.core.events import Ended
from headrace.core.latency import attended_pairs
from headrace.core.model import TEMPLATED, Endpoint, Outcome, Pool, Request
from headrace.core.profile_fit import ProfileLearner

_COMPLETED: Final = Outcome.COMPLETED
_EMBEDDINGS: Final = Endpoint.EMBEDDINGS
_OTHER: Final = Endpoint.OTHER
FEWEST_DECODED_TOKENS: Final = 8
"""A shorter answer says little of the time per token."""
PRIOR_ANSWERS: Final = 10
"""Answers that the initial means of a pool count for."""
MOST_ANSWERS: Final = 100
"""Answers that a mean remembers."""
LENGTHS_EACH: Final = 256
"""Answers whose prompt's length is learned from, each one; then it is from every so many: what the
tokenizer makes of this traffic is known by then, and only to be followed."""
LENGTHS_EVERY: Final = 4
ANSWERS_SEEN: Final = 3.0
SHORTEST_RECENT_S: Final = 0.5
LONGEST_RECENT_S: Final = 7.0
"""The prefills that a stream meets on a replica are those of its own life: they are remembered for
so many times what an answer of mean length takes alone, within these bounds. With more, bursts of
short answers are seen too late; with less, what one meets is taken for what all of it will meet."""
FALSE_HIT_TOKENS: Final = 256
"""A predicted hit of this many tokens that the engine did not have shows a smaller cache."""


def learn_first_token(attempt: Attempt, now: float) -> None:
    """Correct the replica's prefill by the time it took since it took up the work."""
    latency = attempt.replica.latency
    profile = latency.pool.profile
    if profile is not None and not attempt.waits_for_slot:
        predicted_s = profile.seconds(attempt.work_ahead)
        latency.observe_prefill(now - attempt.head_since_s, predicted_s, now)


def learn_at_most(attempt: Attempt, now: float) -> None:
    """Correct the replica's prefill by an answer that was not streamed but came, whole, before its
    first token was predicted. Without it nothing would show a pool without streams that its
    prefills are thought to be too long, and requests would be held for nothing.
    """
    latency = attempt.replica.latency
    profile = latency.pool.profile
    if profile is None or attempt.waits_for_slot:
        return
    observed_s, predicted_s = now - attempt.head_since_s, profile.seconds(attempt.work_ahead)
    if observed_s < latency.prefill_factor * predicted_s:
        latency.observe_prefill(observed_s, predicted_s, now)


def learn_decoding(attempt: Attempt, output_tokens: int, now: float) -> None:
    """Correct the replica's decoding by a finished stream."""
    latency = attempt.replica.latency
    profile, first_token_s = latency.pool.profile, attempt.first_token_s
    each = output_tokens / attempt.sequences
    if profile is None or first_token_s is None or each < FEWEST_DECODED_TOKENS:
        return
    predicted_s = profile.seconds(attempt.decode_work(each - 1.0))
    latency.observe_decode(now - first_token_s, predicted_s, now)


def learn_profile(
    learner: ProfileLearner, attempt: Attempt, ended: Ended, pool: Pool, now: float
) -> None:
    """Take a finished stream into the measurements from which a pool learns its profile."""
    usage, first_token_s = ended.usage, attempt.first_token_s
    if usage is None or first_token_s is None or attempt.waits_for_slot:
        return
    each = usage.output_tokens / attempt.sequences
    if each >= FEWEST_DECODED_TOKENS:
        learner.add_decode(attempt.decode_work(each - 1.0), now - first_token_s)
    # The own prompt by the engine's count, what was ahead of it as it was presumed.
    cached = usage.cached_tokens if pool.reports_cached else attempt.hit_tokens
    uncached = max(1, usage.input_tokens - cached)
    steps, tokens, pairs, _, _ = attempt.work_ahead
    work = (
        steps,
        tokens - attempt.uncached_tokens + uncached,
        pairs - attempt.pairs + attended_pairs(uncached, cached),
        0.0,
        0.0,
    )
    profile = learner.add_prefill(work, first_token_s - attempt.head_since_s)
    if profile is not None:
        pool.latency.adopt(profile)
    pool.latency.learning = learner.progress


def learn_lengths(request: Request, ended: Ended, pool: Pool) -> None:
    """Learn from one answer's usage how long the pool's prompts and answers are."""
    usage = ended.usage
    if usage is None or ended.outcome is not _COMPLETED:
        return
    if request.endpoint is _OTHER:  # whose prompt nobody has read
        return
    pool.answers += 1
    answers = pool.answers
    step = 1.0 / (PRIOR_ANSWERS + (answers if answers < MOST_ANSWERS else MOST_ANSWERS))
    if request.endpoint is not _EMBEDDINGS:
        each = usage.output_tokens / request.sequences
        pool.output_tokens_mean += (each - pool.output_tokens_mean) * step
        pool.recent_s = _recent_s(pool)
    if usage.cached_tokens > 0:
        pool.reports_cached = True
    media_tokens = request.media_items * pool.spec.media_tokens
    if (
        request.prompt_tokens is None
        and (pool.answers < LENGTHS_EACH or pool.answers % LENGTHS_EVERY == 0)
        and request.text_bytes > 0
        and usage.input_tokens > media_tokens
    ):
        pool.prompt_length.learn(
            request.text_bytes,
            usage.input_tokens,
            templated=request.endpoint in TEMPLATED,
            media_tokens=media_tokens,
        )


def _recent_s(pool: Pool) -> float:
    profile = pool.latency.profile
    if profile is None:
        return LONGEST_RECENT_S
    recent_s = ANSWERS_SEEN * (pool.output_tokens_mean * profile.step_s(1.0, 0.0))
    recent_s = recent_s if recent_s > SHORTEST_RECENT_S else SHORTEST_RECENT_S
    return recent_s if recent_s < LONGEST_RECENT_S else LONGEST_RECENT_S


def was_hit(attempt: Attempt, ended: Ended, pool: Pool) -> bool | None:
    """Whether the engine had about as much of the prompt cached as was believed, False if it had
    far less; None where that cannot be told.
    """
    usage = ended.usage
    if usage is None or not pool.reports_cached or attempt.hit_tokens < FALSE_HIT_TOKENS:
        return None
    return usage.cached_tokens >= attempt.hit_tokens / 2
