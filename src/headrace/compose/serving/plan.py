"""From a configuration to what the gateway is made of."""

from __future__ import annotations

from dataclasses import fields, replace

from headrace.compose.serving.wiring import GatewayPlan
from headrace.config.load import Loaded
from headrace.config.schema import PoolSection
from headrace.core.specs import PoolSpec
from headrace.edges.http.certificate_files import told_of
from headrace.edges.http.tls import ClientTls, ServerTls, within
from headrace.gateway.control import ControlSettings
from headrace.gateway.settings import GatewaySettings, UpstreamAccess


def plan_of(loaded: Loaded) -> GatewayPlan:
    """What a configuration asks for. Raises TlsError for certificates that cannot be used."""
    config, control = loaded.config, loaded.config.control
    external = frozenset(pool.name for pool in config.pools if pool.traffic == "external")
    listen = replace(config.listen, tls=_server_tls(config.listen.tls, loaded))
    return GatewayPlan(
        gateway=GatewaySettings(
            listen=listen,
            limits=config.limits,
            timeouts=config.timeouts,
            drain_s=config.drain_s,
            grace_s=config.grace_s,
            upstreams={pool.name: _access(pool, loaded) for pool in config.pools},
            tiers=tuple(config.tiers),
        ),
        control=ControlSettings(
            control.host,
            control.port,
            loaded.secrets.control_token,
            _server_tls(control.tls, loaded),
        ),
        pools=tuple(spec_of(pool) for pool in config.pools),
        aliases=tuple(config.aliases.values()),
        routing=replace(
            config.routing, tiers=tuple(config.tiers.values()), admission=config.admission
        ),
        telemetry=replace(config.telemetry, external_pools=external),
        scrape=config.scrape,
        keys=loaded.keys,
        tracing=config.tracing,
    )


def spec_of(pool: PoolSection) -> PoolSpec:
    """The part of a pool's section that the core knows."""
    return PoolSpec(**{each.name: getattr(pool, each.name) for each in fields(PoolSpec)})


def _access(pool: PoolSection, loaded: Loaded) -> UpstreamAccess:
    key = loaded.secrets.upstream.get(pool.name)
    if pool.tls is None:
        return UpstreamAccess(pool.engine, key, gpu_metrics=pool.gpu_metrics)
    settings = within(loaded.folder, pool.tls)
    if settings.server_name is None and pool.dns is not None:
        # Its engines are reached by their addresses, but certificates are for the name.
        settings = replace(settings, server_name=pool.dns.name)
    with told_of(f"pool {pool.name}: tls"):
        tls = ClientTls(settings)
    return UpstreamAccess(pool.engine, key, tls, pool.gpu_metrics)


def _server_tls(tls: ServerTls | None, loaded: Loaded) -> ServerTls | None:
    return None if tls is None else within(loaded.folder, tls)
