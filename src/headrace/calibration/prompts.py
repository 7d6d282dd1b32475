"""Prompts of about so many tokens that no cache has seen."""

from __future__ import annotations

import random
from dataclasses import dataclass

# Common words, one token each for most tokenizers, so that a text is neither noise nor repetition.
_TEXT = """
the of and to in is you that it he was for on are as with his they at be this have from or
one had by word but not what all were we when your can said there use an each which she do
how their if will up other about out many then them these so some her would make like him
into time has look two more write go see number no way could people my than first water been
call who oil its now find long down day did get come made may part over new sound take only
little work know place year live me back give most very after thing our just name good
"""
_WORDS = tuple(_TEXT.split())


@dataclass(frozen=True, slots=True)
class Prompt:
    """A text and of how many words it is made."""

    text: str
    words: int


class Prompts:
    """Makes prompts and learns from the engine's counts how many words a token is."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._words = self._tokens = 0

    def learn(self, prompt: Prompt, input_tokens: int) -> None:
        """Take what the engine counted; short prompts tell of the template instead.

        All prompts count by their length: a few dozen words by chance are a tenth longer or
        shorter than others, and a prompt made by them would not fit where it was meant to.
        """
        if prompt.words >= 32 and input_tokens > 0:
            self._words += prompt.words
            self._tokens += input_tokens

    def fresh(self, tokens: int) -> Prompt:
        """A text of its own from the first word on."""
        words = max(1, round(tokens * self._words / self._tokens if self._tokens else tokens))
        return Prompt(" ".join(self._rng.choices(_WORDS, k=words)), words)

    def extended(self, prompt: Prompt, tokens: int) -> Prompt:
        """A prompt that begins as `prompt` does."""
        more = self.fresh(tokens)
        return Prompt(f"{prompt.text} {more.text}", prompt.words + more.words)
