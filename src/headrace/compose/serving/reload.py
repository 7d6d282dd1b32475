"""Taking up a changed configuration, and changed certificates, while streams run."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import fields, replace

from headrace.compose.process.descriptors import raise_soft_limit
from headrace.compose.process.terminal import Terminal
from headrace.compose.serving.fleets import Fleets
from headrace.compose.serving.local_pools import LocalPools, left_as_started
from headrace.compose.serving.plan import plan_of
from headrace.compose.serving.scaler import ScalerHost
from headrace.compose.serving.wiring import Gateway, GatewayPlan, nobody
from headrace.config.checks import is_local
from headrace.config.document import ConfigError
from headrace.config.load import Loaded
from headrace.config.schema import Config
from headrace.edges.http.tls import TlsError


class Reloader:
    """Keeps a gateway in step with its files. `loaded` is the configuration in force.

    Everything in a file that can be applied is; what needs a restart is named and stays as it
    was. A file with an error in it changes nothing.
    """

    def __init__(
        self,
        gateway: Gateway,
        fleets: Fleets,
        loaded: Loaded,
        read: Callable[[], Loaded],
        terminal: Terminal,
        *,
        scaler: ScalerHost | None = None,
        local: LocalPools | None = None,
    ) -> None:
        """`read` reads and checks the file again. Raises ConfigError."""
        self.loaded = self._started = loaded
        self._gateway = gateway
        self._fleets = fleets
        self._read = read
        self._terminal = terminal
        self._scaler = scaler
        self._local = local
        self._turn = asyncio.Lock()
        self._applied = asyncio.Event()
        """Something was taken up, perhaps another interval between looks at certificates."""

    async def run(self, asked: asyncio.Event) -> None:
        """Reload whenever `asked` is set, for ever. Asking during a reload asks for another."""
        await reload_when(asked, self.reload, self._failed)

    def _failed(self, error: Exception) -> None:
        self._gateway.telemetry.config_reloads["refused"] += 1
        self._terminal.problem(f"the reload failed: {error!r}; restart the gateway")

    async def reload(self) -> bool:
        """Read the files again and take up what they say; whether they could be used."""
        async with self._turn:
            try:
                loaded, plan, waiting = await asyncio.to_thread(self._prepare)
                await self._apply(loaded, plan, waiting)
            except ConfigError as error:
                self._refuse(str(error))
            except TlsError as error:
                self._refuse(f"{error.field}: {error}; the old ones stay in use")
            else:
                return True
            return False

    def _prepare(self) -> tuple[Loaded, GatewayPlan, list[str]]:
        """What to take up, and what of the file needs a restart."""
        loaded, waiting = left_as_started(self._started, self._read())
        if self._would_open(loaded):
            loaded = replace(loaded, keys=self.loaded.keys)
            waiting.append("api_keys_file")
        return loaded, plan_of(loaded), waiting

    def _would_open(self, after: Loaded) -> bool:
        """Whether without keys others could ask, by an address that only a restart leaves."""
        listen = self._started.config.listen
        return after.keys is None and not after.insecure and not is_local(listen)

    def _refuse(self, problems: str) -> None:
        self._gateway.telemetry.config_reloads["refused"] += 1
        tell_refused(problems, self._terminal)

    async def _apply(self, loaded: Loaded, plan: GatewayPlan, left: list[str]) -> None:
        gateway, before = self._gateway, self.loaded
        files = {name: each.files for name, each in gateway.certificates()}
        waiting = gateway.replace_certificates(plan) + self._scale(loaded) + left
        await self._fleets.drop(gateway.dissolved_by(plan))
        gateway.reconfigure(plan)
        self.loaded = loaded
        await self._fleets.follow(loaded)
        if self._local is not None:
            self._local.follow(loaded)
        self._applied.set()
        most = loaded.config.limits.max_connections
        if most != before.config.limits.max_connections:
            raise_soft_limit(most, self._terminal.status, nobody)
        gateway.telemetry.config_reloads["partial" if waiting else "applied"] += 1
        renewed = any(
            name in files and each.files.differ_from(files[name])
            for name, each in gateway.certificates()
        )
        changed = [*changed_sections(before, loaded), *(["certificates"] if renewed else [])]
        tell_applied(loaded, changed, waiting, self._terminal)

    def _scale(self, after: Loaded) -> list[str]:
        """Scale by the new settings; what of them needs a restart."""
        section = after.config.scaling
        if self._scaler is not None:
            return self._scaler.take_up(section)
        # One that names gateways is for a scaler by itself.
        return [] if section is None or section.gateways else ["scaling"]

    # ------------------------------------------------------------ certificates

    async def follow_certificates(self) -> None:
        """Take up certificate files that change, for ever."""
        while True:
            try:
                async with asyncio.timeout(self.loaded.config.certificate_interval_s):
                    await self._applied.wait()
                self._applied.clear()
            except TimeoutError:
                async with self._turn:
                    await asyncio.to_thread(self._renew_certificates)

    def _renew_certificates(self) -> None:
        counts = self._gateway.telemetry.certificate_reloads
        for name, certificates in self._gateway.certificates():
            try:
                if certificates.renew():
                    counts["applied"] += 1
                    self._terminal.status(f"{name}: certificates were renewed")
            except TlsError as error:
                counts["refused"] += 1
                self._terminal.problem(f"{name}.{error.field}: {error}; the old ones stay in use")


# ---------------------------------------------------------------- of a gateway, or a scaler alone


async def reload_when(
    asked: asyncio.Event,
    reload: Callable[[], Awaitable[object]],
    failed: Callable[[Exception], None],
) -> None:
    """Reload whenever `asked` is set, for ever. Asking during a reload asks for another."""
    while True:
        await asked.wait()
        asked.clear()
        try:
            await reload()
        except Exception as error:  # noqa: BLE001 - a fault of ours must not end all reloads
            failed(error)


def tell_refused(problems: str, terminal: Terminal) -> None:
    """Say what is wrong with a file that changes nothing."""
    for line in problems.splitlines():
        terminal.problem(line)
    terminal.status("the configuration stays as it was")


def tell_applied(after: Loaded, changed: list[str], waiting: list[str], terminal: Terminal) -> None:
    """Say what was taken up, by the names of sections, and what of it waits for a restart."""
    for warning in after.warnings:
        terminal.status(f"warning: {warning}")
    told = ", ".join(changed) or "nothing"
    restart = f"; needs a restart: {', '.join(waiting)}" if waiting else ""
    terminal.status(f"reloaded {after.source}; changed: {told}{restart}")


def changed_sections(before: Loaded, after: Loaded) -> list[str]:
    """What is different in the files, by the names of sections."""
    names = [
        each.name.removesuffix("_s")
        for each in fields(Config)
        if getattr(before.config, each.name) != getattr(after.config, each.name)
    ]
    if before.keys != after.keys and "api_keys_file" not in names:
        names.append("API keys")
    if before.secrets != after.secrets:
        names.append("secrets")
    return names
