"""What arrives: a trace that was read, or traffic that is made on the way.

Of generated traffic nothing is kept, so that a million requests take no memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, takewhile

from headrace.core.names import misnamed
from headrace.traffic.generated import KINDS, MOST_PER_S
from headrace.traffic.trace import Trace, TraceRequest


@dataclass(frozen=True, slots=True)
class FileWorkload:
    """A whole trace."""

    trace: Trace

    @property
    def name(self) -> str:
        """What to call it."""
        return self.trace.name

    @property
    def notes(self) -> tuple[str, ...]:
        """What was read otherwise than it stands."""
        return self.trace.notes

    @property
    def count(self) -> int:
        """Requests."""
        return len(self.trace.requests)

    @property
    def block_tokens(self) -> int:
        """Tokens behind each block id."""
        return self.trace.block_tokens

    @property
    def requests(self) -> Sequence[TraceRequest]:
        """In order of arrival."""
        return self.trace.requests

    @property
    def span_s(self) -> float:
        """Seconds until the last one arrives."""
        return self.trace.requests[-1].arrival_s


@dataclass(frozen=True, slots=True)
class GeneratedWorkload:
    """The first `count` requests of a kind of traffic, the same ones each time.

    Only those of the first `duration_s` seconds, where that is given; then all `speed` times as
    fast.

    Raises:
        ValueError: the kind is not known, a number is not above 0, or the rate over `MOST_PER_S`.
    """

    kind: str
    count: int
    requests_per_s: float
    seed: int
    speed: float = 1.0
    duration_s: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"unknown traffic {misnamed(self.kind, KINDS)}")
        if self.count < 1:
            raise ValueError(f"requests is {self.count}; give 1 or more")
        if not 0 < self.requests_per_s <= MOST_PER_S:
            raise ValueError(
                f"rate is {self.requests_per_s:g}; give more than 0 and at most {MOST_PER_S:,.0f} "
                "requests a second"
            )

    @property
    def name(self) -> str:
        """What to call it."""
        return f"generated {self.kind}, {self.requests_per_s:g} requests/s"

    @property
    def notes(self) -> tuple[str, ...]:
        """Nothing was read."""
        return ()

    @property
    def block_tokens(self) -> int:
        """Tokens behind each block id."""
        return KINDS[self.kind][0]

    @property
    def span_s(self) -> float:
        """Seconds until the last one arrives, about."""
        span_s = self.count / self.requests_per_s
        if self.duration_s is not None:
            span_s = min(span_s, self.duration_s)
        return span_s / self.speed

    @property
    def requests(self) -> Iterator[TraceRequest]:
        """From the first one on."""
        _, stream = KINDS[self.kind]
        requests = islice(stream(self.requests_per_s, self.seed), self.count)
        duration_s, speed = self.duration_s, self.speed
        if duration_s is not None:
            requests = takewhile(lambda request: request.arrival_s < duration_s, requests)
        if speed == 1.0:
            return requests
        return (request._replace(arrival_s=request.arrival_s / speed) for request in requests)
