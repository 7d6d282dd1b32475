"""Whole answers: the usage in a body, and the list of models. One shape fits every dialect."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from headrace.core.message import message
from headrace.core.model import Endpoint, Usage
from headrace.engines.decoding import UNREADABLE
from headrace.engines.reading import ListedModel
from headrace.engines.wire import (
    ChoicesBody,
    CompletionBody,
    CompletionUsage,
    MessageBody,
    Model,
    ModelList,
    OtherBody,
    ResponseBody,
)

_COMPLETION = msgspec.json.Decoder(CompletionBody)
_RESPONSE = msgspec.json.Decoder(ResponseBody)
_MESSAGE = msgspec.json.Decoder(MessageBody)
_ANY = msgspec.json.Decoder(OtherBody)
_CHOICES = msgspec.json.Decoder(ChoicesBody)
_MODELS = msgspec.json.Decoder(ModelList)

_ENDS_A_CHOICE: Final = b'"finish_reason"'
"""Once in each choice, and nowhere else: in a string, its quotes would be escaped."""
_OTHER: Final = Endpoint.OTHER
_decode_completion: Final = _COMPLETION.decode
_COMPLETIONS: Final = frozenset((Endpoint.CHAT, Endpoint.COMPLETIONS, Endpoint.EMBEDDINGS))
_DECODERS: Final[dict[Endpoint, msgspec.json.Decoder[Any]]] = {
    Endpoint.RESPONSES: _RESPONSE,
    Endpoint.MESSAGES: _MESSAGE,
}


@message
class BodyReading:
    """What a whole, not streamed answer tells."""

    usage: Usage | None = None
    response_id: str | None = None
    """The id of a `/v1/responses` answer: it may be stored, and only this replica has it."""
    untold_output_tokens: int = 0
    """Of further choices, which its engine does not tell; reckoned."""

    @property
    def spent(self) -> Usage | None:
        """`usage` with the output of all choices."""
        usage, untold = self.usage, self.untold_output_tokens
        if usage is None or not untold:
            return usage
        return Usage(usage.input_tokens, usage.output_tokens + untold, usage.cached_tokens)


def read_body(
    endpoint: Endpoint,
    body: bytes,
    *,
    usage_of_first_choice: bool = False,
    max_output_tokens: int | None = None,
) -> BodyReading:
    """Read the usage, and a response's id, out of a whole 2xx answer. Never raises.

    `usage_of_first_choice` says that its engine tells no more than that: the output of the others
    is reckoned then, up to `max_output_tokens` each, where as many were asked for at most.
    """
    if endpoint is _OTHER:
        return read_other(body)
    answer: ResponseBody | MessageBody
    usage: Usage | None
    try:
        if endpoint in _COMPLETIONS:
            told = _decode_completion(body).usage
            if told is None:
                return BodyReading()
            usage = completion_usage(told)
            others = 0
            if usage_of_first_choice and body.count(_ENDS_A_CHOICE) > 1:
                others = _of_other_choices(usage, body, max_output_tokens)
            return BodyReading(usage, None, others)
        answer = _DECODERS[endpoint].decode(body)
    except UNREADABLE:
        return BodyReading()
    usage = answer.usage.read() if answer.usage else None
    return BodyReading(usage, answer.id if isinstance(answer, ResponseBody) else None)


def _of_other_choices(usage: Usage, body: bytes, most: int | None) -> int:
    """Output tokens of all choices but the first, whose `usage` is told: those that reached the
    same limit have as many, others as their length says, and none more than a limit allows.
    """
    try:
        whole: ChoicesBody = _CHOICES.decode(body)
    except UNREADABLE:
        return 0
    if len(whole.choices) < 2:
        return 0
    first, *others = whole.choices
    told, tokens, size = usage.output_tokens, 0, first.size()
    if first.finish_reason == "length":
        most = told
    elif most is not None and most < told:
        most = None  # asked for under a name that this endpoint of its engine does not know
    for each in others:
        # Rounded as whole numbers, for an engine may tell one that no float can hold.
        number = (2 * told * each.size() + size) // (2 * size) if size else told
        if most is not None:
            number = most if each.finish_reason == "length" else min(number, most)
        tokens += number
    return tokens


def completion_usage(told: CompletionUsage) -> Usage:
    """The same in our words. Most answers bring one, so this is in a module that is compiled."""
    details = told.prompt_tokens_details
    cached = None if details is None else details.cached_tokens
    return Usage(told.prompt_tokens or 0, told.completion_tokens or 0, cached or 0)


def read_other(body: bytes) -> BodyReading:
    """Read the usage of an answer, or of an event, of an endpoint that is not known."""
    if not body.startswith(b"{"):  # audio and files are no JSON
        return BodyReading()
    try:
        answer: OtherBody = _ANY.decode(body)
    except UNREADABLE:
        return BodyReading()
    # That of a stored response was counted when the response was made.
    if answer.usage is None or answer.object == "response":
        return BodyReading()
    return BodyReading(answer.usage.read())


def list_models(body: bytes) -> list[ListedModel]:
    """Read a `/v1/models` body. Raises `ValueError` if it is not a model list.

    `max_model_len` (vLLM) and `meta.n_ctx` (llama.cpp: the context of one slot) both say what one
    request may hold; an engine gives one of them or neither.
    """
    try:
        listed: ModelList = _MODELS.decode(body)
    except UNREADABLE:
        start = body[:80].decode(errors="replace")
        text = f"/v1/models: not a list of models: {start!r}; is this an engine?"
        raise ValueError(text) from None
    return [_listed(model) for model in listed.data]


def _listed(model: Model) -> ListedModel:
    n_ctx = model.meta.n_ctx if model.meta else None
    return ListedModel(
        id=model.id,
        parent=model.parent,
        max_context_tokens=model.max_model_len or n_ctx,
        aliases=tuple(alias for alias in model.aliases or () if alias != model.id),
        owned_by=model.owned_by,
    )
