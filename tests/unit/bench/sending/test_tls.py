"""Endpoints behind TLS: trusted as the system trusts, else one clear word before the run."""

import asyncio
import gc
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trustme

from headrace.bench.endpoint.target import reach
from headrace.bench.sending.sender import Sender
from headrace.bench.settings import BenchError, BenchSettings
from headrace.edges.http.tls import system_tls
from tests.certificates import write_certificate
from tests.scripted import ScriptedEngine, stream_words
from tests.unit.bench.runs import load_of


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    write_certificate(trustme.CA(), tmp_path, "localhost")
    system_tls.cache_clear()  # it is read once per process: not by a test before this one
    yield tmp_path
    system_tls.cache_clear()


def served(folder: Path) -> ScriptedEngine:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return ScriptedEngine(lambda _, peer: stream_words(peer, 3), tls=context)


async def test_a_certificate_that_the_system_trusts(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(folder / "ca.pem"))
    async with served(folder) as engine:
        url = f"https://localhost:{engine.port}"
        target = await asyncio.to_thread(reach, BenchSettings(url, model="m"))
        sender = Sender(target, load_of(3), worker=0, workers=1)
        async with asyncio.timeout(30):
            await sender.run(0.0)
    assert [record.error for record in sender.records] == [""] * 3


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # as below
@pytest.mark.parametrize(
    ("names", "years", "said"),
    [
        (("localhost",), (2020, 2021), "has expired; it must be renewed there"),
        (("localhost",), (2090, 2091), "not yet valid; it must be renewed there, if .* clock"),
        (("elsewhere",), (2020, 2091), "not valid for 'localhost'.*; write a host that it is for"),
    ],
)
async def test_the_remedy_is_for_what_is_wrong_with_a_certificate_of_a_trusted_ca(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    names: tuple[str, ...],
    years: tuple[int, int],
    said: str,
):
    begins, ends = (datetime(year, 1, 1, tzinfo=UTC) for year in years)
    write_certificate(trustme.CA(), folder, *names, begins=begins, ends=ends)
    monkeypatch.setenv("SSL_CERT_FILE", str(folder / "ca.pem"))
    async with served(folder) as engine:
        with pytest.raises(BenchError, match=said):
            await asyncio.to_thread(reach, BenchSettings(f"https://localhost:{engine.port}"))
    gc.collect()


# asyncio's server (3.11) leaves the socket of a failed handshake to the collector.
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
async def test_one_that_it_does_not_ends_the_run_before_it_begins(folder: Path):
    async with served(folder) as engine:
        url = f"https://localhost:{engine.port}"
        for model in ("m", ""):
            with pytest.raises(
                BenchError, match=r"not accepted: .*; name .* in the variable SSL_C"
            ):
                await asyncio.to_thread(reach, BenchSettings(url, model=model))
    gc.collect()
