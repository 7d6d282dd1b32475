"""Tokens and latencies of requests that do not pass this gateway: as engines tell or push them."""

from __future__ import annotations

from dataclasses import dataclass
from math import isinf

from headrace.core.model import Usage
from headrace.engines.latencies import Buckets
from headrace.engines.reading import EngineReading


@dataclass(frozen=True, slots=True)
class PushedReport:
    """One event of an engine's own exporter, validated; None where it says nothing.

    Tokens and latencies are of one request, or of the requests since the last event; they are
    added up. `kv_usage_ratio` (0 to 1) and `queue_depth` are of this moment.
    """

    model_id: str
    replica: str | None = None
    sender: str | None = None
    event_id: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    ttft_s: float | None = None
    tpot_s: float | None = None
    kv_usage_ratio: float | None = None
    queue_depth: float | None = None

    def token_facts(self) -> list[str]:
        """Names of the token counts it brings."""
        return [name for name in ("inputTokens", "outputTokens") if self._has(name)]

    def traffic_facts(self) -> list[str]:
        """Names of the token counts and latencies it brings."""
        return self.token_facts() + self.latency_facts()

    def latency_facts(self) -> list[str]:
        """Names of the latencies it brings."""
        return [name for name in ("ttftMs", "tpotMs") if self._has(name)]

    def _has(self, name: str) -> bool:
        value = {
            "inputTokens": self.input_tokens,
            "outputTokens": self.output_tokens,
            "ttftMs": self.ttft_s,
            "tpotMs": self.tpot_s,
        }[name]
        return value is not None


class EngineTotals:
    """Follows an engine's token counters across its restarts.

    The first value seen is the start and counts nothing: what came before was not observed. A
    value below the last one means that the engine restarted, so all of it is new.
    """

    __slots__ = ("_cached", "_input", "_output")

    def __init__(self) -> None:
        self._input: float | None = None
        self._output: float | None = None
        self._cached: float | None = None

    @property
    def seen(self) -> bool:
        """Whether this engine tells its tokens at all."""
        return self._input is not None or self._output is not None

    def advance(self, reading: EngineReading) -> Usage:
        """Tokens since the last reading."""
        used = Usage(
            input_tokens=_increase(self._input, reading.input_tokens_total),
            output_tokens=_increase(self._output, reading.output_tokens_total),
            cached_tokens=_increase(self._cached, reading.cached_input_tokens_total),
        )
        self._input = _latest(self._input, reading.input_tokens_total)
        self._output = _latest(self._output, reading.output_tokens_total)
        self._cached = _latest(self._cached, reading.cached_input_tokens_total)
        return used


def _increase(last: float | None, new: float | None) -> int:
    if last is None or new is None:
        return 0
    return int(new - last if new >= last else new)


def _latest(last: float | None, new: float | None) -> float | None:
    return last if new is None else new


class LatencyTotals:
    """Follows an engine's histogram of latencies across its restarts, as `EngineTotals` does."""

    __slots__ = ("_last",)

    def __init__(self) -> None:
        self._last: Buckets | None = None

    @property
    def seen(self) -> bool:
        """Whether this engine tells this latency at all."""
        return self._last is not None

    def advance(self, new: Buckets | None) -> list[tuple[float, int]]:
        """Latencies since the last reading, each with how often it was observed.

        Which bucket an observation is in is the engine's word; where in it, all of them together
        are put so that their sum is the engine's. One request in a reading is so told exactly.
        """
        if new is None:
            return []
        last, self._last = self._last, new
        if last is None:
            return []
        grown, total_s = _growth(last, new)
        spans = list(zip((0.0, *new.bounds_s), new.bounds_s, grown, strict=False))
        least_s = sum(low * count for low, _, count in spans)
        room_s = sum((high - low) * count for low, high, count in spans if not isinf(high))
        share = min(max((total_s - least_s) / room_s, 0.0), 1.0) if room_s > 0 else 0.0
        above = grown[-1]
        over_s = max(total_s - least_s - room_s, 0.0) / above if above else 0.0
        return [
            (low + (over_s if isinf(high) else (high - low) * share), count)
            for low, high, count in spans
            if count
        ]


def _growth(last: Buckets, new: Buckets) -> tuple[list[int], float]:
    """What came since, by bucket, and its sum; all of it if the engine has restarted.

    Counts say whether it has. A sum over ranks may fall by a rounding when they change places.
    """
    if last.bounds_s == new.bounds_s:
        grown = [after - before for before, after in zip(last.counts, new.counts, strict=True)]
        if min(grown) >= 0:
            return grown, max(new.total_s - last.total_s, 0.0)
    return list(new.counts), new.total_s
