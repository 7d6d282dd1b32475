"""What the gateway keeps of a head."""

import gc

from headrace.edges.http.ports import RequestHead
from headrace.gateway.notes import notes_of


def test_a_head_and_its_notes_are_gone_with_their_request():
    path = b"/v1/chat/completions"
    gc.collect()
    head = RequestHead(b"POST", path, path, [(b"x", b"1")], keep_alive=True, http_1_0=False)
    assert notes_of(head, None).forwarded == b"POST /v1/chat/completions HTTP/1.1\r\nx: 1\r\n"
    del head
    assert gc.collect() == 0, "a cycle was left behind"
