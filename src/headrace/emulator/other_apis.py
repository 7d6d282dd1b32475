"""Requests of Anthropic's `/v1/messages` and of `/v1/responses`, understood as chats."""

from __future__ import annotations

import msgspec

from headrace.core.model import Endpoint
from headrace.emulator.prompt import (
    BYTES_PER_TOKEN,
    Ask,
    Body,
    Message,
    ask_of,
    chat_text,
    filled,
    read_body,
)
from headrace.emulator.refusals import missing, not_positive
from headrace.emulator.settings import EngineSettings

_NOTHING = msgspec.Raw(b"")


class _MessagesBody(msgspec.Struct):
    model: str | None = None
    messages: list[Message] | None = None
    system: msgspec.Raw = _NOTHING
    tools: msgspec.Raw = _NOTHING
    max_tokens: int | None = None
    stop_sequences: list[str] | None = None
    stream: bool | None = False
    temperature: float | None = None


class _Item(msgspec.Struct):
    """Of a conversation's history: a message, a call, what a call gave."""

    type: str = "message"
    role: str = ""
    content: msgspec.Raw = _NOTHING
    arguments: msgspec.Raw = _NOTHING
    output: msgspec.Raw = _NOTHING


class _ResponsesBody(msgspec.Struct):
    model: str | None = None
    input: str | list[_Item] | None = None
    instructions: str | None = None
    tools: msgspec.Raw = _NOTHING
    max_output_tokens: int | None = None
    stream: bool | None = False
    temperature: float | None = None


_decode_messages = msgspec.json.Decoder(_MessagesBody).decode
_decode_response = msgspec.json.Decoder(_ResponsesBody).decode
_encode = msgspec.json.Encoder().encode


def read_messages(body: bytes, settings: EngineSettings) -> Ask:
    """Understand a body of `/v1/messages`. Raises Refused."""
    asked = read_body(_decode_messages, body, settings)
    if asked.max_tokens is None:
        raise missing(body, "max_tokens")
    if asked.max_tokens < 1:
        raise not_positive("max_tokens", asked.max_tokens)
    return ask_of(_as_chat(asked, body), settings, Endpoint.MESSAGES)


def count_tokens(body: bytes, settings: EngineSettings) -> int:
    """The tokens of the prompt in a body of `/v1/messages/count_tokens`. Raises Refused."""
    asked = read_body(_decode_messages, body, settings)
    return len(filled(chat_text(_as_chat(asked, body)))) // BYTES_PER_TOKEN


def read_response(body: bytes, settings: EngineSettings) -> Ask:
    """Understand a body of `/v1/responses`. Raises Refused."""
    asked = read_body(_decode_response, body, settings)
    if asked.input is None:
        raise missing(body, "input")
    if isinstance(asked.input, str):
        messages = [Message("user", msgspec.Raw(_encode(asked.input)))]
    else:
        messages = [_message(item) for item in asked.input]
    if asked.instructions and messages:
        messages.insert(0, Message("system", msgspec.Raw(_encode(asked.instructions))))
    chat = Body(
        messages=messages,
        tools=asked.tools,
        max_tokens=asked.max_output_tokens,
        stream=asked.stream,
        temperature=asked.temperature,
    )
    return ask_of(chat, settings, Endpoint.RESPONSES)


def _as_chat(asked: _MessagesBody, body: bytes) -> Body:
    if asked.messages is None:
        raise missing(body, "messages")
    messages = asked.messages
    if messages and bytes(asked.system) not in (b"", b"null"):
        messages = [Message("system", asked.system), *messages]
    return Body(
        messages=messages,
        tools=asked.tools,
        max_tokens=asked.max_tokens,
        stop=asked.stop_sequences,
        stream=asked.stream,
        temperature=asked.temperature,
    )


def _message(item: _Item) -> Message:
    said = next((each for each in (item.content, item.arguments, item.output) if each), _NOTHING)
    return Message(item.role or item.type, said)
