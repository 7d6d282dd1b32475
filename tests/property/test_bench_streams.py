"""However a stream is cut on the wire, the load generator reads the same tokens from it."""

from __future__ import annotations

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.bench.exchange import Exchange
from headrace.bench.record import Record
from headrace.bench.settings import BenchSettings
from headrace.edges.http.ports import AnswerHead

HEAD = AnswerHead(200, [(b"content-type", b"text/event-stream")])
TEXTS = st.sampled_from(
    [
        "a",
        " water",
        "",
        '"',
        '\\"',
        "\n\n",
        '"content":"x"',
        '"},"usage":{',
        "data: [DONE]",
        "é\0",
        "\\",
    ]
)


def chunk_of(delta: dict[str, object], **more: object) -> dict[str, object]:
    return {"id": "1", "choices": [{"index": 0, "delta": delta, "finish_reason": None}], **more}


def usage(tokens: int) -> dict[str, object]:
    return {"prompt_tokens": 5, "completion_tokens": tokens}


EVENTS = st.one_of(
    TEXTS.map(lambda text: chunk_of({"content": text})),
    TEXTS.map(lambda text: chunk_of({"content": text}, usage=None)),
    TEXTS.map(lambda text: chunk_of({"content": text}, usage=usage(3))),
    TEXTS.map(lambda text: chunk_of({"content": "", "reasoning_content": text})),
    TEXTS.map(lambda text: {"id": "1", "choices": [{"index": 0, "text": text}]}),
    st.just(chunk_of({"role": "assistant", "content": ""})),
    st.just(chunk_of({"tool_calls": [{"function": {"arguments": "{"}}]})),
    st.integers(1, 9).map(lambda tokens: {"choices": [], "usage": usage(tokens)}),
)


class Host:
    """Counts."""

    def __init__(self) -> None:
        self.tokens_out = 0
        self.ends = 0

    def ended(self, exchange: Exchange) -> None:
        self.ends += 1

    def first_token(self, exchange: Exchange) -> None:
        """Not of interest."""


def begun() -> tuple[Host, Exchange]:
    host = Host()
    exchange = Exchange(host, BenchSettings("http://x"), Record(0), origin_s=0.0, leave_after=0)
    exchange.answer_head(HEAD)
    return host, exchange


def read(record: Record) -> tuple[object, ...]:
    return (
        record.error,
        record.chunks,
        record.output_tokens,
        record.input_tokens,
        len(record.itl_s),
    )


@settings(max_examples=150, deadline=None)
@given(st.lists(EVENTS, max_size=12), st.data())
def test_cuts_make_no_difference(events: list[dict[str, object]], data: st.DataObject):
    encoded = [b"data: " + msgspec.json.encode(event) + b"\n\n" for event in events]
    encoded.append(b"data: [DONE]\n\n")
    together = b"".join(encoded)

    host, alone = begun()
    for event in encoded:  # each as a chunk of its own
        framed = b"%x\r\n%b\r\n" % (len(event), event)
        alone.answer_chunk(framed, framed.index(b"\r\n") + 2)
    alone.answer_complete(framed=True)

    _, cut = begun()
    at = sorted(data.draw(st.lists(st.integers(0, len(together)), max_size=8)))
    for first, last in zip([0, *at], [*at, len(together)], strict=True):
        if data.draw(st.booleans()) and last > first:
            framed = b"%x\r\n%b\r\n" % (last - first, together[first:last])
            cut.answer_chunk(framed, framed.index(b"\r\n") + 2)
        else:
            cut.answer_body(together[first:last])
            cut.answer_flush()
    cut.answer_complete(framed=True)

    assert read(alone.record) == read(cut.record)
    contents = sum(b'"choices":[{' in event and _has_text(event) for event in encoded)
    assert alone.record.chunks == contents == host.tokens_out
    assert host.ends == 1


def _has_text(event: bytes) -> bool:
    choice = msgspec.json.decode(event[6:])["choices"][0]
    delta = choice.get("delta", {})
    parts = (choice.get("text"), delta.get("content"), delta.get("reasoning_content"))
    return any(parts) or "tool_calls" in delta
