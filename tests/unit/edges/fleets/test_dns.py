"""One name, many addresses: they come, leave, and survive a resolver that does not answer.

What a resolver says cannot be had otherwise on a test machine, so it is scripted; the engines
behind the addresses, and one look-up, are real.
"""

import asyncio
import socket

import pytest

from headrace.core.events import ReplicaChanged, ReplicaGone
from headrace.edges.fleets.dns import DnsFleet, DnsName, resolve
from headrace.edges.fleets.readiness import Watches
from tests.unit.edges.fleets.engine import SETTINGS, Engine, Heard, access, last_is


class Resolver:
    """Answers with what it is told; None means that the name does not resolve."""

    def __init__(self, *addresses: str) -> None:
        self.addresses: list[str] | None = list(addresses)
        self.silent = False
        self.error = socket.EAI_NONAME

    async def __call__(self, _host: str, _port: int) -> list[str]:
        if self.silent:
            await asyncio.Event().wait()
        if self.addresses is None:
            raise socket.gaierror(self.error, "Name or service not known")
        return self.addresses


@pytest.fixture
async def follow():
    """Start a fleet on a resolver; it is closed at the end."""
    fleets = []

    async def start(resolver, port, heard, **options):
        where = DnsName("engines.test", port, interval_s=0.02, timeout_s=0.1, **options)
        watches = Watches(access(), SETTINGS, emit=heard.emit, notice=heard.notice)
        fleet = DnsFleet(where, watches, heard.notice, resolver=resolver)
        fleets.append((fleet, watches))
        await fleet.start()
        return watches

    yield start
    for fleet, watches in fleets:
        await fleet.close()
        await watches.close()


async def test_the_systems_resolver():
    assert "127.0.0.1" in await resolve("localhost", 80)
    assert await resolve("::1", 80) == ["[::1]"]
    with pytest.raises(OSError):  # noqa: PT011 - any of the resolver's errors
        await resolve("no-such-name.invalid", 80)


@pytest.mark.parametrize("host", ["gw..llm", "a" * 64 + ".llm"], ids=["empty", "long"])
async def test_what_can_be_no_name_does_not_resolve(host: str):
    with pytest.raises(OSError, match="is no host name"):
        await resolve(host, 80)


async def test_each_address_is_a_replica(follow):
    heard = Heard()
    async with Engine() as engine:
        await follow(Resolver("127.0.0.1"), engine.port, heard)
        await heard.until(last_is(ready=True, replica=f"pool/127.0.0.1:{engine.port}"))


async def test_a_new_address_joins(follow):
    heard, resolver = Heard(), Resolver()
    async with Engine() as engine:
        await follow(resolver, engine.port, heard)
        assert heard.events == []
        resolver.addresses = ["127.0.0.1"]
        await heard.until(last_is(ready=True))


async def test_an_address_that_leaves_drains_then_goes(follow):
    heard, resolver = Heard(), Resolver("127.0.0.1")
    async with Engine() as engine:
        await follow(resolver, engine.port, heard, drain_s=0.05)
        await heard.until(last_is(ready=True))
        resolver.addresses = []
        name = f"pool/127.0.0.1:{engine.port}"
        await heard.until(lambda h: h.events[-1] == ReplicaGone(name))
    assert heard.events[-2] == ReplicaChanged(name, "pool", engine.url, ready=True, draining=True)


async def test_an_address_that_comes_back_in_time_stays(follow):
    heard, resolver = Heard(), Resolver("127.0.0.1")
    async with Engine() as engine:
        watches = await follow(resolver, engine.port, heard, drain_s=3600.0)
        await heard.until(last_is(ready=True))
        resolver.addresses = []
        await heard.until(last_is(draining=True))
        resolver.addresses = ["127.0.0.1"]
        await heard.until(last_is(ready=True, draining=False))
        assert not watches.leaving
    assert not any(isinstance(event, ReplicaGone) for event in heard.events)


async def test_a_name_that_does_not_resolve_keeps_its_addresses_and_says_so(follow):
    heard, resolver = Heard(), Resolver("127.0.0.1")
    async with Engine() as engine:
        await follow(resolver, engine.port, heard)
        await heard.until(last_is(ready=True))
        before = list(heard.events)
        resolver.addresses = None
        await heard.until_told("Name or service not known; 1 address known before, still in use")
        resolver.addresses = ["127.0.0.1"]
        await heard.until_told("resolves: 1 address")
    assert heard.events == before


async def test_a_name_that_never_resolved_brings_no_replicas(follow):
    heard, resolver = Heard(), Resolver()
    resolver.addresses = None
    await follow(resolver, 80, heard)
    await heard.until_told("no replicas until it resolves; asked every 0.02 s")


async def test_a_resolver_that_hangs_is_given_up(follow):
    heard, resolver = Heard(), Resolver("127.0.0.1")
    async with Engine() as engine:
        await follow(resolver, engine.port, heard)
        await heard.until(last_is(ready=True))
        resolver.silent = True
        await heard.until_told("no answer in time")


@pytest.mark.parametrize(
    ("error", "unanswered"), [(socket.EAI_NONAME, False), (socket.EAI_AGAIN, True)]
)
async def test_a_resolver_that_is_down_is_another_thing_than_a_name_without_addresses(
    error: int, unanswered: bool
):
    heard, resolver = Heard(), Resolver()
    resolver.addresses, resolver.error = None, error
    watches = Watches(access(), SETTINGS, emit=heard.emit, notice=heard.notice)
    fleet = DnsFleet(DnsName("engines.test", 80), watches, heard.notice, resolver=resolver)
    assert fleet.is_unanswered
    await fleet.refresh()
    assert fleet.is_unanswered is unanswered
    resolver.addresses = []
    await fleet.refresh()
    assert not fleet.is_unanswered
    resolver.addresses, resolver.error = None, socket.EAI_AGAIN
    await fleet.refresh()
    assert not fleet.is_unanswered  # what was known stays known
    await watches.close()
