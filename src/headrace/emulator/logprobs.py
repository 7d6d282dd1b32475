"""Log probabilities of made-up words: as if any of them were as likely as the others."""

from __future__ import annotations

from collections.abc import Iterator
from math import log

from headrace.emulator.answer_text import WORDS, text_bytes_of

LOGPROB = -log(len(WORDS))


def logprobs_of(first: int, end: int, most: int, *, chat: bool) -> dict[str, object]:
    """Of the tokens from `first` to `end` of an answer, each with so many that might be there."""
    tokens = range(first, end)
    if chat:
        return {"content": [_entry(token, most) for token in tokens]}
    return {
        "text_offset": [text_bytes_of(token) for token in tokens],
        "token_logprobs": [LOGPROB] * len(tokens),
        "tokens": [_word(token) for token in tokens],
        # The one that is there is told in any case.
        "top_logprobs": [dict.fromkeys(_likely(token, max(most, 1)), LOGPROB) for token in tokens],
    }


def _entry(token: int, most: int) -> dict[str, object]:
    return {
        **_shown(_word(token)),
        "top_logprobs": [_shown(word) for word in _likely(token, most)],
    }


def _shown(word: str) -> dict[str, object]:
    return {"token": word, "logprob": LOGPROB, "bytes": list(word.encode())}


def _likely(token: int, most: int) -> Iterator[str]:
    """The word that is there, and then others."""
    return (_word(token + away) for away in range(min(most, len(WORDS))))


def _word(token: int) -> str:
    return WORDS[token % len(WORDS)].decode()
