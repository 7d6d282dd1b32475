"""`headrace why --scaling`: how many replicas each pool should have, and what made it so."""

from __future__ import annotations

import asyncio
import time
from typing import Any, TypeAlias

import msgspec
from rich.console import Group, RenderableType
from rich.constrain import Constrain
from rich.table import Table
from rich.text import Text

from headrace.autoscaler.reasons import NOBODY, signal_in_words, step_in_words
from headrace.compose.process.terminal import counted
from headrace.compose.why.decision import TIMEOUT_S, WIDTH, WhyError
from headrace.core.durations import in_words
from headrace.core.quantities import percent
from headrace.core.scaling.decision import KNOWS_AFTER_S
from headrace.edges.http import fetch

Document: TypeAlias = dict[str, Any]
"""`autoscaler.views.view_all`, as its listener tells it."""

MOST_STEPS = 12
"""Changes that are shown, the newest last."""
_PHASES = ("ready", "starting", "standby", "draining", "failing", "unschedulable")


def scaling(control_url: str) -> Document:
    """Fetch the plans of every pool. Raises WhyError."""
    base = control_url.rstrip("/")
    try:
        answer = asyncio.run(fetch.get(f"{base}/api/v1/scaler", timeout_s=TIMEOUT_S))
    except fetch.FetchError as error:
        raise WhyError(
            f"cannot reach {control_url}: {error}; give the control plane of a gateway that "
            "scales, or the address of `headrace scaler` (--control)"
        ) from None
    if answer.status == 404:
        raise WhyError(
            f"{control_url} does not scale: its configuration has no `scaling` section, or "
            "`headrace scaler` does it somewhere else (--control)"
        )
    try:
        document = msgspec.json.decode(answer.body, type=Document)
    except msgspec.DecodeError:
        document = {}
    if "pools" not in document or "gateways" not in document:
        raise WhyError(f"{control_url} is no Headrace scaler")
    return document


def layout_scaling(document: Document) -> RenderableType:
    """Each pool: what is there, what is wanted and why, and the steps that led there."""
    parts: list[RenderableType] = [
        _sentence(f"gateway {each['name']} tells nothing: {each['failure']}")
        for each in document["gateways"]
        if each["failure"]
    ]
    for pool in document["pools"]:
        if parts:
            parts.append(Text())
        parts += _pool(pool, document["at_s"])
    return Group(*parts)


def _pool(pool: Document, now: float) -> list[RenderableType]:
    parts: list[RenderableType] = [
        Text(f"pool {pool['name']}", style="bold"),
        _sentence(f"replicas: {_there(pool)}; scaled by {pool['scaled_by']}"),
    ]
    plan = pool["plan"]
    if plan is None:
        return [*parts, _sentence("nothing is decided yet: no gateway has told of this pool")]
    by = f", by {plan['decided_by']}" if plan["decided_by"] else f": {NOBODY}"
    parts.append(_sentence(f"wanted: {counted(plan['replicas'], 'replica')}{by}"))
    if not plan["complete"]:
        parts.append(_sentence("not everything is known: it is not lowered, and KEDA is told so"))
    parts += [_sentence(f"held: {hold}") for hold in plan["holds"]]
    if plan["outlook"]:
        parts.append(_sentence(_outlook(plan["outlook"])))
    if measured := _measured(pool, plan, now):
        parts.append(_sentence(measured))
    parts.append(_sentence(f"latency model: {pool['latency_source']}"))
    if memory := _memory(plan):
        parts.append(_sentence(memory))
    return [*parts, Text(), _signals(plan), Text(), _steps(pool["plans"], now)]


def _sentence(text: str) -> RenderableType:
    return Constrain(Text(text), WIDTH)


def _there(pool: Document) -> str:
    counts = dict.fromkeys(_PHASES, 0)
    for replica in pool["replicas"]:
        counts[replica["phase"]] += 1
    return ", ".join(f"{count} {phase}" for phase, count in counts.items() if count) or "none"


def _outlook(outlook: Document) -> str:
    return (
        f"demand, in replicas fully used: {outlook['now']:.2f} now, {outlook['expected']:.2f} "
        f"expected within {in_words(outlook['horizon_s'])}, {outlook['high']:.2f} provided for"
    )


def _measured(pool: Document, plan: Document, now: float) -> str:
    """Since when demand is counted, while that is short; and what is there of it before it can be
    told in replicas. "" where it is known for long.
    """
    since_s = plan.get("demand_since_s")  # a scaler of before this was told has none
    if since_s is None:
        return ""
    ago_s = max(now - since_s, 0.0)
    since = f"since {time.strftime('%H:%M:%S', time.localtime(since_s))} ({in_words(ago_s)})"
    if plan["outlook"]:
        lasts = in_words(KNOWS_AFTER_S)
        told = f"demand has been known {since}; nothing is lowered until that is {lasts}"
        return told if ago_s < KNOWS_AFTER_S else ""
    ready = [each for each in pool["replicas"] if each["phase"] == "ready"]
    return (
        f"demand has been measured {since}; it will be known after the next look. So far: "
        f"{_sum(ready, 'running')} requests running and {_sum(ready, 'queue_depth')} waiting in "
        f"engines, {pool['held_requests']:.0f} held at gateways"
    )


def _sum(replicas: list[Document], fact: str) -> str:
    told = [each[fact] for each in replicas if each[fact] is not None]
    return f"{sum(told):.0f}" if told else "no"


def _memory(plan: Document) -> str:
    """How busy memory is; "" where nobody asked."""
    memory = plan.get("memory")  # a scaler of before this was told has none
    if not memory or not memory.get("is_asked_for", True):
        return ""
    if memory["ratio"] is None:
        return f"memory bandwidth: not known: {memory['note']}"
    ratio = percent(memory["ratio"])
    return f"memory bandwidth: {ratio} of the peak, {memory['source']}: {memory['note']}"


def _signals(plan: Document) -> Table:
    """Every opinion, with the figures it follows from."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("signal", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("replicas", justify="right", no_wrap=True)
    table.add_column("from", overflow="fold", max_width=WIDTH - 42)
    decided = plan["decided_by"].partition(":")[0]
    for signal in plan["signals"]:
        table.add_row(
            signal["name"],
            signal["kind"],
            f"{signal['replicas']:.2f}",
            signal_in_words(signal),
            style="bold" if signal["name"] == decided else None,
        )
    return table


def _steps(plans: list[Document], now: float) -> Table:
    """The changes of late; of several for the same number the last tells why."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("at", no_wrap=True)
    table.add_column("ago", justify="right", no_wrap=True)
    table.add_column("wanted", justify="right", no_wrap=True)
    table.add_column("why", overflow="fold", max_width=WIDTH - 28)
    for plan in _telling(plans)[-MOST_STEPS:]:
        at = time.strftime("%H:%M:%S", time.localtime(plan["at_s"]))
        ago = in_words(max(0.0, now - plan["at_s"]))
        cells = (at, ago, str(plan["replicas"]), step_in_words(plan))
        table.add_row(*cells)
    return table


def _telling(plans: list[Document]) -> list[Document]:
    """The plans that changed the number, each as it was decided, and the newest one."""
    found: list[Document] = []
    for plan in plans:
        if not found or plan["replicas"] != found[-1]["replicas"]:
            found.append(plan)
    if plans and found[-1] is not plans[-1]:
        found.append(plans[-1])
    return found
