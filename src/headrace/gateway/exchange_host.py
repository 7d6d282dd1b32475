"""What an exchange needs of the data plane that it is part of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from headrace.core.events import Event
from headrace.edges.http.client import UpstreamPool
from headrace.gateway.settings import GatewaySettings
from headrace.gateway.stored import StoredResponses
from headrace.gateway.telemetry import Telemetry
from headrace.gateway.tracing import Tracer
from headrace.gateway.upstream import Upstream

if TYPE_CHECKING:
    from headrace.gateway.exchange import Exchange


class ExchangeHost(Protocol):
    """What an exchange needs of the data plane."""

    settings: GatewaySettings
    telemetry: Telemetry
    tracer: Tracer | None
    pool: UpstreamPool
    responses: StoredResponses

    def apply(self, event: Event, now: float | None = None) -> None:
        """Hand an event to the core and carry out its effects."""
        ...

    def upstream(self, pool: str) -> Upstream:
        """Return how to talk to a pool's engines."""
        ...

    def now(self) -> float:
        """Return the monotonic time in seconds."""
        ...

    def held_for(self, request_id: str) -> str:
        """Return the model that a request waits for now; "" if it is not held."""
        ...

    def hold(self, exchange: Exchange) -> None:
        """The exchange is held from now on."""
        ...

    def released(self, exchange: Exchange) -> None:
        """The exchange is held no more."""
        ...

    def over(self, exchange: Exchange) -> None:
        """The exchange has ended."""
        ...
