"""`headrace why`: asks the control plane for a decision and lays it out."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from textwrap import fill
from typing import Any, TypeAlias
from urllib.parse import quote

import msgspec
from rich.console import Group, RenderableType
from rich.constrain import Constrain
from rich.table import Table
from rich.text import Text

from headrace.compose.process.terminal import counted
from headrace.core.durations import in_words
from headrace.edges.http import fetch

Document: TypeAlias = dict[str, Any]
"""A decision as the control plane tells it: `core.decisions.Explanation` with its age."""

TIMEOUT_S = 5.0
FAR_OFF = 0.25
"""By this share of its tokens a prompt must be off the prediction to be worth a sentence: bytes
alone tell prose from code no better."""
WIDTH = 80
"""Sentences are wrapped here however wide the terminal is."""

_FACTS = (
    *("in\nflight", "queue\n", "queued\ntokens", "hit\ntokens"),
    *("uncached\ntokens", "KV space\ntokens", "TTFT\n", "TPOT\n"),
)
"""Two lines each, so that a row fits a terminal."""
_TERM_COLUMNS = 12


class WhyError(Exception):
    """No explanation could be had; the message says why."""


def explanation(control_url: str, request_id: str | None) -> Document:
    """Fetch what is known of a request, of the last one without an id. Raises WhyError."""
    which = "last" if request_id is None else quote(request_id, safe="")
    url = f"{control_url.rstrip('/')}/api/v1/decisions/{which}"
    try:
        answer = asyncio.run(fetch.get(url, timeout_s=TIMEOUT_S))
    except fetch.FetchError as error:
        raise WhyError(
            f"cannot reach the control plane at {control_url}: {error}; is the gateway running, "
            "and is this its address (--control)?"
        ) from None
    try:
        document = msgspec.json.decode(answer.body)
    except msgspec.DecodeError:
        document = None
    if document is not None and answer.status != 200:
        raise WhyError(_message(document, answer.status))
    if not isinstance(document, dict) or "attempts" not in document:
        raise WhyError(f"{control_url} is not a Headrace control plane")
    return document


def _message(document: Document, status: int) -> str:
    try:
        return str(document["error"]["message"])
    except (KeyError, TypeError):
        return f"the control plane answered {status}"


def layout(document: Document) -> RenderableType:
    """The whole story of a request, attempt by attempt."""
    head = Text(f"request {document['request_id']}", style="bold")
    if document["client_id"]:
        head.append(f"  (x-request-id {document['client_id']})", style="none")
    parts: list[RenderableType] = [
        head,
        _sentence(_asked(document)),
        _sentence(_promised(document)),
    ]
    if waited := _waited(document):
        parts.append(_sentence(waited))
    for number, attempt in enumerate(document["attempts"], start=1):
        if attempt.get("held_s"):  # a gateway of before this was told has none
            parts += [Text(), _sentence(f"held again for {_seconds(attempt['held_s'])}")]
        parts += [Text(), _sentence(_attempt_line(number, attempt))]
        if attempt["candidates"]:
            parts += [_candidates(attempt), _costs(attempt)]
        parts.append(_sentence(f"why: {attempt['reason']}"))
        parts.append(_sentence(f"came of it: {_outcome(attempt)}"))
        if attempt["outcome"]:
            parts += _measured(attempt)
    if again := _held_again(document):
        parts += [Text(), _sentence(again)]
    if document["rejected"]:
        parts += [Text(), _sentence(f"rejected: {document['rejected']}")]
    elif not document["attempts"]:
        parts += [Text(), _sentence(document["reason"])]
    return Group(*parts)


def _sentence(text: str) -> RenderableType:
    return Constrain(Text(text), WIDTH)


def _asked(document: Document) -> str:
    words = [f"model {document['model']}" if document["model"] else "no model named"]
    if document["attempts"]:
        words.append(f"about {counted(document['prompt_tokens'], 'prompt token')}")
    return f"{', '.join(words)}, {document['age_s']:.0f} s ago"


def _promised(document: Document) -> str:
    ttft, tpot = _seconds(document["ttft_target_s"]), _seconds(document["tpot_target_s"])
    return f"tier {document['tier']}: TTFT within {ttft}, TPOT within {tpot}"


def _waited(document: Document) -> str:
    """How long it was held; "" if it was not."""
    held_s: float | None = document["held_s"]
    if held_s is None:
        return f"held at the gateway for {_seconds(document['age_s'])} so far"
    if not held_s:
        return ""
    held = f"held at the gateway for {_seconds(held_s)}"
    ttfts = [attempt["ttft_s"] for attempt in document["attempts"]]
    if len(ttfts) == 1 and ttfts[0] is not None:
        # What is measured below counts from when it was sent.
        held += f", so that its first token came after {_seconds(held_s + ttfts[0])}"
    return held


def _held_again(document: Document) -> str:
    """How long it was held after its last attempt; "" if it was not."""
    held_s: float | None = document.get("held_again_s", 0.0)
    if held_s is not None:
        return f"held again for {_seconds(held_s)}" if held_s else ""
    last = document["attempts"][-1]
    ended_s = last["at_s"] + last["duration_s"] - document["arrived_s"]
    return f"held again at the gateway for {_seconds(document['age_s'] - ended_s)} so far"


def _attempt_line(number: int, attempt: Document) -> str:
    model = f" for model {attempt['model']}" if attempt["model"] else ""
    return (
        f"attempt {number}: {attempt['replica']}{model}, policy {attempt['policy']}; "
        f"latency model: {attempt['latency_source']}"
    )


# ---------------------------------------------------------------- what was known


def _candidates(attempt: Document) -> Table:
    """What was known of each candidate, the chosen one first."""
    table = _table(_FACTS)
    for each in attempt["candidates"]:
        cells = (
            _count(each["in_flight"]),
            _seconds(each["queue_s"]),
            _count(each["backlog_tokens"]),
            _count(each["hit_tokens"]),
            _count(each["uncached_tokens"]),
            _count(each["kv_space_tokens"]),
            _seconds(each["ttft_s"]),
            _seconds(each["tpot_s"]),
        )
        _add_row(table, attempt, each, cells)
    more = attempt["considered"] - len(attempt["candidates"])
    if more > 0:
        table.caption = f"and {more} more"
    return table


def _costs(attempt: Document) -> Table:
    """What the choice was made by: the parts of each candidate's cost, those that are not 0."""
    candidates: list[Document] = attempt["candidates"]
    parts = [{term["name"]: term for term in each["terms"]} for each in candidates]
    names = dict.fromkeys(name for terms in parts for name, term in terms.items() if term["value"])
    table = _table(tuple(fill(name, _TERM_COLUMNS) for name in (*names, "cost")), gap=2)
    for each, terms in zip(candidates, parts, strict=True):
        cells = [_amount(terms[name]) if name in terms else "" for name in names]
        total = {"value": each["cost"], "unit": attempt["cost_unit"]}
        _add_row(table, attempt, each, (*cells, _amount(total)))
    return table


