"""One gateway process: the core, its two listeners and the scrape loop, wired together."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from starlette.routing import BaseRoute

from headrace.compose.process.invocation import other_port
from headrace.compose.serving.fleet_notices import FleetNotices
from headrace.core.decisions import Explanation
from headrace.core.dispatcher import Dispatcher
from headrace.core.events import ConfigChanged, Event, ReplicaChanged, ReplicaGone, Scraped
from headrace.core.model import EngineReport, Replica
from headrace.core.scaling.report import ScalingReport
from headrace.core.settings import DispatcherSettings
from headrace.core.specs import Alias, PoolSpec
from headrace.edges.extras import how_to_install
from headrace.edges.gpu_metrics import GpuReader
from headrace.edges.http.address import UNIX
from headrace.edges.http.certificate_files import told_of
from headrace.edges.http.heads import Header
from headrace.edges.http.tls import (
    Certificates,
    ClientTls,
    ServerCertificate,
    TlsError,
)
from headrace.edges.scrape import Scraper, ScrapeSettings, ScrapeTarget
from headrace.engines.dialect import Dialect
from headrace.engines.latencies import Latencies
from headrace.engines.reading import EngineReading
from headrace.engines.registry import dialect
from headrace.gateway.control import ControlSettings, make_control_app
from headrace.gateway.control_server import ControlServer, reachable, serve_control
from headrace.gateway.keys import KeyRing
from headrace.gateway.readiness import NO_REPLICA
from headrace.gateway.scaling_reporter import ScalingReporter
from headrace.gateway.server import DataPlane, PortTaken
from headrace.gateway.settings import GatewaySettings, UpstreamAccess
from headrace.gateway.telemetry import Telemetry, TelemetrySettings
from headrace.gateway.tracing import Tracer, TracingSettings


class StartError(Exception):
    """The gateway cannot start. The message names the cause and the remedy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayPlan:
    """All that a gateway is made of, wherever it was said: in a file or in flags."""

    gateway: GatewaySettings
    control: ControlSettings
    pools: tuple[PoolSpec, ...]
    aliases: tuple[Alias, ...] = ()
    routing: DispatcherSettings = field(default_factory=DispatcherSettings)
    telemetry: TelemetrySettings = field(default_factory=TelemetrySettings)
    scrape: ScrapeSettings = field(default_factory=ScrapeSettings)
    keys: KeyRing | None = None
    tracing: TracingSettings | None = None


def nobody(_line: str) -> None:
    """Takes lines that nobody asked for."""


