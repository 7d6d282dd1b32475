"""Names of gateways, by a resolver of the test's own."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import pytest
import trustme
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from headrace.autoscaler.names import MAX_GATEWAYS, NamedGateways
from headrace.autoscaler.ports import SourceError
from headrace.autoscaler.program import Autoscaler
from headrace.autoscaler.settings import GatheringSettings
from headrace.edges.http.tls import ServerCertificate, ServerTls, UpstreamTls
from headrace.gateway.control import ControlSettings
from headrace.gateway.control_server import serve_control
from tests.certificates import write_certificate
from tests.scripted import Peer, Received, ScriptedEngine
from tests.unit.autoscaler.reports import pool_report, replica, report

NAME = "http://gateways.llm:9091"
SETTINGS = GatheringSettings(timeout_s=0.05, lookup_interval_s=0.01, interval_s=0.01)
PATIENT = GatheringSettings(timeout_s=30.0)


class Resolver:
    """Answers what a test says; an exception is raised, None never answers."""

    def __init__(self, answer: Sequence[str] | Exception | None) -> None:
        self.answer = answer
        self.asked: list[tuple[str, int]] = []

    async def __call__(self, host: str, port: int) -> list[str]:
        self.asked.append((host, port))
        if isinstance(self.answer, Exception):
            raise self.answer
        if self.answer is None:
            await asyncio.Event().wait()
        assert not isinstance(self.answer, Exception | None)
        return list(self.answer)


async def names(gateways: NamedGateways) -> list[str]:
    return [source.name for source in await gateways.find()]


async def test_every_address_of_a_name_is_a_gateway_and_stays_the_same_source():
    resolver = Resolver(["10.0.0.1", "10.0.0.2"])
    gateways = NamedGateways(["http://10.0.0.9:9091/", NAME], SETTINGS, resolver=resolver)
    first = await gateways.find()
    assert [source.name for source in first] == [
        "http://10.0.0.9:9091",
        "http://10.0.0.1:9091",
        "http://10.0.0.2:9091",
    ]
    assert resolver.asked == [("gateways.llm", 9091)]  # addresses are not looked up
    resolver.answer = ["10.0.0.2", "10.0.0.3"]
    second = await gateways.find()
    assert [source.name for source in second][1:] == [
        "http://10.0.0.2:9091",
        "http://10.0.0.3:9091",
    ]
    assert second[1] is first[2]


async def test_a_gateway_with_addresses_of_both_families_or_two_names_is_one():
    both = Resolver(["10.0.0.1", "[fd00::1]"])
    again = ["http://other:9091", "http://10.0.0.1:9091"]
    gateways = NamedGateways([NAME, *again], SETTINGS, resolver=both)
    assert await names(gateways) == ["http://10.0.0.1:9091"]
    both.answer = ["[fd00::1]"]
    assert "http://[fd00::1]:9091" in await names(gateways)


@pytest.mark.parametrize("trouble", [socket.gaierror(-2, "Name or service not known"), None])
async def test_a_name_that_does_not_resolve_keeps_its_addresses_and_one_that_never_did_its_name(
    trouble: Exception | None,
):
    resolver = Resolver(trouble)
    gateways = NamedGateways([NAME], SETTINGS, resolver=resolver)
    assert await names(gateways) == [NAME]
    resolver.answer = ["10.0.0.1"]
    assert await names(gateways) == ["http://10.0.0.1:9091"]
    resolver.answer = trouble
    assert await names(gateways) == ["http://10.0.0.1:9091"]


@pytest.mark.parametrize("host", ["gw..llm", "a" * 64 + ".llm"], ids=["empty", "long"])
async def test_what_can_be_no_name_is_a_gateway_that_is_missing(host: str):
    url = f"http://{host}:9091"
    [source] = await NamedGateways([url], PATIENT).find()
    assert source.name == url
    with pytest.raises(SourceError, match="has no host name"):
        await source.read()


async def test_an_address_is_asked_for_the_name():
    async def refuses(_received: Received, peer: Peer) -> None:
        await peer.json({}, status=421)

    async with ScriptedEngine(refuses) as proxy:
        port = urlsplit(proxy.url).port
        url = f"http://gateways.llm:{port}"
        [source] = await NamedGateways([url], PATIENT, resolver=Resolver(["127.0.0.1"])).find()
        with pytest.raises(SourceError, match="answers 421"):
            await source.read()
        assert proxy.received[0].headers["host"] == f"gateways.llm:{port}"


async def test_a_long_answer_is_cut_and_the_default_port_is_said():
    many = [f"10.0.{n // 256}.{n % 256}" for n in range(MAX_GATEWAYS + 5)]
    found = await names(NamedGateways(["https://gw"], SETTINGS, resolver=Resolver(many)))
    assert len(found) == MAX_GATEWAYS
    assert found[0] == "https://10.0.0.0:443"


class Pod:
    """A gateway that may be asked."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.asked = 0
        self.here = True

    async def read(self):
        self.asked += 1
        if not self.here:
            raise SourceError("connection refused")
        return report(pool_report(replica("r1")))


class Pods:
    """The pods that a name stands for at this moment."""

    def __init__(self, *pods: Pod) -> None:
        self.pods = pods

    async def find(self) -> Sequence[Pod]:
        return self.pods


async def test_gateways_that_come_are_asked_and_those_that_go_are_expected_no_more():
    one, two, three = (Pod(name) for name in ("one", "two", "three"))
    pods = Pods(one, two)
    autoscaler = Autoscaler([], [], SETTINGS, clock=lambda: 0.0, finder=pods)
    running = asyncio.create_task(autoscaler.run())
    async with asyncio.timeout(30.0):
        while not (one.asked and two.asked):
            await asyncio.sleep(0.01)
        assert autoscaler.gathering.expected == ("one", "two")
        two.here = False
        while "two" not in autoscaler.gathering.failures:
            await asyncio.sleep(0.01)
        pods.pods = (one, three)
        while not three.asked:
            await asyncio.sleep(0.01)
    assert autoscaler.gathering.expected == ("one", "three")
    assert autoscaler.gathering.failures == {}
    asked = two.asked
    await asyncio.sleep(0.05)
    assert two.asked == asked
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_gateways_with_certificates_of_a_private_authority_that_ask_for_ours(tmp_path):
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    for folder, name in (("server", "gateways.llm"), ("client", "scaler")):
        (tmp_path / folder).mkdir()
        write_certificate(ca, tmp_path / folder, name)

    async def told(_request: Request) -> Response:
        return Response(msgspec.json.encode(report(pool_report(replica("r1")))))

    asks = ServerTls(*files(tmp_path / "server"), client_ca_file=str(tmp_path / "ca.pem"))
    server = await serve_control(
        Starlette(routes=[Route("/api/v1/scaling", told)]),
        ControlSettings(port=0),
        ServerCertificate(asks).context,
    )
    cert, key = files(tmp_path / "client")
    tls = UpstreamTls(ca_file=str(tmp_path / "ca.pem"), cert_file=cert, key_file=key)
    url, resolver = f"https://gateways.llm:{server.port}", Resolver(["127.0.0.1"])
    try:
        [known] = await NamedGateways([url], replace(PATIENT, tls=tls), resolver=resolver).find()
        assert (await known.read()).pools[0].pool == "llama"
        [unknown] = await NamedGateways([url], PATIENT, resolver=resolver).find()
        with pytest.raises(SourceError):
            await unknown.read()
    finally:
        await server.stop()


def files(folder: Path) -> tuple[str, str]:
    return str(folder / "cert.pem"), str(folder / "key.pem")
