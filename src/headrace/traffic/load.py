"""What a load generator is to send: requests with their times, lengths, prefixes, classes, tiers.

    open loop       times are given; nobody waits for an answer
    closed loop     so many users; each sends its next request a pause after its last answer

A `Load` is a small description: each worker process makes the same stream of it from the seed and
takes its share. Nothing here knows text (`texts`) or a clock.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, count, islice, pairwise, takewhile, tee
from math import inf
from random import Random

from headrace.traffic.arrival_plan import Arrivals
from headrace.traffic.conversations import BLOCK_TOKENS, Conversations
from headrace.traffic.length_classes import LengthMix
from headrace.traffic.planned import PlannedRequest
from headrace.traffic.trace import MOONCAKE_BLOCK_TOKENS, Trace


@dataclass(frozen=True, slots=True)
class SharedPrefix:
    """System prompts: each request begins with one of `groups`, all equally likely."""

    tokens: int
    groups: int = 1

    def __post_init__(self) -> None:
        if self.tokens < 1 or self.groups < 1:
            raise ValueError(
                f"{self.tokens} tokens in {self.groups} groups: both must be 1 or above"
            )


@dataclass(frozen=True, slots=True)
class Extras:
    """What any traffic can be given on top."""

    leave_share: float = 0.0
    """Share of requests, from 0 to 1, whose client goes away before the answer's end."""
    tiers: tuple[tuple[str, float], ...] = ()
    """Names and weights of SLO tiers, drawn for each request."""
    shared: SharedPrefix | None = None


@dataclass(frozen=True, slots=True)
class Load:
    """What arrives. Made by one of `drawn`, `closed`, `of_trace`, `of_requests`."""

    words: str
    """In plain words, for the report."""
    seed: int
    block_tokens: int = MOONCAKE_BLOCK_TOKENS
    users: int = 0
    """Of a closed loop; 0: an open loop."""
    duration_s: float = inf
    """When sending ends: exactly in an open loop with rates; never means at the last request."""
    requests: int = 0
    """How many at most; 0: no bound."""
    peak_rps: float = 0.0
    """About how many requests a second at the busiest; 0 where nobody knows (closed loop)."""
    mean_output_tokens: float = 0.0
    extras: Extras = field(default_factory=Extras)
    source: Source | None = None
    conversations: Conversations | None = None
    """Of a closed loop whose users converse: then each has a plan of his own, `of_user`."""

    @classmethod
    def drawn(
        cls,
        arrivals: Arrivals,
        lengths: LengthMix,
        *,
        seed: int,
        requests: int = 0,
        extras: Extras | None = None,
    ) -> Load:
        """Arrivals of a process with lengths drawn from a mix. Open loop."""
        return cls(
            words=f"{arrivals.words()}, {lengths.text} tokens in/out",
            seed=seed,
            duration_s=arrivals.duration_s,
            requests=requests,
            peak_rps=arrivals.peak_rps,
            mean_output_tokens=lengths.mean_output_tokens,
            extras=extras or Extras(),
            source=_Drawn(lengths, arrivals),
        )

    @classmethod
    def closed(
        cls,
        users: int,
        lengths: LengthMix,
        *,
        seed: int,
        think_s: float = 0.0,
        duration_s: float = inf,
        requests: int = 0,
        turns: int = 1,
        extras: Extras | None = None,
    ) -> Load:
        """So many users; pauses are exponential with mean `think_s`, the first one too.

        With `turns` above 1 they converse: a prompt is all that was said before, and a message.
        """
        who = "1 user" if users == 1 else f"{users} users"
        pause = f"thinking {think_s:g} s" if think_s else "without pause"
        talk = f", conversations of {turns} turns" if turns > 1 else ""
        return cls(
            words=f"{who} {pause}{talk}, {lengths.text} tokens in/out",
            seed=seed,
            block_tokens=BLOCK_TOKENS if turns > 1 else MOONCAKE_BLOCK_TOKENS,
            conversations=Conversations(lengths, turns, think_s) if turns > 1 else None,
            users=users,
            duration_s=duration_s,
            requests=requests,
            mean_output_tokens=lengths.mean_output_tokens,
            extras=extras or Extras(),
            source=_Drawn(lengths, None, think_s),
        )

    @classmethod
    def of_trace(
        cls, trace: Trace, *, seed: int, words: str = "", extras: Extras | None = None
    ) -> Load:
        """The requests of a trace at its times. Open loop.

        Raises:
            ValueError: the trace has no requests.
        """
        planned = [
            PlannedRequest(each.arrival_s, each.input_tokens, each.output_tokens, each.blocks)
            for each in trace.requests
        ]
        words = words or f"trace {trace.name}"
        return cls.of_requests(
            planned, seed=seed, words=words, block_tokens=trace.block_tokens, extras=extras
        )

    @classmethod
    def of_requests(
        cls,
        requests: Sequence[PlannedRequest],
        *,
        words: str,
        seed: int = 0,
        block_tokens: int = MOONCAKE_BLOCK_TOKENS,
        extras: Extras | None = None,
    ) -> Load:
        """Exactly these, in order of `at_s`. Open loop.

        Raises:
            ValueError: there are none, or they are out of order.
        """
        if not requests:
            raise ValueError(f"{words}: there are no requests")
        times_s = [each.at_s for each in requests]
        if any(later < earlier for earlier, later in pairwise(times_s)):
            raise ValueError(f"{words}: requests are not in order of time")
        return cls(
            words=words,
            seed=seed,
            block_tokens=block_tokens,
            requests=len(requests),
            peak_rps=_peak_rps(times_s),
            mean_output_tokens=sum(each.output_tokens for each in requests) / len(requests),
            extras=extras or Extras(),
            source=_Given(tuple(requests)),
        )

    def stream(self) -> Iterator[PlannedRequest]:
        """All requests in order; endless where neither `requests` nor an open loop bounds them."""
        assert self.source is not None
        stream = self.source(self.seed)
        if not self.users and self.duration_s < inf:
            stream = takewhile(lambda planned: planned.at_s < self.duration_s, stream)
        if self.requests:
            stream = islice(stream, self.requests)
        return _with_extras(stream, self.extras, self.seed)

    def of_user(self, user: int) -> Iterator[tuple[int, PlannedRequest]]:
        """What this user of `conversations` asks, with a number that no other user's has.

        Tier and shared prefix are those of a whole conversation. `requests` is shared out evenly.
        """
        assert self.conversations is not None
        talks = self.conversations.of_user(user, self.seed)
        first, ahead = tee(talks)
        drawn = _with_extras((turns[0] for turns in first), self.extras, f"{self.seed} {user}")
        most = None
        if self.requests:
            most = len(range(user, self.requests, self.users))
        planned = (
            each._replace(
                tier=like.tier,
                shared=like.shared,
                shared_tokens=like.shared_tokens,
                input_tokens=each.input_tokens + like.shared_tokens,
            )
            for like, turns in zip(drawn, ahead, strict=False)
            for each in turns
        )
        return zip(count(user, self.users), islice(planned, most), strict=False)


