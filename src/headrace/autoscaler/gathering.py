"""From what gateways told, at different times, to one observation of each pool.

Totals stay apart by gateway, for the core to take differences of; what is known of a replica is put
together: it is idle if it is for all, its waiting tokens are everybody's, its engine's figures are
the freshest.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from headrace.core.scaling.decision import WENT_BACK_S
from headrace.core.scaling.gateway_totals import SKEW_S
from headrace.core.scaling.observation import (
    GatewayReport,
    Phase,
    PoolObservation,
    ReplicaObservation,
)
from headrace.core.scaling.report import PoolReport, ScalingReport

_ORDER = (Phase.DRAINING, Phase.READY, Phase.STARTING, Phase.FAILING, Phase.UNSCHEDULABLE)
"""Where gateways differ, the first of these that any of them sees: whoever drains it means it, and
one that is ready for some can serve."""


@dataclass(frozen=True, slots=True)
class Told:
    """A gateway's report and when it came, in Unix seconds by our clock."""

    report: ScalingReport
    received_s: float


class Gathering:
    """The newest report of every gateway that should tell something."""

    def __init__(self, expected: Sequence[str]) -> None:
        self.expected = tuple(expected)
        self._told: dict[str, Told] = {}
        self.failures: dict[str, str] = {}
        """Why a gateway's last read failed, by its name; those that went well are not in it."""

    def expect(self, gateways: Sequence[str]) -> None:
        """These are all that should tell something from now on; others are forgotten."""
        self.expected = tuple(gateways)
        self._told = {name: told for name, told in self._told.items() if name in self.expected}
        self.failures = {name: why for name, why in self.failures.items() if name in self.expected}

    def knows(self, gateway: str) -> bool:
        """Whether it has told anything yet."""
        return gateway in self._told

    def take(self, gateway: str, report: ScalingReport, now: float) -> None:
        """A gateway told something."""
        self._told[gateway] = Told(report, now)
        self.failures.pop(gateway, None)

    def failed(self, gateway: str, reason: str) -> None:
        """A gateway could not be asked."""
        self.failures[gateway] = reason

    def latest(self, pool: str) -> list[PoolReport]:
        """What is known of a pool, by gateway in the order of `expected`."""
        found: list[PoolReport] = []
        for gateway in self.expected:
            told = self._told.get(gateway)
            if told is not None:
                found += [each for each in told.report.pools if each.pool == pool]
        return found

    def observation(
        self,
        pool: str,
        now: float,
        *,
        own: Sequence[ReplicaObservation] | None = None,
        refused: str = "",
    ) -> PoolObservation:
        """The pool at `now`. `own` are the replicas that we start ourselves, which we know better
        than any gateway; without them they are what gateways see.
        """
        gateways, seen = list[GatewayReport](), list[ReplicaObservation]()
        listed = own is not None
        for gateway in self.expected:
            told = self._told.get(gateway)
            if told is None or told.received_s > now + WENT_BACK_S:
                continue  # of later than now: the clock was set back, and its age is not known
            for each in told.report.pools:
                if each.pool == pool:
                    listed |= each.replicas_known
                    age_s = max(0.0, now - told.received_s)
                    ahead_s = _ahead_s(told)
                    gateways.append(replace(each.demand, gateway=gateway, age_s=age_s))
                    seen += [_aged(replica, age_s, ahead_s) for replica in each.replicas]
        replicas = _together(seen) if own is None else _with_figures(own, _together(seen))
        return PoolObservation(
            at_s=now,
            pool=pool,
            replicas=tuple(replicas),
            gateways=tuple(gateways),
            expected_gateways=self.expected,
            replicas_known=listed,
            refused_order=refused,
        )


def _ahead_s(told: Told) -> float:
    """How far a gateway's clock is ahead of ours; 0 where that may be the time a report took."""
    ahead_s = told.report.reported_at_s - told.received_s
    return ahead_s if abs(ahead_s) > SKEW_S else 0.0


def _aged(replica: ReplicaObservation, age_s: float, ahead_s: float) -> ReplicaObservation:
    """As old as it is now, with its times by our clock."""
    measured_s = replica.measured_age_s
    aged = replace(replica, measured_age_s=None if measured_s is None else measured_s + age_s)
    if not ahead_s:
        return aged
    return replace(
        aged,
        ordered_at_s=max(aged.ordered_at_s - ahead_s, 0.0) if aged.ordered_at_s else 0.0,
        ready_at_s=None if aged.ready_at_s is None else aged.ready_at_s - ahead_s,
        idle_since_s=None if aged.idle_since_s is None else aged.idle_since_s - ahead_s,
    )


def _together(seen: Iterable[ReplicaObservation]) -> list[ReplicaObservation]:
    """Each replica once, in the order of names."""
    by_name: dict[str, ReplicaObservation] = {}
    for replica in seen:
        known = by_name.get(replica.name)
        by_name[replica.name] = replica if known is None else _merged(known, replica)
    return [by_name[name] for name in sorted(by_name)]


def _merged(one: ReplicaObservation, other: ReplicaObservation) -> ReplicaObservation:
    fresh, stale = (one, other) if _age(one) <= _age(other) else (other, one)
    both_idle = one.idle_since_s is not None and other.idle_since_s is not None
    ready = [each.ready_at_s for each in (one, other) if each.ready_at_s is not None]
    return replace(
        fresh,
        phase=min(one.phase, other.phase, key=_ORDER.index),
        ordered_at_s=_ordered_s(one, other),
        ready_at_s=min(ready, default=None),
        idle_since_s=max(one.idle_since_s or 0.0, other.idle_since_s or 0.0) if both_idle else None,
        waiting_prefill_tokens=(one.waiting_prefill_tokens or 0.0)
        + (other.waiting_prefill_tokens or 0.0),
        cache_value_s=max(fresh.cache_value_s or 0.0, stale.cache_value_s or 0.0) or None,
        decode_step_s=_step_s(one, other),
        decoding_context_tokens=_tokens(one) + _tokens(other),
    )


def _ordered_s(one: ReplicaObservation, other: ReplicaObservation) -> float:
    """The earlier time of those that are known: at 0 nobody knows when."""
    known = [each.ordered_at_s for each in (one, other) if each.ordered_at_s > 0.0]
    return min(known, default=0.0)


def _step_s(one: ReplicaObservation, other: ReplicaObservation) -> float | None:
    """An engine has one step for the streams of all gateways: who has more of them knows better."""
    if one.decode_step_s is None or other.decode_step_s is None:
        return other.decode_step_s if one.decode_step_s is None else one.decode_step_s
    mine, theirs = _tokens(one), _tokens(other)
    if mine + theirs <= 0.0:
        return (one.decode_step_s + other.decode_step_s) / 2.0
    return (one.decode_step_s * mine + other.decode_step_s * theirs) / (mine + theirs)


def _tokens(replica: ReplicaObservation) -> float:
    return replica.decoding_context_tokens or 0.0


def _age(replica: ReplicaObservation) -> float:
    return float("inf") if replica.measured_age_s is None else replica.measured_age_s


def _with_figures(
    own: Sequence[ReplicaObservation], seen: Iterable[ReplicaObservation]
) -> list[ReplicaObservation]:
    """Our own replicas, by our own phases and times, with the figures that gateways have."""
    figures = {each.name: each for each in seen}
    found: list[ReplicaObservation] = []
    for each in own:
        known = figures.get(each.name)
        if known is None:
            found.append(each)
            continue
        found.append(
            replace(
                known,
                phase=each.phase,
                ordered_at_s=each.ordered_at_s,
                ready_at_s=each.ready_at_s,
            )
        )
    return found
