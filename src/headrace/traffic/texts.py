"""Text for prompts that are known by their blocks: same id, same text; as many tokens as planned.

    words up to position p = round((p − template_tokens) / tokens_per_word), at least 0

Prompts consist of three-letter words, each behind a blank. In the vocabularies of current models
such a word is one token together with its blank, and pre-tokenisation never merges two of them, so
a text has as many tokens as words; where that is not so, `tokens_per_word` corrects it. What the
chat template adds is taken off the first words of a prompt, so that block boundaries stay where
they are planned.

The words of a block follow from its id alone. Its first 16 are drawn one by one, so that two
blocks do not begin alike; the rest are phrases of 16 words, which makes a prompt of 32,000 tokens
cost some 0.4 ms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import shake_128
from itertools import chain

from headrace.traffic.planned import PlannedRequest

_WORDS = (
    "the and for are but not you all any can had her was one our out day get has him "
    "his how man new now old see two way who boy did its let put say she too use dad "
    "mom act add age ago aid aim air arm art ask bad bag bar bed bet big bit box bus "
    "buy car cat cup cut die dog dry due ear eat egg end eye far fat few fit fix fly "
    "fun gas god got gun guy hat hit hot ice ill job key kid lab law lay led leg lie "
    "lot low map may men met mix net nor oil own pay pen per pet pop raw red rid row "
    "run sad sat sea set sex sir sit six sky son sun tax tea ten tie tip top try war "
    "wet why win won yes yet"
)
WORDS = tuple(_WORDS.split())
"""Common enough to be one token nearly everywhere."""

LEAST_WORDS = 32
"""With fewer words a text would be too uniform."""
PHRASE_WORDS = 16
WORD_BYTES = 4
"""A blank and three letters."""
_BYTE_VALUES = 256


@dataclass(frozen=True, slots=True)
class Sizing:
    """How a planned number of tokens becomes a number of words."""

    words: tuple[str, ...] = WORDS
    """Those of `WORDS` that may be used."""
    tokens_per_word: float = 1.0
    template_tokens: float = 0.0
    """What the endpoint adds to a prompt: marks of a chat template, a token at the beginning."""
    shared_template_tokens: float = 0.0
    """The same where a system message stands before the prompt."""
    by: str = "words"
    """Where this comes from, in words for the report."""


class Texts:
    """Makes prompts; the same ones from the same sizing and seed, in any process.

    With another seed all texts are others: nothing is in a cache from an earlier run.
    """

    def __init__(self, sizing: Sizing, *, seed: int, block_tokens: int) -> None:
        words = [b" " + word.encode() for word in sizing.words]
        self._sizing = sizing
        self._seed = seed
        self._block_tokens = block_tokens
        self._words = [words[number % len(words)] for number in range(_BYTE_VALUES)]
        self._phrases = self._make_phrases()
        self._shared: dict[tuple[int, int], bytes] = {}

    def prompt(self, planned: PlannedRequest, index: int) -> tuple[bytes, bytes]:
        """The shared prefix (empty if there is none) and the request's own text.

        `index` makes the text behind the last block unlike any other prompt's.
        """
        sizing, per_word = self._sizing, self._sizing.tokens_per_word
        has_shared = planned.shared_tokens > 0
        template = sizing.shared_template_tokens if has_shared else sizing.template_tokens
        own_tokens = planned.input_tokens - planned.shared_tokens
        words = max(1, round((own_tokens - template) / per_word))
        pieces: list[bytes] = []
        done = 0
        for place, block in enumerate(planned.blocks, 1):
            bound = round((place * self._block_tokens - template) / per_word)
            bound = min(words, max(0, bound))
            pieces.append(self._text(b"block %d %d" % (self._seed, block), bound - done))
            done = bound
        if done < words:
            pieces.append(self._text(b"request %d %d" % (self._seed, index), words - done))
        return self._shared_text(planned), b"".join(pieces)

    def _shared_text(self, planned: PlannedRequest) -> bytes:
        tokens = planned.shared_tokens
        if not tokens:
            return b""
        key = (planned.shared, tokens)
        text = self._shared.get(key)
        if text is None:
            words = max(1, round(tokens / self._sizing.tokens_per_word))
            name = b"shared %d %d" % (self._seed, planned.shared)
            text = self._shared[key] = self._text(name, words)
        return text

    def _text(self, key: bytes, words: int) -> bytes:
        """So many words that follow from the key; more words of a key begin with fewer of it."""
        if words <= 0:
            return b""
        phrases = max(0, -(-words // PHRASE_WORDS) - 1)
        drawn = shake_128(key).digest(PHRASE_WORDS + phrases)
        first = [self._words[byte] for byte in drawn[:PHRASE_WORDS]]
        rest = [self._phrases[byte] for byte in drawn[PHRASE_WORDS:]]
        return b"".join(chain(first, rest))[: words * WORD_BYTES]

    def _make_phrases(self) -> list[bytes]:
        drawn = shake_128(b"phrases").digest(_BYTE_VALUES * PHRASE_WORDS)
        return [
            b"".join(self._words[byte] for byte in drawn[start : start + PHRASE_WORDS])
            for start in range(0, len(drawn), PHRASE_WORDS)
        ]


def candidate_text(words: Sequence[str]) -> str:
    """A text of these words, for a tokenizer to be asked how many tokens they are."""
    return "".join(f" {word}" for word in words)
