"""Several choices in one answer: as many completions of each prompt (`n`), side by side.

    client connection ◄── Choices ◄── Part ◄── Completion, one for each choice
                          usage of all         its own generation

The choices are sequences of their own, as in vLLM: each takes a place and KV blocks, and all but
the first of a prompt find it cached. They are numbered prompt by prompt.
"""

from __future__ import annotations

import msgspec

from headrace.edges.http.connection import ClientConnection
from headrace.edges.http.heads import Header
from headrace.emulator.answer_form import Spent
from headrace.emulator.completion import JSON, Completion, CompletionHost
from headrace.emulator.prompt import Ask, StreamOptions
from headrace.emulator.timing import Generation


class Choices:
    """An answer of several choices. The client connection's `Exchange`."""

    __slots__ = ("_ask", "_begun", "_connection", "_open", "_parts")

    def __init__(
        self,
        host: CompletionHost,
        connection: ClientConnection,
        ask: Ask,
        *,
        answer_id: str,
        created: int,
        model: str,
        details: bool,
        now: float,
    ) -> None:
        self._connection = connection
        self._ask = ask
        self._begun = False
        continuous = ask.options.continuous_usage_stats
        options = StreamOptions(continuous_usage_stats=continuous)
        asks = [
            msgspec.structs.replace(each, options=options, others=())
            for each in (ask, *ask.others)
            for _ in range(ask.choices)
        ]
        self._open = len(asks)
        self._parts = [
            Completion(
                host,
                Part(self),
                each,
                answer_id=answer_id,
                created=created,
                model=model,
                details=details,
                now=now,
                index=index,
            )
            for index, each in enumerate(asks)
        ]

    @property
    def generations(self) -> list[Generation]:
        """What the timing source is to produce."""
        return [part.generation for part in self._parts]

    # ------------------------------------------------------------ what the client does

    def client_gone(self) -> None:
        """Nobody reads any more."""
        for part in self._parts:
            part.client_gone()

    def client_slow(self) -> None:
        """Hold back what comes."""
        for part in self._parts:
            part.client_slow()

    def client_ready(self) -> None:
        """Send what was held back."""
        for part in self._parts:
            part.client_ready()

    # ------------------------------------------------------------ what the choices send

    def begin(self, status: int, headers: list[Header]) -> None:
        """The first of them begins the answer."""
        if not self._begun:
            self._begun = True
            self._connection.start_response(status, headers, length=None)

    def write(self, data: bytes) -> None:
        """Events of one choice."""
        self._connection.write(data)

    def ended(self) -> None:
        """One choice is whole; the last one ends the answer."""
        self._open -= 1
        if self._open:
            return
        form, spent = self._parts[0].form, self._spent()
        choices = [part.ended(spent) for part in self._parts]
        if not self._ask.stream:
            self._connection.respond(200, [JSON], form.whole(choices, spent))
            return
        usage_asked = bool(self._ask.options.include_usage)
        *before, last = form.ending(choices[0]._replace(usage_asked=usage_asked))
        for each in before:
            self._connection.write(each)
        self._connection.finish(last)

    def _spent(self) -> Spent:
        """Each prompt once, the tokens of all choices."""
        produced = sum(part.generation.produced for part in self._parts)
        return self._parts[0].spent(produced, self._parts[self._ask.choices :: self._ask.choices])


class Part:
    """What one choice takes for its connection."""

    __slots__ = ("_answer",)

    def __init__(self, answer: Choices) -> None:
        self._answer = answer

    def start_response(self, status: int, headers: list[Header], *, length: int | None) -> None:  # noqa: ARG002 - a port
        """See `Outlet`."""
        self._answer.begin(status, headers)

    def write(self, data: bytes) -> None:
        """See `Outlet`."""
        self._answer.write(data)

    def finish(self, last: bytes = b"") -> None:  # noqa: ARG002 - a port
        """See `Outlet`."""
        self._answer.ended()

    def respond(self, status: int, headers: list[Header], body: bytes) -> None:  # noqa: ARG002 - a port
        """See `Outlet`."""
        self._answer.ended()
