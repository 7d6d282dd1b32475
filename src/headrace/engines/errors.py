"""Whose fault an engine's error answer is: the request's, or this replica's."""

from __future__ import annotations

import re

import msgspec

from headrace.engines.reading import Refusal
from headrace.engines.wire import decode


class _Fault(msgspec.Struct):
    message: str = ""
    param: str | None = None


class _ErrorBody(msgspec.Struct):
    error: _Fault | str | None = None
    message: object = None
    """Words, where the error is the whole body, as vLLM wrote it up to 0.10; others may write what
    they like there."""


_ERROR = msgspec.json.Decoder(_ErrorBody)
_MOST_LETTERS = 1024
"""Of an error's words, how many are searched: an engine may repeat a megabyte of its client's, and
a search takes as long as `_NO_MODEL` is wide for each "model" among them."""
_NO_MODEL = re.compile(r"\bmodel\b.{1,600}\b(does not exist|not found)\b", re.DOTALL)


def classify_error(status: int, body: bytes) -> Refusal:
    """Say what an answer with status >= 400, or a redirection instead of one, means for routing.

    A 4xx is the client's, with four exceptions: 401 (the upstream key is the gateway's own, so
    the client cannot mend it), 424 (TGI: the model behind its router failed), 429 (an engine or a
    proxy before it is full), and a 404 about the model, which the gateway has already resolved:
    the replica lost it, say an unloaded adapter.
    A redirection leads away from the gateway: the pool's address is not quite the engine's.
    501 and 505 say what the engine cannot do at all, so every replica would say the same.
    """
    if status == 503:
        return Refusal.LOADING if "loading" in _fault(body).message.lower() else Refusal.BUSY
    if status == 429:
        return Refusal.BUSY
    if status == 404:
        fault = _fault(body)
        said = fault.message[:_MOST_LETTERS].lower()
        lacks = fault.param == "model" or _NO_MODEL.search(said) is not None
        return Refusal.ABSENT if lacks else Refusal.CLIENT
    if status in {401, 424} or status < 400:
        return Refusal.BROKEN
    if status >= 500 and status not in {501, 505}:
        return Refusal.BROKEN
    return Refusal.CLIENT


def _fault(body: bytes) -> _Fault:
    answer = decode(_ERROR, body)
    if answer is None:
        return _Fault()
    error = answer.error or answer.message
    if isinstance(error, str):
        return _Fault(message=error)
    return error if isinstance(error, _Fault) else _Fault()
