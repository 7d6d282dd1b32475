"""What a request asks to be promised, said in its head: a tier, or targets of its own.

x-headrace-tier: gold          a tier of the configuration
x-llm-d-slo-ttft-ms: 500       targets that stand instead of the tier's, as llm-d's clients
x-llm-d-slo-tpot-ms: 25        send them
"""

from __future__ import annotations

import re

from headrace.core.message import message
from headrace.edges.http.heads import Header, find

TIER = b"x-headrace-tier"
TTFT = b"x-llm-d-slo-ttft-ms"
TPOT = b"x-llm-d-slo-tpot-ms"
MAX_TARGET_MS = 3_600_000
"""Whoever has longer than an hour has no target."""

_NUMBER = re.compile(rb"[0-9]{1,9}(\.[0-9]{1,9})?")
_SHOWN = 64


class BadPromise(ValueError):
    """A target that means nothing; the message is for the client, `param` the field's name."""

    def __init__(self, name: bytes, value: bytes) -> None:
        self.param = name.decode()
        super().__init__(
            f"{self.param!r} is {value[:_SHOWN].decode('latin-1')!a}; send milliseconds: a "
            f"number above 0, at most {MAX_TARGET_MS}."
        )


@message
class Promise:
    """`tier` is "" where none was named, a target None where none was sent."""

    tier: str = ""
    ttft_s: float | None = None
    tpot_s: float | None = None


NOTHING_ASKED = Promise()


def promise_of(headers: list[Header]) -> Promise:
    """Read what the fields of a request ask for. Raises BadPromise."""
    tier = find(headers, TIER)
    ttft_s, tpot_s = _target_s(headers, TTFT), _target_s(headers, TPOT)
    if not tier and ttft_s is None and tpot_s is None:
        return NOTHING_ASKED
    return Promise((tier or b"").decode("latin-1"), ttft_s, tpot_s)


def _target_s(headers: list[Header], name: bytes) -> float | None:
    value = find(headers, name)
    if value is None:
        return None
    target_ms = float(value) if _NUMBER.fullmatch(value) else 0.0
    if not 0.0 < target_ms <= MAX_TARGET_MS:
        raise BadPromise(name, value)
    return target_ms / 1000.0
