"""How long prompts may be where an engine does not tell the limit of its context.

It is found by being refused: once while the pace is found, and once more by what makes the terms
surer, which may try longer prompts than there was time for before.
"""

from __future__ import annotations

from math import inf

from headrace.calibration.design import SHORTEST_TOKENS, Experiment
from headrace.calibration.stream import StreamError

LEAST_PROMPT_TOKENS = 2 * SHORTEST_TOKENS
"""The longest prompt must have so many."""
_ANSWER_TOKENS = 96
"""Room that answers need behind the longest prompt."""
_TOO_LONG = frozenset((400, 413, 422))
"""Statuses of a prompt that the context has no room for."""
_MARGIN = 0.95
"""Share of the context limit that prompts aim at: their tokens are known when they are counted."""


def longest_prompt(context_tokens: int) -> int:
    """The longest prompt of a context, answers included."""
    return int(_MARGIN * context_tokens) - _ANSWER_TOKENS


class UntoldLimit:
    """What was taken and what was refused. `told`: the engine says its limit, nothing is found."""

    def __init__(self, *, told: bool, notes: list[str]) -> None:
        self._told = told
        self._notes = notes
        self.longest_allowed = 0
        """Of what may be tried."""
        self._longest_sure = self._shortest_refused = inf

    def sure_of(self, tokens: int) -> None:
        """Prompts of up to so many were taken: from now on a refusal of them is a fault."""
        self._longest_sure = tokens

    def is_refused(self, experiment: Experiment) -> bool:
        """Whether one that is no longer was refused."""
        return experiment.tokens_in_all >= self._shortest_refused

    def found_at_first(self, tokens: int, longest_taken: int, error: StreamError) -> bool:
        """Whether a refusal after `longest_taken` is the limit; what may be tried is known then."""
        if self._told or error.status not in _TOO_LONG or longest_taken < LEAST_PROMPT_TOKENS:
            return False
        # As of a limit that is told: answers need room, too.
        self.longest_allowed = max(longest_prompt(longest_taken), LEAST_PROMPT_TOKENS)
        self._notes.append(
            f"a prompt of {tokens:,} tokens was refused ({error}): they go up to "
            f"{self.longest_allowed:,}; give --max-prompt for longer ones"
        )
        return True

    def found_later(self, experiment: Experiment, error: Exception) -> bool:
        """Whether what the engine refused is longer than all that it took.

        No fault of its own: what is shorter goes on, and nothing so long is asked again.
        """
        refused = isinstance(error, StreamError) and error.status in _TOO_LONG
        tokens = experiment.tokens_in_all
        if self._told or not refused or tokens <= self._longest_sure:
            return False
        self._shortest_refused, self.longest_allowed = tokens, int(self._longest_sure)
        self._notes.append(
            f"a prompt of {tokens:,} tokens was refused ({error}): the terms are made surer by "
            "shorter ones"
        )
        return True
