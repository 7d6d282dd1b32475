"""Every rule of how usage is obtained, on the answer it was made for."""

from __future__ import annotations

from unittest.mock import Mock

import msgspec
import pytest

from headrace.core.model import Endpoint, Usage
from headrace.engines import answers
from headrace.engines.registry import dialect
from headrace.engines.usage import ContentKind, StreamReader
from tests.conformance.captures import load

TEXT, REASONING, TOOL_CALL = ContentKind.TEXT, ContentKind.REASONING, ContentKind.TOOL_CALL


def play(
    name: str, *, injected: bool = False, prompts: int = 1
) -> tuple[StreamReader, list[bytes]]:
    """Feed a captured stream to its reader, return both it and what it relayed."""
    capture = load(*name.split("/"))
    reader = dialect(capture.dialect).stream_reader(
        capture.endpoint, injected=injected, prompts=prompts
    )
    relayed = [reader.feed(event) for event in capture.events]
    return reader, [event for event in relayed if event is not None]


@pytest.mark.parametrize(
    ("name", "kind", "chunks", "usage"),
    [
        ("vllm/chat-stream", TEXT, 6, None),
        ("vllm/chat-stream-usage", TEXT, 6, Usage(32, 6)),
        ("vllm/chat-stream-continuous-usage", TEXT, 6, Usage(32, 6)),
        ("vllm/chat-n2-stream", TEXT, 6, Usage(32, 6)),
        ("vllm/completion-stream-usage", TEXT, 6, Usage(4, 6)),
        ("vllm/messages-stream", TEXT, 5, Usage(32, 6)),
        ("vllm/variant2-tools-stream", TOOL_CALL, 1, None),
        ("vllm/variant2-chat-prefix-second-cached", TEXT, 4, Usage(192, 4, cached_tokens=160)),
        ("llamacpp/chat-stream", TEXT, 6, None),
        ("llamacpp/chat-stream-usage", TEXT, 6, Usage(32, 6, cached_tokens=31)),
        ("llamacpp/chat-stream-continuous-usage", TEXT, 6, Usage(32, 6, cached_tokens=31)),
        ("llamacpp/chat-n2-stream", TEXT, 6, Usage(32, 6, cached_tokens=31)),
        ("llamacpp/completion-stream", TEXT, 3, Usage(4, 3)),
        ("llamacpp/completion-stream-usage", TEXT, 6, Usage(4, 6, cached_tokens=3)),
        ("llamacpp/messages-stream", TEXT, 6, Usage(32, 6, cached_tokens=31)),
        ("llamacpp/responses-stream", TEXT, 6, Usage(32, 6, cached_tokens=31)),
        ("sglang/chat-stream-usage", TEXT, 3, Usage(40, 4, cached_tokens=32)),
        ("sglang/chat-stream-reasoning-usage", REASONING, 3, Usage(12, 5)),
        ("sglang/completion-list-stream-usage", TEXT, 4, Usage(9, 4)),
        ("sglang/messages-stream", TEXT, 2, Usage(40, 3, cached_tokens=32)),
        ("sglang/responses-stream", TEXT, 2, Usage(40, 3, cached_tokens=32)),
        ("tgi/chat-stream-usage", TEXT, 3, Usage(18, 4)),
        ("trtllm/chat-stream-usage", TEXT, 3, Usage(40, 4, cached_tokens=32)),
        ("triton/chat-stream-usage", TEXT, 2, Usage(42, 3)),
        ("triton/completion-stream-usage", TEXT, 3, Usage(4, 3)),
        ("openai/chat-stream-usage", TEXT, 2, Usage(9, 3)),
        ("openai/responses-stream-stored", REASONING, 4, Usage(36, 87, cached_tokens=16)),
        ("openai/responses-stream-tool-incomplete", TOOL_CALL, 3, Usage(40, 9)),
        ("openai/responses-stream-failed", None, 0, None),
        ("openai/messages-stream-thinking-tool", REASONING, 4, Usage(454, 31, cached_tokens=400)),
    ],
)
def test_streamed_usage(name: str, kind: ContentKind | None, chunks: int, usage: Usage | None):
    reader, _ = play(name)
    assert (reader.first_kind, reader.content_chunks, reader.usage) == (kind, chunks, usage)


