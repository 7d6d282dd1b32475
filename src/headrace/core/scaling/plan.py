"""What a scaler decides, with its reasons as data."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Signal:
    """One opinion: how many replicas are wanted, and the figures it follows from.

    `kind` says what it may do: "wants" asks for so many, "raises" may only lift the wish of others,
    "floor" and "ceiling" bound the result. `figures` are (name, value) pairs, units last in the
    names; `why` names the one that decided, for sentences.
    """

    name: str
    replicas: float
    why: str
    figures: tuple[tuple[str, float], ...] = ()
    kind: str = "wants"


@dataclass(frozen=True, slots=True)
class DemandOutlook:
    """Demand in replicas (a replica fully used = 1) now and ahead, before any margin."""

    now: float
    expected: float
    """The highest expected until a replica ordered now is ready."""
    high: float
    """The quantile of that which is provided for."""
    horizon_s: float
    miss_target: float = 0.01
    error: float = 0.0
    """Measured forecast error: mean |log(highest seen ÷ forecast)|."""


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """How busy the memory of the ready replicas is; `ratio` is None where that is not known.

    `source` is "measured", "modelled", or "" where it is not known; `note` says from what, or what
    is missing. `weights_ratio` is the part of it that reads weights, as far as that is known.
    `is_asked_for` is false where nobody gave anything from which it could be known: no profile,
    and no DCGM that answers.
    """

    ratio: float | None
    source: str
    note: str
    weights_ratio: float = 0.0
    is_asked_for: bool = True


@dataclass(frozen=True, slots=True)
class ScalePlan:
    """The number of replicas wanted (`replicas`: ready and starting, not draining) and what to do.

    `order` is how many to start, beyond those that wake from standby; `wake` and `drain` name
    replicas, the first to go first. `holds` says why the number is not what signals wished.
    `complete` is false when data were missing, so that a KEDA scaler can fail its GetMetrics.
    """

    at_s: float
    pool: str
    replicas: int
    signals: tuple[Signal, ...] = ()
    decided_by: str = ""
    """The signal whose wish became the number."""
    holds: tuple[str, ...] = ()
    order: int = 0
    wake: tuple[str, ...] = ()
    drain: tuple[str, ...] = ()
    standby: int = 0
    """Standby replicas wanted beside `replicas`."""
    asked: int | None = None
    """What `replicas` would be if the pool had GPUs for all it asks for, as steady as these."""
    active: bool = True
    """False only when zero replicas are wanted for good: KEDA's IsActive."""
    complete: bool = True
    may_fall: bool = True
    """False while nothing may be lowered, whatever is wished: what there is must be kept."""
    may_yield: bool = False
    """Nobody has asked for anything since `idle_to_zero_s`, and every gateway says so: the last
    replica may go to a pool whose requests wait, also while nothing may be lowered by itself."""
    next_tick_s: float = 0.0
    outlook: DemandOutlook | None = field(default=None)
    memory: MemoryUse | None = None
    """Of the peak bandwidth of their GPUs' memory; None while nobody is ready."""
    demand_since_s: float | None = None
    """Since when demand is counted; None before a gateway has told anything. What it is shows only
    at a second look: until then `outlook` is None."""
