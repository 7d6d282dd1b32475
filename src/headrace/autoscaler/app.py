"""What the autoscaler shows over HTTP: plans with their reasons, KEDA's metrics-api, metrics.

Everything here only reads, and what is shown are names and numbers.
"""

from __future__ import annotations

import msgspec
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.process_collector import ProcessCollector
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from headrace.autoscaler.metrics import ScalingCollector
from headrace.autoscaler.program import Autoscaler
from headrace.autoscaler.views import view_all, view_value
from headrace.edges.http.errors import error_body
from headrace.edges.keda.ports import (
    UNKNOWN,
    WHERE_WHY,
    NoSuchPool,
    WrongReference,
    read_reference,
    says_unknown,
)

INDEX = """\
Headrace scaler

GET  /api/v1/scaler           pools, plans and why
GET  /api/v1/scaler/{pool}    what KEDA's metrics-api trigger reads, at `value`
GET  /metrics                 Prometheus metrics
GET  /health                  this process runs
GET  /ready                   the demand on every pool is known (for people; probe /health)
"""


def scaler_routes(autoscaler: Autoscaler) -> list[Route]:
    """The routes that a gateway shows too, when it hosts the scaler."""

    async def everything(_request: Request) -> Response:
        return _json(view_all(autoscaler))

    async def value(request: Request) -> Response:
        """503 while it is not known, which makes KEDA use a ScaledObject's `fallback`."""
        metadata = {**request.query_params, "pool": request.path_params["pool"]}
        try:
            reference = read_reference(metadata, autoscaler.pools())
        except WrongReference as error:
            status = 404 if isinstance(error, NoSuchPool) else 400
            return _error(status, str(error).replace("metadata.", ""))
        view = view_value(autoscaler, reference.pool, reference.tolerance)
        if view is None:
            return _error(503, says_unknown(reference.pool))
        return _json(view)

    return [Route("/api/v1/scaler", everything), Route("/api/v1/scaler/{pool:path}", value)]


def make_scaler_app(autoscaler: Autoscaler) -> Starlette:
    """The whole listener of a scaler that runs by itself."""

    async def index(_request: Request) -> Response:
        return PlainTextResponse(INDEX)

    async def health(_request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def ready(_request: Request) -> Response:
        unknown = [
            name
            for name, pool in autoscaler.scaled.items()
            if not pool.is_known(autoscaler.clock())
        ]
        if not unknown:
            return PlainTextResponse("ready\n")
        text = f"not ready: {UNKNOWN} of {', '.join(unknown)}; {WHERE_WHY}\n"
        return PlainTextResponse(text, status_code=503)

    async def metrics(_request: Request) -> Response:
        registry = CollectorRegistry(auto_describe=False)
        registry.register(ScalingCollector(autoscaler))
        ProcessCollector(registry=registry)
        content_type = "text/plain; version=0.0.4; charset=utf-8"
        return Response(generate_latest(registry), headers={"content-type": content_type})

    return Starlette(
        routes=[
            Route("/", index),
            *scaler_routes(autoscaler),
            Route("/metrics", metrics),
            Route("/health", health),
            Route("/ready", ready),
        ]
    )


def _json(value: object) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json")


def _error(status: int, message: str) -> Response:
    body = error_body(status, message, code=None, param=None)
    return Response(body, status_code=status, media_type="application/json")