def test_several_prompts_add_their_input_where_several_choices_of_one_do_not():
    """Two prompts of 4 and 12 tokens, three tokens for each: 16 in, 6 out."""
    reader, _ = play("llamacpp/completion-list-stream", prompts=2)
    told = [
        msgspec.json.decode(event[6:])["usage"]["prompt_tokens"]
        for event in load("llamacpp", "completion-list-stream").events
        if b'"usage"' in event
    ]
    assert len(told) == 2
    assert reader.usage is not None
    assert reader.usage.input_tokens == sum(told)
    assert reader.usage.output_tokens == 6


@pytest.mark.parametrize(
    ("name", "usage"),
    [
        ("tgi/completion-list-stream", Usage(4 + 6, 2 + 3)),
        ("trtllm/completion-list-stream-usage", Usage(4 + 6, 2 + 2, cached_tokens=5)),
        ("trtllm/completion-list-stream-continuous-usage", Usage(4 + 6, 2 + 2)),
    ],
)
def test_a_usage_per_prompt_is_added_and_a_running_one_counts_no_more(name: str, usage: Usage):
    assert play(name, prompts=2)[0].usage == usage


def test_usage_that_comes_unasked_is_taken_out_for_a_client_that_did_not_want_it():
    whole = load("tgi", "completion-list-stream").events
    _, relayed = play("tgi/completion-list-stream", injected=True, prompts=2)
    assert len(relayed) == len(whole)
    assert not any(b'"usage"' in event for event in relayed)


@pytest.mark.parametrize("engine", ["vllm", "llamacpp"])
def test_a_usage_chunk_of_its_own_is_dropped_only_if_we_asked_for_it(engine: str):
    whole = load(engine, "chat-stream-usage").events
    reader, relayed = play(f"{engine}/chat-stream-usage", injected=True)
    assert relayed == [event for event in whole if b'"usage"' not in event]
    assert len(relayed) == len(whole) - 1
    assert reader.usage is not None
    assert play(f"{engine}/chat-stream-usage")[1] == whole


def test_both_usage_chunks_of_two_choices_are_dropped():
    reader, relayed = play("llamacpp/chat-n2-stream", injected=True)
    assert reader.usage == Usage(32, 6, cached_tokens=31)
    assert not any(b'"usage"' in event for event in relayed)
    assert len(relayed) == len(load("llamacpp", "chat-n2-stream").events) - 2


def test_usage_beside_content_is_cut_out_and_every_other_byte_stays():
    whole = load("llamacpp", "completion-stream-usage").events
    _, relayed = play("llamacpp/completion-stream-usage", injected=True)
    assert len(relayed) == len(whole)
    usage = (
        b'"usage":{"completion_tokens":6,"prompt_tokens":4,"total_tokens":10,'
        b'"prompt_tokens_details":{"cached_tokens":3}},'
    )
    assert whole[-2].count(usage) == 1
    assert relayed[-2] == whole[-2].replace(usage, b"")
    assert relayed[:-2] + relayed[-1:] == whole[:-2] + whole[-1:]


def test_a_null_usage_on_each_chunk_is_cut_out_too():
    _, relayed = play("openai/chat-stream-usage", injected=True)
    assert len(relayed) == len(load("openai", "chat-stream-usage").events) - 1
    assert not any(b'"usage"' in event for event in relayed)


def test_running_usage_is_known_while_the_answer_streams():
    capture = load("vllm", "chat-stream-continuous-usage")
    reader = dialect("vllm").stream_reader(Endpoint.CHAT)
    running: list[int] = []
    for event in capture.events[:-2]:
        reader.feed(event)
        assert reader.usage is not None
        running.append(reader.usage.output_tokens)
    assert running == [0, 1, 2, 3, 4, 5, 6]


