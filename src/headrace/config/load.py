"""From a file to a checked configuration with its secrets, or to all that is wrong with it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from headrace.config import checks
from headrace.config.binding import MISSING_VALUE, Binder
from headrace.config.document import ConfigError, Problem, parse
from headrace.config.profile_file import latency_of, read_text
from headrace.config.scaling_checks import scaling_exposure, scaling_findings, scaling_warnings
from headrace.config.schema import Config, PoolSection
from headrace.config.secret_values import SecretReader, Secrets, may_be_secret
from headrace.config.shapes import section_of
from headrace.config.tls_files import certificate_warnings, check_certificates
from headrace.core.admission import DEFAULT_TIER, Tier
from headrace.gateway.keys import KEY_PREFIX, KeyFileError, KeyRing

Settings = TypeVar("Settings")


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration ready to use."""

    source: str
    config: Config
    secrets: Secrets
    keys: KeyRing | None = field(repr=False)
    warnings: tuple[str, ...] = ()
    insecure: bool = False
    """Whether a listener that others reach may do without keys or token."""

    @property
    def folder(self) -> Path:
        """Where relative paths in the file start."""
        return Path(self.source).parent


def load(
    path: Path | str, environ: Mapping[str, str] = os.environ, *, insecure: bool = False
) -> Loaded:
    """Read, bind and check a file and everything it points to.

    Relative paths in it start at its own folder. `insecure` allows a listener that others
    reach without API keys. Raises ConfigError with every problem found.
    """
    path = Path(path)
    binder = Binder()
    config = _bind(binder, Config, read_text(path), str(path))
    findings: list[checks.Finding] = []
    if config is None:
        raise ConfigError(str(path), binder.problems)
    config = replace(
        config,
        pools=tuple(_with_profiles(config.pools, path.parent, findings)),
        tiers={DEFAULT_TIER: Tier()} | config.tiers,
    )
    reader = SecretReader(path.parent, environ)
    secrets = reader.read(config)
    keys = _keys(config, path.parent, findings)
    findings += reader.findings
    findings += check_certificates(config, path.parent)
    if binder.complete:  # a pool left out would make sound aliases look wrong
        findings += checks.findings(config)
        findings += scaling_findings(config)
        findings += checks.exposure(config, insecure=insecure)
        findings += () if insecure else scaling_exposure(config)
    problems = binder.problems + [
        _located(binder, path, message)
        for path, message in findings
        # What was replaced by its default may make its section look wrong.
        if not any(problem.path.startswith(path) for problem in binder.problems)
    ]
    if problems:
        raise ConfigError(str(path), problems)
    told = (
        *checks.warnings(config),
        *scaling_warnings(config),
        *certificate_warnings(config, path.parent),
    )
    warnings = (*(keys.warnings if keys else ()), *told)
    return Loaded(str(path), config, secrets, keys, warnings, insecure)


def _bind(binder: Binder, cls: type[Settings], text: str, source: str) -> Settings | None:
    value = binder.bind(section_of(cls), parse(text, source), "")
    return None if value is MISSING_VALUE else value


def _with_profiles(
    pools: Iterable[PoolSection], folder: Path, findings: list[checks.Finding]
) -> Iterable[PoolSection]:
    """Read the profiles that are given as files or by the names of shipped ones."""
    for index, pool in enumerate(pools):
        if not isinstance(pool.profile, str):
            yield pool
            continue
        profile, where = None, f"pools[{index}].profile"
        try:
            profile = latency_of(pool.profile, folder)
        except ConfigError as error:
            findings += [(where, f"{pool.profile}: {each}") for each in error.problems]
        except ValueError as error:
            findings.append((where, str(error)))
        yield replace(pool, profile=profile)


def _keys(config: Config, folder: Path, findings: list[checks.Finding]) -> KeyRing | None:
    if config.api_keys_file is None:
        return None
    try:
        return KeyRing.load(folder / config.api_keys_file)
    except KeyFileError as error:
        told = str(error)
        file = config.api_keys_file
        if file.startswith(KEY_PREFIX) and may_be_secret(file, folder):
            told = told.replace(file, "***")
        findings += [("api_keys_file", line) for line in told.splitlines()]
        return None


def _located(binder: Binder, path: str, message: str) -> Problem:
    """Give a finding the line of its path, or of the nearest one around it."""
    place = path
    while place and place not in binder.lines:
        place = place[: max(place.rfind("."), place.rfind("["), 0)]
    return Problem(binder.lines.get(place, 0), path, message)
