"""Whole answers: the usage in a body, and the list of models. One shape fits every dialect."""

from __future__ import annotations

from typing import Any

import msgspec

from headrace.core.model import Endpoint
from headrace.engines.reading import ListedModel
from headrace.engines.usage import BodyReading
from headrace.engines.wire import AnyUsage, CompletionUsage, MessageUsage, ResponseUsage, decode


class _CompletionBody(msgspec.Struct):
    usage: CompletionUsage | None = None


class _OtherBody(msgspec.Struct):
    object: str | None = None
    usage: AnyUsage | None = None


class _ResponseBody(msgspec.Struct):
    id: str | None = None
    usage: ResponseUsage | None = None


class _MessageBody(msgspec.Struct):
    usage: MessageUsage | None = None


_COMPLETION = msgspec.json.Decoder(_CompletionBody)
_RESPONSE = msgspec.json.Decoder(_ResponseBody)
_MESSAGE = msgspec.json.Decoder(_MessageBody)
_ANY = msgspec.json.Decoder(_OtherBody)


_OTHER = Endpoint.OTHER
_DECODERS: dict[Endpoint, msgspec.json.Decoder[Any]] = {
    Endpoint.CHAT: _COMPLETION,
    Endpoint.COMPLETIONS: _COMPLETION,
    Endpoint.EMBEDDINGS: _COMPLETION,
    Endpoint.RESPONSES: _RESPONSE,
    Endpoint.MESSAGES: _MESSAGE,
}


def read_body(endpoint: Endpoint, body: bytes) -> BodyReading:
    """Read the usage, and a response's id, out of a whole 2xx answer. Never raises."""
    if endpoint is _OTHER:
        return read_other(body)
    answer: _CompletionBody | _ResponseBody | _MessageBody | None
    answer = decode(_DECODERS[endpoint], body)
    if answer is None:
        return BodyReading()
    usage = answer.usage.read() if answer.usage else None
    response_id = answer.id if isinstance(answer, _ResponseBody) else None
    return BodyReading(usage, response_id)


def read_other(body: bytes) -> BodyReading:
    """Read the usage of an answer, or of an event, of an endpoint that is not known."""
    answer = decode(_ANY, body) if body.startswith(b"{") else None  # audio and files are no JSON
    # That of a stored response was counted when the response was made.
    if answer is None or answer.usage is None or answer.object == "response":
        return BodyReading()
    return BodyReading(answer.usage.read())


class _ModelMeta(msgspec.Struct):
    n_ctx: int | None = None


class _Model(msgspec.Struct):
    id: str
    parent: str | None = None
    owned_by: str | None = None
    max_model_len: int | None = None
    meta: _ModelMeta | None = None
    aliases: list[str] | None = None


class _ModelList(msgspec.Struct):
    data: list[_Model]


_MODELS = msgspec.json.Decoder(_ModelList)


def list_models(body: bytes) -> list[ListedModel]:
    """Read a `/v1/models` body. Raises `ValueError` if it is not a model list.

    `max_model_len` (vLLM) and `meta.n_ctx` (llama.cpp: the context of one slot) both say what one
    request may hold; an engine gives one of them or neither.
    """
    listed = decode(_MODELS, body)
    if listed is None:
        start = body[:80].decode(errors="replace")
        raise ValueError(f"/v1/models: not a list of models: {start!r}; is this an engine?")
    return [_listed(model) for model in listed.data]


def _listed(model: _Model) -> ListedModel:
    n_ctx = model.meta.n_ctx if model.meta else None
    return ListedModel(
        id=model.id,
        parent=model.parent,
        max_context_tokens=model.max_model_len or n_ctx,
        aliases=tuple(alias for alias in model.aliases or () if alias != model.id),
        owned_by=model.owned_by,
    )
