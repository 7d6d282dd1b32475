"""One answer on its way to the client: vLLM's bytes, in the rhythm of the timing source."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from headrace.edges.http.heads import Header
from headrace.emulator.answer_text import WORDS, text_bytes_of, text_of
from headrace.emulator.logprobs import logprobs_of
from headrace.emulator.metrics import EngineMetrics
from headrace.emulator.prompt import Ask
from headrace.emulator.timing import Generation

JSON: Header = (b"content-type", b"application/json")
_EVENT_STREAM: Header = (b"content-type", b"text/event-stream; charset=utf-8")
DONE = b"data: [DONE]\n\n"
"""Ends a stream."""
_encode = msgspec.json.Encoder().encode


class CompletionHost(Protocol):
    """What an answer needs of its engine."""

    metrics: EngineMetrics

    def cancel(self, generation: Generation) -> None:
        """Stop producing tokens that nobody reads."""
        ...


class Outlet(Protocol):
    """Where an answer goes: the client's connection, or one of several choices of an answer."""

    def start_response(self, status: int, headers: list[Header], *, length: int | None) -> None:
        """Begin it."""
        ...

    def write(self, data: bytes) -> None:
        """Send a piece."""
        ...

    def finish(self, last: bytes = b"") -> None:
        """End it."""
        ...

    def respond(self, status: int, headers: list[Header], body: bytes) -> None:
        """Send it whole."""
        ...


class Completion:
    """An answer, streamed or whole. The client connection's `Exchange`.

    `index` is its number where it is one of several choices.
    """

    __slots__ = (
        "_aborted",
        "_ask",
        "_connection",
        "_details",
        "_first_s",
        "_generation",
        "_held",
        "_host",
        "_index",
        "_last_s",
        "_shape",
        "_slow",
        "identity",
    )

    def __init__(
        self,
        host: CompletionHost,
        connection: Outlet,
        ask: Ask,
        *,
        answer_id: str,
        created: int,
        model: str,
        details: bool,
        now: float,
        index: int = 0,
    ) -> None:
        self._host = host
        self._index = index
        self._connection = connection
        self._ask = ask
        self._details = details
        self._generation = Generation(
            self,
            prompt_tokens=ask.prompt_tokens,
            output_tokens=ask.output_tokens,
            submitted_s=now,
            prompt=ask.prompt,
        )
        kind = "chat.completion" if ask.chat else "text_completion"
        if ask.chat and ask.stream:
            kind += ".chunk"
        self.identity: dict[str, object] = {
            "id": f"{'chatcmpl' if ask.chat else 'cmpl'}-{answer_id}",
            "object": kind,
            "created": created,
            "model": model,
        }
        self._shape = _Shape(self.identity, index, chat=ask.chat) if ask.stream else None
        self._first_s = self._last_s = now
        self._slow = False
        self._aborted = False
        self._held: list[bytes] = []

    @property
    def generation(self) -> Generation:
        """What the timing source is to produce."""
        return self._generation

    @property
    def generations(self) -> tuple[Generation, ...]:
        """The same, for who may have several."""
        return (self._generation,)

    # ------------------------------------------------------------ what the timing source tells

    def token(self, now: float) -> None:
        """See `timing.Answer.token`."""
        generation, metrics = self._generation, self._host.metrics
        if generation.produced == 1:
            self._first_s = now
            metrics.first_token(generation, now)
        else:
            metrics.next_token(now - self._last_s)
        self._last_s = now
        if self._shape is not None:
            self._send_token(self._shape)
        if generation.done:
            ask = self._ask
            metrics.finished(generation, self._first_s, now, most=ask.most_tokens, cut=ask.cut)
            if not self._index % ask.choices:  # the first of its prompt
                metrics.answered(generation, ask.choices)
            self._finish()

    def abort(self) -> None:
        """See `timing.Answer.abort`."""
        self._aborted = True
        self._host.metrics.aborted()
        if self._shape is not None:
            if not self._generation.produced:
                self._connection.start_response(200, [_EVENT_STREAM], length=None)
            self._write(self._shape.event(b"", self._finish_reason(), None))
        self._finish()

    # ------------------------------------------------------------ what the client does

    def client_gone(self) -> None:
        """Nobody reads any more."""
        if not self._generation.done:
            self._host.cancel(self._generation)
            self._host.metrics.aborted()

    def client_slow(self) -> None:
        """Hold back what comes: an engine goes on generating for a slow reader."""
        self._slow = True

    def client_ready(self) -> None:
        """Send what was held back."""
        self._slow = False
        if self._held:
            self._connection.write(b"".join(self._held))
            self._held.clear()

    # ------------------------------------------------------------ inside

    def _send_token(self, shape: _Shape) -> None:
        generation, ask = self._generation, self._ask
        options = ask.options
        produced = generation.produced
        if produced == 1:
            self._connection.start_response(200, [_EVENT_STREAM], length=None)
            if ask.chat:
                usage = self.usage(0) if options.continuous_usage_stats else None
                self._write(shape.opening(usage))
        word = WORDS[(produced - 1) % len(WORDS)]
        if ask.stop is not None:
            word = word[: max(ask.stop.text_bytes - text_bytes_of(produced - 1), 0)]
        if options.continuous_usage_stats or generation.done or ask.logprobs is not None:
            usage = self.usage(produced) if options.continuous_usage_stats else None
            reason = self._finish_reason() if generation.done else None
            told = self._logprobs(produced - 1)
            self._write(shape.event(word, reason, usage, self._stop_reason, told))
        else:
            self._write(shape.head + word + shape.tail)

    @property
    def _stop_reason(self) -> str | None:
        """The stop string that ended the answer."""
        stop = self._ask.stop
        return stop.string if stop is not None and self._generation.done else None

    def _write(self, event: bytes) -> None:
        if self._slow:
            self._held.append(event)
        else:
            self._connection.write(event)

    def _finish(self) -> None:
        if self._ask.stream:
            self._finish_stream()
        else:
            usage = self.usage(self._generation.produced)
            self._connection.respond(200, [JSON], whole(self.identity, [self.choice()], usage))

    def _finish_stream(self) -> None:
        # What a slow client has not taken yet is the transport's from here on.
        self.client_ready()
        options = self._ask.options
        if options.include_usage:
            total = self.usage(self._generation.produced)
            self._connection.write(event({**self.identity, "choices": [], "usage": total}))
        self._connection.finish(DONE)

    def choice(self) -> dict[str, object]:
        """As it stands in a whole answer."""
        text, stop = text_of(self._generation.produced), self._ask.stop
        if stop is not None:
            text = text[: stop.text_bytes]
        choice: dict[str, object] = {"index": self._index}
        if self._ask.chat:
            choice["message"] = {"role": "assistant", "content": text, "refusal": None}
        else:
            choice["text"] = text
        choice |= {"logprobs": self._logprobs(0), "finish_reason": self._finish_reason()}
        choice["stop_reason"] = self._stop_reason
        return choice

    def _logprobs(self, since: int) -> dict[str, object] | None:
        """Of the tokens from here on, if they were asked for."""
        most = self._ask.logprobs
        if most is None:
            return None
        return logprobs_of(since, self._generation.produced, most, chat=self._ask.chat)

    def _finish_reason(self) -> str:
        if self._aborted:
            return "abort"
        return "length" if self._ask.cut else "stop"

    def usage(self, produced: int, others: Sequence[Completion] = ()) -> dict[str, object]:
        """The usage of so many tokens behind this prompt, and those of others."""
        generations = [self._generation, *(other.generation for other in others)]
        prompt_tokens = sum(each.prompt_tokens for each in generations)
        usage: dict[str, object] = {
            "prompt_tokens": prompt_tokens,
            "total_tokens": prompt_tokens + produced,
            "completion_tokens": produced,
        }
        if self._details:
            cached_tokens = sum(each.cached_tokens for each in generations)
            usage["prompt_tokens_details"] = {"cached_tokens": cached_tokens}
        return usage


