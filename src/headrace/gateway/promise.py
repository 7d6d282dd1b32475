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
    """What cannot be promised as it is asked for: the message is for the client, `param` the
    field's name, `code` that of the error.
    """

    def __init__(self, name: bytes, problem: str, code: str = "bad_slo") -> None:
        self.param = name.decode()
        self.code = code
        super().__init__(f"{self.param!r} is {problem}.")


@message
class Promise:
    """`tier` is "" where none was named, a target None where none was sent."""

    tier: str = ""
    ttft_s: float | None = None
    tpot_s: float | None = None


NOTHING_ASKED = Promise()


def promise_of(headers: list[Header]) -> Promise:
    """Read what the fields of a request ask for. Raises BadPromise."""
    tier = _the_one(headers, TIER, "conflicting_tiers")
    ttft_s, tpot_s = _target_s(headers, TTFT), _target_s(headers, TPOT)
    if not tier and ttft_s is None and tpot_s is None:
        return NOTHING_ASKED
    return Promise((tier or b"").decode("latin-1"), ttft_s, tpot_s)


def _target_s(headers: list[Header], name: bytes) -> float | None:
    value = _the_one(headers, name, "bad_slo")
    if value is None:
        return None
    target_ms = float(value) if _NUMBER.fullmatch(value) else 0.0
    if not 0.0 < target_ms <= MAX_TARGET_MS:
        raise BadPromise(
            name,
            f"{_shown(value)}; send milliseconds: a number above 0, at most {MAX_TARGET_MS}",
        )
    return target_ms / 1000.0


def _the_one(headers: list[Header], name: bytes, code: str) -> bytes | None:
    """The value of a field that may stand there once; again only with the same value."""
    value = find(headers, name)
    if value is None:
        return None
    for each, other in headers:
        if each == name and other != value:
            # Whichever was taken, somebody on the way here meant the other one.
            raise BadPromise(
                name, f"{_shown(value)} and also {_shown(other)}; send the field once", code
            )
    return value


def _shown(value: bytes) -> str:
    return ascii(value[:_SHOWN].decode("latin-1"))
