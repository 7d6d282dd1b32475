"""A client that asks an external scaler as KEDA does."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from types import TracebackType

import grpc
from grpc import aio

from headrace.edges.keda.messages.externalscaler_pb2 import (
    GetMetricSpecResponse,
    GetMetricsRequest,
    GetMetricsResponse,
    IsActiveResponse,
    MetricSpec,
    MetricValue,
    ScaledObjectRef,
)

SERVICE = "/externalscaler.ExternalScaler/"


def reference(name: str = "qwen", **metadata: str) -> ScaledObjectRef:
    """A ScaledObject's trigger; KEDA adds the address that it dialled."""
    told = {"scalerAddress": "headrace:9092", **metadata}
    return ScaledObjectRef(name=name, namespace="llm", scalerMetadata=told)


class KedaClient:
    """One connection, as KEDA keeps it per address."""

    def __init__(self, address: str, credentials: grpc.ChannelCredentials | None = None) -> None:
        if credentials is None:
            self.channel = aio.insecure_channel(address)
        else:
            self.channel = aio.secure_channel(address, credentials)

    async def __aenter__(self) -> KedaClient:
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        await self.channel.close()

    async def metric_spec(
        self, ref: ScaledObjectRef, timeout_s: float | None = None
    ) -> list[MetricSpec]:
        call = self.channel.unary_unary(
            SERVICE + "GetMetricSpec",
            ScaledObjectRef.SerializeToString,
            GetMetricSpecResponse.FromString,
        )
        return list((await call(ref, timeout=timeout_s)).metricSpecs)

    async def metrics(
        self, ref: ScaledObjectRef, metric: str, timeout_s: float | None = None
    ) -> list[MetricValue]:
        call = self.channel.unary_unary(
            SERVICE + "GetMetrics",
            GetMetricsRequest.SerializeToString,
            GetMetricsResponse.FromString,
        )
        asked = GetMetricsRequest(scaledObjectRef=ref, metricName=metric)
        return list((await call(asked, timeout=timeout_s)).metricValues)

    async def is_active(self, ref: ScaledObjectRef, timeout_s: float | None = None) -> bool:
        call = self.channel.unary_unary(
            SERVICE + "IsActive", ScaledObjectRef.SerializeToString, IsActiveResponse.FromString
        )
        return (await call(ref, timeout=timeout_s)).result

    async def poll(
        self, ref: ScaledObjectRef, timeout_s: float | None = None
    ) -> tuple[float, int, bool]:
        """One poll of KEDA's: the value by both fields, and whether the target is active."""
        [spec] = await self.metric_spec(ref, timeout_s)
        [value] = await self.metrics(ref, spec.metricName, timeout_s)
        active = await self.is_active(ref, timeout_s)
        return value.metricValueFloat, value.metricValue, active

    async def pushes(self, ref: ScaledObjectRef) -> AsyncIterator[bool]:
        """What `external-push` is sent."""
        call = self.channel.unary_stream(
            SERVICE + "StreamIsActive",
            ScaledObjectRef.SerializeToString,
            IsActiveResponse.FromString,
        )
        async for answer in call(ref):
            yield answer.result


def calls_of(metadata: Mapping[str, str]) -> ScaledObjectRef:
    """A reference with exactly this metadata, as a capture has it."""
    return ScaledObjectRef(name="captured", namespace="llm", scalerMetadata=metadata)
