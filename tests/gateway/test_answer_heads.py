"""Heads of answers that no engine should send."""

import pytest

from headrace.edges.http.client import UpstreamPool
from headrace.edges.http.upstream_connection import MAX_ANSWER_HEAD_BYTES
from tests.gateway.conftest import run_gateway
from tests.property.test_upstream_chunks import Sink, begin

SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\n"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"


@pytest.mark.parametrize("fields", [b"connection: upgrade\r\nupgrade: h2c\r\n", b""])
async def test_an_engine_that_switches_protocols_is_named_as_such(fields, caplog):
    async def script(received, peer):
        await peer.send(SWITCHING + fields + b"\r\nPRI * HTTP/2.0")
        await peer.reader.read()

    async with run_gateway(script) as rig:
        answer = await rig.chat()
        assert answer.status_code == 502
        assert "101 Switching Protocols" in answer.json()["error"]["message"]
    assert not [record for record in caplog.records if record.exc_info]


def test_what_comes_behind_a_whole_answer_does_not_spoil_it():
    sink = Sink()
    begin(sink, UpstreamPool(max_idle=5, idle_s=1e12)).data_received(
        OK + SWITCHING + b"connection: upgrade\r\nupgrade: h2c\r\n\r\n"
    )
    assert (sink.status, sink.body, sink.ends) == (200, b"{}", ["complete True"])


@pytest.mark.parametrize("cut", [0, 10_000])
def test_a_head_over_the_limit_is_refused_however_it_comes(cut):
    value = b"a" * 10_000
    fields = b"".join(b"x-%d: %b\r\n" % (n, value) for n in range(30))
    assert len(fields) > MAX_ANSWER_HEAD_BYTES
    answer = OK.replace(b"\r\n\r\n", b"\r\n%b\r\n" % fields)
    sink = Sink()
    connection = begin(sink, UpstreamPool(max_idle=5, idle_s=1e12))
    for piece in (answer[:cut], answer[cut:]):
        if piece:
            connection.data_received(piece)
    assert sink.ends == [f"the answer's head is over {MAX_ANSWER_HEAD_BYTES} bytes"]


def test_spaces_behind_a_value_are_none_of_it():
    sink = Sink()
    begin(sink, UpstreamPool(max_idle=5, idle_s=1e12)).data_received(
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream \t\r\ncontent-length: 2 \r\n\r\n{}"
    )
    assert (b"content-type", b"text/event-stream") in sink.headers
    assert (sink.body, sink.ends) == (b"{}", ["complete True"])


def test_a_long_body_is_no_head():
    sink = Sink()
    body = b"a" * (MAX_ANSWER_HEAD_BYTES + 1)
    begin(sink, UpstreamPool(max_idle=5, idle_s=1e12)).data_received(
        b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
    )
    assert sink.ends == ["complete True"]


@pytest.mark.parametrize("coding", ["gzip", "gzip, chunked"])
async def test_a_transfer_coding_that_nobody_asked_for_is_a_broken_answer(coding):
    async def script(_received, peer):
        head = f"HTTP/1.1 200 OK\r\ntransfer-encoding: {coding}\r\n\r\n".encode()
        await peer.send(head + b"2\r\n{}\r\n0\r\n\r\n")

    async with run_gateway(script) as rig:
        answer = await rig.chat()
        assert answer.status_code == 502
        assert "transfer coding 'gzip" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "codings", [("chunked", "gzip"), ("gzip", "chunked"), ("chunked", "chunked")]
)
async def test_several_transfer_codings_are_one_list(codings):
    fields = "".join(f"transfer-encoding: {coding}\r\n" for coding in codings)

    async def script(_received, peer):
        await peer.send(f"HTTP/1.1 200 OK\r\n{fields}\r\n2\r\n{{}}\r\n0\r\n\r\n".encode())
        await peer.reader.read()

    async with run_gateway(script) as rig:
        answer = await rig.chat()
        assert answer.status_code == 502
        assert f"transfer coding '{', '.join(codings)}'" in answer.json()["error"]["message"]
        assert rig.plane.pool.count() == {"upstream_busy": 0, "upstream_idle": 0}


async def test_a_status_below_all_is_no_interim_answer():
    async def script(_received, peer):
        await peer.send(b"HTTP/1.1 099 X\r\ncontent-length: 0\r\n\r\n")

    async with run_gateway(script) as rig:
        answer = await rig.chat()
        assert answer.status_code == 502
        assert "the status 99" in answer.json()["error"]["message"]


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
def test_a_body_that_there_cannot_be_does_not_spoil_the_answer(status):
    answer = b"HTTP/1.1 %b\r\ncontent-length: 4\r\n\r\n" % status
    sink, pool = Sink(), UpstreamPool(max_idle=5, idle_s=1e12)
    begin(sink, pool).data_received(answer + b"null")
    assert sink.ends == ["complete True"]
    assert pool.count()["upstream_idle"] == 0


@pytest.mark.parametrize(
    ("fields", "kept"),
    [(b"", 1), (b"content-length: 0\r\n", 1), (b"content-length: 4\r\n", 0),
     (b"transfer-encoding: chunked\r\n", 0)],
)  # fmt: skip
def test_who_tells_of_a_body_that_there_cannot_be_is_not_asked_again(fields, kept):
    sink, pool = Sink(), UpstreamPool(max_idle=5, idle_s=1e12)
    begin(sink, pool).data_received(b"HTTP/1.1 204 No Content\r\n%b\r\n" % fields)
    assert sink.ends == ["complete True"]
    assert pool.count()["upstream_idle"] == kept


async def test_an_answer_that_is_not_modified_tells_no_length():
    async def script(_received, peer):
        await peer.send(b'HTTP/1.1 304 Not Modified\r\netag: "a"\r\n\r\n')

    async with run_gateway(script) as rig:
        answer = await rig.client.get("/v1/files/x")
        assert (answer.status_code, answer.headers["etag"]) == (304, '"a"')
        assert "content-length" not in answer.headers


async def test_what_an_engine_says_of_its_own_host_goes_no_further():
    async def script(_received, peer):
        fields = (
            'set-cookie: sticky=1\r\nalt-svc: h3=":443"\r\n'
            "strict-transport-security: max-age=31536000\r\nx-kept: yes\r\n"
        )
        await peer.json({"ok": True}, headers=fields)

    async with run_gateway(script) as rig:
        headers = (await rig.chat()).headers
        assert headers["x-kept"] == "yes"
        assert not {"set-cookie", "alt-svc", "strict-transport-security"} & set(headers)
