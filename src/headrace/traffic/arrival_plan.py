"""When requests arrive, as a plan of rates and a process: `20`, `5@60s,20@60s`, `2..10@120s`.

A step is `RATE@DURATION`, a ramp `FROM..TO@DURATION`; they follow each other. The process says how
requests arrive at that rate: `constant`, `poisson`, `gamma:cv=2`, `weibull:cv=2`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from headrace.core.quantities import parse_number
from headrace.traffic.arrivals import (
    MAX_WEIBULL_CV,
    MIN_WEIBULL_CV,
    RateSegment,
    at_rates,
    constant_arrivals,
    gamma_arrivals,
    poisson_arrivals,
    weibull_arrivals,
)

ENDLESS_S = 1e9
"""A segment that lasts longer than any run."""
PROCESSES = ("constant", "poisson", "gamma:cv=2", "weibull:cv=2")
MAX_CV = 20.0
"""Beyond, one burst is the whole run."""


@dataclass(frozen=True, slots=True)
class Process:
    """How requests arrive at a given rate."""

    kind: str = "poisson"
    cv: float = 1.0

    def unit_arrivals(self, rng: Random) -> Iterator[float]:
        """Times at a mean rate of 1 per second."""
        match self.kind:
            case "constant":
                return constant_arrivals(1.0)
            case "gamma":
                return gamma_arrivals(1.0, self.cv, rng)
            case "weibull":
                return weibull_arrivals(1.0, self.cv, rng)
            case _:
                return poisson_arrivals(1.0, rng)

    def words(self) -> str:
        """`Poisson`, `Gamma with CV 2`."""
        if self.kind in {"gamma", "weibull"}:
            return f"{self.kind.capitalize()} with CV {self.cv:g}"
        return "Poisson" if self.kind == "poisson" else self.kind


@dataclass(frozen=True, slots=True)
class Arrivals:
    """A process, and the rates it goes through."""

    process: Process
    segments: tuple[RateSegment, ...]

    @classmethod
    def at(
        cls, rate: float, process: Process | None = None, duration_s: float = ENDLESS_S
    ) -> Arrivals:
        """One rate all the time.

        Raises:
            ValueError: rate or duration is not above 0.
        """
        if not rate > 0:
            raise ValueError(f"rate {rate:g} is not above 0")
        return cls(process or Process(), (RateSegment(duration_s, rate, rate),))

    @property
    def duration_s(self) -> float:
        """Of all segments."""
        return sum(each.duration_s for each in self.segments)

    @property
    def peak_rps(self) -> float:
        """The highest rate there is."""
        return max(max(each.from_per_s, each.to_per_s) for each in self.segments)

    def times_s(self, seed: int) -> Iterator[float]:
        """The arrival times from a seed."""
        rng = Random(f"arrivals {self.process.kind} {seed}")
        return at_rates(self.segments, self.process.unit_arrivals(rng))

    def words(self) -> str:
        """`20 requests/s, Poisson`; `5 requests/s for 60 s, 5..20 for 60 s, Poisson`."""
        steps: list[str] = []
        for each in self.segments:
            ramp = "" if each.from_per_s == each.to_per_s else f"..{each.to_per_s:g}"
            unit = "" if steps else " requests/s"
            lasting = "" if len(self.segments) == 1 else f" for {each.duration_s:g} s"
            steps.append(f"{each.from_per_s:g}{ramp}{unit}{lasting}")
        return f"{', '.join(steps)}, {self.process.words()}"


def parse_process(text: str) -> Process:
    """Read `poisson` or `gamma:cv=2`.

    Raises:
        ValueError: what is wrong and what is expected.
    """
    kind, colon, rest = text.partition(":")
    if kind in {"constant", "poisson"} and not colon:
        return Process(kind)
    name, _, value = rest.partition("=")
    if kind in {"gamma", "weibull"} and name == "cv":
        try:
            cv = parse_number(value)
        except ValueError:
            cv = 0.0
        if not MIN_WEIBULL_CV <= cv <= MAX_CV <= MAX_WEIBULL_CV:
            raise ValueError(f"{text!r}: cv is not from {MIN_WEIBULL_CV:g} to {MAX_CV:g}")
        return Process(kind, cv)
    raise ValueError(f"{text!r} is not known; known are {', '.join(PROCESSES)}")


def parse_step(text: str, duration_s: float) -> RateSegment:
    """Read the rate of one step or ramp, `20` or `2..10`.

    Raises:
        ValueError: what is wrong and what is expected.
    """
    first, dots, last = text.partition("..")
    try:
        start, end = parse_number(first), parse_number(last if dots else first)
    except ValueError:
        raise ValueError(f"{text!r} is not a rate such as 20 or 2..10") from None
    if not (start > 0 or end > 0):
        raise ValueError(f"{text!r}: no request ever comes at rate 0")
    return RateSegment(duration_s, start, end)
