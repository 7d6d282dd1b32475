"""The configuration file: the only place where files and environment become settings.

    parse (document) ─► bind (binding, by shapes) ─► check (checks) ─► Loaded

`schema` composes the file out of the settings dataclasses that live beside what they configure.
"""

from headrace.config.document import ConfigError, Problem
from headrace.config.load import Loaded, load
from headrace.config.profile_file import load_profile
from headrace.config.schema import Config, ControlSection, PoolSection
from headrace.config.secret_values import Secrets

__all__ = [
    "Config",
    "ConfigError",
    "ControlSection",
    "Loaded",
    "PoolSection",
    "Problem",
    "Secrets",
    "load",
    "load_profile",
]
