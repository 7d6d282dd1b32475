"""The JSON shapes engines answer with, as far as they are read.

Interpreted, since a compiled class does not keep the types of its fields; so whoever reads these
shapes stands elsewhere and may be compiled.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

from headrace.core.model import Usage
from headrace.engines.decoding import UNREADABLE, present

T = TypeVar("T")


def decode(decoder: msgspec.json.Decoder[T], payload: bytes) -> T | None:
    """Decode, or `None` where the bytes are `UNREADABLE`.

    For modules that are not compiled: what it returns has no type for the compiler.
    """
    try:
        return decoder.decode(payload)
    except UNREADABLE:
        return None


class TokenDetails(msgspec.Struct):
    """`prompt_tokens_details` and `input_tokens_details`."""

    cached_tokens: int | None = None


class CompletionUsage(msgspec.Struct):
    """`usage` of chat, completions and embeddings. `prompt_tokens` includes the cached ones."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: TokenDetails | None = None


class ResponseUsage(msgspec.Struct):
    """`usage` of `/v1/responses`. `input_tokens` includes the cached ones."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    input_tokens_details: TokenDetails | None = None

    def read(self) -> Usage:
        """The same in our words."""
        details = self.input_tokens_details
        cached = details.cached_tokens if details else None
        return Usage(self.input_tokens or 0, self.output_tokens or 0, cached or 0)


class MessageUsage(msgspec.Struct):
    """`usage` of `/v1/messages`. `input_tokens` leaves out what the cache gave or took in."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None

    def read(self) -> Usage:
        """The same in our words, where input is all of the prompt."""
        cached = self.cache_read_input_tokens or 0
        created = self.cache_creation_input_tokens or 0
        return Usage((self.input_tokens or 0) + cached + created, self.output_tokens or 0, cached)


class AnyUsage(msgspec.Struct):
    """`usage` of all other endpoints, in whichever words: rerank, images, transcription.

    A transcription may be told in seconds of audio (`{"type": "duration", "seconds": 9}`), which
    are no tokens.
    """

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    total_tokens: int | None = None
    prompt_tokens_details: TokenDetails | None = None
    input_tokens_details: TokenDetails | None = None

    def read(self) -> Usage | None:
        """The same in our words, None where it tells no tokens."""
        output = self.output_tokens if self.completion_tokens is None else self.completion_tokens
        read = self.input_tokens if self.prompt_tokens is None else self.prompt_tokens
        if read is None and self.total_tokens is not None:
            read = self.total_tokens - (output or 0)
        if read is None and output is None:
            return None
        details = self.prompt_tokens_details or self.input_tokens_details
        cached = details.cached_tokens if details else None
        return Usage(read or 0, output or 0, cached or 0)


class CompletionBody(msgspec.Struct):
    """A whole answer of chat, completions, embeddings and what is like them."""

    usage: CompletionUsage | None = None


class WholeMessage(msgspec.Struct):
    """What a choice of a whole chat says."""

    content: str | None = None
    reasoning_content: str | None = None
    tool_calls: msgspec.Raw = msgspec.Raw()


class WholeChoice(msgspec.Struct):
    """One of a whole answer of chat or completions."""

    finish_reason: str | None = None
    text: str | None = None
    message: WholeMessage | None = None

    def size(self) -> int:
        """How long it is, in what its tokens are about as long as those of the other choices."""
        said = self.message or WholeMessage()
        words = len(self.text or "") + len(said.content or "") + len(said.reasoning_content or "")
        return words + (len(bytes(said.tool_calls)) if present(said.tool_calls) else 0)


class ChoicesBody(msgspec.Struct):
    """A whole answer with its choices."""

    choices: tuple[WholeChoice, ...] = ()


class ResponseBody(msgspec.Struct):
    """A whole answer of `/v1/responses`."""

    id: str | None = None
    usage: ResponseUsage | None = None


class MessageBody(msgspec.Struct):
    """A whole answer of `/v1/messages`."""

    usage: MessageUsage | None = None


class OtherBody(msgspec.Struct):
    """A whole answer of an endpoint that is not known, or one event of it."""

    object: str | None = None
    usage: AnyUsage | None = None


class ModelMeta(msgspec.Struct):
    """What llama.cpp adds to a model."""

    n_ctx: int | None = None


class Model(msgspec.Struct):
    """One of the list at `/v1/models`."""

    id: str
    parent: str | None = None
    owned_by: str | None = None
    max_model_len: int | None = None
    meta: ModelMeta | None = None
    aliases: list[str] | None = None


class ModelList(msgspec.Struct):
    """The body of `/v1/models`."""

    data: list[Model]


class Delta(msgspec.Struct):
    """What a `chat.completion.chunk` adds to a choice."""

    content: msgspec.Raw = msgspec.Raw()
    refusal: msgspec.Raw = msgspec.Raw()
    reasoning: msgspec.Raw = msgspec.Raw()
    reasoning_content: msgspec.Raw = msgspec.Raw()
    tool_calls: msgspec.Raw = msgspec.Raw()
    function_call: msgspec.Raw = msgspec.Raw()


class ChunkChoice(msgspec.Struct):
    """One of a chunk."""

    index: int = 0
    delta: Delta | None = None
    text: msgspec.Raw = msgspec.Raw()


class Chunk(msgspec.Struct):
    """An event of a stream of chat or completions."""

    choices: list[ChunkChoice] | None = None
    usage: CompletionUsage | None = None
    error: msgspec.Raw = msgspec.Raw()


class StreamedResponse(msgspec.Struct):
    """The response that an event of `/v1/responses` tells of."""

    id: str | None = None
    usage: ResponseUsage | None = None


class OutputItem(msgspec.Struct):
    """What an output item of a response is."""

    type: str = ""


class ResponseEvent(msgspec.Struct):
    """An event of a stream of `/v1/responses`."""

    type: str = ""
    delta: msgspec.Raw = msgspec.Raw()
    item: OutputItem | None = None
    response: StreamedResponse | None = None


class StreamedMessage(msgspec.Struct):
    """The message that begins a stream of `/v1/messages`."""

    usage: MessageUsage | None = None


class ContentBlock(msgspec.Struct):
    """What a content block of a message is."""

    type: str = ""


class BlockDelta(msgspec.Struct):
    """What an event adds to a content block."""

    type: str = ""
    text: msgspec.Raw = msgspec.Raw()
    thinking: msgspec.Raw = msgspec.Raw()
    partial_json: msgspec.Raw = msgspec.Raw()


class MessageEvent(msgspec.Struct):
    """An event of a stream of `/v1/messages`."""

    type: str = ""
    message: StreamedMessage | None = None
    content_block: ContentBlock | None = None
    delta: BlockDelta | None = None
    usage: MessageUsage | None = None
