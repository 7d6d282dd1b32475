"""What the autoscaler may be told, its pools aside."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from headrace.core.scaling.settings import ColdStart, ScalingSettings
from headrace.edges.http.tls import UpstreamTls
from headrace.edges.keda.settings import KedaSettings
from headrace.forecasting.calendar import CalendarEntry

DEFAULT_KV_CAPACITY_TOKENS = 100_000
"""Of an engine that does not tell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GatheringSettings:
    """How gateways are asked."""

    interval_s: float = 0.5
    """Between two looks at each gateway: a request that is held at zero replicas is seen within
    this time."""
    timeout_s: float = 2.0
    """For one answer."""
    max_answer_bytes: int = 8 * 1024 * 1024
    """The largest answer that is read."""
    lookup_interval_s: float = 5.0
    """Between two look-ups of the names in `gateways`."""
    tls: UpstreamTls | None = None
    """Certificates for gateways at `https` addresses, read when the scaler starts. Without it they
    are trusted as the system trusts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalerListener:
    """Where plans and metrics are shown by a scaler that runs by itself."""

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = 9093
    """Port to listen on; 0 takes a free one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolScaling(ScalingSettings):
    """How one pool is scaled."""

    cold_start_s: float | None = None
    """From ordered to ready, as long as none was measured. By default it is reckoned: image (12 GB)
    and weights through the storage's bandwidth (0.5 GB/s), and a minute of initialisation. The
    weights are those of the model of a shipped `profile`, else 16 GB."""

    calendar: tuple[CalendarEntry, ...] = ()
    """Floors that are known in advance: at least so many replicas from one time to another."""
    gpus_per_replica: int = field(default=1, metadata={"minimum": 1})
    """GPUs that one replica takes, of `scaling.gpus`."""
    gpu_weight: float = field(default=1.0, metadata={"above": 0})
    """Its share of `scaling.gpus` where all pools want more than there are."""

    def settings(self) -> ScalingSettings:
        """What the core is told."""
        told = {each.name: getattr(self, each.name) for each in fields(ScalingSettings)}
        if self.cold_start_s is not None:
            told["cold_start"] = ColdStart(0.0, 0.0, 1.0, self.cold_start_s)
        return ScalingSettings(**told)


@dataclass(frozen=True, slots=True, kw_only=True)
class HistorySettings:
    """Where the demand of the past is read from when the scaler starts. Give one of the two."""

    prometheus: str | None = None
    """Address of a Prometheus that scrapes gateways and scalers, as `http://prometheus:9090`. It is
    also asked how many replicas were wanted last, where no state was kept."""
    file: str | None = None
    """A file that the scaler itself keeps: one line a minute, JSON. Beside it lies its older part,
    with `.1` behind the name; both together have at most 64 MiB, and the oldest lines go."""
    days: float = field(default=14.0, metadata={"maximum": 366})
    """How far back is read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingSection:
    """How the number of replicas follows demand."""

    pools: dict[str, PoolScaling]
    """The pools to scale, by name. What is not here is left alone."""
    gateways: tuple[str, ...] = ()
    """Control planes of all gateways before these pools, for `headrace scaler`: addresses, as
    `http://10.0.0.1:9091`, or names, as `http://gateways.llm:9091`, whose every address is a
    gateway. Without any, the gateway that reads this file scales them by itself."""
    gpus: int | None = field(default=None, metadata={"minimum": 1})
    """GPUs that all these pools together may use; without it each has its `max_replicas` only."""
    gathering: GatheringSettings = field(default_factory=GatheringSettings)
    """How gateways are asked."""
    keda: KedaSettings | None = None
    """Where KEDA's external scaler protocol (gRPC) is answered; nowhere without this section."""
    listen: ScalerListener = field(default_factory=ScalerListener)
    """Where `headrace scaler` shows plans and metrics; a gateway does on its control plane."""
    history: HistorySettings | None = None
    """Where the demand of the past is read from at the start."""
    state_file: str | None = None
    """Where the scaler keeps what it has learned, so that a restart forgets nothing."""
