"""Records as an engine would cause them that prefills one prompt after the other."""

import random
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field

from headrace.bench.record import Lag, Record, RunInfo

PREFILL_S = 0.0004
"""Per input token."""
ITL_S = 0.01


@dataclass(frozen=True)
class Run:
    records: list[Record]
    info: RunInfo


@dataclass(frozen=True)
class VirtualEngine:
    """Poisson arrivals of prompts of some classes; `stall` is (when, how long) nothing goes on."""

    requests: int = 400
    classes: Mapping[str, tuple[int, int]] = field(default_factory=lambda: {"": (256, 32)})
    tiers: tuple[str, ...] = ("",)
    stall: tuple[float, float] | None = None
    failing: float = 0.0
    generator_limit_rps: float = float("inf")
    """Above it the generator is late."""

    @property
    def capacity_rps(self) -> float:
        """Prefill is the bottleneck."""
        lengths = [inputs for inputs, _ in self.classes.values()]
        return len(lengths) / (sum(lengths) * PREFILL_S)

    def run(self, rate_rps: float, seed: int = 0) -> Run:
        rng, names = random.Random(seed), list(self.classes)
        at_s = free_s = 0.0
        records = []
        for index in range(self.requests):
            at_s += rng.expovariate(rate_rps)
            name, tier = rng.choice(names), rng.choice(self.tiers)
            inputs, outputs = self.classes[name]
            record = Record(index, length_class=name, tier=tier, intended_s=at_s, sent_s=at_s)
            if rng.random() < self.failing:
                record.error, record.status, record.ended_s = "http_503", 503, at_s + 0.003
            else:
                free_s = self._after_stall(max(free_s, at_s)) + inputs * PREFILL_S
                answer(record, free_s, inputs, outputs, rng)
            records.append(record)
        return Run(records, self._info(records, rate_rps, seed))

    def run_alone(self, requests: int, seed: int = 0) -> Run:
        """Each when the one before it is over."""
        rng, names = random.Random(seed), list(self.classes)
        at_s = 0.0
        records = []
        for index in range(requests):
            name, tier = rng.choice(names), rng.choice(self.tiers)
            inputs, outputs = self.classes[name]
            record = Record(index, length_class=name, tier=tier, intended_s=at_s, sent_s=at_s)
            answer(record, at_s + inputs * PREFILL_S, inputs, outputs, rng)
            at_s = record.ended_s
            records.append(record)
        return Run(records, self._info(records, 0.0, seed))

    def _after_stall(self, at_s: float) -> float:
        if self.stall is not None and self.stall[0] <= at_s < sum(self.stall):
            return sum(self.stall)
        return at_s

    def _info(self, records: list[Record], rate_rps: float, seed: int) -> RunInfo:
        late = rate_rps > self.generator_limit_rps
        load_s = max(record.intended_s for record in records)
        return RunInfo(
            url="http://engine",
            model="virtual",
            traffic=f"{rate_rps:g} requests/s, Poisson",
            seed=seed,
            workers=1,
            started_at=1_795_000_000.0,
            duration_s=max(record.ended_s for record in records),
            load_s=load_s,
            planned_requests=len(records),
            offered_rps=len(records) / load_s,
            lag=Lag(0.0001, 0.2 if late else 0.001, 0.3, 0.2 if late else 0.0, 0.01),
            cpu_s=0.0004 * len(records),
            valid=not late,
            invalid_reason="the generator sent late" if late else "",
        )


def answer(record: Record, first_s: float, inputs: int, outputs: int, rng: random.Random) -> None:
    """A whole answer with its first token at `first_s`."""
    gaps = [ITL_S * rng.uniform(0.8, 1.2) for _ in range(outputs - 1)]
    record.first_token_s, record.last_token_s = first_s, first_s + sum(gaps)
    record.ended_s = record.last_token_s + 0.001
    record.input_tokens, record.output_tokens = inputs, outputs
    record.chunks, record.itl_s, record.status = outputs, array("f", gaps), 200
