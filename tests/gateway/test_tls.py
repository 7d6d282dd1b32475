"""TLS on both sides of a running gateway, with certificates made for each test."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
import trustme

from tests.certificates import write_certificate
from tests.gateway.serve_process import HANG_S, Serve, pool, serving
from tests.scripted import ScriptedEngine, stream_words
from tests.waiting import until

CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": True}
TLS = "tls: {cert_file: cert.pem, key_file: key.pem}"
LISTEN = f"listen: {{port: 0, {TLS}}}\ncontrol: {{port: 0, {TLS}}}\n"
RENEWED = 'headrace_certificate_reloads_total{result="%s"}'


async def three_words(_received, peer):
    await stream_words(peer, 3)


def trusting(ca: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    ca.configure_trust(context)
    return context


def engine_context(ca: trustme.CA, *names: str) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ca.issue_cert(*names or ("127.0.0.1",)).configure_cert(context)
    return context


def engine(ca: trustme.CA, *names: str) -> ScriptedEngine:
    context = engine_context(ca, *names)
    return ScriptedEngine(three_words, models=({"id": "m"},), tls=context)


@asynccontextmanager
async def behind_tls(
    folder: Path, ca: trustme.CA, more: str = "", *, listen: str = LISTEN
) -> AsyncIterator[Serve]:
    """A gateway that shows the certificate in the folder, before an engine without one."""
    async with ScriptedEngine(three_words, models=({"id": "m"},)) as upstream:
        text = f"pools:\n{pool(upstream)}{more}"
        async with serving(folder, text, listen=listen, tls=trusting(ca)) as serve:
            yield serve


async def ask(serve: Serve) -> int:
    return (await serve.client.post("/v1/chat/completions", json=CHAT)).status_code


async def presented(serve: Serve, ca: trustme.CA) -> bytes:
    """The certificate that a new handshake is answered with."""
    url = serve.client.base_url
    _, writer = await asyncio.open_connection(url.host, url.port, ssl=trusting(ca))
    try:
        return writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    finally:
        writer.close()
        await writer.wait_closed()


# ---------------------------------------------------------------- listeners


async def test_both_listeners_speak_https_and_nothing_else(tmp_path, ca):
    async with behind_tls(tmp_path, ca) as serve:
        assert serve.client.base_url.scheme == serve.control_client.base_url.scheme == "https"
        assert await ask(serve) == 200
        assert (await serve.control_client.get("/ready")).status_code == 200
        for client in (serve.client, serve.control_client):
            with pytest.raises(httpx.TransportError):
                await client.get(str(client.base_url.copy_with(scheme="http")) + "/ready")
            async with httpx.AsyncClient(trust_env=False) as stranger:
                with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
                    await stranger.get(client.base_url)


async def test_a_large_body_and_a_long_stream_pass_through_tls(tmp_path, ca):
    async def script(received, peer):
        await peer.json({"length": len(received.body), "more": "x" * 3_000_000})

    async with (
        ScriptedEngine(script, models=({"id": "m"},), tls=engine_context(ca)) as upstream,
        serving(
            tmp_path,
            f"pools:\n{pool(upstream, more=', tls: {ca_file: ca.pem}')}",
            listen=LISTEN,
            tls=trusting(ca),
        ) as serve,
    ):
        body = {"model": "m", "messages": [{"role": "user", "content": "y" * 3_000_000}]}
        answer = (await serve.client.post("/v1/chat/completions", json=body)).json()
        assert answer["length"] > 3_000_000
        assert len(answer["more"]) == 3_000_000


@pytest.mark.parametrize("how", ["signal", "files"])
async def test_a_new_certificate_cuts_no_stream(tmp_path, ca, how):
    looks = "certificate_interval: 50ms\n" if how == "files" else "certificate_interval: 1h\n"
    renewed = asyncio.Event()

    async def script(_received, peer):
        await stream_words(peer, 40, may_end=renewed)

    async with (
        ScriptedEngine(script, models=({"id": "m"},)) as upstream,
        serving(
            tmp_path, f"pools:\n{pool(upstream)}{looks}", listen=LISTEN, tls=trusting(ca)
        ) as serve,
    ):
        before = await presented(serve, ca)
        async with serve.client.stream("POST", "/v1/chat/completions", json=CHAT) as answer:
            pieces = answer.aiter_raw()
            got = await anext(pieces)
            write_certificate(ca, tmp_path, "127.0.0.1")
            if how == "signal":
                await serve.reload()
            async with asyncio.timeout(HANG_S):
                while (after := await presented(serve, ca)) == before:
                    await asyncio.sleep(0.02)
            renewed.set()
            async for piece in pieces:
                got += piece
        assert got.endswith(b"data: [DONE]\n\n")
        assert after == ssl.PEM_cert_to_DER_cert((tmp_path / "cert.pem").read_text())


async def test_half_written_certificates_are_told_and_the_old_ones_stay(tmp_path, ca):
    text = "certificate_interval: 50ms\n"
    async with behind_tls(tmp_path, ca, text) as serve:
        before = await presented(serve, ca)
        ca.issue_cert("127.0.0.1").private_key_pem.write_to_path(tmp_path / "key.pem")
        line = await serve.hears("listen.tls")
        assert "the key of another certificate" in line
        assert "the old ones stay in use" in line
        assert await presented(serve, ca) == before
        assert await serve.metric(RENEWED % "refused") > 0
        assert "the key of another certificate" in await serve.reload()
        write_certificate(ca, tmp_path, "127.0.0.1")
        await serve.hears("listen.tls: certificates were renewed")
        assert await presented(serve, ca) != before


async def test_a_shorter_interval_holds_at_once(tmp_path, ca):
    async with ScriptedEngine(three_words, models=({"id": "m"},)) as upstream:
        text = f"pools:\n{pool(upstream)}certificate_interval: "
        async with serving(tmp_path, f"{text}1h\n", listen=LISTEN, tls=trusting(ca)) as serve:
            await serve.reload(f"{text}50ms\n", listen=LISTEN)
            write_certificate(ca, tmp_path, "127.0.0.1")
            await serve.hears("listen.tls: certificates were renewed")


async def test_clients_must_show_a_certificate_as_soon_as_the_file_says_so(tmp_path, ca):
    async with ScriptedEngine(three_words, models=({"id": "m"},)) as upstream:
        text = f"pools:\n{pool(upstream)}"
        async with serving(tmp_path, text, listen=LISTEN, tls=trusting(ca)) as serve:
            url = f"{serve.client.base_url}/ready"
            clients = trustme.CA()
            clients.cert_pem.write_to_path(tmp_path / "clients.pem")
            asked = LISTEN.replace("key.pem", "key.pem, client_ca_file: clients.pem", 1)
            assert "restart" not in await serve.reload(text, listen=asked)
            statuses = [await status(url, trusting(ca), clients), await status(url, trusting(ca))]
            assert statuses == [200, None]
            assert await status(url, trusting(ca), trustme.CA()) is None
            await serve.reload(text, listen=LISTEN)
            assert await status(url, trusting(ca)) == 200


@asynccontextmanager
async def resuming(
    tmp_path: Path, ca: trustme.CA, clients: trustme.CA
) -> AsyncIterator[tuple[Serve, int, ssl.SSLContext]]:
    """A gateway that lets in those of one CA, its port, and one of them who speaks TLS 1.2."""
    clients.cert_pem.write_to_path(tmp_path / "clients.pem")
    listen = LISTEN.replace("key.pem", "key.pem, client_ca_file: clients.pem", 1)
    context = trusting(ca)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    clients.issue_cert("client.test").configure_cert(context)
    async with ScriptedEngine(three_words, models=({"id": "m"},)) as upstream:
        text = f"pools:\n{pool(upstream)}certificate_interval: 50ms\n"
        async with serving(tmp_path, text, listen=listen, tls=context) as serve:
            yield serve, serve.client.base_url.port or 0, context


async def test_a_session_does_not_outlive_the_cas_that_let_its_client_in(tmp_path, ca):
    """TLS 1.2 resumes sessions without a look at the client's certificate."""
    clients = trustme.CA()
    async with resuming(tmp_path, ca, clients) as (serve, port, context):
        session = await resumed(port, context, None)
        assert session is not None
        assert await resumed(port, context, session) is not None
        trustme.CA().cert_pem.write_to_path(tmp_path / "clients.pem")
        await serve.hears("listen.tls: certificates were renewed")
        assert await resumed(port, context, session) is None
        clients.cert_pem.write_to_path(tmp_path / "clients.pem")
        await serve.hears("listen.tls: certificates were renewed")
        assert await resumed(port, context, None) is not None


