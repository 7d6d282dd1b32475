"""Streams of events that name their type: `/v1/responses` and `/v1/messages`."""

from __future__ import annotations

from typing import Final

import msgspec

from headrace.core.model import Usage
from headrace.engines.decoding import UNREADABLE, present
from headrace.engines.sse import event_data
from headrace.engines.usage import ContentKind, StreamReader
from headrace.engines.wire import BlockDelta, MessageEvent, ResponseEvent

_NO_SHAPE_YET: Final = b"\0"  # never in an event: JSON escapes it
_EMPTY_STRING: Final = b':""'


class _TypedReader(StreamReader):
    """Counts events that look like the content event before them, reads the others."""

    __slots__ = ("_shape",)

    def __init__(self) -> None:
        super().__init__()
        self._shape = _NO_SHAPE_YET

    def feed(self, event: bytes) -> bytes | None:
        """See `StreamReader.feed`. Nothing is ever injected here, so nothing is taken out."""
        if event.find(self._shape) >= 0 and event.find(_EMPTY_STRING) < 0:
            self.content_chunks += 1
            return event
        payload = event_data(event)
        if payload == b"[DONE]":
            self.done = True
        elif payload:
            self._read(payload)
        return event

    def _read(self, payload: bytes) -> None:
        raise NotImplementedError

    def _content(self, kind: ContentKind, type_name: str, payload: bytes) -> None:
        self._count_content(kind)
        # The quotes make it structure: inside a JSON string they would be escaped.
        shape = b'"type":"' + type_name.encode() + b'"'
        self._shape = shape if shape in payload else _NO_SHAPE_YET


_RESPONSE_EVENT: Final = msgspec.json.Decoder(ResponseEvent)
_RESPONSE_ENDS: Final = frozenset(
    {"response.completed", "response.incomplete", "response.failed", "response.cancelled"}
)


class ResponsesReader(_TypedReader):
    """Reads `/v1/responses`: every `*.delta` is content, the closing event tells the usage."""

    __slots__ = ()

    def _read(self, payload: bytes) -> None:
        try:
            event: ResponseEvent = _RESPONSE_EVENT.decode(payload)
        except UNREADABLE:
            return
        if event.type.endswith(".delta"):
            if present(event.delta):
                self._content(_delta_kind(event.type), event.type, payload)
        elif event.type == "response.output_item.added":
            # A call's name arrives with its item, before the first delta of its arguments.
            if event.item is not None and event.item.type.endswith("_call"):
                self._count_content(ContentKind.TOOL_CALL)
        elif event.type in {"error", "response.failed"}:
            self.error = True
        self.done = self.done or event.type in _RESPONSE_ENDS
        if event.response is not None:
            self.response_id = event.response.id or self.response_id
            if event.response.usage is not None:
                self.usage = event.response.usage.read()


def _delta_kind(event_type: str) -> ContentKind:
    if "reasoning" in event_type:
        return ContentKind.REASONING
    if "_call" in event_type:
        return ContentKind.TOOL_CALL
    return ContentKind.TEXT


_MESSAGE_EVENT: Final = msgspec.json.Decoder(MessageEvent)


class MessagesReader(_TypedReader):
    """Reads `/v1/messages`: input comes with the first event, output with the last but one."""

    __slots__ = ()

    def _read(self, payload: bytes) -> None:
        try:
            event: MessageEvent = _MESSAGE_EVENT.decode(payload)
        except UNREADABLE:
            return
        if event.type == "message_start":
            if event.message is not None and event.message.usage is not None:
                self.usage = event.message.usage.read()
        elif event.type == "content_block_delta":
            self._note_delta(event.delta or BlockDelta(), payload)
        elif event.type == "content_block_start":
            # A call's name arrives with its block, before the first delta of its input.
            if event.content_block is not None and event.content_block.type.endswith("tool_use"):
                self._count_content(ContentKind.TOOL_CALL)
        elif event.type == "message_delta" and event.usage is not None:
            self.usage = _ended(self.usage, event.usage.read())
        elif event.type == "message_stop":
            self.done = True
        elif event.type == "error":
            self.error = True

    def _note_delta(self, delta: BlockDelta, payload: bytes) -> None:
        if present(delta.text):
            self._content(ContentKind.TEXT, delta.type, payload)
        elif present(delta.thinking):
            self._content(ContentKind.REASONING, delta.type, payload)
        elif present(delta.partial_json):
            self._content(ContentKind.TOOL_CALL, delta.type, payload)


def _ended(started: Usage | None, ended: Usage) -> Usage:
    """Output from the end, input from the start; from the end only if the start told none."""
    if started is None or not started.input_tokens:
        return ended
    return Usage(started.input_tokens, ended.output_tokens, started.cached_tokens)
