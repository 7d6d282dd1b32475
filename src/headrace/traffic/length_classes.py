"""Named classes of lengths and their shares, such as `short:64/128:9,long:32000/4000:1`.

    NAME:INPUT/OUTPUT[:WEIGHT]     INPUT and OUTPUT in tokens, each with ~CV for a spread

`2500~1.5/250~1` is one class without a name: inputs lognormal with mean 2,500 and CV 1.5, outputs
with mean 250 and CV 1. Weights count against each other and are 1 if not given.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import isfinite
from random import Random

from headrace.core.quantities import parse_number
from headrace.traffic.lengths import FixedTokens, Lengths, LognormalTokens

_EXAMPLE = "64/128 or short:64/128:9"
MAX_TOKENS = 1 << 24
"""Longest mean: beyond any context there is."""


@dataclass(frozen=True, slots=True)
class LengthClass:
    """One class; `weight` is above 0."""

    name: str
    input_tokens: Lengths
    output_tokens: Lengths
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class LengthMix:
    """Draws a class by weight, then its lengths."""

    classes: tuple[LengthClass, ...]
    text: str
    """As it was given: names the mix in reports."""

    @property
    def mean_input_tokens(self) -> float:
        """Over all classes."""
        return self._mean([each.input_tokens.mean_tokens for each in self.classes])

    @property
    def mean_output_tokens(self) -> float:
        """Over all classes."""
        return self._mean([each.output_tokens.mean_tokens for each in self.classes])

    def bounds(self) -> Sequence[float]:
        """Cumulated weights, for `draw`."""
        return list(accumulate(each.weight for each in self.classes))

    def draw(self, rng: Random, bounds: Sequence[float]) -> tuple[LengthClass, int, int]:
        """A class, tokens in, tokens out."""
        place = bisect_right(bounds, rng.random() * bounds[-1])
        chosen = self.classes[min(place, len(bounds) - 1)]
        return chosen, chosen.input_tokens.draw(rng), chosen.output_tokens.draw(rng)

    def _mean(self, means: Sequence[float]) -> float:
        total = sum(each.weight for each in self.classes)
        pairs = zip(self.classes, means, strict=True)
        return sum(each.weight * mean for each, mean in pairs) / total


def parse_lengths(text: str) -> LengthMix:
    """Read a mix as described above.

    Raises:
        ValueError: what is wrong and what is expected.
    """
    classes = tuple(_class(part.strip()) for part in text.split(","))
    names = [each.name for each in classes]
    if len(classes) > 1 and ("" in names or len(set(names)) < len(names)):
        raise ValueError(f"{text!r}: each class of a mix needs a name of its own")
    return LengthMix(classes, text)


def _class(text: str) -> LengthClass:
    pieces = text.split(":")
    name = pieces.pop(0).strip() if "/" not in pieces[0] else ""
    if not 1 <= len(pieces) <= 2 or pieces[0].count("/") != 1:
        raise ValueError(f"{text!r} is not INPUT/OUTPUT tokens, as in {_EXAMPLE}")
    given_input, given_output = pieces[0].split("/")
    weight = _number(text, pieces[1]) if len(pieces) == 2 else 1.0
    if not weight > 0:
        raise ValueError(f"{text!r}: the weight is not above 0")
    return LengthClass(name, _lengths(text, given_input), _lengths(text, given_output), weight)


def _lengths(text: str, given: str) -> Lengths:
    mean, tilde, spread = given.partition("~")
    tokens = _number(text, mean)
    if not 1 <= tokens <= MAX_TOKENS:
        raise ValueError(f"{text!r}: {mean} is not from 1 to {MAX_TOKENS:,} tokens")
    return LognormalTokens(tokens, _number(text, spread)) if tilde else FixedTokens(tokens)


def _number(text: str, given: str) -> float:
    try:
        number = parse_number(given)
    except ValueError:
        number = float("nan")
    if not isfinite(number):
        raise ValueError(f"{text!r}: {given!r} is not a number; as in {_EXAMPLE}")
    return number
