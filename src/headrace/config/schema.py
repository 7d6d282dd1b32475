"""What `headrace.yaml` may say: the sections of the file, made of the settings they configure."""

from __future__ import annotations

from dataclasses import dataclass, field

from headrace.autoscaler.settings import ScalingSection
from headrace.core.admission import AdmissionSettings, Tier
from headrace.core.latency import LatencyProfile
from headrace.core.policies import POLICIES
from headrace.core.settings import DispatcherSettings
from headrace.core.specs import Alias, PoolSpec
from headrace.edges.fleets.command import CommandSettings
from headrace.edges.fleets.dns import DnsName
from headrace.edges.fleets.readiness import HealthSettings
from headrace.edges.gpu_metrics import GpuMetricsSettings
from headrace.edges.http.tls import ServerTls, UpstreamTls
from headrace.edges.scrape import ScrapeSettings
from headrace.engines.registry import DIALECTS
from headrace.gateway.settings import (
    GatewaySettings,
    Limits,
    Listener,
    Timeouts,
)
from headrace.gateway.telemetry import TelemetrySettings
from headrace.gateway.tracing import TracingSettings

_GATEWAY = GatewaySettings()
"""Where the defaults of the sections it is made of come from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSection(PoolSpec):
    """Interchangeable replicas: one model, one kind of engine."""

    policy: str = field(
        default="seconds", metadata={"choices": tuple(POLICIES), "parameters": True}
    )
    """How a replica is chosen. `seconds`: the fewest predicted seconds, its own and those it costs
    others. The others are baselines, plain ones and the rules of other routers; what they compute,
    and their parameters (`dynamo_kv:overlap_weight=4`), is in docs/reference/policies.md."""
    profile: str | LatencyProfile | None = None  # pyright: ignore[reportIncompatibleVariableOverride] - the name of a file until it is read
    """Prior of the latency model: the name of a shipped profile, as `h100-llama-3.1-8b` (see
    docs/reference/profiles.md), a file (`*.yaml`, `*.json`) written by a measurement, or its
    content. Without one it is learned from the first streams, and anew where it turns out wrong."""
    engine: str = field(default="openai", metadata={"choices": tuple(sorted(DIALECTS))})
    """What the replicas run; it decides which metrics are read and how usage is obtained."""
    replicas: tuple[str, ...] = ()
    """Addresses of running engines, each `http://host:port`, `https://host:port` or
    `unix:/path/of/socket`. A path behind the port, as in `https://gpus.example:443/llama`, is put
    before those of all requests: that of the API begins with `/llama/v1` there."""
    dns: DnsName | None = None
    """One name with an address per replica, instead of `replicas` or beside them."""
    start: CommandSettings | None = None
    """A command that starts a replica on this machine, instead of `replicas` and `dns`. How many
    there are is said under `scaling`."""
    tls: UpstreamTls | None = None
    """Certificates for `https`. Without it engines at `https` addresses are trusted as the system
    trusts; with it those behind `dns` are asked by `https` too."""
    traffic: str = field(default="relayed", metadata={"choices": ("relayed", "external")})
    """`relayed`: clients reach these engines through this gateway. `external`: they do not, and
    the engines are only measured, by scrapes and by what they push to `/telemetry`."""
    gpu_metrics: GpuMetricsSettings | None = None
    """Where the memory bandwidth of its replicas' GPUs is read, for scaling; without it, it is
    modelled where the profile tells what a step moves."""
    adapters: tuple[str, ...] = ()
    """LoRA adapters that its engines may load later. Those that are loaded are found by
    themselves; naming one here lets an alias point to it from the start."""
    api_key_file: str | None = None
    """File that holds the key its engines ask for (vLLM's `--api-key`)."""
    api_key_env: str | None = None
    """Environment variable that holds that key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlSection:
    """The second listener: metrics, decisions, pushes from engines."""

    host: str = "127.0.0.1"
    """Address to listen on. One that other machines reach needs a token, or `--insecure`."""
    port: int = 9091
    """Port to listen on; 0 takes a free one."""
    tls: ServerTls | None = None
    """With it this listener speaks `https`, and only so."""
    token_file: str | None = None
    """File with the token that writing endpoints ask for. Reading (metrics, the fleet,
    decisions: names and sizes, never prompts) asks for none, so that Prometheus can scrape."""
    token_env: str | None = None
    """Environment variable with that token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """All that `headrace serve` reads from its file."""

    listen: Listener = field(default=_GATEWAY.listen)
    """Where clients connect."""
    control: ControlSection = field(default_factory=ControlSection)
    """Where operators, Prometheus and engines' exporters connect."""
    pools: tuple[PoolSection, ...]
    """The engines, pool by pool."""
    aliases: dict[str, Alias] = field(default_factory=dict[str, Alias])
    """Names that clients may use for models: one target, a weighted choice, and fall-backs."""
    tiers: dict[str, Tier] = field(default_factory=dict[str, Tier])
    """What may be promised to a request, which chooses by `x-headrace-tier`; at most 64. One named
    `default` is there in any case, for requests that name none."""
    admission: AdmissionSettings = field(default_factory=AdmissionSettings)
    """How requests wait for a replica with room."""
    limits: Limits = field(default=_GATEWAY.limits)
    """Bounds on what one gateway accepts."""
    timeouts: Timeouts = field(default=_GATEWAY.timeouts)
    """How long each phase of a request may take."""
    routing: DispatcherSettings = field(default_factory=DispatcherSettings)
    """Retries, ejection of failing replicas, and the decision log."""
    health: HealthSettings = field(default_factory=HealthSettings)
    """How replicas are checked."""
    scrape: ScrapeSettings = field(default_factory=ScrapeSettings)
    """How the engines' metrics are read."""
    telemetry: TelemetrySettings = field(default_factory=TelemetrySettings)
    """What is exported on the control plane's `/metrics`."""
    scaling: ScalingSection | None = None
    """How the number of replicas follows demand; without this section nothing is scaled."""
    tracing: TracingSettings | None = None
    """Traces of requests by OpenTelemetry; none without this section."""
    api_keys_file: str | None = None
    """File of hashed API keys, made with `headrace keys new`. Without it everybody who reaches
    the port may ask."""
    drain_s: float = _GATEWAY.drain_s
    """After SIGTERM, requests get this long to be read, answered and sent as a whole."""
    grace_s: float = _GATEWAY.grace_s
    """After SIGTERM, `/ready` says 503 but connections are still taken for this long, so that
    load balancers notice first."""
    certificate_interval_s: float = 10.0
    """Between two looks at the files of certificates; handshakes use those that have changed."""
