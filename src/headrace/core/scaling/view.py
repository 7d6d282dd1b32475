"""What signals look at: one tick's observation, brought together with what was learned before."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from headrace.core.length_sketch import LengthSketch
from headrace.core.scaling.capacity import Capacity, replicas_for_load
from headrace.core.scaling.observation import Phase, PoolObservation, ReplicaObservation
from headrace.core.scaling.plan import DemandOutlook
from headrace.core.scaling.settings import EngineFigures, ScalingSettings

if TYPE_CHECKING:
    from headrace.core.scaling.backlog import Backlog

ORDERED = (Phase.STARTING, Phase.UNSCHEDULABLE, Phase.READY, Phase.FAILING)


@dataclass(slots=True, kw_only=True)
class ScalingView:
    """Loads are in replicas fully used. `fresh` are ready replicas whose figures can be believed.

    `burn_rates` are by window in seconds. `steady_replicas` is how many were
    ordered one cold start ago, the measure for rises that must be gradual. `number` is what was
    decided last, 0 before anything was. `fits_s` is for how long ready replicas have had room for
    demand.
    """

    now: float
    observation: PoolObservation
    settings: ScalingSettings
    figures: EngineFigures
    capacity: Capacity | None
    lengths: LengthSketch
    load: float
    requests_per_s: float
    held_requests: float
    cold_start_s: float
    outlook: DemandOutlook | None = None
    burn_rates: dict[float, float] = field(default_factory=dict[float, float])
    kv_growth_per_s: float = 0.0
    steady_replicas: int = 0
    number: int = 0
    idle_s: float = 0.0
    backlog: Backlog | None = None
    fits_s: float = 0.0
    ready: tuple[ReplicaObservation, ...] = ()
    fresh: tuple[ReplicaObservation, ...] = ()
    ordered: tuple[ReplicaObservation, ...] = ()
    standby: tuple[ReplicaObservation, ...] = ()

    def staffed(self, load: float) -> float:
        """Replicas that carry `load` within the targets, the margin for chance included."""
        if self.capacity is None or load <= 0.0:
            return 0.0
        return replicas_for_load(self.capacity, load)


class Phases:
    """The replicas of an observation by phase, in the order of their names."""

    __slots__ = ("fresh", "ordered", "ready", "replicas", "standby", "unplaced")

    def __init__(self, replicas: tuple[ReplicaObservation, ...], stale_s: float) -> None:
        self.replicas = replicas
        named = sorted(replicas, key=lambda replica: replica.name)
        self.ordered = tuple(each for each in named if each.phase in ORDERED)
        self.ready = tuple(each for each in self.ordered if each.phase is Phase.READY)
        self.unplaced = tuple(each for each in self.ordered if each.phase is Phase.UNSCHEDULABLE)
        self.standby = tuple(each for each in named if each.phase is Phase.STANDBY)
        self.fresh = with_fresh_figures(self.ready, stale_s)


def with_fresh_figures(
    replicas: tuple[ReplicaObservation, ...], stale_s: float
) -> tuple[ReplicaObservation, ...]:
    """Those whose engine was measured lately, with figures that can be true."""
    return tuple(
        replica
        for replica in replicas
        if replica.measured_age_s is not None
        and 0.0 <= replica.measured_age_s <= stale_s
        and _can_be(replica.kv_usage_ratio, 1.0)
        and _can_be(replica.memory_bandwidth_ratio, 1.0)
        and _can_be(replica.waiting_prefill_tokens, 1e12)
        and _can_be(replica.decode_step_s, 3600.0)
        and _can_be(replica.decoding_context_tokens, 1e12)
    )


def _can_be(value: float | None, most: float) -> bool:
    """Within 0 and `most`, a little over for rounding; a value that is no number is not."""
    return value is None or -1e-6 <= value <= most * 1.001