def _table(names: tuple[str, ...], gap: int = 1) -> Table:
    table = Table(box=None, padding=(0, gap, 0, 0))
    table.add_column("")
    table.add_column("replica", overflow="fold")
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _add_row(table: Table, attempt: Document, candidate: Document, cells: Iterable[str]) -> None:
    chosen = candidate["chosen"]
    # The pool is named above; and a name is text, never markup.
    name = Text(candidate["replica"].removeprefix(f"{attempt['pool']}/"))
    table.add_row("→" if chosen else "", name, *cells, style="bold" if chosen else None)


# ---------------------------------------------------------------- what came of it


def _outcome(attempt: Document) -> str:
    if not attempt["outcome"]:
        return "still running"
    words = [attempt["outcome"]]
    if attempt["status"] is not None:
        words.append(f"status {attempt['status']}")
    if attempt["detail"]:
        words.append(attempt["detail"])
    return ", ".join(words)


def _measured(attempt: Document) -> list[RenderableType]:
    """What was predicted of the chosen replica beside what was measured, and why it was far off."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("", "predicted", "measured"):
        table.add_column(name, justify="right" if name else "left", no_wrap=True)
    chosen: Document = next(iter(attempt["candidates"]), {})
    for name, key in (("TTFT", "ttft_s"), ("TPOT", "tpot_s")):
        table.add_row(name, _seconds(chosen.get(key)), _seconds(attempt[key], "-"))
    hit = chosen.get("hit_tokens")
    table.add_row(
        "input tokens", _count(_predicted_tokens(attempt)), _count(attempt["input_tokens"], "-")
    )
    table.add_row("of them cached", _count(hit), _count(attempt["cached_tokens"], "-"))
    table.add_row("output tokens", "", _count(attempt["output_tokens"]))
    table.add_row("duration", "", _seconds(attempt["duration_s"], "-"))
    learned = _learned_length(attempt)
    return [table, _sentence(learned)] if learned else [table]


def _predicted_tokens(attempt: Document) -> int | None:
    """What the prompt was taken for, None where nothing of it was priced."""
    chosen: Document = next(iter(attempt["candidates"]), {})
    hit, uncached = chosen.get("hit_tokens"), chosen.get("uncached_tokens")
    return None if hit is None or uncached is None else hit + uncached


def _learned_length(attempt: Document) -> str:
    """Why a prompt was far longer or shorter than predicted; "" if it was not."""
    predicted, counted_tokens = _predicted_tokens(attempt), attempt["input_tokens"]
    if predicted is None or counted_tokens is None:
        return ""
    if abs(counted_tokens - predicted) <= FAR_OFF * counted_tokens:
        return ""
    return (
        f"the prompt was taken for {counted(predicted, 'token')} by its bytes; the engine counted "
        f"{counted_tokens:,}. Later estimates learn from that, also what the chat template adds"
    )


# ---------------------------------------------------------------- words for values


def _amount(term: Document) -> str:
    value, unit = term["value"], term["unit"]
    return _seconds(value) if unit == "s" else f"{value:,.6g} {unit}"


def _count(number: float | None, unknown: str = "?") -> str:
    return unknown if number is None else f"{number:,.0f}"


def _seconds(seconds: float | None, unknown: str = "?") -> str:
    return unknown if seconds is None else in_words(seconds)
