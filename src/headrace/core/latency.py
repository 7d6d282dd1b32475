"""Seconds: what a prompt and a decoding step cost on a replica.

One linear model with physical terms (`LatencyProfile`) is the prior. Every relayed stream
corrects it online, per phase, as a factor on the prior: `PoolLatency` holds what all replicas of
a pool have in common, `ReplicaLatency` how one replica deviates from its pool. A deviation is
shrunk while little is known of it and halves every minute without samples, because a replica that
was slow gets less traffic and would otherwise never be seen to be fast again.

    shrunk = deviation * evidence / (evidence + SHRINK_SAMPLES)
    factor = exp(pool + shrunk),  within 0.25 to 4
    of prefill: shrunk less DEAD_BAND towards the pool

A profile that was learned from a pool's first streams may be far off: engines are slow at first,
and prompts of one length do not tell what others take. Its factors have a wider range, and where
the pool has come to differ from it by `OFF` it is learned anew from the streams that follow.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from math import exp, inf, isfinite, log
from typing import Final, TypeAlias

Work: TypeAlias = tuple[float, float, float, float, float]
"""What an engine did or has to do: (steps, uncached tokens prefilled, pairs attended, sequences
times steps, KV tokens read). The model is linear in it, so work adds up over requests."""

LOWEST_FACTOR: Final = 0.25
HIGHEST_FACTOR: Final = 4.0
LEARNED_FACTOR: Final = 64.0
"""How far the factors on a learned profile may be from 1, either way."""
OFF: Final = log(2.0)
"""How far a pool may come to differ from a learned profile before another one is learned."""
HALF_LIFE_S: Final = 60.0
SHRINK_SAMPLES: Final = 3.0
"""Evidence at which a replica's own deviation counts for half."""
MOST_EVIDENCE: Final = 20.0
"""Cap on a replica's evidence, in samples: bounds how slowly it follows a change."""
DEAD_BAND: Final = log(1.1)
"""Replicas whose prefills are closer to their pool's than this are taken for equal: of two idle
ones, noise must not give all the traffic, and with it all the samples, to one. Of decoding there is
none: an answer is a mean over its tokens, and where steps take most of a TPOT target a tenth of
them decides who is in time."""
MOST_POOL_EVIDENCE: Final = 100.0
LARGEST_STEP: Final = log(2.0)
"""A sample further than this from the current estimate counts as this far: one stall in the
network must not look like a slow replica."""
NOISE_S: Final = 0.005
"""Jitter that no model explains; a phase predicted to last this long is half a sample."""
REFRESH_S: Final = 0.5
"""How long a replica's factors are used before decay is applied to them anew."""
NEWS_S: Final = 0.02
"""How long after a sample the factors may still be the old ones: under load, samples come faster
than they matter."""

_SECONDS = frozenset(
    (
        "per_step_s",
        "per_prefill_token_s",
        "per_attended_token_s",
        "per_sequence_s",
        "per_kv_token_s",
    )
)


