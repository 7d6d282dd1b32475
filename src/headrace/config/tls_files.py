"""Whether the certificates that a configuration names can be used."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from headrace.config.schema import Config
from headrace.edges.http.tls import ClientTls, ServerCertificate, ServerTls, TlsError, within


def check_certificates(config: Config, folder: Path) -> Iterator[tuple[str, str]]:
    """Path and message of every certificate, key or CA that cannot be used."""
    yield from _listener("listen", config.listen.tls, folder)
    yield from _listener("control", config.control.tls, folder)
    if config.scaling is not None and config.scaling.keda is not None:
        yield from _listener("scaling.keda", config.scaling.keda.tls, folder)
    clients = {f"pools[{index}]": pool.tls for index, pool in enumerate(config.pools)}
    if config.scaling is not None:
        clients["scaling.gathering"] = config.scaling.gathering.tls
    for path, tls in clients.items():
        if tls is not None:
            try:
                ClientTls(within(folder, tls))
            except TlsError as error:
                yield f"{path}.tls.{error.field}", str(error)


def _listener(section: str, tls: ServerTls | None, folder: Path) -> Iterator[tuple[str, str]]:
    if tls is not None:
        try:
            ServerCertificate(within(folder, tls))
        except TlsError as error:
            yield f"{section}.tls.{error.field}", str(error)
