"""The scalers that are compared, one file each: `headrace` and the rules of its peers.

A module has a `SCALER`: a class that is made with the settings, and with the `demand` if it asks
for that (for a load test, or because it knows the future), and whose keyword arguments, numbers
with defaults, are its parameters (their ranges are in `parameters.py`); and `SWEEP`: the values of
these worth trying. Its docstring has the formula and its source.
"""

from __future__ import annotations

from importlib import import_module
from inspect import Parameter, signature
from typing import Any, Protocol

from headrace.core.names import misnamed
from headrace.core.quantities import parse_number
from headrace.simulator.scaling.actuation import Behaviour
from headrace.simulator.scaling.demand import Demand
from headrace.simulator.scaling.parameters import RANGES
from headrace.simulator.scaling.reading import Reading
from headrace.simulator.scaling.settings import ScalingSimulation

NAMES = (
    "headrace",
    "llmd_slo",
    "llmd_token",
    "dynamo_planner",
    "keda_queue",
    "hpa_rps",
    "hpa_cpu",
    "static",
    "oracle",
)
"""In the order in which they are shown."""
OWN = "headrace"
ORACLE = "oracle"


class Scaler(Protocol):
    """Wishes a number of replicas at each of its periods. One that remembers what came before has
    `learn(history)` too, which is called before the first.
    """

    @property
    def behaviour(self) -> Behaviour:
        """What its HPA does with the wish."""
        ...

    @property
    def period_s(self) -> float:
        """How often it is asked."""
        ...

    def wish(self, reading: Reading, /) -> int:
        """The number it wants now."""
        ...


def make_scaler(written: str, settings: ScalingSimulation, demand: Demand) -> Scaler:
    """A scaler by its name, with parameters if wanted: `llmd_slo:up=0.45,down=0.3`.

    Raises:
        ValueError: there is no such scaler, or a parameter of it is wrong.
    """
    name, _, rest = written.partition(":")
    kind = _module(name).SCALER
    known = parameters_of(name)
    given: dict[str, float] = {}
    for part in rest.split(",") if rest else ():
        parameter, equals, value = (each.strip() for each in part.partition("="))
        if not equals:
            raise ValueError(f"scaler {written!r}: {part!r} is not parameter=value")
        if parameter not in known:
            raise ValueError(f"scaler {written!r}: unknown parameter {misnamed(parameter, known)}")
        try:
            given[parameter] = parse_number(value)
        except ValueError:
            raise ValueError(f"scaler {written!r}: {value!r} is not a number") from None
        if not RANGES[parameter].holds(given[parameter]):
            raise ValueError(
                f"scaler {written!r}: {parameter} is {value}; give {RANGES[parameter]}"
            )
    asked = (demand,) if "demand" in signature(kind).parameters else ()
    return kind(settings, *asked, **given)


def parameters_of(name: str) -> dict[str, float]:
    """The parameters of a scaler with their defaults."""
    arguments = signature(_module(name).SCALER).parameters.values()
    return {each.name: each.default for each in arguments if each.kind is Parameter.KEYWORD_ONLY}


def sweep_of(name: str) -> dict[str, tuple[float, ...]]:
    """The values worth trying of its parameters."""
    return _module(name).SWEEP


def _module(name: str) -> Any:  # noqa: ANN401 - a module's names are checked by its test
    if name not in NAMES:
        raise ValueError(f"unknown scaler {misnamed(name, NAMES)}")
    return import_module(f"{__name__}.{name}")
