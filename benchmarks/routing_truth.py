"""What no gateway can see, for comparison: engines as they are, what is asked, who comes next.

A copy of an engine can be played ahead without its notice, as if nobody came after.
"""

# ruff: noqa: SLF001 - it looks where nobody else may
from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable
from operator import attrgetter
from typing import Any

from headrace.engine_model import EngineModel, FirstToken, Job
from headrace.engine_model.sequence import Sequence
from headrace.traffic.trace import TraceRequest

NOBODY = -1
"""The id of the job that is only tried."""
_SLOTS = tuple(Sequence.__slots__)
_STATE = attrgetter(*_SLOTS)


class Truth:
    """The engines by replica, all requests in order of arrival, and which is routed just now."""

    def __init__(
        self,
        engine: Callable[[str], EngineModel],
        requests: list[TraceRequest],
        block_tokens: int,
    ) -> None:
        self.engine = engine
        self.requests = requests
        self.block_tokens = block_tokens
        self.row = 0

    @property
    def request(self) -> TraceRequest:
        """The one that is routed."""
        return self.requests[self.row]

    def first_token(self, replica: str, now: float) -> tuple[float, int]:
        """Seconds until it would have its first token there, and its cached tokens."""
        request, engine = self.request, copied(self.engine(replica))
        tokens = (request.input_tokens, request.output_tokens)
        engine.submit(Job(NOBODY, *tokens, request.blocks, self.block_tokens), now)
        while True:
            for happening in engine.advance(max(now, engine.next_event_s())):
                if isinstance(happening, FirstToken) and happening.job.id == NOBODY:
                    return happening.at_s - now, happening.cached_tokens


class _Idle(dict[int, int]):
    """The few calls of an `OrderedDict` that a cache makes, at a fifth of the time to copy."""

    def popitem(self, last: bool = True) -> tuple[int, int]:
        """Take out the oldest."""
        assert not last
        key = next(iter(self))
        return key, self.pop(key)


def copied(engine: EngineModel) -> EngineModel:
    """An engine in the same state, which can be played without the other one's notice."""
    twins: dict[int, Sequence] = {}

    def twin(sequence: Sequence) -> Sequence:
        found = twins.get(id(sequence))
        if found is None:
            found = twins[id(sequence)] = Sequence.__new__(Sequence)
            for name, value in zip(_SLOTS, _STATE(sequence), strict=True):
                setattr(found, name, value)
        return found

    other: Any = copy.copy(engine)
    other._sequences = {name: twin(each) for name, each in engine._sequences.items()}
    other._waiting = deque([twin(each) for each in engine._waiting])
    other._running = {serial: twin(each) for serial, each in engine._running.items()}
    other._cancelled = [twin(each) for each in engine._cancelled]
    other._chunks = [twin(each) for each in engine._chunks]
    other._partial = engine._partial and twin(engine._partial)
    other._stored = [(twin(each), first, end) for each, first, end in engine._stored]
    other._happened = list(engine._happened)
    kv: Any = copy.copy(engine._kv)
    other._kv = kv
    kv._pins, kv.removed = kv._pins.copy(), kv.removed.copy()
    kv._unpinned = _Idle(kv._unpinned)
    other._batch = batch = copy.copy(engine._batch)
    batch._due = batch._due.copy()
    batch._ends = [(end, serial, twin(each)) for end, serial, each in batch._ends]
    return other
