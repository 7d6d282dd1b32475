"""The gRPC server that KEDA asks: every answer is there already, so that no call ever waits.

    GetMetricSpec    one metric with a target of 1 per replica, also while nothing is known
    GetMetrics       the replicas wanted; UNAVAILABLE while that is not known, which is what makes
                     KEDA use the `fallback` of a ScaledObject
    IsActive         whether there is anything to do for a first replica; UNAVAILABLE alike: a "no"
                     takes running replicas away within a second. A "yes" takes nothing away, so
                     that a request that waits is told even while the number is not known
    StreamIsActive   the same, sent whenever it changes (trigger type `external-push`)

Any number of ScaledObjects may ask; their trigger's metadata tells them apart (`ports.py`).
Another method, such as a newer KEDA's StreamMetricSpec, is answered UNIMPLEMENTED by gRPC itself.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from math import ceil
from typing import NoReturn

import grpc
from grpc import aio

from headrace.edges.http.tls import ServerCertificate
from headrace.edges.keda.credentials import server_credentials
from headrace.edges.keda.messages.externalscaler_pb2 import (
    GetMetricSpecResponse,
    GetMetricsRequest,
    GetMetricsResponse,
    IsActiveResponse,
    MetricSpec,
    MetricValue,
    ScaledObjectRef,
)
from headrace.edges.keda.ports import (
    PublishedPlans,
    Reference,
    WrongReference,
    read_reference,
    says_unknown,
)
from headrace.edges.keda.settings import KedaSettings

SERVICE = "externalscaler.ExternalScaler"
METRIC = "headrace-replicas"
TARGET = 1
"""Per replica: the value that is published is the number of replicas wanted."""
IDLE_S = 600.0
"""A connection without a call for so long is closed, as of a KEDA that vanished between two polls;
one that comes back connects anew."""

Context = aio.ServicerContext


class KedaServer:
    """Listens between `start` and `stop`."""

    def __init__(self, settings: KedaSettings, plans: PublishedPlans) -> None:
        self._settings = settings
        self._scaler = ExternalScaler(plans, settings.max_streams)
        self._server: aio.Server | None = None
        self.port = settings.port

    async def start(self) -> None:
        """Listen. Raises OSError if the address cannot be had, TlsError for bad certificates."""
        settings = self._settings
        certificate = None if settings.tls is None else ServerCertificate(settings.tls)
        server = aio.server(options=_options(settings), maximum_concurrent_rpcs=settings.max_calls)
        server.add_generic_rpc_handlers((handler_of(self._scaler),))
        address = f"{_bracketed(settings.host)}:{settings.port}"
        try:
            if certificate is None:
                self.port = server.add_insecure_port(address)
            else:
                self.port = server.add_secure_port(address, server_credentials(certificate))
        except RuntimeError:  # gRPC's word for it, which does not say why
            raise OSError(f"cannot listen on {address}; is the port taken?") from None
        await server.start()
        self._server = server

    async def stop(self) -> None:
        """Stop listening and end what waits for a push; KEDA asks again until somebody answers."""
        if self._server is not None:
            await self._server.stop(grace=0.0)


class ExternalScaler:
    """The methods, each with the newest that is known."""

    def __init__(self, plans: PublishedPlans, max_streams: int) -> None:
        self._plans = plans
        self._max_streams = max_streams
        self.streams = 0
        """How many wait for a push now."""

    async def get_metric_spec(
        self, request: ScaledObjectRef, context: Context
    ) -> GetMetricSpecResponse:
        """What KEDA makes the HPA of; it must be answered for a fallback to be possible."""
        await self._reference(request, context)
        spec = MetricSpec(metricName=METRIC, targetSize=TARGET, targetSizeFloat=float(TARGET))
        return GetMetricSpecResponse(metricSpecs=[spec])

    async def get_metrics(self, request: GetMetricsRequest, context: Context) -> GetMetricsResponse:
        """The replicas wanted, in both fields: KEDA reads the older one where the other is 0."""
        reference = await self._reference(request.scaledObjectRef, context)
        known = self._plans.published(reference.pool, reference.tolerance)
        if known is None or known.value is None:
            await self._say_unknown(reference, context)
        # The name comes without the `sN-` that KEDA puts before it.
        value = MetricValue(
            metricName=request.metricName or METRIC,
            metricValue=ceil(known.value),  # less would be swallowed, or be less than wanted
            metricValueFloat=known.value,
        )
        return GetMetricsResponse(metricValues=[value])

    async def is_active(self, request: ScaledObjectRef, context: Context) -> IsActiveResponse:
        """Whether the pool needs any replica at all."""
        reference = await self._reference(request, context)
        known = self._plans.published(reference.pool, reference.tolerance)
        if known is None:
            await self._say_unknown(reference, context)
        return IsActiveResponse(result=known.active)

    async def stream_is_active(
        self, request: ScaledObjectRef, context: Context
    ) -> AsyncIterator[IsActiveResponse]:
        """The same as soon as it is known, and again whenever it changes."""
        reference = await self._reference(request, context)
        if self.streams >= self._max_streams:
            await context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"{self.streams} ScaledObjects wait for a push already (max_streams)",
            )
        self.streams += 1
        try:
            sent: bool | None = None
            while True:
                change = self._plans.next_change()  # before the look, so that none is missed
                known = self._plans.published(reference.pool, reference.tolerance)
                if known is not None and known.active is not sent:
                    sent = known.active
                    yield IsActiveResponse(result=sent)
                await change
        finally:
            self.streams -= 1

    async def _reference(self, request: ScaledObjectRef, context: Context) -> Reference:
        try:
            return read_reference(request.scalerMetadata, self._plans.pools())
        except WrongReference as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
            raise

    async def _say_unknown(self, reference: Reference, context: Context) -> NoReturn:
        await context.abort(grpc.StatusCode.UNAVAILABLE, says_unknown(reference.pool))
        raise AssertionError("an aborted call goes on")


def handler_of(scaler: ExternalScaler) -> grpc.GenericRpcHandler:
    """The service's methods by name, with the messages that each takes and gives."""
    ref, unary = ScaledObjectRef.FromString, grpc.unary_unary_rpc_method_handler
    give_spec = GetMetricSpecResponse.SerializeToString
    give_metrics = GetMetricsResponse.SerializeToString
    give_active = IsActiveResponse.SerializeToString
    return grpc.method_handlers_generic_handler(
        SERVICE,
        {
            "GetMetricSpec": unary(scaler.get_metric_spec, ref, give_spec),
            "GetMetrics": unary(scaler.get_metrics, GetMetricsRequest.FromString, give_metrics),
            "IsActive": unary(scaler.is_active, ref, give_active),
            "StreamIsActive": grpc.unary_stream_rpc_method_handler(
                scaler.stream_is_active, ref, give_active
            ),
        },
    )


def _options(settings: KedaSettings) -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.max_metadata_size", settings.max_message_bytes),
        ("grpc.max_concurrent_streams", settings.max_calls),
        ("grpc.so_reuseport", 0),  # a port that is taken is an error, not shared
        # A KEDA that vanished without a word gives its streams back within a minute.
        ("grpc.keepalive_time_ms", 40_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.max_connection_idle_ms", round(IDLE_S * 1000)),
    ]


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host and not host.startswith("[") else host
