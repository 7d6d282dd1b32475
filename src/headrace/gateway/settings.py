"""Every knob of the gateway, with its default and its reason."""

from __future__ import annotations

from dataclasses import dataclass, field

from headrace.core.admission import DEFAULT_TIER
from headrace.edges.gpu_metrics import GpuMetricsSettings
from headrace.edges.http.tls import ClientTls, ServerTls


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on what one process accepts. Reaching one gives a clear error, never a stall."""

    max_connections: int = 4096
    """Client connections at once; above it new ones are answered 429 and closed. With TLS as many
    handshakes may be under way beside them; above it new connections are closed."""
    max_connections_per_client: int = 4096
    """Client connections at once from one address, of IPv6 from one /64 network: a host has a
    whole one. As high as the total by default, because a load balancer in front makes every client
    look alike."""
    max_in_flight: int = 2048
    """Requests being served at once, those held for a replica aside; above it 429 with
    Retry-After."""
    max_body_bytes: int = 64 * 1024 * 1024
    """Request body; above it 413."""
    max_buffered_bytes: int = 1024 * 1024 * 1024
    """Request bodies held in memory by all connections together; above it 503."""
    max_head_bytes: int = 64 * 1024
    """Request line and headers together, above it 431. Also chunk sizes, their extensions and
    trailers of a request, above it and 16 bytes for each one of the body: 413."""
    max_headers: int = 100
    """Number of request headers; above it 431."""
    max_event_bytes: int = 4 * 1024 * 1024
    """One server-sent event from an engine; a longer one is relayed unread in pieces."""
    max_answer_read_bytes: int = 16 * 1024 * 1024
    """Non-streamed answer held back to read its usage; a longer one is relayed unread."""
    client_buffer_bytes: int = 64 * 1024
    """Bytes waiting for a slow client before the engine's connection is paused."""
    stored_responses: int = 100_000
    """Ids of stored responses whose replica is remembered, the oldest forgotten first."""
    idle_connections_per_replica: int = 128
    """Kept-alive upstream connections per replica."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds allowed per phase."""

    head_s: float = 10.0
    """From the first byte of a request to the end of its headers."""
    body_s: float = 60.0
    """From the end of the headers to the end of the body."""
    idle_s: float = 75.0
    """A kept-alive client connection without a request."""
    connect_s: float = 5.0
    """Opening a connection to a replica. Retried on another replica."""
    first_byte_s: float = 300.0
    """From the request sent to the first byte of the answer: queueing and prefill of a long
    prompt both lie in here. A non-streamed answer is generated whole before its first byte."""
    replica_down_s: float = 10.0
    """From when a replica counts as down (`health.failures`) until requests that it has not begun
    to answer are tried on another. They wait on while no other of its pool is ready."""
    between_bytes_s: float = 120.0
    """Silence inside an answer."""
    total_s: float = 3600.0
    """The whole request, retries included."""
    write_s: float = 120.0
    """A client that takes no byte for this long while an answer waits for it is cut off."""
    upstream_idle_s: float = 4.0
    """A kept-alive upstream connection; below llama.cpp's 5 s and uvicorn's (vLLM) 5 s."""


@dataclass(frozen=True, slots=True)
class Listener:
    """An address to listen on."""

    host: str = "127.0.0.1"
    """Address; `0.0.0.0` are all of the machine's of IPv4, `::` all of either family."""
    port: int = 8080
    """Port; 0 takes a free one."""
    unix: str | None = None
    """Path of a Unix socket to listen on, in place of `host` and `port`. Owner and group of the
    file may connect."""
    tls: ServerTls | None = None
    """With it clients connect by `https`, and only so."""
    cors_origins: tuple[str, ...] = ()
    """Web origins whose pages may use the API, like `https://app.example`; `*` for all. None by
    default: browsers then keep answers from pages of other origins. What a browser asks before a
    request (a preflight) needs no API key."""


@dataclass(frozen=True, slots=True)
class UpstreamAccess:
    """How to reach the engines of one pool: dialect name and the key they ask for, if any.

    `api_key` goes out as `Authorization: Bearer …` and is never logged or shown. `tls` is for those
    at `https` addresses; without it what the system trusts is trusted. `gpu_metrics` says where
    their GPUs are looked at, if anywhere.
    """

    engine: str = "openai"
    api_key: str | None = field(default=None, repr=False)
    tls: ClientTls | None = None
    gpu_metrics: GpuMetricsSettings | None = None


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """What the data plane and its lifecycle need to know."""

    listen: Listener = field(default_factory=Listener)
    limits: Limits = field(default_factory=Limits)
    timeouts: Timeouts = field(default_factory=Timeouts)
    drain_s: float = 30.0
    """After SIGTERM, requests get this long to be read, answered and sent as a whole."""
    grace_s: float = 2.0
    """After SIGTERM, `/ready` says 503 but connections are still taken for this long, so that
    load balancers notice first."""
    upstreams: dict[str, UpstreamAccess] = field(default_factory=dict[str, UpstreamAccess])
    """By pool name."""
    tiers: tuple[str, ...] = (DEFAULT_TIER,)
    """Names that `x-headrace-tier` may say."""
