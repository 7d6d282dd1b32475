"""The figures of a run, as JSON has them: `docs/reference/bench-report.md` explains each.

goodput_share  met every target they have / judged
goodput_rps    met / span in which requests were intended to be sent
*_per_s        tokens / (first intended time to last end)
hit_share      cached input tokens / input tokens, of the answers whose usage tells
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field

from headrace.bench.figures.confidence import Interval, wilson
from headrace.bench.figures.percentiles import Distribution, distribution
from headrace.bench.figures.results import Group, Results
from headrace.bench.figures.slo import E2E, FAILED, MET, OPEN, TPOT, TTFT, Slos
from headrace.bench.figures.verdict import Judged, Verdict, verdict_of
from headrace.bench.record import Record, RunInfo

SCHEMA = "headrace-bench/1"
"""Grows with every change that is not an addition."""
DECIMALS = 6
"""Of the figures in JSON: microseconds."""


@dataclass(frozen=True, slots=True)
class Scores:
    """Figures of a group of requests; the fields are those of the JSON."""

    requests: int
    completed: int
    """Whole answers of those that stayed."""
    failed: int
    left: int
    interrupted: int
    """Still running when somebody stopped the run."""
    judged: int
    """Those that met their targets, missed one or failed: not those that left on purpose, nor those
    that were interrupted before they had missed a target."""
    met: int
    missed_ttft: int
    """The first target missed; so the misses and `failed` add up."""
    missed_tpot: int
    missed_e2e: int
    goodput_share: float
    goodput_interval: Interval
    goodput_rps: float
    completed_rps: float
    ttft_s: Distribution
    tpot_s: Distribution
    itl_s: Distribution
    e2e_s: Distribution
    input_tokens: int
    output_tokens: int
    input_tokens_per_s: float
    output_tokens_per_s: float
    cached_tokens: int
    hit_share: float | None
    """None: no usage told."""
    errors: dict[str, int] = field(default_factory=dict[str, int])
    """Failed requests by kind, the most frequent first."""
    error_examples: dict[str, str] = field(default_factory=dict[str, str])
    """What the endpoint or the system said of the first of each kind; empty: nothing."""


@dataclass(frozen=True, slots=True)
class Summary:
    """A run, judged."""

    run: RunInfo
    slos: Slos
    verdict: Verdict
    all: Scores
    length_classes: dict[str, Scores]
    tiers: dict[str, Scores]
    replicas: dict[str, Scores]

    def document(self) -> dict[str, object]:
        """As JSON wants it, figures rounded to `DECIMALS`."""
        return {"schema": SCHEMA, **document_of(self)}


def summarise(records: Iterable[Record], info: RunInfo, slos: Slos) -> Summary:
    """Judge a run.

    Args:
        records: in any order; read once.
        info: of the same run.
        slos: what its requests had to meet.
    """
    results = Results(records, slos, info.lag.late_after_s)
    groups = results.by_tier()
    tiers = {name: scores_of(group, info) for name, group in groups.items()}
    whole = scores_of(results.all(), info)
    judged = [
        Judged(
            name,
            slos.of(name),
            scores.met,
            scores.judged,
            scores.failed,
            groups.get(name, results.all()).met_but_for_lag,
        )
        for name, scores in (tiers or {"": whole}).items()
    ]
    return Summary(
        run=info,
        slos=slos,
        verdict=verdict_of(judged, info, whole.tpot_s.p50 if whole.tpot_s.count else None),
        all=whole,
        length_classes={
            name: scores_of(group, info) for name, group in results.by_length_class().items()
        },
        tiers=tiers,
        replicas={name: scores_of(group, info) for name, group in results.by_replica().items()},
    )


def scores_of(group: Group, info: RunInfo) -> Scores:
    """Figures of some requests of this run."""
    errors = dict(sorted(group.errors.items(), key=lambda entry: (-entry[1], entry[0])))
    met, judged = group.outcomes[MET], group.requests - group.left - group.outcomes[OPEN]
    completed = group.requests - group.left - group.interrupted - group.outcomes[FAILED]
    return Scores(
        requests=group.requests,
        completed=completed,
        failed=group.outcomes[FAILED],
        left=group.left,
        interrupted=group.interrupted,
        judged=judged,
        met=met,
        missed_ttft=group.outcomes[TTFT],
        missed_tpot=group.outcomes[TPOT],
        missed_e2e=group.outcomes[E2E],
        goodput_share=met / judged if judged else 0.0,
        goodput_interval=wilson(met, judged),
        goodput_rps=_per_s(met, info.load_s),
        completed_rps=_per_s(completed, info.duration_s),
        ttft_s=distribution(group.ttft_s),
        tpot_s=distribution(group.tpot_s),
        itl_s=group.gaps.distribution(),
        e2e_s=distribution(group.e2e_s),
        input_tokens=group.input_tokens,
        output_tokens=group.output_tokens,
        input_tokens_per_s=_per_s(group.input_tokens, info.duration_s),
        output_tokens_per_s=_per_s(group.output_tokens, info.duration_s),
        cached_tokens=group.cached_tokens,
        hit_share=(
            group.cached_tokens / group.cached_known_tokens if group.cached_known_tokens else None
        ),
        errors=errors,
        error_examples={kind: group.examples[kind] for kind in errors},
    )


def document_of(value: object) -> dict[str, object]:
    """A dataclass as JSON wants it: figures rounded, no infinity."""
    assert not isinstance(value, type)
    plain = _plain(asdict(value))  # pyright: ignore[reportArgumentType] - a dataclass
    assert isinstance(plain, dict)
    return plain


def _per_s(count: int, span_s: float) -> float:
    return count / span_s if span_s > 0.0 else 0.0


def _plain(value: object) -> object:
    if isinstance(value, float):
        return round(value, DECIMALS) if abs(value) != float("inf") else None
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value
