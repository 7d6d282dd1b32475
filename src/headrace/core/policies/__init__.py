"""Routing policies, one file each; the file's name is the policy's name in the configuration.

A policy module names its class as `POLICY`; nothing else has to be registered. The keyword
arguments of that class are the policy's parameters, all of them numbers with a default, and a
policy is written as its name or with parameters behind it:

    dynamo_kv
    dynamo_kv:overlap_weight=4,temperature=0.5

A module may name a `SWEEP`, the values of its parameters that are worth trying on a trace.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from inspect import signature
from math import isfinite
from pkgutil import iter_modules

from headrace.core.candidates import Policy
from headrace.core.names import misnamed
from headrace.core.quantities import parse_number, parse_whole

_MODULES = {
    name: import_module(f"{__name__}.{name}")
    for name in sorted(module.name for module in iter_modules(__path__))
}
POLICIES: dict[str, Callable[..., Policy]] = {
    name: module.POLICY for name, module in _MODULES.items()
}
"""Every policy by name. Each pool makes an instance of its own."""


def make_policy(text: str) -> Policy:
    """An instance of the policy that `text` names, with the parameters it gives.

    Raises:
        ValueError: there is no such policy or parameter, or a value is no number it can take; the
            message names it and what is known.
    """
    name, colon, given = text.partition(":")
    name = name.strip()
    if name not in POLICIES:
        raise ValueError(f"unknown policy {misnamed(name, POLICIES)}")
    values: dict[str, float] = {}
    for assignment in given.split(",") if colon else ():
        parameter, value = _read(name, assignment, parameters_of(name))
        if parameter in values:
            raise ValueError(f"policy {name!r}: parameter {parameter!r} is given twice")
        values[parameter] = value
    try:
        return POLICIES[name](**values)
    except ValueError as error:
        raise ValueError(f"policy {name!r}: {error}") from None


def parameters_of(name: str) -> dict[str, float]:
    """The parameters of the policy with this name and their defaults, ints where it takes ints."""
    return {each.name: each.default for each in signature(POLICIES[name]).parameters.values()}


def sweep_of(name: str) -> dict[str, tuple[float, ...]]:
    """The values of its parameters that a sweep should try; empty if there is nothing to tune."""
    return getattr(_MODULES[name], "SWEEP", {})


def split_policies(text: str) -> tuple[str, ...]:
    """The policies of a list separated by commas, each with its own parameters behind it.

    `a,b:x=1,y=2,c` is a, b with two parameters, and c: what assigns and names no policy of its own
    belongs to the policy before it.
    """
    found: list[str] = []
    for part in text.split(","):
        if found and "=" in part and ":" not in part:
            found[-1] += f",{part}"
        elif part.strip():
            found.append(part.strip())
    return tuple(found)


def _read(name: str, assignment: str, known: dict[str, float]) -> tuple[str, float]:
    """One parameter and its value, an int where the default is one."""
    parameter, equals, written = (part.strip() for part in assignment.partition("="))
    if not known:
        raise ValueError(f"policy {name!r} takes no parameters, but {assignment!r} is given")
    if not equals:
        raise ValueError(
            f"policy {name!r}: {assignment!r} sets nothing; write parameter=number, "
            f"known: {', '.join(known)}"
        )
    if parameter not in known:
        raise ValueError(f"policy {name!r}: unknown parameter {misnamed(parameter, known)}")
    whole = isinstance(known[parameter], int)
    try:
        value = parse_whole(written) if whole else parse_number(written)
    except ValueError:
        value = -1.0
    if not (isfinite(value) and value >= 0):
        raise ValueError(
            f"policy {name!r}: {parameter} is {written!r}; "
            f"give a {'whole number' if whole else 'number'}, 0 or more"
        )
    return parameter, value
