"""Secrets that a configuration points to: read once, kept out of everything that is printed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from headrace.config.schema import Config

_MAX_SECRET_BYTES = 8192
_SHORTEST_SECRET = 16
_LONGEST_SUFFIX = 8
_PLAIN_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")
"""What variables are called by custom. Anything else may be the secret itself, put in the wrong
place, and stays unsaid.
"""


@dataclass(frozen=True, slots=True)
class Secrets:
    """What must never be shown."""

    upstream: dict[str, str] = field(default_factory=dict[str, str], repr=False)
    """By pool name: the key its engines ask for."""
    control_token: str | None = field(default=None, repr=False)
    """What writing endpoints of the control plane ask for."""


class SecretReader:
    """Reads secrets from files (relative to `folder`) and the environment.

    What goes wrong is collected in `findings` as path and message.
    """

    def __init__(self, folder: Path, environ: Mapping[str, str]) -> None:
        self._folder = folder
        self._environ = environ
        self.findings: list[tuple[str, str]] = []

    def read(self, config: Config) -> Secrets:
        """All secrets of a configuration that can be read."""
        upstream: dict[str, str] = {}
        for index, pool in enumerate(config.pools):
            path = f"pools[{index}].api_key"
            value = self._value(path, pool.api_key_file, pool.api_key_env)
            if value is not None:
                upstream[pool.name] = value
        control = config.control
        token = self._value("control.token", control.token_file, control.token_env)
        return Secrets(upstream, token)

    def _value(self, path: str, file: str | None, variable: str | None) -> str | None:
        if file is not None:
            return self._from_file(f"{path}_file", file)
        if variable is not None:
            return self._from_environment(f"{path}_env", variable)
        return None

    def _from_file(self, path: str, file: str) -> str | None:
        try:
            with (self._folder / file).open("rb") as stream:
                content = stream.read(_MAX_SECRET_BYTES + 1)
        except OSError as error:
            named = "names a file" if may_be_secret(file, self._folder) else f"is {file!r}"
            self.findings.append((path, f"{named}, which cannot be read: {error.strerror}"))
            return None
        if len(content) > _MAX_SECRET_BYTES:
            self.findings.append((path, f"is {file!r}, which is too large for a secret"))
            return None
        return self._checked(path, f"the file {file!r}", content.decode("latin-1"))

    def _from_environment(self, path: str, variable: str) -> str | None:
        value = self._environ.get(variable)
        if value is None:
            message = f"names {_shown(variable)}, which is not set"
            self.findings.append((path, f"{message}; set it before the start"))
            return None
        return self._checked(path, _shown(variable), value)

    def _checked(self, path: str, where: str, value: str) -> str | None:
        secret = value.strip()
        if not secret or not secret.isascii() or not secret.isprintable() or " " in secret:
            self.findings.append((path, f"{where} must hold one word of printable ASCII"))
            return None
        return secret


def may_be_secret(file: str, folder: Path) -> bool:
    """Whether the name of a file that is not there may be the secret itself: dots stand in tokens,
    and slashes in base64, too.
    """
    if len(file) < _SHORTEST_SECRET or file.startswith(("/", "./", "../")):
        return False
    if "." in file:
        return len(file.rpartition(".")[2]) > _LONGEST_SUFFIX
    return "/" not in file or not (folder / file).parent.is_dir()


def _shown(variable: str) -> str:
    plain = _PLAIN_VARIABLE.fullmatch(variable)
    return f"the environment variable {variable}" if plain else "an environment variable"
