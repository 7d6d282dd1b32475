"""A usual chat that is read in one pass is the same request that the general way makes of it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.edges.http.ports import HttpRequest, RequestHead
from headrace.gateway.call import BadRequest, Call, Origin, read_call
from headrace.gateway.notes import RequestNotes

texts = st.text(max_size=40) | st.integers(1, 3000).map(lambda n: "word " * n)
turns = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "user", "assistant"]), "content": texts},
    optional={"name": st.just("n")},
)
bodies = st.fixed_dictionaries(
    {"model": st.sampled_from(["m", "", "x" * 600]) | st.integers(), "messages": st.lists(turns)},
    optional={
        "stream": st.sampled_from([True, False, None, "true", 1]),
        "stream_options": st.sampled_from([None, {}, {"include_usage": True}, 3, "x"]),
        "max_tokens": st.sampled_from([5, -1, None, True, 1.5, "7"]),
        "max_completion_tokens": st.sampled_from([9, 0]),
        "temperature": st.floats(0, 1),
        "n": st.sampled_from([1, 3, None, 0, -2, True, 2.0, "2", 10**30]),
        "tools": st.just([{"type": "function"}]),
        "cache_salt": st.just("s"),
    },
)


def read(body: bytes, *, usual: bool) -> Call | str:
    headers = [(b"x-request-id", b"mine"), (b"content-type", b"application/json")]
    path = b"/v1/chat/completions"
    head = RequestHead(b"POST", path, path, headers, keep_alive=True, http_1_0=False)
    head.notes = RequestNotes(head, None)
    head.notes.is_call = usual
    try:
        return read_call(HttpRequest(head, [body], len(body), 0.0), Origin("id", "tenant"))
    except BadRequest as error:
        return error.message


@settings(max_examples=300)
@given(bodies, st.booleans())
def test_both_ways_read_the_same(body, spaced):
    data = json.dumps(body, separators=None if spaced else (",", ":")).encode()
    quick, slow = read(data, usual=True), read(data, usual=False)
    if isinstance(slow, str) or isinstance(quick, str):
        assert quick == slow
        return
    assert quick.request == slow.request
    assert quick.prompts == slow.prompts
    n = body.get("n")
    choices = 1 if n is None else int(n)  # as pydantic reads what is written as a number
    assert quick.request.sequences == (choices if 0 < choices < 20_000 else 1)
    for model in (quick.request.model, "another"):
        for ask_usage in (False, True):
            assert quick.body_for(model, ask_usage=ask_usage) == slow.body_for(
                model, ask_usage=ask_usage
            )


def test_the_quick_way_is_taken_for_a_usual_chat():
    body = b'{"model":"m","messages":[{"role":"user","content":"hi"}],"temperature":0.5}'
    call = read(body, usual=True)
    assert isinstance(call, Call)
    assert call.uncut


@pytest.mark.parametrize("member", [b'"\xff":1', b'"stream_options":{"\xff":1}'])
def test_a_name_that_is_no_text_is_no_fault_of_ours(member):
    body = b'{"model":"m","messages":[],%b}' % member
    quick, slow = read(body, usual=True), read(body, usual=False)
    if isinstance(slow, str):
        assert quick == slow
    else:
        assert slow.body_for("m", ask_usage=True) == ([body], False)
        assert isinstance(quick, Call)
        assert quick.body_for("m", ask_usage=True) == ([body], False)
