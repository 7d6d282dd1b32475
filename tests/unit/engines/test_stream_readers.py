"""Streams that no captured engine sent, but that some engine may."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.core.model import Endpoint, Usage
from headrace.engines.registry import dialect
from headrace.engines.usage import ContentKind, StreamReader


def chat(*, injected: bool = False) -> StreamReader:
    return dialect("vllm").stream_reader(Endpoint.CHAT, injected=injected)


def event(payload: dict, **style) -> bytes:
    return (
        b"data: " + json.dumps(payload, **(style or {"separators": (",", ":")})).encode() + b"\n\n"
    )


def delta(finish: str | None = None, **members) -> dict:
    return {"choices": [{"index": 0, "delta": members, "finish_reason": finish}]}


NASTY = st.sampled_from(
    [
        "usage",
        '"usage":{"prompt_tokens":1}',
        '"choices":[]',
        "[DONE]",
        'x","usage":null',
        '"delta":{"content":"x"}',
        '\\"',
        "data: [DONE]\n\n",
        "\u2028",
        "",
    ]
)
TEXTS = NASTY | st.text(st.characters(codec="utf-8"), max_size=12)
DELTAS = st.fixed_dictionaries(
    {},
    optional={
        "role": st.just("assistant"),
        "content": st.none() | TEXTS,
        "reasoning_content": st.none() | TEXTS,
        "reasoning": st.none() | TEXTS,
        "tool_calls": st.just([]) | st.just([{"index": 0, "function": {"arguments": ""}}]),
    },
)
USAGES = st.none() | st.fixed_dictionaries(
    {"prompt_tokens": st.integers(0, 99), "completion_tokens": st.integers(0, 99)}
)
CHUNKS = st.fixed_dictionaries(
    {
        "id": TEXTS,
        "choices": st.lists(st.builds(lambda d: {"index": 0, "delta": d}, DELTAS), max_size=2),
    },
    optional={"usage": USAGES},
)
STYLES = st.sampled_from(
    [{"separators": (",", ":")}, {}, {"separators": (",", ":"), "ensure_ascii": False}]
)


@given(chunks=st.lists(CHUNKS, max_size=8), style=STYLES, injected=st.booleans())
def test_searching_bytes_comes_to_the_same_as_parsing(chunks, style, injected):
    """Whatever the model says, even if it speaks of usage in JSON."""
    reader = chat(injected=injected)
    for chunk in chunks:
        before = reader.content_chunks
        relayed = reader.feed(event(chunk, **style))
        has_content = any(
            value
            for choice in chunk["choices"]
            for k, value in choice["delta"].items()
            if k != "role"
        )
        assert reader.content_chunks == before + has_content
        if not injected:
            assert relayed == event(chunk, **style)
        elif chunk.get("usage") and not chunk["choices"]:
            assert relayed is None
        else:
            assert relayed is not None
            assert json.loads(relayed[6:]) == {k: v for k, v in chunk.items() if k != "usage"}
    told = [chunk["usage"] for chunk in chunks if chunk.get("usage")]
    assert (reader.usage is None) == (not told)
    assert not reader.done
    assert not reader.error


def test_reasoning_then_content_then_a_tool_call_all_count():
    reader = chat()
    deltas: list[dict] = [
        {"role": "assistant", "content": ""},
        {"reasoning": "hm"},
        {"reasoning": "well"},
        {"content": ""},
        {"content": "a"},
        {"content": "b"},
        {"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": ""}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]},
    ]
    for members in deltas:
        reader.feed(event({"choices": [{"index": 0, "delta": members}]}))
    assert reader.first_kind is ContentKind.REASONING
    assert reader.content_chunks == 6


def test_a_last_chunk_with_content_counts_and_one_without_does_not():
    reader = chat()
    reader.feed(event(delta(content="a")))
    reader.feed(event(delta(finish="length", content="b")))
    assert reader.content_chunks == 2
    reader.feed(event(delta(finish="stop", content="")))
    reader.feed(event(delta(finish="stop")))
    assert reader.content_chunks == 2


@pytest.mark.parametrize(
    "broken",
    [
        b'data: {"error":{"message":"out of memory","code":500}}\n\n',
        b'error: {"message":"out of memory"}\n\n',
    ],
)
def test_an_error_inside_the_stream_is_noticed_and_relayed(broken: bytes):
    reader = chat()
    assert reader.feed(broken) is broken
    assert reader.error
    assert not reader.done


def test_an_error_beside_content_is_noticed_in_an_event_like_the_one_before():
    reader = chat()
    reader.feed(event(delta(content="a")))
    reader.feed(event(delta(content="b") | {"error": None}))
    assert not reader.error
    broken = event(delta(content="c") | {"error": {"message": "out of memory"}})
    assert not reader.passes(broken, 0)
    reader.feed(broken)
    assert (reader.error, reader.content_chunks) == (True, 3)


@pytest.mark.parametrize(
    ("event_type", "kind"),
    [
        ("response.output_text.delta", ContentKind.TEXT),
        ("response.reasoning_summary_text.delta", ContentKind.REASONING),
        ("response.function_call_arguments.delta", ContentKind.TOOL_CALL),
        ("response.mcp_call_arguments.delta", ContentKind.TOOL_CALL),
    ],
)
def test_what_the_first_delta_of_a_response_holds(event_type: str, kind: ContentKind):
    reader = dialect("vllm").stream_reader(Endpoint.RESPONSES, injected=False)
    reader.feed(event({"type": event_type, "delta": "a"}))
    assert (reader.first_kind, reader.content_chunks) == (kind, 1)


def test_an_error_of_a_message_stream():
    reader = dialect("vllm").stream_reader(Endpoint.MESSAGES)
    reader.feed(b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error"}}\n\n')
    assert reader.error


def test_comments_keep_alive_and_other_line_ends():
    reader = chat(injected=True)
    for comment in (b": ping\n\n", b"\n\n", b": ping\r\n\r\n"):
        assert reader.feed(comment) is comment
    content = event(delta(content="a")).replace(b"\n", b"\r\n")
    assert reader.feed(content) is content
    usage = event({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 1}})
    assert reader.feed(usage.replace(b"\n", b"\r\n")) is None
    assert reader.usage == Usage(3, 1)
    reader.feed(b"data: [DONE]\r\n\r\n")
    assert reader.done


def test_an_empty_choice_list_without_usage_is_the_engines_own_affair():
    filters = event({"choices": [], "prompt_filter_results": [1]})
    assert chat(injected=True).feed(filters) is filters


def test_json_too_deep_to_be_honest_is_relayed_unread():
    deep = b'data: {"usage":' + b"[" * 100_000 + b"]" * 100_000 + b"}\n\n"
    assert chat(injected=True).feed(deep) is deep


@pytest.mark.parametrize("members", [{"prompt_tokens": None}, {"prompt_tokens_details": None}, {}])
def test_a_usage_with_holes_counts_what_is_there(members: dict):
    reader = chat()
    reader.feed(event({"choices": [], "usage": {"completion_tokens": 4, **members}}))
    assert reader.usage == Usage(0, 4)


def test_message_input_comes_from_the_end_if_the_start_told_none():
    reader = dialect("vllm").stream_reader(Endpoint.MESSAGES)
    reader.feed(event({"type": "message_start", "message": {"usage": {"input_tokens": 0}}}))
    reader.feed(event({"type": "message_delta", "usage": {"input_tokens": 30, "output_tokens": 6}}))
    assert reader.usage == Usage(30, 6)
