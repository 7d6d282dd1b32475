"""What the gateway keeps of a head."""

import gc

import pytest

from headrace.edges.http.ports import RequestHead
from headrace.gateway.notes import notes_of


def test_a_head_and_its_notes_are_gone_with_their_request():
    path = b"/v1/chat/completions"
    gc.collect()
    head = RequestHead(b"POST", path, path, [(b"x", b"1")], keep_alive=True, http_1_0=False)
    assert notes_of(head, None).forwarded == b"POST /v1/chat/completions HTTP/1.1\r\nx: 1\r\n"
    del head
    assert gc.collect() == 0, "a cycle was left behind"


@pytest.mark.parametrize(
    "name",
    [
        b"x-forwarded-proto",
        b"x-forwarded-for",
        b"x_forwarded_host",
        b"forwarded",
        b"x-original-url",
        b"x-http-method-override",
        b"x-envoy-upstream-rq-timeout-ms",
        b"openai-organization",
        b"openai-project",
        b"authorization",
        b"api-key",
        b"cookie",
    ],
)
def test_what_a_proxy_before_an_engine_would_act_on_stays_here(name):
    path = b"/v1/chat/completions"
    headers = [(name, b"1"), (b"openai-beta", b"x"), (b"traceparent", b"y"), (b"user-agent", b"z")]
    head = RequestHead(b"POST", path, path, headers, keep_alive=True, http_1_0=False)
    assert notes_of(head, None).passing == headers[1:]
