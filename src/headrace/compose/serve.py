"""`headrace serve`: the gateway in front of engines that already run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from headrace.autoscaler.app import scaler_routes
from headrace.autoscaler.metrics import ScalingCollector
from headrace.autoscaler.sources import OwnSource
from headrace.compose.process.descriptors import raise_soft_limit
from headrace.compose.process.lifecycle import StopAsked, StopSignals, hangups, run_loop
from headrace.compose.process.terminal import Terminal, counted, cut_off
from headrace.compose.serving.fleets import Fleets
from headrace.compose.serving.local_pools import LocalPools
from headrace.compose.serving.plan import plan_of
from headrace.compose.serving.reload import Reloader
from headrace.compose.serving.scaler import ScalerHost
from headrace.compose.serving.wiring import Gateway, StartError, nobody
from headrace.config.load import Loaded
from headrace.edges.build import is_compiled
from headrace.edges.http.tls import TlsError

_INTERPRETED = "interpreted  (`make compiled`: half the CPU per request, docs/how-to/compiled.md)"
_EVERY_ADDRESS = {"0.0.0.0", "::"}  # noqa: S104 - named, not bound


def serve(
    loaded: Loaded,
    read: Callable[[], Loaded],
    terminal: Terminal,
    *,
    verbose: bool = False,
    reload_asked: Callable[[], bool] = bool,
) -> int:
    """Run until stopped by a signal; return the exit code, 1 if requests were cut off then.

    Raises StartError.

    `read` reads the configuration again, for a reload. Raises ConfigError. `reload_asked` tells
    whether one was asked for before this process listened to signals by itself.
    """
    return run_loop(_serve(loaded, read, terminal, reload_asked, verbose=verbose))


async def _serve(
    loaded: Loaded,
    read: Callable[[], Loaded],
    terminal: Terminal,
    reload_asked: Callable[[], bool],
    *,
    verbose: bool,
) -> int:
    stop, hangup = StopSignals(), hangups(reload_asked)
    stop.listen()
    detail = terminal.status if verbose else nobody
    raise_soft_limit(loaded.config.limits.max_connections, terminal.status, detail)
    gateway = _gateway(loaded, detail, terminal.status)
    local = LocalPools(gateway, loaded, terminal.status)
    scaler = _hosted_scaler(gateway, local, loaded, terminal)
    fleets = Fleets(gateway, terminal.status)  # before a scaler can ask which replicas there are
    await gateway.start()
    reloader = Reloader(gateway, fleets, loaded, read, terminal, scaler=scaler, local=local)
    following: list[asyncio.Task[None]] = []
    try:
        await stop.unless_asked(fleets.follow(loaded))
        local.start()
        if scaler is not None:
            await scaler.start()
        _announce(gateway, loaded, terminal)
        if scaler is not None and scaler.keda_address is not None:
            tls = ", TLS" if scaler.keda_tls else ""
            terminal.result(f"KEDA           {scaler.keda_address}  (gRPC{tls})")
        following.append(asyncio.create_task(reloader.run(hangup)))
        following.append(asyncio.create_task(reloader.follow_certificates()))
        await stop.asked.wait()
    except StopAsked:
        pass
    finally:
        for task in following:
            task.cancel()
        await asyncio.gather(*following, return_exceptions=True)
        if scaler is not None:
            await scaler.stop()  # first, so that nothing is started or drained any more
        cut = await _finish(gateway, fleets, stop, reloader.loaded, terminal)
        await local.close()
    return int(cut > 0)


def _hosted_scaler(
    gateway: Gateway, local: LocalPools, loaded: Loaded, terminal: Terminal
) -> ScalerHost | None:
    """The scaler that this gateway hosts, shown on its control plane; None if it hosts none."""
    section = loaded.config.scaling
    if section is None or section.gateways:
        return None
    source = OwnSource(gateway.scaling_report)
    host = ScalerHost(section, loaded.folder, [source], local.fleets, terminal)
    gateway.shown_too.extend(scaler_routes(host.autoscaler))
    gateway.telemetry.collectors.append(ScalingCollector(host.autoscaler))
    return host


def _gateway(
    loaded: Loaded, detail: Callable[[str], None], notice: Callable[[str], None]
) -> Gateway:
    try:
        return Gateway(plan_of(loaded), detail, notice)
    except TlsError as error:  # the files have changed since they were checked
        raise StartError(f"{error.field} {error}") from None


async def _finish(
    gateway: Gateway, fleets: Fleets, stop: StopSignals, loaded: Loaded, terminal: Terminal
) -> int:
    """Let requests end, then everything else; return how many were cut off."""
    config, running = loaded.config, counted(gateway.plane.in_flight, "request")
    terminal.status(
        f"stopping: {running} in flight, at most {config.grace_s + config.drain_s:g} s; "
        "a second signal ends at once"
    )
    cut = await stop.drain(gateway.plane, grace_s=config.grace_s, drain_s=config.drain_s)
    await fleets.close()
    await gateway.close()
    terminal.status(f"stopped; {cut_off(cut)}" if cut else "stopped")
    return cut


def _announce(gateway: Gateway, loaded: Loaded, terminal: Terminal) -> None:
    for warning in loaded.warnings:
        terminal.status(f"warning: {warning}")
    config = loaded.config
    listen, control = config.listen, config.control
    everywhere = "" if listen.unix else _everywhere(listen.host)
    terminal.result(f"gateway        {gateway.url}/v1{everywhere}")
    shown = f"{gateway.control_url}  (/metrics, /api/v1/fleet)"
    terminal.result(f"control plane  {shown}{_everywhere(control.host)}")
    models = sorted({pool.model for pool in config.pools})
    terminal.result(f"models         {', '.join(models)}")
    for number, (name, alias) in enumerate(sorted(config.aliases.items())):
        targets = " or ".join(target.model for target in alias.targets)
        chain = ", else ".join((targets, *alias.fallbacks))
        terminal.result(f"{'' if number else 'aliases':<15}{name} -> {chain}")
    terminal.result(f"build          {'compiled' if is_compiled() else _INTERPRETED}")


def _everywhere(host: str) -> str:
    """Said of an address that stands for all of the machine's."""
    return f"  (on {host}, every address of this machine)" if host in _EVERY_ADDRESS else ""
