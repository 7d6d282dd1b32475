"""A decision of the scaler in words: what each signal goes by, and why a number changed.

Plans come as JSON documents (`views.view_all`), from a scaler that may be older or newer: a signal
or a figure that is not known here is written as it was told.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from math import isinf
from typing import Any, TypeAlias

from headrace.core.durations import in_words
from headrace.core.quantities import percent
from headrace.core.scaling.capacity import whole_replicas
from headrace.core.scaling.misses import PAIRS
from headrace.core.signals.burn_rate import window_name
from headrace.core.signals.slo_latency import UNEXPLAINED_S

Document: TypeAlias = Mapping[str, Any]
Figures: TypeAlias = Mapping[str, float | None]
"""A signal's figures by name; JSON has no infinity, so what has no bound comes as None."""

NOBODY = "nothing asks for any"
MOST_EXACT = 10_000.0
"""Figures from here on are whole numbers: nobody reads 8.64e+04."""
LONG_S = 600.0
"""Until a cache is full: what takes longer is not worth a word."""
_TIMES = {"begins_s", "ends_s"}
"""Figures that are moments."""
_LIMITS = {
    "tpot": "before TPOT breaks",
    "ttft": "before TTFT breaks",
    "sequences": "before its batch is full",
    "kv": "before its KV cache is full",
    "compute": "before it is out of compute",
}
_BOUNDS = {"floor", "ceiling"}


def signal_in_words(signal: Document) -> str:
    """What it goes by."""
    figures: Figures = {
        name: None if value is None or isinf(value) else value for name, value in signal["figures"]
    }
    words = _WORDS.get(signal["name"])
    if words is not None:
        try:
            return words(signal["why"], figures)
        except (KeyError, TypeError):  # figures of another version, or without bound
            pass
    return _as_told(signal["why"], figures)


def step_in_words(plan: Document) -> str:
    """Why a plan has its number: who decided, of what, and what kept it from another one."""
    decider, _, what = plan["decided_by"].partition(":")
    signals = {each["name"]: each for each in plan["signals"]}
    holds = list(plan["holds"])
    if decider in _BOUNDS and decider in signals:
        bound = signals[decider]
        parts = [f"{decider}: {what.strip()} is {bound['replicas']:g}"]
        # Said already, with what was wished.
        holds = [each for each in holds if not each.endswith(f" allowed by {what.strip()}")]
        parts += _highest(plan["signals"])
    elif decider in signals:
        parts = [_wish_in_words(signals[decider])]
    elif decider == "hysteresis":
        return "; ".join([decider, *holds, *_highest(plan["signals"])])
    else:
        parts = [decider or NOBODY]
    return "; ".join([*parts, *holds])


def _highest(signals: Sequence[Document]) -> list[str]:
    """The highest wish, if there is one."""
    wishes = [each for each in signals if each["kind"] in {"wants", "raises"} and each["replicas"]]
    highest = max(wishes, key=lambda each: each["replicas"], default=None)
    return [] if highest is None else [_wish_in_words(highest)]


def _wish_in_words(signal: Document) -> str:
    wish = signal["replicas"]
    wanted = f"{wish:.2f}"
    if whole_replicas(wish) > whole_replicas(float(wanted)):  # or 1.00 would explain a second one
        wanted = f"a little over {wanted}"
    return f"{signal['name']} wants {wanted}: {signal_in_words(signal)}"


def _as_told(why: str, figures: Figures) -> str:
    told = ", ".join(f"{name} {_number(name, value)}" for name, value in figures.items())
    return f"{why}: {told}" if told else why


def _number(name: str, value: float | None) -> str:
    if value is None:
        return "unbounded"
    if name in _TIMES:
        return _moment(value)
    return f"{value:,.0f}" if abs(value) >= MOST_EXACT else f"{value:.4g}"


def _moment(at_s: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at_s))


# ------------------------------------------------------------ signal by signal


def _token_throughput(limit: str, figures: Figures) -> str:
    most = figures["replica_requests_per_s"]
    carries = "any number" if most is None else f"{most:.3g} requests/s"
    return (
        f"{figures['requests_per_s']:.3g} requests/s, with {figures['uncached_tokens_per_s']:,.0f} "
        f"uncached tokens/s in and {figures['output_tokens_per_s']:,.0f} out, use "
        f"{figures['load']:.2f} of a replica, which carries {carries} "
        f"{_LIMITS.get(limit, limit)}"
    )