async def test_a_session_outlives_a_certificate_of_ours(tmp_path, ca):
    """Certificates are renewed every few weeks or every day; a client would fail each time."""
    clients = trustme.CA()
    async with resuming(tmp_path, ca, clients) as (serve, port, context):
        session = await resumed(port, context, None)
        # As a mounted secret does: all its files are new ones, and the CAs are the same.
        write_certificate(ca, tmp_path, "127.0.0.1")
        (tmp_path / "clients.pem").unlink()
        clients.cert_pem.write_to_path(tmp_path / "clients.pem")
        await serve.hears("listen.tls: certificates were renewed")
        assert await resumed(port, context, session) is not None


async def resumed(
    port: int, context: ssl.SSLContext, session: ssl.SSLSession | None
) -> ssl.SSLSession | None:
    """The session of a new connection that goes on with this one, None if it is not let in."""

    def connect() -> ssl.SSLSession | None:
        with socket.create_connection(("127.0.0.1", port), timeout=HANG_S) as plain:
            try:
                with context.wrap_socket(
                    plain, server_hostname="127.0.0.1", session=session
                ) as secured:
                    # A connection that is not closed in order takes its session with it.
                    ask = b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
                    secured.sendall(ask)
                    answer = b"".join(iter(lambda: secured.recv(4096), b""))
                    assert answer.startswith(b"HTTP/1.1 200")
                    assert secured.session_reused == (session is not None)
                    return secured.session
            except ssl.SSLError:
                return None

    return await asyncio.to_thread(connect)


