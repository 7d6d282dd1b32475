"""More replicas where memory bandwidth is used up: a second trigger that may only raise.

    measured  DCGM_FI_PROF_DRAM_ACTIVE, the mean over replicas
    modelled  (weight bytes + context tokens * KV bytes per token) per step / (step_s * peak)
    replicas = ready * KV part of the ratio / (0.85 - weights' part),  at most load / 0.7

Bytes and peak are those of the pool's profile. A step is as long as streams show it to be: by the
profile's own seconds the ratio would be one number, whatever the engine does. Only where nothing is
streamed is it as long as the latency model says, which whole answers have corrected.

Decoding reads all weights at every step, so a replica with one stream can show a high ratio and be
idle by any other measure, and more replicas do not lower that part of it: each reads its weights as
often. Where no profile tells the parts, all of it counts as KV cache. In either case nobody is
asked for whom the load would not use to 70 %.
"""

from __future__ import annotations

from headrace.core.profile_fit import was_given
from headrace.core.scaling.capacity import whole_replicas
from headrace.core.scaling.observation import ReplicaObservation
from headrace.core.scaling.plan import MemoryUse, Signal
from headrace.core.scaling.view import ScalingView

TARGET_RATIO = 0.85
LEAST_USE = 0.7
"""Of what replicas carry: beyond that it is not asked for more of them. The bound goes by the load
alone, so what is added does not move it."""
LEAST_ROOM = 0.01
"""Of the target beside the weights: with less, more replicas would not help."""
LEAST_LOAD = 0.5
"""In replicas fully used; with less, one has room whatever it reads."""
MOST_RATIO = 1.1
"""More than this no memory moves, what is not exact in the figures aside: they are of another
engine."""

_NO_BYTES = (
    "no DCGM, and what seconds are reckoned by ({}) tells no bytes: give the pool `gpu_metrics` or "
    "a profile with memory_bytes_per_s, weight_bytes_per_step and kv_bytes_per_token, as shipped "
    "ones have"
)
_TOO_MUCH = (
    "in which the bytes of profile {} would be {:.2f} of the peak: the engines have other weights "
    "or GPUs, or make several tokens in a step"
)


def memory_bandwidth(view: ScalingView) -> Signal | None:
    """What bandwidth asks for; None where fewer replicas would do too, or it is not known."""
    ready = len(view.ready)
    if not ready or view.capacity is None or view.load < LEAST_LOAD:
        return None
    use = memory_use(view)
    if use.ratio is None:
        return None
    ratio = min(use.ratio, 1.0)
    weights = min(use.weights_ratio, ratio)
    room = TARGET_RATIO - weights
    if room < LEAST_ROOM:
        return None
    replicas = ready * (ratio - weights) / room
    # One that was added for a ratio above the target has lowered it, and has to stay. It has to
    # also while a rolling upgrade has more of them ready than are wanted, which lowers it alike.
    if whole_replicas(replicas) < min(ready, view.number or ready):
        return None
    figures = (
        ("ratio", use.ratio),
        ("weights_ratio", weights),
        ("target_ratio", TARGET_RATIO),
        ("load", view.load),
    )
    return Signal(
        "memory_bandwidth", min(replicas, view.load / LEAST_USE), use.source, figures, kind="raises"
    )


def memory_use(view: ScalingView) -> MemoryUse:
    """How busy the memory of the ready replicas is, and from what that is known."""
    measured = [
        each.memory_bandwidth_ratio
        for each in view.fresh
        if each.memory_bandwidth_ratio is not None
    ]
    modelled = _modelled(view)
    if not measured or 2 * len(measured) < len(view.ready):
        return modelled
    ratio = sum(measured) / len(measured)
    note = f"DCGM tells it of {len(measured)} of {len(view.ready)} ready replicas"
    share = modelled.weights_ratio / modelled.ratio if modelled.ratio else 0.0
    return MemoryUse(ratio, "measured", note, share * ratio)


def _modelled(view: ScalingView) -> MemoryUse:
    """Bytes of a step over what the memory could move meanwhile."""
    figures, ready = view.figures, len(view.ready)
    bytes_known = figures.weight_bytes_per_step and figures.kv_bytes_per_token
    if not (figures.memory_bytes_per_s and bytes_known):
        note = _NO_BYTES.format(figures.latency.source)
        return MemoryUse(None, "", note, is_asked_for=was_given(figures.latency))
    paced = [each for each in _believed(view) if each.decode_step_s]
    if 2 * len(paced) >= ready > 0:
        # Who shows no step decodes nothing.
        per_s = [1.0 / each.decode_step_s for each in paced if each.decode_step_s]
        tokens = [each.decoding_context_tokens or 0.0 for each in paced]
        weights = figures.weight_bytes_per_step * sum(per_s)
        kv = figures.kv_bytes_per_token * sum(a * b for a, b in zip(tokens, per_s, strict=True))
        peak = ready * figures.memory_bytes_per_s
        step_ms = 1e3 * sum(each.decode_step_s or 0.0 for each in paced) / len(paced)
        seen = f"streams show steps of {step_ms:.1f} ms"
    else:
        step_s, tokens = _by_the_model(view)
        if step_s <= 0.0:
            return MemoryUse(None, "", "no stream has shown of late how long a step is")
        weights = figures.weight_bytes_per_step
        kv = figures.kv_bytes_per_token * tokens
        peak = step_s * figures.memory_bytes_per_s
        seen = f"no stream shows how long a step is, {step_s * 1e3:.1f} ms by the latency model"
    name, ratio = figures.latency.name, (weights + kv) / peak
    if ratio > MOST_RATIO:
        return MemoryUse(None, "", f"{seen}, {_TOO_MUCH.format(name, ratio)}")
    note = f"{seen}, profile {name} tells their bytes and the peak"
    return MemoryUse(ratio, "modelled", note, weights / peak)


def _believed(view: ScalingView) -> tuple[ReplicaObservation, ...]:
    """Ready replicas with fresh figures; streams show a step of those without metrics too."""
    if view.fresh:
        return view.fresh
    return tuple(each for each in view.ready if each.measured_age_s is None)


def _by_the_model(view: ScalingView) -> tuple[float, float]:
    """Seconds of a step and the context of a replica, as the load makes them; 0 while idle."""
    figures, capacity = view.figures, view.capacity
    if capacity is None or capacity.step_s <= 0.0 or view.load < LEAST_LOAD or not view.ready:
        return 0.0, 0.0
    share = min(view.load / len(view.ready), 1.0)
    fixed_s = figures.latency.per_step_s
    used = share * (1.0 - fixed_s / capacity.step_s)
    tokens = share * capacity.kv_ratio * figures.kv_capacity_tokens
    return fixed_s / max(1.0 - used, 1e-3), tokens
