"""A real control plane over telemetry that a test feeds."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from headrace.core.decisions import Explanation
from headrace.core.scaling.report import ScalingReport
from headrace.gateway.control import ControlSettings, make_control_app
from headrace.gateway.control_server import ControlServer, serve_control
from headrace.gateway.telemetry import Telemetry


@dataclass
class ShownGateway:
    """A `ControlPort` that shows what it was given."""

    telemetry: Telemetry
    explanations: dict[str, Explanation] = field(default_factory=dict)
    reason: str | None = None

    def explain(self, request_id: str) -> Explanation | None:
        return self.explanations.get(request_id)

    def explain_last(self) -> Explanation | None:
        return next(reversed(self.explanations.values()), None)

    def scaling_report(self) -> ScalingReport:
        return ScalingReport("here", 0.0)

    def not_ready_reason(self) -> str | None:
        return self.reason


@contextlib.asynccontextmanager
async def running_control(
    gateway: ShownGateway, *, token: str | None = None, host: str = "127.0.0.1"
) -> AsyncIterator[ControlServer]:
    settings = ControlSettings(host=host, port=0, token=token)
    server = await serve_control(make_control_app(gateway, settings), settings)
    try:
        yield server
    finally:
        await server.stop()
