"""Gateways as sources of reports: another process by HTTP, or the one that hosts the scaler."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from headrace.autoscaler.ports import SourceError
from headrace.autoscaler.settings import GatheringSettings
from headrace.core.scaling.report import ScalingReport
from headrace.edges.http import fetch
from headrace.edges.http.tls import ClientTls

_PATH = "/api/v1/scaling"
_decoder = msgspec.json.Decoder(ScalingReport)


class HttpSource:
    """The control plane of a gateway, by its URL; `https` by `tls`, or as the system trusts.

    `host` is sent as the Host header instead of the URL's.
    """

    def __init__(
        self,
        url: str,
        settings: GatheringSettings,
        *,
        tls: ClientTls | None = None,
        host: bytes | None = None,
    ) -> None:
        self.name = url.rstrip("/")
        self._settings = settings
        self._tls = tls
        self._headers = [] if host is None else [(b"host", host)]

    async def read(self) -> ScalingReport:
        """What it tells now. Raises SourceError."""
        try:
            answer = await fetch.get(
                self.name + _PATH,
                timeout_s=self._settings.timeout_s,
                max_bytes=self._settings.max_answer_bytes,
                headers=self._headers,
                tls=self._tls,
            )
        except fetch.FetchError as error:
            raise SourceError(f"{self.name}: {error}") from None
        if answer.status != 200:
            raise SourceError(f"{self.name} answers {answer.status} to {_PATH}")
        try:
            return _decoder.decode(answer.body)
        except msgspec.DecodeError as error:
            raise SourceError(f"{self.name} answers {_PATH} with no report: {error}") from None


class OwnSource:
    """The gateway of this process."""

    name = "this gateway"

    def __init__(self, report: Callable[[], ScalingReport]) -> None:
        self._report = report

    async def read(self) -> ScalingReport:
        """What it tells now."""
        return self._report()
