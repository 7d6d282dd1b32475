"""Reads what `headrace bench --slo` says: `ttft=2s,tpot=50ms`, or with a tier before it."""

from __future__ import annotations

from collections.abc import Sequence

from headrace.bench.figures.slo import Slo, Slos
from headrace.compose.process.slo_flags import USUAL_SLO, targets_by_tier
from headrace.core.quantities import parse_duration, parse_number

_FIELDS = {"ttft": "ttft_s", "tpot": "tpot_s", "e2e": "e2e_s"}
_EXAMPLE = "write --slo ttft=2s,tpot=50ms or --slo interactive:ttft=1s,share=95%"


class BenchSloError(ValueError):
    """What is wrong in `--slo`, in a line."""


def parse_slos(texts: Sequence[str]) -> Slos:
    """Each text is the targets of one tier, or, without a tier's name, of all others.

    A target that is left out asks for nothing; `share` is how many requests must meet all, 99 %
    where it is left out. No text at all stands for `USUAL_SLO`.

    Raises:
        BenchSloError: a part is no target, or a tier comes twice.
    """
    try:
        by_tier = targets_by_tier(texts or (USUAL_SLO,))
    except ValueError as error:
        raise BenchSloError(f"{error}; {_EXAMPLE}") from None
    tiers = {tier: _slo(tier, targets) for tier, targets in by_tier.items()}
    return Slos(tiers.pop("", Slo()), tiers)


def _slo(tier: str, targets: str) -> Slo:
    text = f"{tier}:{targets}" if tier else targets
    given: dict[str, float] = {}
    for part in targets.split(","):
        name, equals, value = (each.strip() for each in part.partition("="))
        if not equals or name not in {*_FIELDS, "share"}:
            known = ", ".join((*_FIELDS, "share"))
            raise BenchSloError(f"--slo {text}: {part!r} is no target ({known}); {_EXAMPLE}")
        field = _FIELDS.get(name, name)
        if field in given:
            raise BenchSloError(f"--slo {text}: {name} is given twice")
        try:
            given[field] = _share(value) if name == "share" else _seconds(value)
        except ValueError as error:
            raise BenchSloError(f"--slo {text}: {name} is {value!r}; give {error}") from None
    try:
        return Slo(**given)
    except ValueError as error:
        raise BenchSloError(f"--slo {text}: {error}") from None


def _seconds(value: str) -> float:
    """From `2s` or `50ms`: a bare number is seconds here and milliseconds to other generators."""
    seconds = parse_duration(value)
    if value[-1:].isdigit():
        raise ValueError(f"its unit, as in {value}ms or {value}s")
    return seconds


def _share(value: str) -> float:
    """From `95%` or `0.95`."""
    try:
        number = parse_number(value.removesuffix("%").strip()) / (100 if value.endswith("%") else 1)
    except ValueError:
        number = 0.0
    if not 0.0 < number < 1.0:
        raise ValueError("a share below 100%, such as 95% or 0.95")
    return number