def _forecast(_why: str, figures: Figures) -> str:
    standby = figures["standby_replicas"]
    less = f", less {standby:g} on standby" if standby else ""
    return (
        f"load is {figures['load_now']:.2f} replicas now, and up to {figures['load_high']:.2f} "
        f"within {in_words(figures['horizon_s'] or 0.0)}{less}"
    )


def _queued_prefill(_why: str, figures: Figures) -> str:
    held, tokens = figures["held_requests"] or 0.0, figures["backlog_tokens"] or 0.0
    excess_s, growth_s = figures["excess_s"] or 0.0, figures["growth_s"] or 0.0
    parts: list[str] = []
    if held:
        parts.append(f"{held:,.0f} request{'' if held == 1 else 's'} held at gateways")
    if tokens:
        prefill_s = in_words(figures["backlog_s"] or 0.0)
        parts.append(f"{tokens:,.0f} prompt tokens wait ({prefill_s} of prefill)")
    if excess_s:
        beyond = f"{in_words(excess_s)} of work for a replica beyond what flows through anyway"
        more = f", and {in_words(growth_s)} more before help is here" if growth_s > 0.0 else ""
        parts.append(beyond + more)
    return "; ".join(parts) or "no prompt waits; what comes now needs that"


def _kv_occupancy(why: str, figures: Figures) -> str:
    target = percent(figures["target_ratio"] or 0.0)
    text = (
        f"KV caches are {percent(figures['mean_ratio'] or 0.0)} full, the fullest "
        f"{percent(figures['highest_ratio'] or 0.0)}; {target} is aimed at"
    )
    full_s = figures["exhaustion_s"] or 0.0
    if why == "exhaustion_s" or full_s < LONG_S:
        text += f"; full in {in_words(full_s)} as they grow"
    return text


def _late(why: str, fits_s: float) -> str:
    """What `slo_latency` concludes."""
    fits = in_words(fits_s)
    if why == "met":
        return "no more are needed for that"
    if why in {"ttft", "tpot"}:
        return f"late, though replicas have had room for the demand for {fits}"
    if why.endswith("explained"):
        return (
            f"late, which counts once replicas have had room for the demand for "
            f"{in_words(UNEXPLAINED_S)}; now it is {fits}"
        )
    return why.partition(" ")[2] or why


def _slo_latency(why: str, figures: Figures) -> str:
    return (
        f"TTFT is at {percent(figures['ttft_ratio'] or 0.0)} of its target, TPOT at "
        f"{percent(figures['tpot_ratio'] or 0.0)}: {_late(why, figures['fits_s'] or 0.0)}"
    )


def _burn_rate(_why: str, figures: Figures) -> str:
    pairs = {rate: (window_name(long_s), window_name(short_s)) for rate, long_s, short_s in PAIRS}
    long, short = pairs[figures["fired_rate"] or 0.0]
    return (
        f"requests miss {figures[f'burn_{long}']:.3g} times as often as the error budget allows "
        f"over {long}, {figures[f'burn_{short}']:.3g} times over {short}: what slo_latency wants, "
        f"times {figures['factor']:.2f}"
    )


def _memory_bandwidth(source: str, figures: Figures) -> str:
    return (
        f"memory is at {percent(figures['ratio'] or 0.0)} of its peak ({source}), "
        f"{percent(figures['weights_ratio'] or 0.0)} of it for weights; "
        f"{percent(figures['target_ratio'] or 0.0)} is aimed at"
    )


def _schedule(name: str, figures: Figures) -> str:
    begins_s, ends_s = figures["begins_s"] or 0.0, figures["ends_s"]
    until = "" if ends_s is None else f" to {_moment(ends_s)}"
    return f"{name}, {_moment(begins_s)}{until}"


def _floor(name: str, figures: Figures) -> str:
    idle_s = figures["idle_s"] or 0.0
    return f"{name}; nobody has asked for {in_words(idle_s)}" if idle_s >= 1.0 else name


_WORDS: Mapping[str, Callable[[str, Figures], str]] = {
    "token_throughput": _token_throughput,
    "forecast": _forecast,
    "queued_prefill": _queued_prefill,
    "kv_occupancy": _kv_occupancy,
    "slo_latency": _slo_latency,
    "burn_rate": _burn_rate,
    "memory_bandwidth": _memory_bandwidth,
    "schedule": _schedule,
    "floor": _floor,
}
