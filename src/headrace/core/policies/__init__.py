"""Routing policies, one file each; the file's name is the policy's name in the configuration.

A policy module names its class as `POLICY`; nothing else has to be registered.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pkgutil import iter_modules

from headrace.core.candidates import Policy

POLICIES: dict[str, Callable[[], Policy]] = {
    name: import_module(f"{__name__}.{name}").POLICY
    for name in sorted(module.name for module in iter_modules(__path__))
}
"""Every policy by name. Each pool makes an instance of its own."""