class Gateway:
    """A gateway between `start` and `close`; replicas come in by `apply`."""

    def __init__(
        self,
        plan: GatewayPlan,
        detail: Callable[[str], None] = nobody,
        notice: Callable[[str], None] = nobody,
    ) -> None:
        """`notice` takes lines for the operator, `detail` those that interest only who asked for
        them. Raises StartError.
        """
        self._plan = self._started = plan
        self._detail = detail
        self._control_settings = replace(plan.control)
        self._control_certificate: ServerCertificate | None = None
        self.dispatcher = Dispatcher(plan.routing, random.Random())  # noqa: S311 - breaks ties
        self.telemetry = Telemetry(plan.telemetry, time.monotonic, self.dispatcher.fleet)
        self._notices = FleetNotices(self.telemetry, notice)
        self._tracer = _tracer_of(plan)
        self.plane = DataPlane(
            plan.gateway,
            self.dispatcher,
            self.telemetry,
            keys=plan.keys,
            tracer=self._tracer,
            on_probe=self._notices.looked_at,
        )
        self._scraper = Scraper(
            plan.scrape,
            self._on_reading,
            self._on_scrape_failure,
            on_latencies=self._on_latencies,
        )
        self._gpus = GpuReader(self._on_gpus, self._on_gpu_failure)
        self._control: ControlServer | None = None
        self._scaling = ScalingReporter(
            self.dispatcher,
            self.telemetry,
            gateway=f"{socket.gethostname()}:{plan.control.port}",
            epoch_s=time.time() - time.monotonic(),
        )
        self.shown_too: list[BaseRoute] = []
        """What the control plane shows of a program that this process hosts; set before `start`."""
        self.configure(plan.pools, plan.aliases)

    # ------------------------------------------------------------ life

    async def start(self) -> None:
        """Listen on both ports. Raises StartError."""
        listen = self._plan.gateway.listen
        try:
            await self.plane.start()
        except PortTaken as error:
            another = other_port("--port", error.port)
            raise StartError(f"{error}; choose another, as in {another}") from None
        except TlsError as error:
            raise StartError(f"listen.tls.{error.field} {error}") from None
        except OSError as error:
            where = listen.unix or f"{listen.host}:{listen.port}"
            raise StartError(f"cannot listen on {where}: {error.strerror or error}") from None
        try:
            await self._start_control()
        except StartError:
            await self.plane.close()
            raise

    async def _start_control(self) -> None:
        settings = self._control_settings
        try:
            if settings.tls is not None:
                self._control_certificate = ServerCertificate(settings.tls)
            tls = self._control_certificate and self._control_certificate.context
            app = make_control_app(self, settings, self.shown_too)
            self._control = control = await serve_control(app, settings, tls)
        except TlsError as error:
            raise StartError(f"control.tls.{error.field} {error}") from None
        except OSError as error:
            where = f"port {settings.port} on {settings.host}"
            another = other_port("--control-port", settings.port)
            raise StartError(
                f"the control plane cannot listen on {where}: {error.strerror or error}; choose "
                f"another, as in {another}"
            ) from None
        clients = self.telemetry.connections
        self.telemetry.connections = lambda: {**clients(), **control.count()}

    async def close(self) -> None:
        """Stop everything; requests still running are cut."""
        await self._scraper.close()
        await self._gpus.close()
        await self.plane.close()
        if self._control is not None:
            await self._control.stop()
        if self._tracer is not None:
            await self._tracer.close()

    @property
    def url(self) -> str:
        """Where clients on this machine connect."""
        listen = self._started.gateway.listen
        if listen.unix is not None:
            return f"{UNIX}{listen.unix}"
        scheme = "https" if listen.tls else "http"
        return f"{scheme}://{reachable(listen.host)}:{self.plane.port}"

    @property
    def control_url(self) -> str:
        """Where the control plane is."""
        assert self._control is not None
        return self._control.url

    # ------------------------------------------------------------ events

    def configure(self, pools: tuple[PoolSpec, ...], aliases: tuple[Alias, ...]) -> None:
        """Serve these pools and aliases from now on."""
        self.plane.apply(ConfigChanged(pools, aliases))

    def dissolved_by(self, plan: GatewayPlan) -> list[str]:
        """The pools of now that another plan has not, or has for other engines."""
        kept = {spec.name: _identity(spec, plan) for spec in plan.pools}
        now = {spec.name: _identity(spec, self._plan) for spec in self._plan.pools}
        return [name for name, identity in now.items() if kept.get(name) != identity]

    def reconfigure(self, plan: GatewayPlan) -> None:
        """Take up another plan, all at once, but for what `replace_certificates` names.

        Requests under way go on as they began, also those at replicas that leave.
        """
        dissolved = frozenset(self.dissolved_by(plan))
        replicas = self.dispatcher.fleet.replicas
        leaving = [name for name, each in replicas.items() if each.pool.spec.name in dissolved]
        kept = tuple(spec for spec in self._plan.pools if spec.name not in dissolved)
        self._plan = plan
        self._control_settings.token = plan.control.token
        self.plane.configure(plan.gateway, plan.keys)
        self.telemetry.configure(plan.telemetry)
        self._scraper.configure(plan.scrape)
        self.plane.apply(ConfigChanged(kept, ()))
        self.plane.apply(ConfigChanged(plan.pools, plan.aliases, plan.routing))
        for name in leaving:
            self._forget(name)
        for replica in replicas.values():
            if self._scraper.watches(replica.name):  # perhaps with another key from now on
                self._scrape(replica)
            self._look_at_gpus(replica)

    def replace_certificates(self, plan: GatewayPlan) -> list[str]:
        """Use another plan's certificates; return what else of it needs a restart.

        Raises TlsError for files that cannot be used; those in use stay so.
        """
        started = self._started
        listen, control, after = started.gateway.listen, started.control, plan.gateway.listen
        for use in self._prepared_certificates(plan):  # all of them are good
            use()
        # With a Unix socket neither of them means anything.
        port = {} if after.unix else {"listen.port": (listen.port, after.port)}
        host = {} if after.unix else {"listen.host": (listen.host, after.host)}
        places = {
            **host,
            **port,
            "listen.unix": (listen.unix, after.unix),
            "listen.tls": (listen.tls is None, after.tls is None),
            "control.host": (control.host, plan.control.host),
            "control.port": (control.port, plan.control.port),
            "control.tls": (control.tls is None, plan.control.tls is None),
            "tracing": (started.tracing, plan.tracing),
        }
        return [name for name, (now, wanted) in places.items() if now != wanted]

    def _prepared_certificates(self, plan: GatewayPlan) -> list[Callable[[], None]]:
        """What uses the listeners' certificates. Raises TlsError for those of a pool, too."""
        listeners = (
            ("listen.tls", self.plane.certificate, plan.gateway.listen.tls),
            ("control.tls", self._control_certificate, plan.control.tls),
        )
        uses: list[Callable[[], None]] = []
        for section, certificate, settings in listeners:
            if certificate is not None and settings is not None:
                with told_of(section):
                    uses.append(certificate.prepared(settings))
        for name, access in plan.gateway.upstreams.items():
            before = self._access(name).tls
            if access.tls is not None and before is not None:
                with told_of(f"pool {name}: tls"):
                    access.tls.files.may_replace(before.files)
        return uses

    def certificates(self) -> list[tuple[str, Certificates]]:
        """All certificates in use, each with what they are for."""
        upstreams = self._plan.gateway.upstreams.items()
        found = {
            "listen.tls": self.plane.certificate,
            "control.tls": self._control_certificate,
            **{f"pool {name}: tls": access.tls for name, access in upstreams},
        }
        return [(name, each) for name, each in found.items() if each is not None]

    def apply(self, event: Event) -> None:
        """Take in what a fleet reports."""
        if isinstance(event, ReplicaChanged):
            self._replica_changed(event)
        elif isinstance(event, ReplicaGone):
            self.plane.apply(event)
            self._forget(event.replica)
        else:
            self.plane.apply(event)

    def trouble(self, replica: str, reason: str, *, minor: bool = False) -> None:
        """Keep what was wrong with a replica just now, for the control plane to show."""
        if replica in self.dispatcher.fleet.replicas:
            self.telemetry.troubles.note(replica, reason, self.telemetry.clock(), minor=minor)

    def _replica_changed(self, event: ReplicaChanged) -> None:
        if event.pool in self._plan.telemetry.external_pools and event.ready:
            # Others send its requests; draining means that this gateway sends it nothing new.
            event = replace(event, draining=True)
        self.plane.apply(event)
        self._scaling.note()
        self.telemetry.seed()
        replica = self.dispatcher.fleet.replicas.get(event.replica)
        if replica is not None and (event.ready or event.draining):
            self._scrape(replica)
            self._look_at_gpus(replica)

    def _scrape(self, replica: Replica) -> None:
        pool = replica.pool.spec.name
        target = ScrapeTarget(
            replica.name,
            replica.url,
            self.dialect(pool),
            self.headers(pool),
            self.tls(pool),
            reads_latencies=self.telemetry.is_external(replica),
        )
        self._scraper.watch(target)

    def _look_at_gpus(self, replica: Replica) -> None:
        access = self._access(replica.pool.spec.name)
        self._gpus.watch(replica.name, replica.url, access.gpu_metrics)

    def _on_gpus(self, replica: str, ratio: float) -> None:
        self.telemetry.gpus_read(replica, ratio, self.telemetry.clock())

    def _on_gpu_failure(self, replica: str, reason: str) -> None:
        self.trouble(replica, f"its GPUs could not be looked at: {reason}", minor=True)
        self._detail(f"the GPUs of {replica} could not be looked at: {reason}")

    def _forget(self, replica: str) -> None:
        self._scraper.forget(replica)
        self._gpus.forget(replica)
        self._notices.forget(replica)
        self.telemetry.forget(replica)

    def _on_reading(self, replica: str, reading: EngineReading) -> None:
        report = EngineReport(
            queue_depth=reading.queue_depth,
            running=reading.running,
            kv_usage_ratio=reading.kv_usage_ratio,
            kv_capacity_tokens=reading.kv_capacity_tokens,
            max_sequences=reading.max_sequences,
            waiting_for_room=reading.waiting_for_room,
            output_tokens_total=reading.output_tokens_total,
        )
        self.plane.apply(Scraped(replica, report))
        self._notices.scraped(replica)
        if reading.skipped_lines:
            reason = f"{reading.skipped_lines} lines of its metrics could not be read"
            self.trouble(replica, reason, minor=True)
        self.telemetry.read(replica, reading, self.telemetry.clock())

    def _on_latencies(self, replica: str, latencies: Latencies) -> None:
        self.telemetry.read_latencies(replica, latencies, self.telemetry.clock())

    def _on_scrape_failure(self, replica: str, reason: str) -> None:
        self.telemetry.scrape_failed(replica)
        self.trouble(replica, f"scraping failed: {reason}", minor=True)
        self._detail(f"scraping {replica} failed: {reason}")
        self._notices.scrape_failed(replica, reason)

    # ------------------------------------------------------------ pools

    def dialect(self, pool: str) -> Dialect:
        """What the engines of a pool speak."""
        return dialect(self._access(pool).engine)

    def headers(self, pool: str) -> tuple[Header, ...]:
        """What the engines of a pool ask for with each request of our own."""
        key = self._access(pool).api_key
        return () if key is None else ((b"authorization", b"Bearer " + key.encode("ascii")),)

    def tls(self, pool: str) -> ClientTls | None:
        """How the engines of a pool are reached by TLS."""
        return self._access(pool).tls

    def _access(self, pool: str) -> UpstreamAccess:
        return self._plan.gateway.upstreams.get(pool, UpstreamAccess())

    # ------------------------------------------------------------ what the control plane shows

    def explain(self, request_id: str) -> Explanation | None:
        """Why a request went where it went."""
        return self.dispatcher.decisions.explain(request_id)

    def explain_last(self) -> Explanation | None:
        """Why the last request went where it went."""
        return self.dispatcher.decisions.explain_last()

    def look_up_by(self, unlisted: Callable[[str], bool]) -> None:
        """`unlisted` says whether a pool may have replicas that nobody has found yet."""
        self._scaling.unlisted = unlisted

    def scaling_report(self) -> ScalingReport:
        """What a scaler is told."""
        return self._scaling.report()

    def not_ready_reason(self) -> str | None:
        """Why requests are not taken now."""
        reason = self.plane.unready_because
        return f"{reason} is ready" if reason == NO_REPLICA else reason or None


