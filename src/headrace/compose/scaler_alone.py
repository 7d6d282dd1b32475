"""`headrace scaler`: an autoscaler by itself, which asks the gateways that the file names."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from headrace.autoscaler.app import make_scaler_app
from headrace.autoscaler.names import NamedGateways
from headrace.autoscaler.settings import ScalingSection
from headrace.compose.process.lifecycle import StopSignals, hangups, run_loop
from headrace.compose.process.terminal import Terminal
from headrace.compose.serving.reload import (
    changed_sections,
    reload_when,
    tell_applied,
    tell_refused,
)
from headrace.compose.serving.scaler import ScalerHost
from headrace.compose.serving.wiring import StartError
from headrace.config.document import ConfigError
from headrace.config.load import Loaded
from headrace.core.latency import LatencyProfile
from headrace.edges.http.tls import TlsError, within
from headrace.gateway.control import ControlSettings, HostCheck
from headrace.gateway.control_server import ControlServer, serve_control


def run_scaler(
    loaded: Loaded,
    read: Callable[[], Loaded],
    terminal: Terminal,
    *,
    reload_asked: Callable[[], bool] = bool,
) -> int:
    """Run until stopped by a signal; return the exit code. Raises StartError.

    `read` and `reload_asked` as for `serve`.
    """
    return run_loop(_run(_section_of(loaded), loaded, read, terminal, reload_asked))


def _section_of(loaded: Loaded) -> ScalingSection:
    """What is to be scaled, by a scaler that is no gateway. Raises StartError."""
    section = loaded.config.scaling
    if section is None:
        raise StartError(f"{loaded.source} has no `scaling` section: there is nothing to scale")
    if not section.gateways:
        raise StartError(
            f"{loaded.source} names no `scaling.gateways`: without any, the gateway that reads it "
            "(`headrace serve`) scales by itself"
        )
    for pool in loaded.config.pools:
        if pool.start is not None and pool.name in section.pools:
            raise StartError(
                f"pool {pool.name!r} is started by a command (`start`): only the gateway itself, "
                "with no `scaling.gateways`, can scale it"
            )
    return section


def _profiles_of(loaded: Loaded) -> dict[str, LatencyProfile]:
    """By pool, of those that have one."""
    pools = loaded.config.pools
    return {each.name: each.profile for each in pools if isinstance(each.profile, LatencyProfile)}


async def _run(
    section: ScalingSection,
    loaded: Loaded,
    read: Callable[[], Loaded],
    terminal: Terminal,
    reload_asked: Callable[[], bool],
) -> int:
    stop, hangup = StopSignals(), hangups(reload_asked)
    stop.listen()
    gateways = _gateways(section, loaded.folder)
    profiles = _profiles_of(loaded)
    host = ScalerHost(section, loaded.folder, (), {}, terminal, finder=gateways, profiles=profiles)
    server = await _listen(host, section)
    reloader = ScalerReloader(host, loaded, read, terminal)
    following: asyncio.Task[None] | None = None
    try:
        await host.start()
        for warning in loaded.warnings:
            terminal.status(f"warning: {warning}")
        terminal.result(f"scaler   {server.url}  (/api/v1/scaler, /metrics)")
        if host.keda_address is not None:
            tls = ", TLS" if host.keda_tls else ""
            terminal.result(f"KEDA     {host.keda_address}  (gRPC{tls})")
        terminal.result(f"pools    {', '.join(section.pools)}")
        following = asyncio.create_task(reloader.run(hangup), name="reload")
        await stop.asked.wait()
        terminal.status("stopping")
    finally:
        if following is not None:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
        await host.stop()
        await server.stop()
    return 0


class ScalerReloader:
    """Keeps a scaler in step with its file, by the rules of a gateway's `Reloader`: what can be
    applied is, what needs a restart is named, and a file with an error in it changes nothing.
    """

    def __init__(
        self, host: ScalerHost, loaded: Loaded, read: Callable[[], Loaded], terminal: Terminal
    ) -> None:
        self.loaded = loaded
        self._host = host
        self._read = read
        self._terminal = terminal

    async def run(self, asked: asyncio.Event) -> None:
        """Reload whenever `asked` is set, for ever. Asking during a reload asks for another."""
        await reload_when(asked, self.reload, self._failed)

    async def reload(self) -> None:
        """Read the file again and take up what it says, if it can be used."""
        try:
            loaded = await asyncio.to_thread(self._read)
            self._apply(loaded, _section_of(loaded))
        except (ConfigError, StartError) as error:
            tell_refused(str(error), self._terminal)

    def _failed(self, error: Exception) -> None:
        self._terminal.problem(f"the reload failed: {error!r}; restart the scaler")

    def _apply(self, loaded: Loaded, section: ScalingSection) -> None:
        before, self.loaded = self.loaded, loaded
        waiting = self._host.take_up(section, _profiles_of(loaded))
        tell_applied(loaded, changed_sections(before, loaded), waiting, self._terminal)


def _gateways(section: ScalingSection, folder: Path) -> NamedGateways:
    gathering = section.gathering
    if gathering.tls is not None:
        gathering = replace(gathering, tls=within(folder, gathering.tls))
    try:
        return NamedGateways(section.gateways, gathering)
    except TlsError as error:
        raise StartError(f"scaling.gathering.tls.{error.field} {error}") from None


async def _listen(host: ScalerHost, section: ScalingSection) -> ControlServer:
    settings = ControlSettings(section.listen.host, section.listen.port)
    app = make_scaler_app(host.autoscaler)
    try:
        return await serve_control(
            HostCheck(app, settings) if settings.is_loopback else app, settings
        )
    except OSError as error:
        raise StartError(
            f"scaling.listen: cannot listen on port {settings.port} on {settings.host}: "
            f"{error.strerror or error}; choose another"
        ) from None
