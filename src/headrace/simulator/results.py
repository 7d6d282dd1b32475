"""What came of each request, and the scores of a run.

    hit_ratio            cached input tokens / input tokens, as the engines count, of all requests
                         that were prefilled
    ttft                 first token - arrival; of requests that were shed, failed or did not finish
                         (end of the run - arrival), so that no policy gains by giving up
    tpot                 (last token - first token) / (output tokens - 1), of requests that finished
                         with two tokens or more
    goodput_share        finished and within both targets / all that arrived
    output_tokens_per_s  output tokens of finished requests / (end of the run - first arrival)

Percentiles interpolate linearly between neighbouring ranks.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from math import isnan, nan

from headrace.simulator.settings import Slo

OPEN, COMPLETED, SHED, FAILED = range(4)
"""States of a request in `Results.state`; what is open at the end is unfinished."""
DECIMALS = 6
"""Of the figures in JSON: microseconds."""


class Results:
    """Columns with a row per request, in order of arrival.

    `ttft_s` and `tpot_s` are nan where there is none. Nothing else is kept of a request, so a
    million of them take 25 MB.
    """

    def __init__(self) -> None:
        self.arrival_s = array("d")
        self.ttft_s = array("d")
        self.tpot_s = array("d")
        self.state = array("b")
        self.end_s = 0.0
        """When the last request ended, or the run was stopped."""
        self.input_tokens = 0
        self.cached_tokens = 0
        self.output_tokens = 0

    def arrive(self, now: float) -> int:
        """A request arrives; return its row."""
        self.arrival_s.append(now)
        self.ttft_s.append(nan)
        self.tpot_s.append(nan)
        self.state.append(OPEN)
        return len(self.state) - 1

    def first_token(self, row: int, now: float, input_tokens: int, cached_tokens: int) -> None:
        """Its prefill is done; the lengths are the engine's count."""
        self.ttft_s[row] = now - self.arrival_s[row]
        self.input_tokens += input_tokens
        self.cached_tokens += cached_tokens

    def complete(self, row: int, now: float, output_tokens: int) -> None:
        """Its last token came."""
        self.state[row] = COMPLETED
        self.output_tokens += output_tokens
        if output_tokens > 1:
            decoding_s = now - self.arrival_s[row] - self.ttft_s[row]
            self.tpot_s[row] = decoding_s / (output_tokens - 1)
        self.end_s = now

    def give_up(self, row: int, now: float, state: int) -> None:
        """It was shed or failed."""
        self.state[row] = state
        self.end_s = now

    def judged_ttft_s(self) -> array[float]:
        """Seconds to the first token as they are scored: see the module's docstring."""
        end_s = self.end_s
        return array(
            "d",
            (
                ttft_s if state == COMPLETED else end_s - arrival_s
                for ttft_s, state, arrival_s in zip(
                    self.ttft_s, self.state, self.arrival_s, strict=True
                )
            ),
        )

    def measured_tpot_s(self) -> array[float]:
        """Seconds per output token of all that have some."""
        return array("d", (tpot_s for tpot_s in self.tpot_s if not isnan(tpot_s)))

    def met(self, slo: Slo) -> Iterable[bool]:
        """Of each request, whether it was served within its targets."""
        for ttft_s, tpot_s, state in zip(self.ttft_s, self.tpot_s, self.state, strict=True):
            # A nan, where there was no second token, exceeds nothing.
            yield state == COMPLETED and ttft_s <= slo.ttft_s and not tpot_s > slo.tpot_s


@dataclass(frozen=True, slots=True)
class Distribution:
    """Of seconds; all zero where there was nothing to measure."""

    mean: float = 0.0
    p50: float = 0.0
    p90: float = 0.0
    p99: float = 0.0


@dataclass(frozen=True, slots=True)
class Scores:
    """One line of the comparison; the fields are those of the JSON."""

    policy: str
    requests: int
    completed: int
    shed: int
    hit_ratio: float
    ttft_s: Distribution
    tpot_s: Distribution
    goodput_share: float
    output_tokens_per_s: float

    def document(self) -> dict[str, object]:
        """As JSON wants it, figures rounded to `DECIMALS`."""
        return {name: _rounded(value) for name, value in asdict(self).items()}


def scores_of(policy: str, results: Results, slo: Slo) -> Scores:
    """Judge a run."""
    requests = len(results.state)
    span_s = results.end_s - results.arrival_s[0] if requests else 0.0
    return Scores(
        policy=policy,
        requests=requests,
        completed=results.state.count(COMPLETED),
        shed=results.state.count(SHED),
        hit_ratio=results.cached_tokens / results.input_tokens if results.input_tokens else 0.0,
        ttft_s=distribution(results.judged_ttft_s()),
        tpot_s=distribution(results.measured_tpot_s()),
        goodput_share=sum(results.met(slo)) / requests if requests else 0.0,
        output_tokens_per_s=results.output_tokens / span_s if span_s > 0.0 else 0.0,
    )


def distribution(values: Iterable[float]) -> Distribution:
    """Mean and percentiles."""
    ranked = sorted(values)
    if not ranked:
        return Distribution()
    mean = sum(ranked) / len(ranked)
    return Distribution(mean, *(percentile(ranked, share) for share in (0.5, 0.9, 0.99)))


def percentile(ranked: list[float], share: float) -> float:
    """The value below which `share` of the ranked ones lie, between neighbours linearly."""
    place = share * (len(ranked) - 1)
    below = int(place)
    above = min(below + 1, len(ranked) - 1)
    return ranked[below] + (ranked[above] - ranked[below]) * (place - below)


def _rounded(value: object) -> object:
    if isinstance(value, float):
        return round(value, DECIMALS)
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    return value
