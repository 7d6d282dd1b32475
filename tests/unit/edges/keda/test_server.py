"""The external scaler, asked over real gRPC as KEDA does."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import grpc
import pytest
import trustme

from headrace.edges.http.tls import ServerTls, TlsError
from headrace.edges.keda import server as keda_server
from headrace.edges.keda.messages.externalscaler_pb2 import GetMetricsRequest, ScaledObjectRef
from headrace.edges.keda.ports import Published
from headrace.edges.keda.server import METRIC, KedaServer
from headrace.edges.keda.settings import KedaSettings
from tests.certificates import write_certificate
from tests.keda_client import KedaClient, calls_of, reference

HANG_GUARD_S = 30.0
CALLS = Path(__file__).parents[3] / "fixtures" / "kubernetes" / "keda-grpc-calls.jsonl"
POOLS = ("qwen-decode", "qwen-spare", "qwen-prefill")


class Plans:
    """Plans that a test sets."""

    def __init__(self, pools: Sequence[str] = POOLS) -> None:
        self.known: dict[str, Published | None] = dict.fromkeys(pools)
        self.tolerances: list[float] = []
        self._waiting: list[asyncio.Future[None]] = []

    def pools(self) -> Sequence[str]:
        return list(self.known)

    def published(self, pool: str, tolerance: float) -> Published | None:
        self.tolerances.append(tolerance)
        return self.known[pool]

    def next_change(self) -> asyncio.Future[None]:
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        return waiter

    def publish(self, pool: str, value: float | None, *, active: bool = True) -> None:
        self.tell(pool, None if value is None else Published(value, active))

    def tell(self, pool: str, known: Published | None) -> None:
        self.known[pool] = known
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)
        self._waiting.clear()


@contextlib.asynccontextmanager
async def serving(plans: Plans, settings: KedaSettings | None = None) -> AsyncIterator[KedaServer]:
    server = KedaServer(settings or KedaSettings(port=0), plans)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


@contextlib.asynccontextmanager
async def asking(
    plans: Plans, *, max_message_bytes: int = KedaSettings().max_message_bytes
) -> AsyncIterator[KedaClient]:
    settings = KedaSettings(port=0, max_message_bytes=max_message_bytes)
    async with (
        serving(plans, settings) as server,
        KedaClient(f"127.0.0.1:{server.port}") as client,
    ):
        yield client


async def code_of(call) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code(), caught.value.details() or ""


async def test_every_call_that_keda_was_seen_to_make_is_answered():
    plans = Plans()
    for number, pool in enumerate(POOLS):
        plans.publish(pool, float(number), active=number > 0)
    calls = [json.loads(line) for line in CALLS.read_text("utf-8").splitlines()]
    async with asking(plans) as client:
        for call in calls:
            request = call["request"]
            metadata = request.get("scaledObjectRef", request)["scalerMetadata"]
            ref, wanted = calls_of(metadata), POOLS.index(metadata["pool"])
            if call["method"] == "GetMetricSpec":
                [spec] = await client.metric_spec(ref, call["deadline_s"])
                assert (spec.metricName, spec.targetSize, spec.targetSizeFloat) == (METRIC, 1, 1.0)
            elif call["method"] == "GetMetrics":
                [value] = await client.metrics(ref, request["metricName"], call["deadline_s"])
                assert value.metricName == request["metricName"]
                assert (value.metricValue, value.metricValueFloat) == (wanted, float(wanted))
            elif call["method"] == "IsActive":
                assert await client.is_active(ref, call["deadline_s"]) is (wanted > 0)
            else:
                assert await anext(client.pushes(ref)) is (wanted > 0)
    assert {call["method"] for call in calls} == {
        *("GetMetricSpec", "GetMetrics", "IsActive", "StreamIsActive"),
    }


async def test_while_nothing_is_known_the_metric_stands_and_its_value_is_unavailable():
    plans = Plans()
    async with asking(plans) as client:
        ref = reference(pool="qwen-spare")
        assert len(await client.metric_spec(ref)) == 1
        code, details = await code_of(client.metrics(ref, METRIC))
        assert code is grpc.StatusCode.UNAVAILABLE
        assert "qwen-spare" in details
        assert (await code_of(client.is_active(ref)))[0] is grpc.StatusCode.UNAVAILABLE

        plans.publish("qwen-spare", 3.0)
        assert await client.poll(ref) == (3.0, 3, True)
        plans.publish("qwen-spare", None)
        assert len(await client.metric_spec(ref)) == 1
        assert (await code_of(client.metrics(ref, METRIC)))[0] is grpc.StatusCode.UNAVAILABLE


async def test_that_some_are_needed_is_told_while_the_number_is_not_known():
    plans = Plans()
    async with asking(plans) as client:
        ref = reference(pool="qwen-spare")
        pushes = client.pushes(ref)
        plans.publish("qwen-spare", 0.0, active=False)
        assert await anext(pushes) is False
        plans.tell("qwen-spare", Published(None, active=True))
        assert await anext(pushes) is True
        assert await client.is_active(ref) is True
        assert (await code_of(client.metrics(ref, METRIC)))[0] is grpc.StatusCode.UNAVAILABLE


async def test_a_push_comes_when_it_is_known_and_only_when_it_changes():
    plans = Plans()
    async with asking(plans) as client, asyncio.timeout(HANG_GUARD_S):
        pushes = client.pushes(reference(pool="qwen-prefill"))
        first = asyncio.ensure_future(anext(pushes))
        await asyncio.sleep(0.05)
        assert not first.done()  # nothing is known: nothing is said
        plans.publish("qwen-prefill", 0.0, active=False)
        assert await first is False
        second = asyncio.ensure_future(anext(pushes))
        plans.publish("qwen-prefill", 0.0, active=False)
        plans.publish("qwen-decode", 5.0)
        plans.publish("qwen-prefill", None)
        await asyncio.sleep(0.05)
        assert not second.done()
        plans.publish("qwen-prefill", 1.0)
        assert await second is True


async def test_a_stream_that_is_gone_leaves_room_for_another():
    plans = Plans()
    plans.publish("qwen-decode", 1.0)
    ref = reference(pool="qwen-decode")
    async with serving(plans, KedaSettings(port=0, max_streams=1)) as server:
        address = f"127.0.0.1:{server.port}"
        async with KedaClient(address) as first, KedaClient(address) as other:
            assert await anext(first.pushes(ref)) is True
            code, _ = await code_of(anext(other.pushes(ref)))
            assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        async with KedaClient(address) as third, asyncio.timeout(HANG_GUARD_S):
            pushed = None
            while pushed is None:
                with contextlib.suppress(grpc.aio.AioRpcError):  # the server has not noticed yet
                    pushed = await anext(third.pushes(ref))
            assert pushed is True


async def test_a_connection_that_asks_nothing_is_closed_and_one_that_waits_for_a_push_is_not(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(keda_server, "IDLE_S", 0.2)
    plans = Plans()
    plans.publish("qwen-decode", 2.0)
    ref = reference(pool="qwen-decode")
    async with asking(plans) as client, asyncio.timeout(HANG_GUARD_S):
        assert (await client.poll(ref))[0] == 2.0
        while client.channel.get_state() is not grpc.ChannelConnectivity.IDLE:
            await asyncio.sleep(0.01)
        assert (await client.poll(ref))[0] == 2.0
        pushes = client.pushes(ref)
        assert await anext(pushes) is True
        await asyncio.sleep(0.6)
        plans.publish("qwen-decode", 0.0, active=False)
        assert await anext(pushes) is False


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ({}, "metadata.pool is missing; pools that are scaled here: qwen-decode, qwen-spare"),
        ({"pool": "lama"}, "metadata.pool is 'lama'"),
        ({"pool": "qwen-spare", "tolerance": "10%"}, "metadata.tolerance is '10%'"),
        ({"pool": "qwen-spare", "tolerance": "nan"}, "metadata.tolerance is 'nan'"),
        ({"pool": "qwen-spare", "tolerence": "0"}, "metadata.tolerence means nothing; is it 'tol"),
        ({"Pool": "qwen-spare"}, "metadata.Pool means nothing; is it 'pool'?"),
    ],
    ids=["none", "unknown", "no number", "nan", "typo", "case"],
)
async def test_a_trigger_that_names_nothing_of_ours_is_told_what_to_write(metadata, said):
    async with asking(Plans()) as client:
        ref = reference(**metadata)
        for call in (client.metric_spec(ref), client.metrics(ref, METRIC), client.is_active(ref)):
            code, details = await code_of(call)
            assert code is grpc.StatusCode.INVALID_ARGUMENT
            assert said in details


async def test_one_pool_needs_no_name_and_a_trigger_may_name_its_tolerance():
    plans = Plans(["only"])
    plans.publish("only", 2.0)
    async with asking(plans) as client:
        assert await client.poll(reference()) == (2.0, 2, True)
        assert plans.tolerances[-1] == 0.1
        assert await client.poll(reference(tolerance="0")) == (2.0, 2, True)
        assert plans.tolerances[-1] == 0.0


async def test_a_method_that_this_keda_does_not_have_yet_is_unimplemented():
    async with asking(Plans()) as client:
        call = client.channel.unary_stream(
            "/externalscaler.ExternalScaler/StreamMetricSpec",
            ScaledObjectRef.SerializeToString,
        )
        code, _ = await code_of(anext(aiter(call(reference()))))
        assert code is grpc.StatusCode.UNIMPLEMENTED


async def test_a_message_that_is_too_large_is_refused():
    plans = Plans(["only"])
    async with asking(plans, max_message_bytes=4096) as client:
        code, _ = await code_of(client.metric_spec(reference(filler="x" * 5000)))
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_the_bytes_are_those_of_the_protocol():
    """Field numbers by hand: a wrong one would pass every test against our own messages."""
    request = GetMetricsRequest(
        scaledObjectRef=ScaledObjectRef(name="a", namespace="b", scalerMetadata={"k": "v"}),
        metricName="m",
    )
    entry = b"\x0a\x01k\x12\x01v"
    ref = b"\x0a\x01a\x12\x01b\x1a" + bytes([len(entry)]) + entry
    wire = b"\x0a" + bytes([len(ref)]) + ref + b"\x12\x01m"
    assert request.SerializeToString() == wire


# ---------------------------------------------------------------- TLS


@pytest.fixture
def ca() -> trustme.CA:
    return trustme.CA()


def trust(folder: Path, *, client: bool = False) -> grpc.ChannelCredentials:
    read = {name: (folder / f"{name}.pem").read_bytes() for name in ("ca", "cert", "key")}
    if client:
        return grpc.ssl_channel_credentials(read["ca"], read["key"], read["cert"])
    return grpc.ssl_channel_credentials(read["ca"])


async def test_tls_with_client_certificates_and_none_without(ca: trustme.CA, tmp_path: Path):
    write_certificate(ca, tmp_path, "localhost")
    tls = ServerTls(str(tmp_path / "cert.pem"), str(tmp_path / "key.pem"), str(tmp_path / "ca.pem"))
    plans = Plans(["only"])
    plans.publish("only", 4.0)
    async with serving(plans, KedaSettings(port=0, tls=tls)) as server:
        address = f"localhost:{server.port}"
        async with KedaClient(address, trust(tmp_path, client=True)) as known:
            assert await known.poll(reference(), HANG_GUARD_S) == (4.0, 4, True)
        for credentials in (trust(tmp_path), None):
            async with KedaClient(address, credentials) as stranger:
                code, _ = await code_of(stranger.metric_spec(reference(), HANG_GUARD_S))
                assert code is grpc.StatusCode.UNAVAILABLE


async def test_a_renewed_certificate_is_used_by_the_next_connection(ca: trustme.CA, tmp_path: Path):
    write_certificate(ca, tmp_path, "localhost")
    tls = ServerTls(str(tmp_path / "cert.pem"), str(tmp_path / "key.pem"))
    plans = Plans(["only"])
    plans.publish("only", 4.0)
    async with serving(plans, KedaSettings(port=0, tls=tls)) as server:
        address = f"localhost:{server.port}"
        async with KedaClient(address, trust(tmp_path)) as client:
            await client.metric_spec(reference(), HANG_GUARD_S)
        write_certificate(trustme.CA(), tmp_path, "localhost")  # of another CA altogether
        async with KedaClient(address, trust(tmp_path)) as client:
            await client.metric_spec(reference(), HANG_GUARD_S)


async def test_a_certificate_that_is_not_there_is_said_at_the_start(tmp_path: Path):
    tls = ServerTls(str(tmp_path / "none.pem"), str(tmp_path / "none.key"))
    with pytest.raises(TlsError, match=r"none\.pem"):
        await KedaServer(KedaSettings(port=0, tls=tls), Plans()).start()


async def test_a_port_that_is_taken_is_said_at_the_start():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"127.0.0.1:{port}; is the port taken"):
            await KedaServer(KedaSettings(port=port), Plans()).start()


async def test_an_older_keda_is_told_a_whole_number_that_an_hpa_does_not_swallow():
    plans = Plans(["only"])
    plans.publish("only", 11.001)
    async with asking(plans) as client:
        assert await client.poll(reference()) == (11.001, 12, True)