@dataclass(frozen=True, slots=True)
class LatencyProfile:
    """Coefficients of the linear latency model, all in seconds and not negative.

    `source` says in words where they come from ("profile h100-llama-3.1-8b", "probed at start",
    "learned from 50 streams"). `per_attended_token_s` is per pair of an uncached token and a token
    it attends to; `per_sequence_s` per decoding sequence and step; `per_kv_token_s` per token of
    KV cache read in a step. What its memory moves in a step stands beside that, where it is known:
    the scaler reckons with it how busy the memory is.

    Raises:
        ValueError: a coefficient is negative or not finite, or all that price prefill are zero.
    """

    name: str
    source: str
    per_step_s: float
    per_prefill_token_s: float
    per_attended_token_s: float = 0.0
    per_sequence_s: float = 0.0
    per_kv_token_s: float = 0.0
    memory_bytes_per_s: float = 0.0
    """Peak memory bandwidth of all GPUs of a replica; 0: not known."""
    weight_bytes_per_step: float = 0.0
    """Bytes of weights that a step reads, over all of them; 0: not known."""
    kv_bytes_per_token: float = 0.0
    """Bytes of KV cache behind one token, over all of them; 0: not known."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in _SECONDS and not (isfinite(value) and value >= 0.0):
                raise ValueError(
                    f"profile {self.name!r}: {field.name} is {value!r}; "
                    "give a finite number of seconds, 0 or more"
                )
            if "_bytes_per_" in field.name and not (isfinite(value) and value >= 0.0):
                raise ValueError(
                    f"profile {self.name!r}: {field.name} is {value!r}; "
                    "give a finite number of bytes, 0 where it is not known"
                )
        if self.per_prefill_token_s == 0.0 and self.per_attended_token_s == 0.0:
            raise ValueError(
                f"profile {self.name!r}: per_prefill_token_s and per_attended_token_s are both 0; "
                "give at least one, or prompts of all lengths cost the same"
            )

    def seconds(self, work: Work) -> float:
        """Seconds that `work` takes."""
        steps, prefill_tokens, pairs, sequences, kv_tokens = work
        return (
            self.per_step_s * steps
            + self.per_prefill_token_s * prefill_tokens
            + self.per_attended_token_s * pairs
            + self.per_sequence_s * sequences
            + self.per_kv_token_s * kv_tokens
        )

    def prefill_s(self, uncached_tokens: float, cached_tokens: float = 0.0) -> float:
        """Seconds to prefill `uncached_tokens` behind `cached_tokens`, alone on the replica."""
        return (
            self.per_step_s
            + self.per_prefill_token_s * uncached_tokens
            + self.per_attended_token_s * attended_pairs(uncached_tokens, cached_tokens)
        )

    def step_s(self, batch: float, context_tokens: float) -> float:
        """Seconds of one decoding step of `batch` sequences with `context_tokens` in sum."""
        return self.per_step_s + self.per_sequence_s * batch + self.per_kv_token_s * context_tokens


def attended_pairs(uncached_tokens: float, cached_tokens: float) -> float:
    """Pairs (uncached token, token it attends to) of one prefill.

    Each uncached token attends to all cached ones and, causally, to half of the uncached ones on
    average.
    """
    return uncached_tokens * (cached_tokens + uncached_tokens / 2)


class PhaseTrend:
    """The pool's common log-ratio of observed to predicted seconds in one phase."""

    __slots__ = ("evidence", "log_ratio")

    def __init__(self) -> None:
        self.log_ratio = 0.0
        self.evidence = 0.0

    def observe(self, log_ratio: float, weight: float) -> None:
        """Move towards one sample."""
        evidence = self.evidence + weight
        self.evidence = evidence if evidence < MOST_POOL_EVIDENCE else MOST_POOL_EVIDENCE
        step = _limited(log_ratio - self.log_ratio)
        self.log_ratio += step * weight / (self.evidence + SHRINK_SAMPLES)


class PhaseDeviation:
    """How one replica's log-ratio deviates from its pool's in one phase."""

    __slots__ = ("deviation", "evidence", "sampled_s")

    def __init__(self) -> None:
        self.deviation = 0.0
        self.evidence = 0.0
        self.sampled_s = 0.0

    def observe(self, deviation: float, weight: float, now: float) -> None:
        """Move towards one sample, after the decay since the last one."""
        kept = self._kept(now)
        self.deviation *= kept
        evidence = self.evidence * kept + weight
        self.evidence = evidence if evidence < MOST_EVIDENCE else MOST_EVIDENCE
        self.deviation += _limited(deviation - self.deviation) * weight / self.evidence
        self.sampled_s = now

    def shrunk(self, now: float) -> float:
        """The decayed deviation, shrunk by how little is known of it."""
        kept = self._kept(now)
        evidence = self.evidence * kept
        return self.deviation * kept * evidence / (evidence + SHRINK_SAMPLES)

    def value(self, now: float) -> float:
        """The same, less the dead band."""
        shrunk = self.shrunk(now)
        if -DEAD_BAND <= shrunk <= DEAD_BAND:
            return 0.0
        return shrunk - DEAD_BAND if shrunk > 0.0 else shrunk + DEAD_BAND

    def _kept(self, now: float) -> float:
        age_s = now - self.sampled_s
        return 0.5 ** (age_s / HALF_LIFE_S) if age_s > 0.0 else 1.0


