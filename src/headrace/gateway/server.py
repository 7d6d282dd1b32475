"""The data plane: `/v1/*`, what engines answer beside it, `/health` and `/ready`; nothing else.

It owns the exchanges, hands every event to the core and carries out the core's effects.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from typing import Final, Protocol

from headrace.core.events import (
    Arrived,
    Dispatch,
    Effect,
    Ended,
    Event,
    Probe,
    Probed,
    Reject,
    Wake,
    WakeAt,
)
from headrace.core.model import Fleet, Outcome
from headrace.edges.http import fetch
from headrace.edges.http.client import UpstreamPool
from headrace.edges.http.connection import ClientConnection
from headrace.edges.http.cors import CorsPolicy
from headrace.edges.http.heads import Header
from headrace.edges.http.known_heads import KnownHeads
from headrace.edges.http.ports import ConnectionLimits
from headrace.edges.http.server import HttpServer
from headrace.edges.http.tls import ServerCertificate
from headrace.gateway.call import Call
from headrace.gateway.exchange import Exchange
from headrace.gateway.front import Front
from headrace.gateway.keys import KeyRing
from headrace.gateway.lost_replicas import LostReplicas
from headrace.gateway.readiness import unready_because
from headrace.gateway.settings import GatewaySettings, Limits, UpstreamAccess
from headrace.gateway.stored import StoredResponses
from headrace.gateway.telemetry import Telemetry
from headrace.gateway.tracing import Tracer
from headrace.gateway.upstream import Upstream

_log = logging.getLogger(__name__)

TICK_S: Final = 0.25
"""Deadlines are checked and streaming tokens counted this often."""


class PortTaken(Exception):
    """The address to listen on is in use."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(f"port {port} on {host} is in use")
        self.host = host
        self.port = port


class Core(Protocol):
    """Who decides about requests: a `Dispatcher`, or whatever does as one."""

    @property
    def fleet(self) -> Fleet:
        """What can be routed to."""
        ...

    @property
    def held(self) -> Mapping[str, int]:
        """Requests that wait for a replica with room, by model."""
        ...

    def handle(self, event: Event, now: float) -> list[Effect]:
        """Take one event and return its effects."""
        ...

    def held_for(self, request_id: str) -> str:
        """The model that a held request waits for; "" if it is not held."""
        ...


