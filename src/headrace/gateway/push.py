"""`POST /telemetry`: an engine's own exporter tells what it measured."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TypeGuard
from urllib.parse import urlsplit

import msgspec

from headrace.core.model import Replica
from headrace.gateway.metrics.external import PushedReport
from headrace.gateway.telemetry import Telemetry, serves

MAX_REPORTS = 1000
MAX_NAME_CHARS = 256
MAX_TOKENS = 100_000_000
MAX_LATENCY_MS = 24 * 3600 * 1000.0
MAX_QUEUE = 10_000_000.0


class PushError(ValueError):
    """A report that cannot be used: which field, its value, and what to do.

    `field` is the path in the body as it was sent, as in `[2].ttftMs`.
    """

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


# ---------------------------------------------------------------- reading


def _text(value: object) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= MAX_NAME_CHARS:
        raise ValueError(f"give a text of 1 to {MAX_NAME_CHARS} characters")
    return value


def _tokens(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_TOKENS:
        raise ValueError(f"give a whole number from 0 to {MAX_TOKENS}")
    return value


def _in_range(value: object, most: float) -> TypeGuard[int | float]:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return 0 <= value <= most


def _number(most: float, hint: str) -> Callable[[object], float]:
    def convert(value: object) -> float:
        if not _in_range(value, most):
            raise ValueError(f"give {hint}")
        return float(value)

    return convert


def _seconds(value: object) -> float:
    convert = _number(MAX_LATENCY_MS, f"milliseconds from 0 to {MAX_LATENCY_MS:.0f}")
    return convert(value) / 1000


_RATIO = _number(1.0, "a share from 0 to 1 (50 % is 0.5)")
_QUEUE = _number(MAX_QUEUE, "a number of requests, 0 or more")

_FIELDS: Mapping[str, tuple[str, Callable[[object], object]]] = {
    "modelId": ("model_id", _text),
    "replica": ("replica", _text),
    "sender": ("sender", _text),
    "eventId": ("event_id", _text),
    "inputTokens": ("input_tokens", _tokens),
    "outputTokens": ("output_tokens", _tokens),
    "ttftMs": ("ttft_s", _seconds),
    "tpotMs": ("tpot_s", _seconds),
    "kvCacheOccupancy": ("kv_usage_ratio", _RATIO),
    "pendingQueue": ("queue_depth", _QUEUE),
}


def _snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)


_SPELLINGS = {spelling: name for name in _FIELDS for spelling in (name, _snake(name))}


def parse_reports(body: bytes) -> list[PushedReport]:
    """Read one report or a list of them, field names in camel or snake case.

    Raises:
        PushError: not JSON, too many, an unknown field, a value out of range, or no `modelId`.
    """
    try:
        document: object = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PushError("", f"the body is not JSON ({error}); send one object or a list") from None
    if isinstance(document, dict):
        return [_parse_report(document, "")]
    if not isinstance(document, list):
        raise PushError("", f"the body is {_shown(document)}; send one object or a list of them")
    if len(document) > MAX_REPORTS:
        raise PushError(
            "", f"the list has {len(document)} reports; send at most {MAX_REPORTS} at a time"
        )
    return [_parse_report(entry, f"[{index}]") for index, entry in enumerate(document)]


def _parse_report(entry: object, path: str) -> PushedReport:
    if not isinstance(entry, dict):
        raise PushError(path, f"{path} is {_shown(entry)}; each report must be an object")
    values: dict[str, object] = {}
    for spelling, value in entry.items():
        field = f"{path}.{spelling}" if path else str(spelling)
        name = _SPELLINGS.get(spelling)
        if name is None:
            raise PushError(field, f"unknown field {field}{_nearest(str(spelling))}")
        attribute, convert = _FIELDS[name]
        if attribute in values:
            raise PushError(field, f"{field} is given twice; use one of {name}, {_snake(name)}")
        if value is None:
            continue
        try:
            values[attribute] = convert(value)
        except ValueError as error:
            raise PushError(field, f"{field} is {_shown(value)}; {error}") from None
    if "model_id" not in values:
        field = f"{path}.modelId" if path else "modelId"
        raise PushError(field, f"{field} is missing; name the model that the report is about")
    return PushedReport(**values)  # pyright: ignore[reportArgumentType]  # checked by the table


def _nearest(spelling: str) -> str:
    close = get_close_matches(spelling, _SPELLINGS, n=1)
    return f"; did you mean {close[0]}?" if close else f"; known ones: {', '.join(_FIELDS)}"


def _shown(value: object) -> str:
    try:
        text = json.dumps(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits, or deep nesting
        text = f"a {type(value).__name__}"
    return text if len(text) <= 60 else f"{text[:57]}..."


# ---------------------------------------------------------------- idempotence


class SeenEvents:
    """Remembers event ids per sender, the oldest forgotten first.

    Bounded per sender, so that a talkative one cannot make the others' repeats count twice.
    """

    def __init__(self, max_senders: int = 256, max_ids: int = 4096) -> None:
        self._max_senders = max_senders
        self._max_ids = max_ids
        self._senders: OrderedDict[str, OrderedDict[str, None]] = OrderedDict()

    def is_new(self, sender: str, event_id: str) -> bool:
        """Remember this event; False if it was seen before."""
        ids = self._senders.setdefault(sender, OrderedDict())
        self._senders.move_to_end(sender)
        if len(self._senders) > self._max_senders:
            self._senders.popitem(last=False)
        if event_id in ids:
            return False
        ids[event_id] = None
        if len(ids) > self._max_ids:
            ids.popitem(last=False)
        return True


# ---------------------------------------------------------------- taking in


@dataclass(slots=True)
class PushResult:
    """The answer to a sender."""

    accepted: int
    duplicates: int
    ignored: list[dict[str, object]]
    """Facts that were not used, per report: `{"index", "fields", "reason"}`."""


class PushReceiver:
    """Checks pushed reports and hands them to telemetry; all of a body or nothing."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry
        self._seen = SeenEvents()

    def receive(self, body: bytes, peer: str) -> PushResult:
        """Take in a body from the address `peer`. Raises PushError, nothing having been used."""
        telemetry = self._telemetry
        try:
            reports = parse_reports(body)
            several = body.lstrip().startswith(b"[")
            replicas = [
                self._find_replica(report, peer, f"[{index}]." if several else "")
                for index, report in enumerate(reports)
            ]
        except PushError:
            telemetry.pushes["invalid"] += 1
            raise
        result = PushResult(0, 0, [])
        for index, (report, replica) in enumerate(zip(reports, replicas, strict=True)):
            sender = report.sender or peer
            if report.event_id is not None and not self._seen.is_new(sender, report.event_id):
                result.duplicates += 1
                continue
            result.accepted += 1
            unused = telemetry.push(report, replica, telemetry.clock())
            if unused:
                result.ignored.append(self._explain_unused(index, unused, replica))
        telemetry.pushes["accepted"] += result.accepted
        telemetry.pushes["duplicate"] += result.duplicates
        return result

    def _explain_unused(self, index: int, unused: list[str], replica: Replica) -> dict[str, object]:
        if self._telemetry.is_external(replica):
            reason = f"{replica.name} tells them itself, and is scraped"
        else:
            reason = f"requests to {replica.name} pass this gateway, which counts them itself"
        return {"index": index, "fields": unused, "reason": reason}

    def _find_replica(self, report: PushedReport, peer: str, path: str) -> Replica:
        """The replica a report is about: as named, or the only one of its model, or of those the
        one at the sender's address.
        """
        replicas = self._telemetry.fleet.replicas.values()
        serving = [replica for replica in replicas if serves(replica, report.model_id)]
        if not serving:
            known = sorted({replica.pool.spec.model for replica in replicas})
            raise PushError(
                f"{path}modelId",
                f"{path}modelId is {_shown(report.model_id)}, which no replica serves; "
                f"known models: {', '.join(known) or 'none'}",
            )
        if report.replica is None:
            here = [replica for replica in serving if urlsplit(replica.url).hostname == peer]
            choice = serving if len(serving) == 1 else here
        else:
            choice = [replica for replica in serving if replica.name == report.replica]
        if len(choice) == 1:
            return choice[0]
        names = ", ".join(replica.name for replica in serving[:10])
        raise PushError(
            f"{path}replica",
            f"{path}replica is {_shown(report.replica)}; name the one replica that the report is "
            f"about, one of: {names}",
        )
