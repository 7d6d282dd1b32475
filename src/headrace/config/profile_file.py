"""Profile files: what `headrace calibrate` writes, and every command that takes a profile reads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml

from headrace.config.binding import MISSING_VALUE, Binder
from headrace.config.document import MAX_DOCUMENT_BYTES, ConfigError, Problem, parse
from headrace.config.modelled_engine import is_profile_file, shipped
from headrace.config.shapes import section_of
from headrace.core.durations import small_in_words
from headrace.core.latency import LatencyProfile
from headrace.core.profile_fit import TERMS
from headrace.engine_model.measured import Interval, MeasuredProfile

_DIGITS = 5
_HEAD = """\
# A latency profile, measured by `headrace calibrate`. Seconds are written in full; an interval is
# where a coefficient lies with 95 %. See docs/reference/latency-profile.md.
"""
_MEANINGS = {
    "per_step_s": "a step",
    "per_prefill_token_s": "a prompt token not cached",
    "per_attended_token_s": "a pair of tokens attended in prefill",
    "per_sequence_s": "a decoding sequence in a step",
    "per_kv_token_s": "a token of KV cache read in a step",
    "request_overhead_s": "a request, besides its steps",
}
_MOST_S = {
    "per_step_s": 10.0,
    "per_prefill_token_s": 1.0,
    "per_attended_token_s": 0.01,
    "per_sequence_s": 10.0,
    "per_kv_token_s": 0.01,
    "request_overhead_s": 60.0,
}


_MEMORY = ("memory_bytes_per_s", "weight_bytes_per_step", "kv_bytes_per_token")


def read_text(path: Path) -> str:
    """The text of a file of ours. Raises ConfigError."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_DOCUMENT_BYTES + 1)
        return content.decode("utf-8")
    except UnicodeDecodeError:
        raise ConfigError(str(path), [Problem(0, "", "is not UTF-8 text")]) from None
    except OSError as error:
        problem = Problem(0, "", f"cannot be read: {error.strerror}")
        raise ConfigError(str(path), [problem]) from None


def load_measured(path: Path) -> MeasuredProfile:
    """Read a profile file with all that it tells. Raises ConfigError."""
    binder = Binder()
    profile = binder.bind(section_of(MeasuredProfile), parse(read_text(path), str(path)), "")
    if profile is MISSING_VALUE or binder.problems:
        raise ConfigError(str(path), binder.problems)
    if problems := list(_other_units(profile)):
        raise ConfigError(str(path), problems)
    return profile


def _other_units(profile: MeasuredProfile) -> Iterator[Problem]:
    """What is written by hand in milliseconds is off by more than what is learned online mends."""
    for term, most_s in _MOST_S.items():
        value = getattr(profile, term)
        if value > most_s:
            said = f"is {value:g} s, and no engine takes more than {most_s:g} s for"
            yield Problem(0, term, f"{said} {_MEANINGS[term]}: write seconds, 14 ms is 0.014")


def measured_of(text: str) -> MeasuredProfile:
    """All that a file tells, or a shipped profile does.

    Raises:
        ConfigError: the file cannot be used.
        ValueError: there is no shipped profile of this name.
    """
    return load_measured(Path(text)) if is_profile_file(text) else MeasuredProfile.of(shipped(text))


def load_profile(path: Path) -> LatencyProfile:
    """Read the latency model of a profile file. Raises ConfigError."""
    return load_measured(path).latency


def latency_of(text: str, folder: Path = Path()) -> LatencyProfile:
    """The latency model of a shipped profile or of a file.

    Raises:
        ConfigError: the file cannot be used.
        ValueError: there is no shipped profile of this name.
    """
    if is_profile_file(text):
        return load_profile(folder / text)
    return shipped(text).latency


def save(path: Path, profile: MeasuredProfile) -> None:
    """Write a profile file that `load_measured` reads. Raises OSError."""
    path.write_text(profile_text(profile), encoding="utf-8")


def profile_text(profile: MeasuredProfile) -> str:
    """A profile as YAML, each coefficient with what it means beside it."""
    return _HEAD + "".join(f"{line}\n" for line in _lines(profile))


def _lines(profile: MeasuredProfile) -> Iterator[str]:
    yield from _yaml({"name": profile.name, "source": profile.latency.source})
    for term in (*TERMS, "request_overhead_s"):
        value = getattr(profile, term)
        yield f"{f'{term}: {_figure(value)}':<36}# {small_in_words(value)}: {_MEANINGS[term]}"
    known = {
        each.name: getattr(profile, each.name)
        for each in fields(profile)
        if each.name.endswith("_tokens") or each.name == "max_sequences"
    }
    known |= {term: getattr(profile, term) or None for term in _MEMORY}
    yield from _yaml({key: value for key, value in known.items() if value is not None})
    if profile.intervals:
        yield "intervals:"
        for term, interval in profile.intervals.items():
            yield f"  {term}: {_interval(interval)}"
    if profile.residuals is not None:
        yield from _yaml({"residuals": _plain(profile.residuals)})
    if profile.measured is not None:
        yield from _yaml({"measured": _plain(profile.measured)})


def _yaml(value: dict[str, Any]) -> list[str]:
    if not value:
        return []
    return yaml.safe_dump(value, sort_keys=False, width=96, allow_unicode=True).splitlines()


def _plain(record: Any) -> dict[str, Any]:  # noqa: ANN401 - any of our dataclasses
    """A record as a mapping, without what is not known."""
    found: dict[str, Any] = {}
    for each in fields(record):
        value = getattr(record, each.name)
        if isinstance(value, float):
            value = float(f"{value:.4g}")
        if value != "":
            found[each.name] = value
    return found


def _interval(interval: Interval) -> str:
    ends = f"low_s: {_figure(interval.low_s)}, high_s: {_figure(interval.high_s)}"
    return f'{{{ends}, note: "{interval.note}"}}' if interval.note else f"{{{ends}}}"


def _figure(value: float) -> str:
    """As YAML has numbers: a dot before an exponent."""
    text = f"{value:.{_DIGITS}g}"
    mantissa, e, exponent = text.partition("e")
    if e and "." not in mantissa:
        mantissa += ".0"
    return mantissa + e + exponent
