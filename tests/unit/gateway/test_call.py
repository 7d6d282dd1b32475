"""What the core is told of a request that was read."""

import json

import pytest

from headrace.edges.http.ports import HttpRequest, RequestHead
from headrace.gateway.call import Origin, read_call, read_large_call
from headrace.gateway.notes import RequestNotes

CHAT = {"messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]}


def posted(path: str, body: dict[str, object]) -> HttpRequest:
    target = path.encode()
    head = RequestHead(b"POST", target, target, [], keep_alive=True, http_1_0=False)
    head.notes = RequestNotes(head, None)
    data = json.dumps({"model": "m", **body}).encode()
    return HttpRequest(head, [data], len(data), 0.0)


@pytest.mark.parametrize(
    ("path", "body", "sequences"),
    [
        ("/v1/chat/completions", CHAT, 1),
        ("/v1/chat/completions", {**CHAT, "n": 3}, 3),
        ("/v1/completions", {"prompt": ["a", "b"], "n": 3}, 6),
        ("/v1/completions", {"prompt": [7, 8, 9]}, 1),
        ("/v1/completions", {"prompt": []}, 1),
        ("/v1/messages", {**CHAT, "n": 3}, 1),
        ("/v1/responses", {"input": "hi", "n": 3}, 1),
    ],
)
def test_how_many_answers_run_side_by_side(path, body, sequences):
    assert read_call(posted(path, body), Origin("id")).request.sequences == sequences


@pytest.mark.parametrize(
    ("written", "value"),
    [
        *((text, 3) for text in ("3", " 3\n", "+3", "03", "3.0", 3.0)),
        ("1_000", 1000),
        *(
            (text, None)
            for text in ("", "3.5", 3.5, "3e0", "0x3", "_3", "3_", "1__0", "\u0663", "true")
        ),
        *((text, None) for text in (None, [3], {"n": 3}, "9" * 5000, 1e300)),
    ],
    ids=repr,
)
def test_numbers_that_clients_send_as_text_count_as_engines_read_them(written, value):
    """By pydantic, which vLLM, SGLang and TensorRT-LLM read bodies with."""
    body = {**CHAT, "n": written, "max_completion_tokens": written}
    request = read_call(posted("/v1/chat/completions", body), Origin("id")).request
    assert request.sequences == (value or 1)
    if written != 1e300:
        assert request.max_output_tokens == value


async def test_those_of_a_large_body_are_known_too():
    for path, sequences in (("/v1/chat/completions", 3), ("/v1/messages", 1)):
        call = await read_large_call(posted(path, {**CHAT, "n": 3}), Origin("id"))
        assert call.request.sequences == sequences
