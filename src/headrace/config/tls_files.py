"""Whether the certificates that a configuration names can be used."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from headrace.config.schema import Config
from headrace.edges.http.certificate_dates import dates_of
from headrace.edges.http.tls import (
    ClientTls,
    ServerCertificate,
    ServerTls,
    TlsError,
    UpstreamTls,
    within,
)


def check_certificates(config: Config, folder: Path) -> Iterator[tuple[str, str]]:
    """Path and message of every certificate, key or CA that cannot be used."""
    yield from _listener("listen", config.listen.tls, folder)
    yield from _listener("control", config.control.tls, folder)
    if config.scaling is not None and config.scaling.keda is not None:
        yield from _listener("scaling.keda", config.scaling.keda.tls, folder)
    for path, tls in _clients(config).items():
        if tls is not None:
            try:
                ClientTls(within(folder, tls))
            except TlsError as error:
                yield f"{path}.tls.{error.field}", str(error)


def certificate_warnings(config: Config, folder: Path) -> Iterator[str]:
    """Certificates that can be used and do not hold today: who looks at dates refuses them."""
    shown = {"listen": config.listen.tls, "control": config.control.tls, **_clients(config)}
    if config.scaling is not None and config.scaling.keda is not None:
        shown["scaling.keda"] = config.scaling.keda.tls
    now_s = time.time()
    for path, tls in shown.items():
        file = None if tls is None else tls.cert_file
        dates = None if file is None else dates_of(str(folder / file))
        fault = "" if dates is None else dates.fault(now_s)
        if fault:
            yield f"{path}.tls.cert_file: the certificate in {file!r} {fault}"


def _clients(config: Config) -> dict[str, UpstreamTls | None]:
    """How others are reached by TLS, by the path of the section that says so."""
    found = {f"pools[{index}]": pool.tls for index, pool in enumerate(config.pools)}
    if config.scaling is not None:
        found["scaling.gathering"] = config.scaling.gathering.tls
    return found


def _listener(section: str, tls: ServerTls | None, folder: Path) -> Iterator[tuple[str, str]]:
    if tls is not None:
        try:
            ServerCertificate(within(folder, tls))
        except TlsError as error:
            yield f"{section}.tls.{error.field}", str(error)