Source = Callable[[int], Iterator[PlannedRequest]]


@dataclass(frozen=True, slots=True)
class _Given:
    requests: tuple[PlannedRequest, ...]

    def __call__(self, seed: int) -> Iterator[PlannedRequest]:  # noqa: ARG002 - the same always
        return iter(self.requests)


@dataclass(frozen=True, slots=True)
class _Drawn:
    lengths: LengthMix
    arrivals: Arrivals | None
    think_s: float = 0.0

    def __call__(self, seed: int) -> Iterator[PlannedRequest]:
        rng = Random(f"lengths {seed}")
        bounds = self.lengths.bounds()
        times_s = self._pauses(seed) if self.arrivals is None else self.arrivals.times_s(seed)
        for at_s in times_s:
            chosen, tokens_in, tokens_out = self.lengths.draw(rng, bounds)
            yield PlannedRequest(at_s, tokens_in, tokens_out, length_class=chosen.name)

    def _pauses(self, seed: int) -> Iterator[float]:
        rng = Random(f"think {seed}")
        while True:
            yield rng.expovariate(1 / self.think_s) if self.think_s else 0.0


def _with_extras(
    stream: Iterator[PlannedRequest], extras: Extras, seed: int | str
) -> Iterator[PlannedRequest]:
    """Draw who leaves, tiers and shared prefixes; each of its own generator, so that one changes
    nothing of the others.
    """
    if not (extras.leave_share or extras.tiers or extras.shared):
        yield from stream
        return
    leave_rng, tier_rng, shared_rng = (Random(f"{what} {seed}") for what in _EXTRA_SEEDS)
    bounds = list(accumulate(weight for _, weight in extras.tiers))
    shared = extras.shared
    for planned in stream:
        changed = planned
        if extras.leave_share and leave_rng.random() < extras.leave_share:
            changed = changed._replace(leave_after=1 + leave_rng.randrange(planned.output_tokens))
        if bounds:
            place = bisect_right(bounds, tier_rng.random() * bounds[-1])
            changed = changed._replace(tier=extras.tiers[min(place, len(bounds) - 1)][0])
        if shared is not None:
            changed = changed._replace(
                input_tokens=planned.input_tokens + shared.tokens,
                shared=shared_rng.randrange(shared.groups),
                shared_tokens=shared.tokens,
            )
        yield changed


_EXTRA_SEEDS = ("leave", "tiers", "shared prefixes")


def _peak_rps(times_s: Sequence[float]) -> float:
    """The most requests within a second."""
    most = first = 0
    for last, at_s in enumerate(times_s):
        while times_s[first] <= at_s - 1.0:
            first += 1
        most = max(most, last - first + 1)
    return float(most)
