"""`headrace why`: asks the control plane for a decision and lays it out."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, TypeAlias
from urllib.parse import quote

import msgspec
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from headrace.edges.http import fetch

Document: TypeAlias = dict[str, Any]
"""A decision as the control plane tells it: `core.decisions.Explanation` with its age."""

TIMEOUT_S = 5.0


class WhyError(Exception):
    """No explanation could be had; the message says why."""


def explanation(control_url: str, request_id: str) -> Document:
    """Fetch what is known of a request. Raises WhyError."""
    url = f"{control_url.rstrip('/')}/api/v1/decisions/{quote(request_id, safe='')}"
    try:
        answer = asyncio.run(fetch.get(url, timeout_s=TIMEOUT_S))
    except fetch.FetchError as error:
        raise WhyError(
            f"cannot reach the control plane at {control_url}: {error}; is the gateway running, "
            "and is this its address (--control)?"
        ) from None
    except ValueError as error:
        raise WhyError(f"--control {control_url}: {error}") from None
    try:
        document = msgspec.json.decode(answer.body)
    except msgspec.DecodeError:
        raise WhyError(f"{control_url} is not a Headrace control plane") from None
    if answer.status != 200:
        raise WhyError(_message(document, answer.status))
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
    asked = f"model {document['model']}, about {document['prompt_tokens']} prompt tokens, "
    parts: list[RenderableType] = [head, Text(f"{asked}{document['age_s']:.0f} s ago")]
    for number, attempt in enumerate(document["attempts"], start=1):
        parts += [Text(), _attempt_line(number, attempt)]
        if attempt["candidates"]:
            parts += [_candidates(attempt), _costs(attempt)]
        parts.append(Text(f"why: {attempt['reason']}"))
        parts.append(Text(f"came of it: {_outcome(attempt)}"))
    if document["rejected"]:
        parts += [Text(), Text(f"rejected: {document['rejected']}")]
    elif not document["attempts"]:
        parts += [Text(), Text(document["reason"])]
    return Group(*parts)


def _attempt_line(number: int, attempt: Document) -> Text:
    return Text(
        f"attempt {number}: {attempt['replica']} for model {attempt['model']}, policy "
        f"{attempt['policy']}, seconds from: {attempt['latency_source']}"
    )


def _candidates(attempt: Document) -> Table:
    """What was known of each candidate, the chosen one first."""
    names = ("in flight", "queue", "queued tokens", "hit", "uncached", "KV space", "TTFT", "TPOT")
    table = _table(names)
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
        _add_row(table, each, cells)
    more = attempt["considered"] - len(attempt["candidates"])
    if more > 0:
        table.caption = f"and {more} more"
    return table


def _costs(attempt: Document) -> Table:
    """What the choice was made by: the parts of each candidate's cost, those that are not 0."""
    candidates: list[Document] = attempt["candidates"]
    parts = [{term["name"]: term for term in each["terms"]} for each in candidates]
    names = dict.fromkeys(name for terms in parts for name, term in terms.items() if term["value"])
    table = _table((*names, "cost"))
    for each, terms in zip(candidates, parts, strict=True):
        cells = [_amount(terms[name]) if name in terms else "" for name in names]
        total = {"value": each["cost"], "unit": attempt["cost_unit"]}
        _add_row(table, each, (*cells, _amount(total)))
    return table


def _table(names: tuple[str, ...]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("")
    table.add_column("replica", no_wrap=True)
    for name in names:
        table.add_column(name, justify="right")
    return table


def _add_row(table: Table, candidate: Document, cells: Iterable[str]) -> None:
    chosen = candidate["chosen"]
    name = Text(candidate["replica"])  # a name is text, never markup
    table.add_row("→" if chosen else "", name, *cells, style="bold" if chosen else None)


def _amount(term: Document) -> str:
    value, unit = term["value"], term["unit"]
    return _seconds(value) if unit == "s" else f"{value:,.6g} {unit}"


def _count(number: float | None) -> str:
    return "?" if number is None else f"{number:,.0f}"


def _seconds(seconds: float | None) -> str:
    """Seconds as screens show them: milliseconds below one."""
    if seconds is None:
        return "?"
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1000 * seconds:.1f} ms"


def _outcome(attempt: Document) -> str:
    if not attempt["outcome"]:
        return "still running"
    words = [attempt["outcome"]]
    if attempt["status"] is not None:
        words.append(f"status {attempt['status']}")
    if attempt["ttft_s"] is not None:
        words.append(f"TTFT {_seconds(attempt['ttft_s'])}")
    if attempt["tpot_s"] is not None:
        words.append(f"TPOT {_seconds(attempt['tpot_s'])}")
    words.append(f"{attempt['output_tokens']:,} output tokens")
    if attempt["detail"]:
        words.append(attempt["detail"])
    return ", ".join(words)
