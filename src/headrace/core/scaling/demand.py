"""Demand of a pool, from the totals that its gateways report.

    load = requests/s * replica-seconds per request           1.0: one replica fully used
    requests/s = the rate over the longest window, of half a minute, twice that, up to a cold start,
                 that lies within the noise of all shorter ones

The lengths of a request are known when it ends, so its cost is that of requests that have ended
lately. For the forecast, load is averaged over minutes of the clock, so that two scalers that look
at different moments keep the same history.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from math import ceil, exp, inf, sqrt
from typing import Any

from headrace.core.length_counter import LengthCounter, sketch_of
from headrace.core.length_sketch import LengthSketch, sketch_from
from headrace.core.scaling.capacity import Capacity, replica_capacity
from headrace.core.scaling.demand_history import DemandSample
from headrace.core.scaling.gateway_totals import GatewayTotals
from headrace.core.scaling.observation import PoolObservation
from headrace.core.scaling.settings import EngineFigures, ScalingSettings, ScalingTarget

MINUTE_S = 60.0
SHORT_S = 30.0
LONGEST_S = 300.0
"""The long window is the time that scaling up takes, between the two and this: a rate over minutes
is no news for replicas that start in seconds."""
ENOUGH_REQUESTS = 2000.0
"""Lengths are those of the last minute, or of so many requests where that takes longer: their mean
cost is then known to 2 or 3 %, so that chance among lengths is not taken for demand that moves."""
LONGEST_MEMORY_S = 3600.0
PRICE_EVERY_S = 60.0
EXPECTED_OUTPUT_TOKENS = 350.0
"""Of an answer, before any has ended."""
LEAST_COVER = 0.5
"""Of a minute, for it to count as seen."""
NOISE_SIGMAS = 2.5
UNEQUAL = 2.0
"""E[cost²] / E[cost]²: requests vary in cost, which is more noise than their count alone has."""
FORGET_GATEWAY_S = 900.0
"""Where nobody says who should report, one that does no more is forgotten so long after its last
word."""
LEFT_S = LONGEST_S
"""Where those who should report are named, one that is named no more has left: its clients go to
the others, so that its last rate would be counted twice. It is forgotten so long after it left, and
until then nothing is lowered: by then no window over the others' totals begins before it left.
"""

_PLAIN = (
    "_minute_begin_s",
    "_minute_cover_s",
    "_minute_load_s",
    "_priced_s",
    "_seen_s",
    "idle_since_s",
    "known_since_s",
    "load",
    "requests_per_s",
    "usable",
)


@dataclass(frozen=True, slots=True)
class MinuteLoad:
    """The mean load of one minute; and, where known, what the ready replicas carried of it.

    `noise` is the standard deviation that chance alone gives the load.
    `carried` is the load that they have room for, `missed_share` the share of requests judged then
    that load made late.
    """

    begin_s: float
    load: float
    carried: float | None = None
    missed_share: float | None = None
    noise: float = 0.0


class DemandMeter:
    """Load of a pool now, its history by the minute, and what is not known of it.

    After `observe`: `load` in replicas fully used, `requests_per_s`, `capacity` of one replica at
    the lengths seen lately, `troubles` in words (empty: complete), `left` the gateways that are not
    expected any more and not forgotten yet, `remarks` what is odd and changes nothing, `minutes`
    completed just now.
    `usable` is the share of the reckoned capacity that may be used; whoever learns it sets it.
    """

    __slots__ = (
        "_counted_since_s",
        "_ended",
        "_gateways",
        "_left_s",
        "_lengths",
        "_minute_begin_s",
        "_minute_cover_s",
        "_minute_load_s",
        "_priced_by",
        "_priced_s",
        "_seen_s",
        "capacity",
        "idle_since_s",
        "known_since_s",
        "left",
        "lengths",
        "load",
        "minutes",
        "remarks",
        "requests_per_s",
        "troubles",
        "usable",
    )

    def __init__(self) -> None:
        self._gateways: dict[str, GatewayTotals] = {}
        self._left_s: dict[str, float] = {}
        self._lengths = LengthCounter()
        self._ended: list[LengthSketch] = []
        self._priced_s = 0.0
        self._priced_by: tuple[ScalingTarget, EngineFigures] | None = None
        self._minute_begin_s = 0.0
        self._minute_cover_s = 0.0
        self._minute_load_s = 0.0
        self._seen_s: float | None = None
        self._counted_since_s: float | None = None
        self.capacity: Capacity | None = None
        self.known_since_s: float | None = None
        self.idle_since_s: float | None = None
        self.lengths = LengthSketch()
        self.load = 0.0
        self.requests_per_s = 0.0
        self.minutes: list[MinuteLoad] = []
        self.troubles: list[str] = []
        self.remarks: list[str] = []
        self.left: tuple[str, ...] = ()
        self.usable = 1.0

    def observe(
        self,
        observation: PoolObservation,
        settings: ScalingSettings,
        figures: EngineFigures,
        now: float,
        horizon_s: float,
    ) -> None:
        """Take an observation made at `now`; `horizon_s` is how long scaling up takes."""
        if self._seen_s is not None and now - self._seen_s > LONGEST_S:
            # Nobody looked for longer than any rate is taken over.
            self.known_since_s = self._counted_since_s = None
        if self._counted_since_s is None and observation.gateways:
            self._counted_since_s = now
        self._read(observation, settings.stale_s, now)
        self._price(settings, figures, now)
        self._measure(now, horizon_s)
        self._fill_minutes(now)
        self._seen_s = now

    @property
    def seen_s(self) -> float | None:
        """When it last took an observation; None before the first."""
        return self._seen_s

    @property
    def counted_since_s(self) -> float | None:
        """Since when what comes is counted: a rate takes a second look. None before the first."""
        return self._counted_since_s if self.known_since_s is None else self.known_since_s

    @property
    def held_requests(self) -> float:
        """Requests that wait at gateways."""
        return sum(gateway.held_requests for gateway in self._counted())

    def state(self) -> dict[str, Any]:
        """All that `observe` builds on, as JSON can hold it."""
        plain = {name: getattr(self, name) for name in _PLAIN}
        gateways = {name: totals.state() for name, totals in self._gateways.items()}
        return {
            "plain": plain,
            "gateways": gateways,
            "left_s": dict(self._left_s),
            "lengths": self._lengths.sketch().rows(),
            "ended": [sketch.rows() for sketch in self._ended],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` said; capacity comes with the next observation."""
        for name in _PLAIN:
            setattr(self, name, state["plain"][name])
        for name, totals in state["gateways"].items():
            self._gateways[name] = GatewayTotals()
            self._gateways[name].restore(totals)
        self._left_s = dict(state.get("left_s", {}))  # a file of before this was kept has none
        self._lengths = LengthCounter()
        self._lengths.add_sketch(sketch_from(state["lengths"]))
        self._ended = [sketch_from(rows) for rows in state["ended"]]

    # ---- reports

    def _read(self, observation: PoolObservation, stale_s: float, now: float) -> None:
        for report in observation.gateways:
            gateway = self._gateways.get(report.gateway)
            if gateway is None:
                gateway = self._gateways[report.gateway] = GatewayTotals()
            gateway.observe(report, now)
            if not gateway.lengths.cells:
                continue
            if self._seen_s is None:
                # What came before this scaler did may be millions, and is to be forgotten soon.
                most = min(1.0, ENOUGH_REQUESTS / gateway.lengths.requests)
                self._lengths.add_sketch(gateway.lengths, most)
            else:
                self._ended.append(gateway.lengths)
        self._judge(observation, stale_s, now)

    def _judge(self, observation: PoolObservation, stale_s: float, now: float) -> None:
        """Say which gateways' part of the demand is not known, and forget who has long gone."""
        here = {report.gateway for report in observation.gateways}
        expected = observation.expected_gateways
        told = {name: "no report" for name in expected if name not in here}
        left_s: dict[str, float] = {}
        for name, gateway in list(self._gateways.items()):
            if name in here:
                told[name] = gateway.trouble_at(now, stale_s)
            elif expected and name not in expected:
                left_s[name] = self._left_s.get(name, now)
                if now - left_s[name] > LEFT_S:
                    del self._gateways[name], left_s[name]
            elif not expected and now - gateway.true_at_s > FORGET_GATEWAY_S:
                del self._gateways[name]
            elif not expected:
                told[name] = "reports no more"
        self._left_s, self.left = left_s, tuple(left_s)
        self.troubles = [f"gateway {name}: {trouble}" for name, trouble in told.items() if trouble]
        self.remarks = [
            f"gateway {name}: {gateway.skew}"
            for name, gateway in self._gateways.items()
            if name in here and gateway.skew
        ]
        if not self._gateways:
            self.troubles.append("no gateway has reported")

    def _price(self, settings: ScalingSettings, figures: EngineFigures, now: float) -> None:
        """Bring lengths and capacity up to date; they move slowly and take the most time."""
        priced_by = (settings.target, figures)
        if now - self._priced_s < PRICE_EVERY_S and priced_by == self._priced_by:
            return
        rate = max(self.requests_per_s, 1e-9)
        memory_s = min(max(MINUTE_S, ENOUGH_REQUESTS / rate), LONGEST_MEMORY_S)
        elapsed_s = 0.0 if self._seen_s is None else now - self._priced_s
        self._lengths.fade(exp(-max(elapsed_s, 0.0) / memory_s))
        for sketch in self._ended:
            self._lengths.add_sketch(sketch)
        self._ended = []
        self.lengths = self._lengths.sketch()
        if not self.lengths.cells:
            self.lengths = self._expected_lengths()
        if self.lengths.cells:
            one = replica_capacity(figures, settings.target, self.lengths)
            self.capacity = replace(one, requests_per_s=self.usable * one.requests_per_s)
            self._priced_s, self._priced_by = now, priced_by

    def _expected_lengths(self) -> LengthSketch:
        """Before any request has ended: the mean prompt of those that came and were not refused."""
        requests = tokens = 0.0
        for gateway in self._gateways.values():
            if gateway.last is not None:
                requests += gateway.last.served_requests
                tokens += gateway.last.served_input_tokens
        if requests <= 0.0:
            return LengthSketch()
        return sketch_of([(tokens / requests, 0.0, EXPECTED_OUTPUT_TOKENS)])

    # ---- load

    def _measure(self, now: float, horizon_s: float) -> None:
        short = self._rate(SHORT_S)
        if short is None:
            return
        if self.known_since_s is None:
            self.known_since_s = now
        self.requests_per_s = self._steady(short, min(max(horizon_s, 2.0 * SHORT_S), LONGEST_S))
        if short > 0.0 or self.held_requests > 0.0:
            self.idle_since_s = None
        elif self.idle_since_s is None:
            self.idle_since_s = now
        if self.capacity is not None:
            self.load = self.requests_per_s / self.capacity.requests_per_s

    def _steady(self, short: float, longest_s: float) -> float:
        """The rate over the longest window that no shorter one contradicts: what is steady is
        known well, and what changed is taken in full as soon as chance cannot explain it.
        """
        rate, least, most, window_s = short, 0.0, inf, SHORT_S
        while True:
            noise = NOISE_SIGMAS * sqrt(UNEQUAL * max(rate, 0.0) / window_s)
            least, most = max(least, rate - noise), min(most, rate + noise)
            if window_s >= longest_s:
                return rate
            window_s = min(2.0 * window_s, longest_s)
            longer = self._rate(window_s)
            if longer is None or not least <= longer <= most:
                return rate
            rate = longer

    def _counted(self) -> Iterator[GatewayTotals]:
        """All but those that have left."""
        return (totals for name, totals in self._gateways.items() if name not in self.left)

    def _rate(self, window_s: float) -> float | None:
        rates = [gateway.requests_per_s(window_s) for gateway in self._counted()]
        known = [rate for rate in rates if rate is not None]
        return sum(known) if known else None

    def _fill_minutes(self, now: float) -> None:
        """Spread the load since the last look over the minutes of the clock."""
        self.minutes = []
        begin_s = self._seen_s
        if self.troubles or any(now - each < MINUTE_S for each in self._left_s.values()):
            # What is known in part, or moves from one to the other, is not what was: nobody learns
            # from it.
            self._start_minute(now // MINUTE_S * MINUTE_S + MINUTE_S)
            return
        if begin_s is None or self.known_since_s is None or self.capacity is None:
            self._minute_begin_s = now // MINUTE_S * MINUTE_S
            return
        if now - begin_s > 2.0 * MINUTE_S:
            # A gap: nobody looked, and what was is not to be guessed.
            begin_s = now - MINUTE_S
            self._start_minute(begin_s // MINUTE_S * MINUTE_S)
        rate = self._rate(max(now - begin_s, 1.0))
        load = self.load if rate is None else rate / self.capacity.requests_per_s
        while now >= self._minute_begin_s + MINUTE_S:
            end_s = self._minute_begin_s + MINUTE_S
            self._add(load, end_s - max(begin_s, self._minute_begin_s))
            begin_s = max(begin_s, end_s)
            if self._minute_cover_s >= LEAST_COVER * MINUTE_S:
                mean = self._minute_load_s / self._minute_cover_s
                unit = self.capacity.requests_per_s
                noise = sqrt(UNEQUAL * mean * unit / MINUTE_S) / unit
                self.minutes.append(MinuteLoad(self._minute_begin_s, mean, noise=noise))
            self._start_minute(end_s)
        self._add(load, now - max(begin_s, self._minute_begin_s))

    def _start_minute(self, begin_s: float) -> None:
        self._minute_begin_s = begin_s
        self._minute_cover_s = self._minute_load_s = 0.0

    def _add(self, load: float, seconds: float) -> None:
        seconds = max(seconds, 0.0)
        self._minute_cover_s += seconds
        self._minute_load_s += load * seconds


def minutes_of(
    samples: Iterable[DemandSample], settings: ScalingSettings, figures: EngineFigures
) -> Iterator[MinuteLoad]:
    """History by the minute, in load: what is known of a step is its mean."""
    for sample in samples:
        if sample.lasts_s <= 0.0 or sample.requests < 0.0:
            continue
        load = 0.0
        if sample.requests > 0.0:
            prompt = sample.input_tokens / sample.requests
            lengths = sketch_of([(prompt, 0.0, sample.output_tokens / sample.requests)])
            one = replica_capacity(figures, settings.target, lengths)
            load = sample.requests / sample.lasts_s / one.requests_per_s
        begin_s = ceil(sample.begins_s / MINUTE_S) * MINUTE_S
        while begin_s + MINUTE_S / 2 <= sample.begins_s + sample.lasts_s:
            yield MinuteLoad(begin_s, load)
            begin_s += MINUTE_S