class PoolLatency:
    """The prior of a pool and what its replicas have in common.

    Without a profile the pool has no seconds yet: `profile` is None and `learning` describes how
    far the learner is. Who learns a profile calls `adopt`.
    """

    __slots__ = ("_highest", "_is_learned", "_lowest", "decode", "learning", "prefill", "profile")

    def __init__(self, profile: LatencyProfile | None) -> None:
        self.profile = profile
        self.learning = ""
        self._is_learned = False
        self._lowest, self._highest = log(LOWEST_FACTOR), log(HIGHEST_FACTOR)
        self.prefill = PhaseTrend()
        self.decode = PhaseTrend()

    @property
    def learns(self) -> bool:
        """Whether there is no profile yet, or one that was learned and has turned out wrong.

        One that was given is never replaced.
        """
        if not self._is_learned:
            return self.profile is None
        return max(abs(self.prefill.log_ratio), abs(self.decode.log_ratio)) > OFF

    @property
    def source(self) -> str:
        """Where predicted seconds come from, in words."""
        return self.learning if self.profile is None else self.profile.source

    def bounded(self, log_ratio: float) -> float:
        """The logarithm of a factor, within the range that factors may have."""
        if log_ratio < self._lowest:
            return self._lowest
        return log_ratio if log_ratio < self._highest else self._highest

    def adopt(self, profile: LatencyProfile) -> None:
        """Use a learned profile as the prior from now on."""
        self.profile = profile
        self._is_learned = True
        self._highest = log(LEARNED_FACTOR)
        self._lowest = -self._highest
        self.prefill = PhaseTrend()
        self.decode = PhaseTrend()


class ReplicaLatency:
    """One replica's factors on the pool's prior.

    `prefill_factor` and `decode_factor` are plain attributes, since routing reads them for every
    candidate; call `refresh` first when `now >= stale_s`.
    """

    __slots__ = ("_decode", "_prefill", "decode_factor", "pool", "prefill_factor", "stale_s")

    def __init__(self, pool: PoolLatency) -> None:
        self.pool = pool
        self._prefill = PhaseDeviation()
        self._decode = PhaseDeviation()
        self.prefill_factor = 1.0
        self.decode_factor = 1.0
        self.stale_s = -inf

    def observe_prefill(self, observed_s: float, predicted_s: float, now: float) -> None:
        """Learn from a first token.

        `predicted_s` is what the prior alone said when the request was dispatched, backlog ahead
        included, so that queueing is not learned as a slow prefill.
        """
        self._observe(self.pool.prefill, self._prefill, observed_s, predicted_s, now)

    def observe_decode(self, observed_s: float, predicted_s: float, now: float) -> None:
        """Learn from the time between first and last token; `predicted_s` by the prior alone."""
        self._observe(self.pool.decode, self._decode, observed_s, predicted_s, now)

    def refresh(self, now: float) -> None:
        """Bring the factors up to `now`."""
        pool = self.pool
        self.prefill_factor = exp(pool.bounded(pool.prefill.log_ratio + self._prefill.value(now)))
        self.decode_factor = exp(pool.bounded(pool.decode.log_ratio + self._decode.shrunk(now)))
        self.stale_s = now + REFRESH_S

    def _observe(
        self,
        trend: PhaseTrend,
        own: PhaseDeviation,
        observed_s: float,
        predicted_s: float,
        now: float,
    ) -> None:
        if observed_s <= 0.0 or predicted_s <= 0.0:
            return
        log_ratio = self.pool.bounded(log(observed_s / predicted_s))
        weight = predicted_s / (predicted_s + NOISE_S)
        own.observe(log_ratio - trend.log_ratio, weight, now)
        trend.observe(log_ratio, weight)
        news_s = now + NEWS_S
        if news_s < self.stale_s:
            self.stale_s = news_s


def _limited(step: float) -> float:
    if step < -LARGEST_STEP:
        return -LARGEST_STEP
    return step if step < LARGEST_STEP else LARGEST_STEP