def _tracer_of(plan: GatewayPlan) -> Tracer | None:
    """Who traces requests, if anybody. Raises StartError."""
    settings = plan.tracing
    if settings is None:
        return None
    try:
        # Imported where it is asked for: an extra, and slow to import.
        from headrace.edges.otel import OtelTracer  # noqa: PLC0415 - an extra

        return OtelTracer(
            settings.endpoint,
            sample_ratio=settings.sample_ratio,
            service_name=settings.service_name,
            scheme="http" if plan.gateway.listen.tls is None else "https",
        )
    except ModuleNotFoundError as error:
        raise StartError(
            f"the configuration has a `tracing` section, but {error.name} is not installed; "
            f"install the extra: {how_to_install('otel')}, or remove the section"
        ) from None
    except ValueError as error:  # of OpenTelemetry's own variables; some are read as it is imported
        raise StartError(f"tracing: {error}; correct it, or leave it out") from None


def _identity(spec: PoolSpec, plan: GatewayPlan) -> tuple[object, ...]:
    """What makes a pool the same one after a reload: with other engines nothing learned holds."""
    access = plan.gateway.upstreams.get(spec.name, UpstreamAccess())
    external = spec.name in plan.telemetry.external_pools
    return spec.name, spec.model, spec.role, access.engine, external
