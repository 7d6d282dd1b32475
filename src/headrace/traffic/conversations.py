"""Conversations of a closed loop: who waits for an answer, and then says something more.

    prompt of turn k = k messages + (k − 1) answers

A user has one conversation after the other. The text of an answer in later prompts is a stand-in of
the planned length: what the engine said is not repeated, so a prefix cache can know all of the
prompt before, and none of its answer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from random import Random

from headrace.traffic.length_classes import LengthMix
from headrace.traffic.planned import PlannedRequest
from headrace.traffic.prompts import Prompt

BLOCK_TOKENS = 16
"""A prompt repeats the one before in whole blocks of so many tokens."""


@dataclass(frozen=True, slots=True)
class Conversations:
    """Of all users alike: `turns` messages of the mix's input lengths, each answered in full."""

    lengths: LengthMix
    turns: int
    think_s: float = 0.0

    def of_user(self, user: int, seed: int) -> Iterator[list[PlannedRequest]]:
        """The conversations of one user, without end, each as its turns in order.

        Its class is drawn for the whole conversation. `at_s` is the pause before a turn.
        """
        rng = Random(f"conversations {seed} {user}")
        keys = Random(f"conversations blocks {seed} {user}")
        bounds = self.lengths.bounds()
        for _ in count():
            chosen, message, answer = self.lengths.draw(rng, bounds)
            prompt = Prompt(BLOCK_TOKENS, keys)
            turns: list[PlannedRequest] = []
            for turn in range(self.turns):
                if turn:
                    message, answer = chosen.input_tokens.draw(rng), chosen.output_tokens.draw(rng)
                pause_s = rng.expovariate(1 / self.think_s) if self.think_s else 0.0
                prompt.grow(message)
                turns.append(
                    PlannedRequest(pause_s, prompt.tokens, answer, prompt.blocks, chosen.name)
                )
                prompt.grow(answer)
            yield turns