class _Shape:
    """The events of one stream. An ordinary one is `head + word + tail`, made once per stream."""

    __slots__ = ("_chat", "_identity", "_index", "head", "tail")

    def __init__(self, identity: dict[str, object], index: int, *, chat: bool) -> None:
        self._chat = chat
        self._index = index
        self._identity = identity
        self.head, self.tail = self.event(b"\0", None, None).split(b"\\u0000")

    def opening(self, usage: dict[str, object] | None) -> bytes:
        """The event that says who speaks, before the first word."""
        choice = {
            "index": self._index,
            "delta": {"role": "assistant", "content": ""},
            "logprobs": None,
            "finish_reason": None,
        }
        return self._chunk(choice, usage)

    def event(
        self,
        word: bytes,
        reason: str | None,
        usage: dict[str, object] | None,
        stop_reason: str | None = None,
        logprobs: dict[str, object] | None = None,
    ) -> bytes:
        """An event with one token."""
        text = word.decode()
        choice: dict[str, object] = {"index": self._index}
        if self._chat:
            choice["delta"] = {"content": text}
        else:
            choice["text"] = text
        choice |= {"logprobs": logprobs, "finish_reason": reason}
        if reason is not None or not self._chat:
            choice["stop_reason"] = stop_reason
        choice["token_ids"] = None
        return self._chunk(choice, usage)

    def _chunk(self, choice: dict[str, object], usage: dict[str, object] | None) -> bytes:
        chunk = {**self._identity, "choices": [choice]}
        return event(chunk if usage is None else {**chunk, "usage": usage})


def whole(
    identity: dict[str, object], choices: list[dict[str, object]], usage: dict[str, object]
) -> bytes:
    """The body of an answer that is not streamed."""
    return _encode({**identity, "choices": choices, "usage": usage})


def event(chunk: dict[str, object]) -> bytes:
    """An event of a stream."""
    return b"data: " + _encode(chunk) + b"\n\n"