class DataPlane:
    """The gateway's public listener. One per process, used from its event loop only."""

    def __init__(
        self,
        settings: GatewaySettings,
        dispatcher: Core,
        telemetry: Telemetry,
        *,
        keys: KeyRing | None = None,
        tracer: Tracer | None = None,
        on_probe: Callable[[str], None] = lambda _replica: None,
    ) -> None:
        """`on_probe` is called before and after a replica that failed requests is asked for its
        health.
        """
        self.settings = settings
        self.dispatcher = dispatcher
        self.telemetry = telemetry
        self.keys = keys
        self.tracer = tracer
        self._on_probe = on_probe
        limits, timeouts = settings.limits, settings.timeouts
        self._most_in_flight = limits.max_in_flight  # looked at with each request
        self.pool = UpstreamPool(
            max_idle=limits.idle_connections_per_replica, idle_s=timeouts.upstream_idle_s
        )
        self.port = settings.listen.port
        self.draining = False
        self.certificate: ServerCertificate | None = None
        self._front = Front(self)
        self._server = HttpServer(self._front, _connection_limits(settings), _cors(settings))
        self._exchanges: dict[str, Exchange] = {}
        self._held: dict[str, Exchange] = {}
        self._upstreams: dict[str, Upstream] = {}
        self.responses = StoredResponses(limits.stored_responses)
        self._lost = LostReplicas()
        self.created_s = int(time.time())
        self._tasks: set[asyncio.Task[None]] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self.now = time.monotonic
        telemetry.connections = self._count_connections
        telemetry.held = lambda: dispatcher.held

    # ------------------------------------------------------------ life

    async def start(self) -> None:
        """Listen. Raises `PortTaken`, `OSError` if the address is not ours, or `TlsError`."""
        listen = self.settings.listen
        if listen.tls is not None:
            self.certificate = ServerCertificate(listen.tls)
        tls = None if self.certificate is None else self.certificate.context
        try:
            if listen.unix is not None:
                await self._server.start_unix(listen.unix, tls)
            else:
                self.port = await self._server.start(listen.host, listen.port, tls)
        except OSError as error:
            if error.errno == errno.EADDRINUSE and listen.unix is None:
                raise PortTaken(listen.host, listen.port) from None
            raise
        self.spawn(self._tick())

    def configure(self, settings: GatewaySettings, keys: KeyRing | None) -> None:
        """Use other settings for what comes from now on; where it listens stays as it is."""
        self.settings = replace(settings, listen=self.settings.listen)
        self.keys = keys
        self._most_in_flight = settings.limits.max_in_flight
        self.pool.max_idle = settings.limits.idle_connections_per_replica
        self.pool.idle_s = settings.timeouts.upstream_idle_s
        self._server.limits = _connection_limits(settings)
        self._server.known_heads = KnownHeads()  # accepted under the old limits, with old keys
        self._server.cors = _cors(settings)
        self.responses.limit = settings.limits.stored_responses
        self._upstreams.clear()

    @property
    def unready_because(self) -> str:
        """Why no traffic should be sent here, in a few words; "" where it should."""
        if self.draining:
            return "draining"
        return unready_because(
            self.dispatcher.fleet, lambda pool: self.upstream(pool).dialect.refuses_other_models
        )

    @property
    def in_flight(self) -> int:
        """Requests being served, and those held."""
        return len(self._exchanges) + self._front.reading

    @property
    def full(self) -> bool:
        """Whether as many requests are being served as may be; those held do not count."""
        served = len(self._exchanges) - len(self._held) + self._front.reading
        return served >= self._most_in_flight

    @property
    def held(self) -> int:
        """Requests that wait for a replica with room."""
        return len(self._held)

    def begin_drain(self) -> None:
        """`/ready` says 503 from now on; everything else goes on."""
        self.draining = True

    async def drain(self, drain_s: float) -> int:
        """Refuse new connections, let running requests finish; return how many did not."""
        self.draining = True
        self._server.stop_listening()
        try:
            async with asyncio.timeout(drain_s):
                while self.in_flight or self._server.busy:
                    self._idle.clear()
                    await self._idle.wait()
        except TimeoutError:
            pass
        left = max(len(self._exchanges), self._server.busy)
        # Those held go first: room for one of them would come too late.
        for exchange in (*self._held.values(), *self._exchanges.values()):
            exchange.cut("the gateway stops")
        self._server.refuse_unread()
        return left

    async def close(self) -> None:
        """Cut what is left and stop."""
        self._server.stop_listening()
        # One turn of the loop, so that last words written by `drain` reach their sockets.
        await asyncio.sleep(0)
        self._server.abort_all()
        self.pool.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            now = self.now()
            try:
                for progress in self.telemetry.tick(now):
                    self.apply(progress, now)
            except Exception:  # noqa: BLE001 - deadlines are kept whatever became of the counting
                _log.exception("streams could not be counted")
            lost = self._lost.look(
                self.dispatcher.fleet, self.settings.timeouts.replica_down_s, now
            )
            for exchange in tuple(self._exchanges.values()):
                self._check(exchange, lost, now)
            try:
                self._server.sweep(now)
                self.pool.sweep(now)
                if self.draining:
                    self.settle()
            except Exception:  # noqa: BLE001 - the next turn takes up what is left
                _log.exception("connections could not be swept")

    def _check(self, exchange: Exchange, lost: frozenset[str], now: float) -> None:
        try:
            exchange.check(now)
            if lost:
                exchange.replica_lost(lost)
        except Exception:  # noqa: BLE001 - one faulty exchange must not stop the clock of all
            _log.exception("a deadline could not be enforced")
            self._exchanges.pop(exchange.id, None)
            self._held.pop(exchange.id, None)

    def spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Run a task that ends with the data plane."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # ------------------------------------------------------------ the core

    def apply(self, event: Event, now: float | None = None) -> None:
        """Hand an event to the core and carry out its effects."""
        for effect in self.dispatcher.handle(event, self.now() if now is None else now):
            if isinstance(effect, Dispatch):
                self._dispatch(effect)
            else:
                self._run(effect)

    def _dispatch(self, effect: Dispatch) -> None:
        exchange = self._exchanges.get(effect.request_id)
        if exchange is None:
            # In a turn of its own, as with what is held: see `_run`.
            ended = Ended(effect.attempt, Outcome.CUT, detail="nobody waits for the answer")
            asyncio.get_running_loop().call_soon(self.apply, ended)
            return
        try:
            exchange.dispatch(effect, self.dispatcher.fleet.replicas[effect.replica])
        except Exception:  # noqa: BLE001 - it may be called by another exchange, which goes on
            _log.exception("a request could not be sent")
            exchange.fail(effect.attempt)

    def _run(self, effect: Effect) -> None:
        if isinstance(effect, Reject):
            if effect.request_id in self._held:
                # In a turn of its own: the next request of its connection begins with the answer,
                # and may push out another one that is held, and so on.
                held = self._held[effect.request_id]
                asyncio.get_running_loop().call_soon(held.reject, effect)
                return
            exchange = self._exchanges.get(effect.request_id)
            if exchange is not None:
                exchange.reject(effect)
        elif isinstance(effect, Probe):
            self.spawn(self._probe(effect.replica))
        elif isinstance(effect, WakeAt):
            delay_s = max(0.0, effect.at_s - self.now())
            asyncio.get_running_loop().call_later(delay_s, self.apply, Wake())

    async def _probe(self, name: str) -> None:
        replica = self.dispatcher.fleet.replicas.get(name)
        if replica is None:
            return
        self._on_probe(name)
        upstream = self.upstream(replica.pool.spec.name)
        headers: list[Header] = []
        if upstream.authorization is not None:
            headers.append((b"authorization", upstream.authorization))
        healthy = False
        try:
            _, answer = await fetch.get_what_is_there(
                replica.url,
                upstream.dialect.health_paths,
                timeout_s=self.settings.timeouts.connect_s,
                headers=headers,
                tls=upstream.tls,
            )
            healthy = upstream.dialect.ready(answer.status)
        except fetch.FetchError:
            healthy = False
        self.apply(Probed(name, healthy))
        self._on_probe(name)

    # ------------------------------------------------------------ what exchanges need

    def upstream(self, pool: str) -> Upstream:
        """Return how to talk to a pool's engines."""
        known = self._upstreams.get(pool)
        if known is None:
            access = self.settings.upstreams.get(pool, UpstreamAccess())
            known = self._upstreams[pool] = Upstream(access)
        return known

    def hold(self, exchange: Exchange) -> None:
        """The exchange is held from now on."""
        self._held[exchange.id] = exchange
        exchange.hold()

    def released(self, exchange: Exchange) -> None:
        """The exchange is held no more."""
        self._held.pop(exchange.id, None)

    def over(self, exchange: Exchange) -> None:
        """The exchange has ended."""
        self._exchanges.pop(exchange.id, None)
        if self.draining:
            self.settle()

    def settle(self) -> None:
        """Note whether anything is still being served, or on its way to a client."""
        if not self.in_flight:
            self._idle.set()

    # ------------------------------------------------------------ what the front needs

    @property
    def limits(self) -> Limits:
        """The limits in force."""
        return self.settings.limits

    @property
    def tiers(self) -> tuple[str, ...]:
        """The tiers that a request may choose."""
        return self.settings.tiers

    @property
    def fleet(self) -> Fleet:
        """What can be routed to."""
        return self.dispatcher.fleet

    def held_for(self, request_id: str) -> str:
        """The model that a request waits for now; "" if it is not held."""
        return self.dispatcher.held_for(request_id)

    def begin(self, call: Call, connection: ClientConnection) -> Exchange:
        """Let the core decide about a request."""
        exchange = Exchange(self, connection, call)
        self._exchanges[exchange.id] = exchange
        try:
            self.apply(Arrived(call.request))
        except Exception:
            self.over(exchange)
            raise
        if exchange.undecided:
            self.hold(exchange)
        return exchange

    def _count_connections(self) -> dict[str, int]:
        return {
            "client": len(self._server.connections),
            "client_handshake": self._server.handshakes,
            **self.pool.count(),
        }


def _cors(settings: GatewaySettings) -> CorsPolicy | None:
    origins = settings.listen.cors_origins
    return CorsPolicy(origins) if origins else None


def _connection_limits(settings: GatewaySettings) -> ConnectionLimits:
    limits, timeouts = settings.limits, settings.timeouts
    return ConnectionLimits(
        max_connections=limits.max_connections,
        max_connections_per_client=limits.max_connections_per_client,
        max_body_bytes=limits.max_body_bytes,
        max_buffered_bytes=limits.max_buffered_bytes,
        max_head_bytes=limits.max_head_bytes,
        max_headers=limits.max_headers,
        client_buffer_bytes=limits.client_buffer_bytes,
        head_s=timeouts.head_s,
        body_s=timeouts.body_s,
        idle_s=timeouts.idle_s,
        write_s=timeouts.write_s,
    )
