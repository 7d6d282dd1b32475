"""The engine to model, as a flag or a setting names it.

A name is that of a shipped profile (`h100-llama-3.1-8b`); what ends in `.yaml`, `.yml` or `.json`
is a file.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from headrace.engine_model import profiles
from headrace.engine_model.spec import EngineSpec

_SUFFIXES = frozenset((".json", ".yaml", ".yml"))
_ANY_TOKENS = 10**9
"""Of a KV cache: more than the block of any engine."""


class KvTokensError(ValueError):
    """Another size of the KV cache is wanted than there can be."""


def is_profile_file(text: str) -> bool:
    """Whether a profile is given as a file rather than by its name."""
    return Path(text).suffix in _SUFFIXES


def engine_of(text: str, kv_capacity_tokens: int | None = None) -> EngineSpec:
    """The engine to model, of a shipped profile or of a file.

    `kv_capacity_tokens` overrules what the profile says.

    Raises:
        ConfigError: the file cannot be used.
        ValueError: there is no such profile, or nothing says how large its KV cache is.
        KvTokensError: `kv_capacity_tokens` is less than a block.
    """
    if kv_capacity_tokens is None:
        return _of_file(text) if is_profile_file(text) else shipped(text)
    # Only an engine tells its block, so one with any cache comes first.
    spec = _of_file(text, _ANY_TOKENS) if is_profile_file(text) else shipped(text)
    if kv_capacity_tokens < spec.kv_block_tokens:
        raise KvTokensError(
            f"--kv-tokens is {kv_capacity_tokens}; give at least one block of the KV cache, "
            f"{spec.kv_block_tokens} tokens"
        )
    return replace(spec, kv_capacity_tokens=kv_capacity_tokens)


def shipped(name: str) -> EngineSpec:
    """The engine of a shipped profile. Raises ValueError where there is none of this name."""
    try:
        return profiles.profile(name)
    except ValueError as error:
        raise ValueError(f"{error}; or name a file, *.yaml or *.json") from None


def _of_file(text: str, kv_capacity_tokens: int | None = None) -> EngineSpec:
    # What reads files knows the settings of the whole gateway, whose modules take longer to load
    # than a short trace to play.
    from headrace.config.profile_file import load_measured  # noqa: PLC0415

    return load_measured(Path(text)).engine(kv_capacity_tokens)