def test_running_usage_of_several_choices_is_their_sum():
    """Each choice counts its own; the last chunk without choices covers both."""
    reader = dialect("vllm").stream_reader(Endpoint.CHAT)
    seen: list[Usage | None] = []
    for index, output in ((0, 1), (1, 1), (0, 2), (1, 5)):
        reader.feed(
            b'data: {"choices":[{"index":%d,"delta":{"content":"x"}}],"usage":'
            b'{"prompt_tokens":7,"completion_tokens":%d}}\n\n' % (index, output)
        )
        seen.append(reader.usage)
    assert seen == [Usage(7, 1), Usage(7, 2), Usage(7, 3), Usage(7, 7)]
    reader.feed(b'data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":9}}\n\n')
    assert reader.usage == Usage(7, 9)


def test_the_input_of_a_message_is_known_before_its_first_token():
    capture = load("llamacpp", "messages-stream")
    reader = dialect("llamacpp").stream_reader(Endpoint.MESSAGES)
    reader.feed(capture.events[0])
    assert reader.usage == Usage(32, 0, cached_tokens=31)
    assert reader.content_chunks == 0


@pytest.mark.parametrize("name", ["llamacpp/responses-stream", "openai/responses-stream-stored"])
def test_the_id_of_a_response_is_known_from_its_first_event(name: str):
    capture = load(*name.split("/"))
    reader = dialect(capture.dialect).stream_reader(Endpoint.RESPONSES)
    reader.feed(capture.events[0])
    assert reader.response_id is not None
    assert reader.response_id.encode() in capture.events[-1]


@pytest.mark.parametrize(
    ("name", "usage"),
    [
        ("vllm/chat-nonstream", Usage(32, 6)),
        ("vllm/completion-nonstream", Usage(4, 6)),
        ("vllm/messages-nonstream", Usage(32, 8)),
        ("vllm/responses-nonstream", Usage(32, 8)),
        ("llamacpp/chat-nonstream", Usage(32, 6, cached_tokens=31)),
        ("llamacpp/completion-nonstream", Usage(4, 6)),
        ("llamacpp/messages-nonstream", Usage(32, 8, cached_tokens=31)),
        ("llamacpp/responses-nonstream", Usage(32, 8, cached_tokens=24)),
        ("llamacpp/embeddings", Usage(5, 0)),
        ("sglang/chat-nonstream", Usage(40, 2, cached_tokens=32)),
        ("sglang/embeddings", Usage(7, 0)),
        ("tgi/chat-nonstream", Usage(18, 2)),
        ("trtllm/chat-nonstream", Usage(40, 2, cached_tokens=32)),
        ("triton/chat-nonstream", Usage(42, 2)),
    ],
)
def test_usage_of_a_body(name: str, usage: Usage):
    capture = load(*name.split("/"))
    assert dialect(capture.dialect).read_body(capture.endpoint, capture.body).usage == usage


@pytest.mark.parametrize("name", ["chat-n2-nonstream", "completion-list-nonstream"])
def test_two_choices_of_three_tokens_of_which_one_is_told(name: str):
    capture = load("llamacpp", name)
    reading = dialect("llamacpp").read_body(capture.endpoint, capture.body)
    assert reading.usage is not None
    assert reading.spent is not None
    assert (reading.usage.output_tokens, reading.spent.output_tokens) == (3, 6)
    assert reading.spent.input_tokens == reading.usage.input_tokens
    assert reading.spent.cached_tokens == reading.usage.cached_tokens


def whole(*choices: tuple[str, str]) -> bytes:
    told = [{"finish_reason": why, "message": {"content": text}} for why, text in choices]
    return msgspec.json.encode({"choices": told, "usage": {"completion_tokens": 10}})