async def status(url: str, context: ssl.SSLContext, signer: trustme.CA | None = None) -> int | None:
    """The status of a GET on a new connection, None if it is not let in."""
    if signer is not None:
        signer.issue_cert("client.test").configure_cert(context)
    async with httpx.AsyncClient(verify=context, trust_env=False) as client:
        try:
            return (await client.get(url)).status_code
        except httpx.TransportError:
            return None


# ---------------------------------------------------------------- engines


async def test_engines_are_asked_by_https_for_everything(tmp_path, ca):
    async with engine(ca) as upstream:
        text = f"pools:\n{pool(upstream, more=', tls: {ca_file: ca.pem}')}"
        async with serving(tmp_path, text) as serve:
            assert await ask(serve) == 200
            await until(lambda: any(each.target == "/metrics" for each in upstream.received))


@pytest.mark.parametrize(
    ("names", "tls", "said"),
    [
        (("127.0.0.1",), "", "unable to get local issuer certificate"),
        (("engine.test",), ", tls: {ca_file: ca.pem}", "IP address mismatch"),
    ],
)
async def test_an_engine_that_is_not_trusted_gets_no_request(tmp_path, ca, names, tls, said):
    async with (
        ScriptedEngine(three_words, models=({"id": "n"},)) as other,
        engine(ca, *names) as upstream,
    ):
        text = f"pools:\n{pool(other, 'q', 'n')}{pool(upstream, more=tls)}"
        async with serving(tmp_path, text) as serve:
            line = await serve.hears("certificate is not accepted")
            assert line.startswith(f"replica p/127.0.0.1:{upstream.port} is down: ")
            assert said in line
            assert await ask(serve) == 503
            assert upstream.received == []


@pytest.mark.parametrize("tls", ["verify: false", "ca_file: ca.pem, server_name: engine.test"])
async def test_an_engine_with_another_name_can_be_accepted(tmp_path, ca, tls):
    async with engine(ca, "engine.test") as upstream:
        text = f"pools:\n{pool(upstream, more=f', tls: {{{tls}}}')}"
        async with serving(tmp_path, text) as serve:
            assert await ask(serve) == 200


async def test_engines_behind_a_dns_name_have_certificates_for_it(tmp_path, ca):
    async with engine(ca, "localhost") as upstream:
        text = (
            f"pools:\n  - {{name: p, model: m, dns: {{name: localhost, port: {upstream.port}}}, "
            "tls: {ca_file: ca.pem}}\n"
        )
        async with serving(tmp_path, text) as serve:
            assert await ask(serve) == 200


async def test_engines_that_ask_for_a_certificate_get_the_pools(tmp_path, ca):
    context = engine_context(ca)
    context.verify_mode = ssl.CERT_REQUIRED
    ca.configure_trust(context)
    async with ScriptedEngine(three_words, models=({"id": "m"},), tls=context) as upstream:
        shown = ", tls: {ca_file: ca.pem, cert_file: cert.pem, key_file: key.pem}"
        text = f"pools:\n{pool(upstream, more=shown)}"
        async with serving(tmp_path, text) as serve:
            assert await ask(serve) == 200
            await serve.reload(text.replace(", cert_file: cert.pem, key_file: key.pem", ""))
            assert "replica p/" in await serve.hears("TLS: ")


async def test_another_ca_for_engines_holds_for_new_connections(tmp_path: Path, ca):
    async with engine(ca) as upstream:
        more = ", tls: {ca_file: ca.pem}"
        text = f"pools:\n{pool(upstream, more=more)}certificate_interval: 50ms\n"
        async with serving(tmp_path, text) as serve:
            assert await ask(serve) == 200
            trustme.CA().cert_pem.write_to_path(tmp_path / "ca.pem")
            assert await serve.hears("pool p: tls: certificates were renewed")
            await serve.hears("not accepted")
            ca.cert_pem.write_to_path(tmp_path / "ca.pem")
            await serve.hears("pool p: tls: certificates were renewed")
            async with asyncio.timeout(HANG_S):
                while await ask(serve) != 200:
                    await asyncio.sleep(0.05)
