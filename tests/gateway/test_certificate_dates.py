"""Certificates that do not hold today do not take the place of those that do."""

from __future__ import annotations

import shutil
import ssl
from datetime import UTC, datetime, timedelta

import pytest
import trustme

from tests.certificates import write_certificate
from tests.gateway.serve_process import pool, serving
from tests.gateway.test_tls import (
    LISTEN,
    RENEWED,
    ask,
    behind_tls,
    engine_context,
    presented,
    three_words,
)
from tests.scripted import ScriptedEngine

REFUSED = 'headrace_config_reloads_total{result="refused"}'


def days(number: float) -> datetime:
    return datetime.now(UTC) + timedelta(days=number)


def write_expired(ca: trustme.CA, folder) -> None:
    write_certificate(ca, folder, "127.0.0.1", begins=days(-2), ends=days(-1))


@pytest.mark.parametrize("how", ["signal", "files"])
async def test_an_expired_certificate_leaves_the_one_in_use(tmp_path, ca, how):
    looks = "certificate_interval: 50ms\n" if how == "files" else "certificate_interval: 1h\n"
    async with behind_tls(tmp_path, ca, looks) as serve:
        before = await presented(serve, ca)
        write_expired(ca, tmp_path)
        if how == "signal":
            said = await serve.reload()
            assert "the configuration stays as it was" in said
            assert await serve.metric(REFUSED) == 1
        else:
            said = await serve.hears("listen.tls.cert_file")
            assert await serve.metric(RENEWED % "refused") > 0
        assert "listen.tls.cert_file: is " in said
        assert "whose certificate expired at " in said
        assert "the old ones stay in use" in said
        assert await presented(serve, ca) == before
        assert await ask(serve) == 200

        write_certificate(ca, tmp_path, "127.0.0.1")
        if how == "signal":
            assert "changed: certificates" in await serve.reload()
            assert "changed: nothing" in await serve.reload()
        else:
            await serve.hears("listen.tls: certificates were renewed")
        assert await presented(serve, ca) != before


async def test_a_certificate_of_later_is_taken_up_when_it_holds(tmp_path, ca):
    text = "certificate_interval: 50ms\n"
    async with behind_tls(tmp_path, ca, text) as serve:
        before = await presented(serve, ca)
        soon = datetime.now(UTC) + timedelta(seconds=3)  # dates are of whole seconds
        write_certificate(ca, tmp_path, "127.0.0.1", begins=soon, ends=days(1))
        assert "whose certificate holds only from " in await serve.hears("listen.tls.cert_file")
        assert await presented(serve, ca) == before
        await serve.hears("listen.tls: certificates were renewed")
        assert await presented(serve, ca) != before


async def test_a_bad_certificate_of_one_listener_leaves_the_other(tmp_path, ca):
    for name in ("cert.pem", "key.pem"):
        shutil.copy(tmp_path / name, tmp_path / f"control-{name}")
    own = "tls: {cert_file: control-cert.pem, key_file: control-key.pem}"
    listen = LISTEN.replace("control: {port: 0, tls: {cert_file: cert.pem, key_file: key.pem}}", "")
    listen = f"{listen}control: {{port: 0, {own}}}\n"
    assert listen != LISTEN
    async with behind_tls(tmp_path, ca, listen=listen) as serve:
        before = await presented(serve, ca)
        write_expired(ca, tmp_path)
        for name in ("cert.pem", "key.pem"):
            shutil.copy(tmp_path / name, tmp_path / f"control-{name}")
        write_certificate(ca, tmp_path, "127.0.0.1")
        assert "control.tls.cert_file: is " in await serve.reload()
        assert await presented(serve, ca) == before


async def test_engines_are_shown_the_certificate_that_holds(tmp_path, ca):
    context = engine_context(ca)
    context.verify_mode = ssl.CERT_REQUIRED
    ca.configure_trust(context)
    async with ScriptedEngine(three_words, models=({"id": "m"},), tls=context) as upstream:
        shown = ", tls: {ca_file: ca.pem, cert_file: cert.pem, key_file: key.pem}"
        async with serving(tmp_path, f"pools:\n{pool(upstream, more=shown)}") as serve:
            write_expired(ca, tmp_path)
            assert "pool p: tls.cert_file: is " in await serve.reload()
            assert await ask(serve) == 200
