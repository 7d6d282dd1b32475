"""Streams of `chat.completion.chunk` and `text_completion` objects: chat and completions."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

import msgspec

from headrace.core.model import Usage
from headrace.engines.answers import completion_usage
from headrace.engines.decoding import UNREADABLE, present
from headrace.engines.spans import without_member
from headrace.engines.sse import event_data
from headrace.engines.usage import ContentKind, StreamReader
from headrace.engines.wire import Chunk, ChunkChoice

_CHUNK: Final = msgspec.json.Decoder(Chunk)

# How an ordinary content event looks in the bytes, up to where the delta itself begins. Inside a
# JSON string every quote is escaped, so a pattern with a quote in its middle can only match the
# structure, never the model's words.
_SHAPES = (
    b'"delta":{"content":"',
    b'"delta":{"reasoning_content":null,"content":"',
    b'"delta":{"reasoning_content":"',
    b'"delta":{"reasoning":"',
    b'"delta":{"tool_calls":[',
    b'"text":"',
)
NO_SHAPE_YET: Final = b"\0"  # never in an event: JSON escapes it
_USAGE: Final = b'"usage"'
_ERROR: Final = b'"error"'  # a member; a whole text of this one word is read the long way, too
_NOTHING_FOLLOWS = (b'"', b"]")  # an empty string, an empty list


class ChunkReader(StreamReader):
    """Reads chat and completions. Drops or cuts the usage if it came only because we asked."""

    __slots__ = (
        "_by_choice",
        "_injected",
        "_per_choice",
        "_prompts",
        "_shape_bytes",
        "_unlabelled",
        "shape",
    )

    def __init__(
        self, *, injected: bool, usage_per_choice: bool, prompts: int, shape: bytes = NO_SHAPE_YET
    ) -> None:
        """`shape` is that of another stream of the same endpoint, if there was one."""
        super().__init__()
        self._injected = injected
        self._per_choice = usage_per_choice
        self._prompts = max(1, prompts)
        self._by_choice: dict[int, Usage] = {}
        self._unlabelled: list[Usage] = []
        self._expect(shape)

    def feed(self, event: bytes) -> bytes | None:
        """See `StreamReader.feed`. Most events look like the content event before them."""
        # `find` and not `in`: on bytes `in` first tries, and fails, to take the pattern for a
        # number, which costs more than the search.
        at = event.find(self.shape)
        if at >= 0 and event.find(_USAGE) < 0 and event.find(_ERROR) < 0:
            is_empty = event.startswith(_NOTHING_FOLLOWS, at + self._shape_bytes)
            if not is_empty:
                self.content_chunks += 1
                return event
        return self._read(event)

    def passes(self, data: bytes, start: int) -> bool:
        """See `StreamReader.passes`."""
        at = data.find(self.shape, start)
        if (
            at < 0
            or data.find(_USAGE, start) >= 0
            or data.find(_ERROR, start) >= 0
            or data.startswith(_NOTHING_FOLLOWS, at + self._shape_bytes)
        ):
            return False
        self.content_chunks += 1
        return True

    def words_in(self, data: bytes, start: int) -> tuple[int, int]:
        """See `StreamReader.words_in`."""
        at = data.find(self.shape, start)
        if at < 0 or not self.shape.endswith(b'"'):
            return 0, 0
        begin = at + self._shape_bytes
        end = data.find(b'"', begin)
        return (0, 0) if end < 0 or data.find(b"\\", begin, end) >= 0 else (begin, end)

    def _read(self, event: bytes) -> bytes | None:
        payload = event_data(event)
        if payload == b"[DONE]":
            self.done = True
            return event
        if not payload:
            # A comment; or, from an old llama.cpp, an error under a field name of its own.
            self.error = self.error or event.startswith(b"error:")
            return event
        try:
            chunk: Chunk = _CHUNK.decode(payload)
        except UNREADABLE:
            return event
        self.error = self.error or present(chunk.error)
        choices = chunk.choices or ()
        self._note_content(choices, event)
        if chunk.usage is not None:
            self._note_usage(completion_usage(chunk.usage), choices)
        if not self._injected or event.find(_USAGE) < 0:
            return event
        if chunk.usage is not None and not choices:
            return None
        rest = without_member(payload, "usage")
        return event if rest is payload else event.replace(payload, rest, 1)

    def _note_content(self, choices: Collection[ChunkChoice], event: bytes) -> None:
        for choice in choices:
            kind = _content_kind(choice)
            if kind is not None:
                self._count_content(kind)
                self._expect(_shape_of(event))
                return

    def _expect(self, shape: bytes) -> None:
        self.shape = shape
        """How content events begin, as far as they were read."""
        self._shape_bytes = len(shape)

    def _note_usage(self, usage: Usage, choices: Collection[ChunkChoice]) -> None:
        """Keep the newest usage of each choice, or the one that covers them all.

        A usage on a choice's chunk is that choice's own, running or final: a newer one replaces
        it. One on a chunk without choices covers all choices and is the last word, but for
        engines that send one per choice or prompt without saying whose: those are all kept, and
        what was running counts no more.
        """
        if choices:
            self._by_choice[next(iter(choices)).index] = usage
        elif self._per_choice:
            self._unlabelled.append(usage)
        else:
            self.usage = usage
            return
        self.usage = _together(self._unlabelled or self._by_choice.values(), self._prompts)


def _shape_of(event: bytes) -> bytes:
    """How content begins in an event that has some; `NO_SHAPE_YET` if in no usual way."""
    for shape in _SHAPES:
        if event.find(shape) >= 0:
            return shape
    return NO_SHAPE_YET


def _content_kind(choice: ChunkChoice) -> ContentKind | None:
    if present(choice.text):
        return ContentKind.TEXT
    delta = choice.delta
    if delta is None:
        return None
    if present(delta.content) or present(delta.refusal):
        return ContentKind.TEXT
    if present(delta.reasoning) or present(delta.reasoning_content):
        return ContentKind.REASONING
    if present(delta.tool_calls) or present(delta.function_call):
        return ContentKind.TOOL_CALL
    return None


def _together(usages: Collection[Usage], prompts: int) -> Usage:
    """Add up the usages of a request's choices.

    Each choice produced its own output. The prompt is told with each choice, but `n` choices of
    one prompt share one prefill: input counts once per prompt, not once per choice. With every
    choice told, and `n` the same for each prompt, sum x prompts / choices is exactly that.
    """
    told = len(usages)
    prompts = min(prompts, told)
    return Usage(
        input_tokens=sum(u.input_tokens for u in usages) * prompts // told,
        output_tokens=sum(u.output_tokens for u in usages),
        cached_tokens=sum(u.cached_tokens for u in usages) * prompts // told,
    )
