"""Where KEDA asks; apart from the server, so that it can be read without gRPC."""

from __future__ import annotations

from dataclasses import dataclass

from headrace.edges.http.tls import ServerTls


@dataclass(frozen=True, slots=True, kw_only=True)
class KedaSettings:
    """Where KEDA asks, and how much it may ask."""

    host: str = "127.0.0.1"
    """Address to listen on. One that other machines reach needs `tls`, or `--insecure`."""
    port: int = 9092
    """Port to listen on; 0 takes a free one."""
    tls: ServerTls | None = None
    """With it only TLS is spoken; with its `client_ca_file` KEDA must show a certificate, too."""
    max_streams: int = 256
    """ScaledObjects that may wait for a push at a time; what comes above is refused."""
    max_calls: int = 1024
    """Calls that are answered at a time, those that wait for a push among them."""
    max_message_bytes: int = 64 * 1024
    """The largest message that is read. A real one has a few hundred bytes."""
