"""One answer on its way to the client: vLLM's bytes, in the rhythm of the timing source."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from headrace.core.model import Endpoint
from headrace.edges.http.heads import Header
from headrace.emulator.answer_form import Answer, Ended, Form, Spent, Token
from headrace.emulator.answer_text import WORDS, text_bytes_of, text_of
from headrace.emulator.chunk_form import ChunkForm
from headrace.emulator.logprobs import logprobs_of
from headrace.emulator.message_form import MessageForm
from headrace.emulator.metrics import EngineMetrics
from headrace.emulator.prompt import Ask
from headrace.emulator.response_form import ResponseForm
from headrace.emulator.timing import Generation
from headrace.emulator.tool_call_form import ToolCallForm

JSON: Header = (b"content-type", b"application/json")
_EVENT_STREAM: Header = (b"content-type", b"text/event-stream; charset=utf-8")


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
        "_slow",
        "form",
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
        continuous = bool(ask.options.continuous_usage_stats)
        answer = Answer(answer_id, created, model, index, ask.stream, continuous)
        self.form = _form_of(ask, answer)
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
        if self._ask.stream:
            self._send_token()
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
        if self._ask.stream:
            if not self._generation.produced:
                self._begin()
            self._write(self.form.event(Token(b"", self._finish_reason())))
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

    def _begin(self) -> None:
        self._connection.start_response(200, [_EVENT_STREAM], length=None)
        opening = self.form.opening(self.spent(0))
        if opening:
            self._write(opening)

    def _send_token(self) -> None:
        generation, ask, form = self._generation, self._ask, self.form
        options = ask.options
        produced = generation.produced
        if produced == 1:
            self._begin()
        word = WORDS[(produced - 1) % len(WORDS)]
        if ask.stop is not None:
            word = word[: max(ask.stop.text_bytes - text_bytes_of(produced - 1), 0)]
        alike = form.alike and not options.continuous_usage_stats and ask.logprobs is None
        if alike and not generation.done:
            self._write(form.head + word + form.tail)
            return
        spent = self.spent(produced) if options.continuous_usage_stats else None
        reason = self._finish_reason() if generation.done else None
        told = self._logprobs(produced - 1)
        self._write(form.event(Token(word, reason, spent, self._stop_reason, told)))

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
        ended = self.ended(self.spent(self._generation.produced))
        if not self._ask.stream:
            self._connection.respond(200, [JSON], self.form.whole([ended], ended.spent))
            return
        # What a slow client has not taken yet is the transport's from here on.
        self.client_ready()
        *before, last = self.form.ending(ended)
        for each in before:
            self._connection.write(each)
        self._connection.finish(last)

    def ended(self, spent: Spent) -> Ended:
        """The answer, now that it is whole."""
        text, stop = text_of(self._generation.produced), self._ask.stop
        if stop is not None:
            text = text[: stop.text_bytes]
        return Ended(
            number=self._index,
            text=text,
            logprobs=self._logprobs(0),
            reason=self._finish_reason(),
            stop_reason=self._stop_reason,
            spent=spent,
            usage_asked=bool(self._ask.options.include_usage),
        )

    def _logprobs(self, since: int) -> dict[str, object] | None:
        """Of the tokens from here on, if they were asked for."""
        most = self._ask.logprobs
        if most is None:
            return None
        return logprobs_of(since, self._generation.produced, most, chat=self._ask.chat)

    def _finish_reason(self) -> str:
        if self._aborted:
            return "abort"
        if self._ask.cut:
            return "length"
        return "tool_calls" if self._ask.tool else "stop"

    def spent(self, produced: int, others: Sequence[Completion] = ()) -> Spent:
        """So many tokens behind this prompt, and those of others."""
        generations = [self._generation, *(other.generation for other in others)]
        prompt_tokens = sum(each.prompt_tokens for each in generations)
        cached_tokens = sum(each.cached_tokens for each in generations)
        return Spent(prompt_tokens, produced, cached_tokens if self._details else None)


def _form_of(ask: Ask, answer: Answer) -> Form:
    if ask.endpoint is Endpoint.MESSAGES:
        return MessageForm(answer)
    if ask.endpoint is Endpoint.RESPONSES:
        return ResponseForm(answer, most_tokens=ask.most_tokens)
    if ask.tool:
        return ToolCallForm(answer, tool=ask.tool)
    return ChunkForm(answer, chat=ask.chat)
