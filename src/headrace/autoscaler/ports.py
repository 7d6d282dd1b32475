"""What the autoscaler needs of the world."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from headrace.core.scaling.observation import ReplicaObservation, StandbyWakes
from headrace.core.scaling.plan import ScalePlan
from headrace.core.scaling.report import ScalingReport


class SourceError(Exception):
    """Something could not be read. The message says what and why."""


class ReportSource(Protocol):
    """One gateway's control plane."""

    @property
    def name(self) -> str:
        """What the gateway is called here, whatever it calls itself."""
        ...

    async def read(self) -> ScalingReport:
        """What it tells now. Raises SourceError; must return within a few seconds."""
        ...


class Finder(Protocol):
    """Where gateways are found that come and go."""

    async def find(self) -> Sequence[ReportSource]:
        """All that are to be asked now. Never raises; must return within a few seconds."""
        ...


class Actuator(Protocol):
    """Starts and ends replicas itself, where no Kubernetes does."""

    @property
    def refused(self) -> str:
        """Why the last order could not be had; "" if it could."""
        ...

    @property
    def wakes(self) -> StandbyWakes:
        """What became of standbys that were woken."""
        ...

    def observed(self) -> Sequence[ReplicaObservation]:
        """Its replicas, with their phases and times."""
        ...

    def carry_out(self, plan: ScalePlan) -> None:
        """Begin what a plan says."""
        ...