@pytest.mark.parametrize(
    ("choices", "output_tokens"),
    [
        ([("length", "a" * 40), ("length", "a" * 20)], 20),
        ([("length", "a" * 40), ("stop", "a" * 20)], 15),
        ([("stop", "a" * 40), ("stop", "a" * 80), ("stop", "")], 30),
        ([("stop", ""), ("stop", "a" * 80)], 20),
        ([("stop", "a" * 40)], 10),
        ([], 10),
    ],
    ids=["both cut", "one ends", "longer and empty", "nothing to go by", "one", "none"],
)
def test_the_output_of_further_choices_is_reckoned_where_it_is_not_told(choices, output_tokens):
    body = whole(*choices)
    read = dialect("llamacpp").read_body(Endpoint.CHAT, body).spent
    assert read is not None
    assert read.output_tokens == output_tokens
    all_are_told = dialect("vllm").read_body(Endpoint.CHAT, body).spent
    assert all_are_told is not None
    assert all_are_told.output_tokens == 10


@pytest.mark.parametrize(
    ("choices", "output_tokens"),
    [
        ([("stop", "a" * 40), ("stop", "a" * 400)], 22),
        ([("stop", "a" * 40), ("length", "a" * 44)], 22),
        ([("stop", "a" * 40), ("stop", "a" * 44)], 21),
        ([("length", "a" * 40), ("stop", "a" * 400)], 20),
    ],
    ids=["no more than asked", "as many as asked", "fewer", "no more than where the first was cut"],
)
def test_what_is_reckoned_is_within_what_was_asked(choices, output_tokens):
    read = dialect("llamacpp").read_body(Endpoint.CHAT, whole(*choices), 12).spent
    assert read is not None
    assert read.output_tokens == output_tokens


@pytest.mark.parametrize(("why", "output_tokens"), [("stop", 30), ("length", 30)])
def test_a_limit_that_the_engine_has_not_heeded_bounds_nothing(why: str, output_tokens: int):
    """`max_completion_tokens` of `/v1/completions`: who writes it is not to pay for less."""
    body = whole(("stop", "a" * 40), (why, "a" * 80))
    read = dialect("llamacpp").read_body(Endpoint.COMPLETIONS, body, 1).spent
    assert read is not None
    assert read.output_tokens == output_tokens


def test_an_answer_with_one_choice_is_read_once(monkeypatch):
    """Its words may quote what ends a choice."""
    choices = Mock()
    monkeypatch.setattr(answers, "_CHOICES", choices)
    body = whole(("stop", 'how do I read "finish_reason" and "finish_reason"?'))
    assert dialect("llamacpp").read_body(Endpoint.CHAT, body).untold_output_tokens == 0
    assert choices.decode.call_count == 0


@pytest.mark.parametrize("choices", [b"7", b'[{"text":[]},{}]', b"[[" * 3000])
def test_choices_that_cannot_be_read_leave_the_usage_as_it_is_told(choices):
    body = b'{"usage":{"completion_tokens":3},"choices":%b}' % choices
    read = dialect("llamacpp").read_body(Endpoint.CHAT, body).spent
    assert read is None or read.output_tokens == 3


def test_words_that_are_no_utf8_leave_the_usage_as_it_is_told():
    body = whole(("stop", "words"), ("stop", "more")).replace(b"words", b"wor\xff")
    read = dialect("llamacpp").read_body(Endpoint.CHAT, body).spent
    assert read is not None
    assert read.output_tokens == 10
    assert dialect("llamacpp").read_body(Endpoint.RESPONSES, b'{"id":"\xff"}').usage is None


def test_a_count_that_no_float_can_hold_is_read_as_it_is():
    body = whole(("stop", "word"), ("stop", "more words")).replace(b"10}", b"1%b}" % (b"0" * 400))
    read = dialect("llamacpp").read_body(Endpoint.CHAT, body).spent
    assert read is not None
    assert read.output_tokens > 10**400


@pytest.mark.parametrize("engine", ["vllm", "llamacpp"])
def test_only_a_response_has_an_id_to_remember(engine: str):
    response = load(engine, "responses-nonstream")
    chat = load(engine, "chat-nonstream")
    known = dialect(engine)
    response_id = known.read_body(Endpoint.RESPONSES, response.body).response_id
    assert response_id == msgspec.json.decode(response.body)["id"]
    assert known.read_body(Endpoint.CHAT, chat.body).response_id is None
