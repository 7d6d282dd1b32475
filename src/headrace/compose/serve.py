"""`headrace serve`: the gateway in front of engines that already run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import fields, replace

from headrace.compose.lifecycle import StopAsked, StopSignals, run_loop
from headrace.compose.terminal import Terminal
from headrace.compose.wiring import Gateway, GatewayPlan
from headrace.config import Config, Loaded, PoolSection
from headrace.core.model import PoolSpec
from headrace.edges.fleets.dns import DnsFleet
from headrace.edges.fleets.readiness import PoolAccess
from headrace.edges.fleets.static import StaticFleet
from headrace.gateway.control import ControlSettings
from headrace.gateway.settings import GatewaySettings, UpstreamAccess

Fleet = StaticFleet | DnsFleet


def serve(loaded: Loaded, terminal: Terminal) -> int:
    """Run until stopped by a signal; return the exit code. Raises StartError."""
    return run_loop(_serve(loaded, terminal))


async def _serve(loaded: Loaded, terminal: Terminal) -> int:
    config = loaded.config
    stop = StopSignals()
    stop.listen()
    gateway = Gateway(plan_of(loaded))
    await gateway.start()
    fleets: list[Fleet] = []
    for pool in config.pools:
        fleets += fleets_of(pool, config, gateway, terminal.status)
    try:
        await stop.unless_asked(_start(fleets))
        _announce(gateway, loaded, terminal)
        await stop.asked.wait()
    except StopAsked:
        pass
    finally:
        await _finish(gateway, fleets, stop, config, terminal)
    return 0


async def _start(fleets: list[Fleet]) -> None:
    await asyncio.gather(*(fleet.start() for fleet in fleets))


async def _finish(
    gateway: Gateway, fleets: list[Fleet], stop: StopSignals, config: Config, terminal: Terminal
) -> None:
    running = gateway.plane.in_flight
    terminal.status(
        f"stopping: {running} requests in flight, at most {config.grace_s + config.drain_s:g} s; "
        "a second signal ends at once"
    )
    cut = await stop.drain(gateway.plane, grace_s=config.grace_s, drain_s=config.drain_s)
    for fleet in fleets:
        await fleet.close()
    await gateway.close()
    terminal.status(f"stopped; {cut} requests were cut off" if cut else "stopped")


def _announce(gateway: Gateway, loaded: Loaded, terminal: Terminal) -> None:
    for warning in loaded.warnings:
        terminal.status(f"warning: {warning}")
    models = ", ".join(sorted({pool.model for pool in loaded.config.pools}))
    terminal.result(f"gateway        {gateway.url}/v1  ({models})")
    terminal.result(f"control plane  {gateway.control_url}  (/metrics, /api/v1/fleet)")


# ---------------------------------------------------------------- from the file to the settings


def plan_of(loaded: Loaded) -> GatewayPlan:
    """What a configuration asks for."""
    config, secrets = loaded.config, loaded.secrets
    upstreams = {
        pool.name: UpstreamAccess(pool.engine, secrets.upstream.get(pool.name))
        for pool in config.pools
    }
    external = frozenset(pool.name for pool in config.pools if pool.traffic == "external")
    return GatewayPlan(
        gateway=GatewaySettings(
            listen=config.listen,
            limits=config.limits,
            timeouts=config.timeouts,
            drain_s=config.drain_s,
            grace_s=config.grace_s,
            upstreams=upstreams,
        ),
        control=ControlSettings(config.control.host, config.control.port, secrets.control_token),
        pools=tuple(spec_of(pool) for pool in config.pools),
        aliases=tuple(config.aliases.values()),
        routing=config.routing,
        telemetry=replace(config.telemetry, external_pools=external),
        scrape=config.scrape,
        keys=loaded.keys,
        tracing=config.tracing,
    )


def spec_of(pool: PoolSection) -> PoolSpec:
    """The part of a pool's section that the core knows."""
    return PoolSpec(**{each.name: getattr(pool, each.name) for each in fields(PoolSpec)})


def fleets_of(
    pool: PoolSection, config: Config, gateway: Gateway, notice: Callable[[str], None]
) -> list[Fleet]:
    """Where the replicas of a pool come from."""
    access = PoolAccess(
        pool.name, pool.model, gateway.dialect(pool.name), gateway.headers(pool.name)
    )
    ports = {"emit": gateway.apply, "notice": notice}
    fleets: list[Fleet] = []
    if pool.replicas:
        fleets.append(StaticFleet(pool.replicas, access, config.health, **ports))
    if pool.dns is not None:
        fleets.append(DnsFleet(pool.dns, access, config.health, **ports))
    return fleets
