"""Where stored responses live: only the replica that made one can show, continue or delete it.

A response that is made in the background (`background: true`) is answered before there is any
token, and goes on when the client of its stream has left. Its usage is *owed* then: whoever looks
it up later is told, and so are we, once. Of one that nobody looks up we are never told.
"""

from __future__ import annotations

from collections import OrderedDict

from headrace.core.model import Endpoint, Usage
from headrace.engines.dialect import Dialect
from headrace.engines.usage import StreamReader
from headrace.gateway.call import Call
from headrace.gateway.endpoints import stored_response_id

Maker = tuple[str, str, int]
"""Replica and model of an answer, and the tokens that its prompt is counted with if untold."""


class StoredResponses:
    """Response ids and their holders, the oldest forgotten first."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._holders: OrderedDict[str, tuple[str, str]] = OrderedDict()
        self._owed: dict[str, Usage] = {}
        """Those whose usage is not told yet, each with what was counted for it."""

    def remember(
        self, response_id: str, replica: str, model: str, *, owed: Usage | None = None
    ) -> None:
        """Take note of a response that may be stored. Of one whose usage its engine has not told,
        `owed` is what was counted for it.
        """
        self._holders[response_id] = (replica, model)
        if owed is not None:
            self._owed[response_id] = owed
        while len(self._holders) > self.limit:
            forgotten, _ = self._holders.popitem(last=False)
            self._owed.pop(forgotten, None)

    def holder_of(self, response_id: str) -> tuple[str, str] | None:
        """Return (replica, model), None if the response is not known."""
        return self._holders.get(response_id)

    def owes(self, path: bytes) -> bool:
        """Whether the answer to this path may tell a usage that is owed."""
        return bool(self._owed) and stored_response_id(path) in self._owed

    def lookup_reader(self, path: bytes, dialect: Dialect) -> StreamReader:
        """Of the stream that looks up a response which `owes`, as `?stream=true` does."""
        return _OwedReader(self, stored_response_id(path), dialect)

    def settle(self, response_id: str, told: Usage) -> Usage | None:
        """What was used beyond what was counted; None for one that owes nothing any more."""
        counted = self._owed.pop(response_id, None)
        if counted is None:
            return None
        more_input = max(told.input_tokens - counted.input_tokens, 0)
        return Usage(more_input, max(told.output_tokens - counted.output_tokens, 0), 0)

    def read(self, dialect: Dialect, call: Call, body: bytes, maker: Maker) -> Usage | None:
        """Read the usage of a whole answer, and remember the response that it may be. Never raises.

        Of an answer to a look-up, it is what was used beyond what was counted before.
        """
        path, request = call.http.path, call.request
        if self.owes(path):
            told = dialect.read_body(Endpoint.RESPONSES, body).usage
            return None if told is None else self.settle(stored_response_id(path), told)
        reading = dialect.read_body(request.endpoint, body, request.max_output_tokens)
        if reading.response_id:
            replica, model, counted = maker
            owed = Usage(counted) if reading.usage is None else None
            self.remember(reading.response_id, replica, model, owed=owed)
        return reading.spent


class _OwedReader(StreamReader):
    """Reads a look-up that is streamed: what was generated before is no token of now, but the last
    event tells the usage that is owed.
    """

    __slots__ = ("_id", "_reader", "_stored")

    def __init__(self, stored: StoredResponses, response_id: str, dialect: Dialect) -> None:
        super().__init__()
        self._stored = stored
        self._id = response_id
        self._reader = dialect.stream_reader(Endpoint.RESPONSES)

    def feed(self, event: bytes) -> bytes | None:
        """See `StreamReader.feed`."""
        reader = self._reader
        kept = reader.feed(event)
        if reader.done and not self.done and reader.usage is not None:
            self.usage = self._stored.settle(self._id, reader.usage)
        self.done, self.error = reader.done, reader.error
        return kept
