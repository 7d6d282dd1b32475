"""Sessions that start at given times, their turns in one order of arrival.

Open loop: when the next turn comes does not depend on the servers, so that every policy meets the
same requests. A turn follows the one before after a nominal time for the answer and a pause.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from heapq import heappop, heappush, heapreplace
from math import inf
from typing import NamedTuple

from headrace.traffic.prompts import Prompt
from headrace.traffic.trace import TraceRequest

NOMINAL_TTFT_S = 0.5
NOMINAL_TOKENS_PER_S = 50.0
"""What a user or tool waits for an answer of a fleet that meets its targets (TPOT 20 ms)."""


class Turn(NamedTuple):
    """One request of a session, `gap_s` after the one before (the first: after the start).

    `prompt` stays as it is until the session is asked for its next turn. Its blocks are numbered
    only where somebody looks at them: of most sessions that begin before a trace does, nobody does.
    """

    gap_s: float
    prompt: Prompt
    output_tokens: int


def answer_s(output_tokens: int) -> float:
    """Nominal seconds from a request to its last token."""
    return NOMINAL_TTFT_S + output_tokens / NOMINAL_TOKENS_PER_S


def interleaved(
    starts_s: Iterator[float],
    open_session: Callable[[int], Iterator[Turn]],
    prefix: str,
    warm_up_s: float,
) -> Iterator[TraceRequest]:
    """The turns of all sessions in order of arrival, from `warm_up_s` on, which becomes 0 s.

    Args:
        starts_s: when sessions start, increasing.
        open_session: the turns of the session with this number.
        prefix: stands before the number in the name of a session.
        warm_up_s: skipped at the start, so that what follows has sessions of all ages.
    """
    due: list[tuple[float, int, int, Iterator[Turn], Turn]] = []
    sequence = number = 0
    start_s = next(starts_s, inf)
    while due or start_s < inf:
        if not due or start_s <= due[0][0]:
            session = open_session(number)
            turn = next(session)
            heappush(due, (start_s + turn.gap_s, sequence, number, session, turn))
            start_s = next(starts_s, inf)
            number += 1
        else:
            at_s, _, owner, session, turn = due[0]
            if at_s >= warm_up_s:
                yield TraceRequest(
                    at_s - warm_up_s,
                    turn.prompt.tokens,
                    turn.output_tokens,
                    turn.prompt.blocks,
                    f"{prefix}{owner}",
                )
            follow = next(session, None)
            if follow is None:
                heappop(due)
            else:
                heapreplace(due, (at_s + follow.gap_s, sequence, owner, session, follow))
        sequence += 1
