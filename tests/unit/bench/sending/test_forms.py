"""What was learnt from one stream saves the parsing of the next, and changes nothing of it."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from headrace.bench.sending import forms
from headrace.bench.sending.forms import around_text
from tests.unit.bench.exchanges import Host, chunk, event, of, opening, read


def primed() -> Host:
    """One that has read a whole stream."""
    host = Host()
    exchange = of(host)
    assert not read(exchange, chunk(opening("first")))
    assert not read(exchange, chunk(event("water", stream_id="first")))
    assert read(exchange, chunk(event(" runs", stream_id="first")))
    return host


def test_the_next_stream_passes_from_its_first_token_on():
    exchange = of(primed())
    read(exchange, chunk(opening("another")))
    assert read(exchange, chunk(event("down", stream_id="another")))
    assert exchange.record.first_token_s is not None


def test_an_opening_and_a_first_token_in_one_read_are_learnt_and_known():
    host = Host()
    for stream_id in ("first", "another"):
        exchange = of(host)
        begins = opening(stream_id) + event("water", stream_id=stream_id)
        assert not read(exchange, chunk(begins))
        assert exchange.record.first_token_s is not None
        assert read(exchange, chunk(event(" runs", stream_id=stream_id)))
    assert host.forms.begun(opening("third")) is not None


def test_an_id_may_stand_behind_the_text():
    host, first, second = Host(), b'"first"', b'"another"'
    role = b'data: {"choices":[{"delta":{"role":"assistant","content":null}}],"id":%b}\n\n'
    token = b'data: {"choices":[{"delta":{"content":"%b"}}],"id":%b}\n\n'
    exchange = of(host)
    read(exchange, chunk(role % first))
    read(exchange, chunk(token % (b"water", first)))
    exchange = of(host)
    read(exchange, chunk(role % second))
    assert read(exchange, chunk(token % (b"runs", second)))
    assert not exchange.passes(chunk(token % (b"down", first)))


def test_a_known_opening_and_a_token_may_come_together():
    exchange = of(primed())
    read(exchange, chunk(opening("another") + event("down", stream_id="another")))
    assert exchange.record.first_token_s is not None
    assert not exchange.passes(chunk(event("hill", stream_id="nobody")))
    assert read(exchange, chunk(event("hill", stream_id="another")))
    exchange.answer_complete(framed=True)
    assert exchange.record.chunks == 2


@pytest.mark.parametrize(
    "begins",
    [
        opening("another", created=2),
        opening('an\\"other'),
        opening("another\\"),  # the quote is of the id
        opening('a","b":"c'),
        opening("another")[:-1],
        opening("another")[1:],
        event("down", stream_id="another"),
        b"",
    ],
)
def test_a_stream_that_begins_otherwise_is_read(begins: bytes):
    host = primed()
    assert host.forms.begun(opening("another")) is not None
    assert host.forms.begun(begins) is None


@pytest.mark.parametrize(
    "made_slow",
    [
        b"data: {" + b'"text":"a",' * 1500 + b"}\n\n",
        b"data: {" + b'"text":"a",' * 300 + b"\ndata: }\n\n",
        b"data: {" + b'"text":"a",' * 90_000 + b"\ndata: }\n\n",
    ],
)
def test_nothing_is_looked_for_in_an_event_that_is_long_or_of_several_lines(
    made_slow: bytes, monkeypatch: pytest.MonkeyPatch
):
    looked_at: list[bytes] = []

    class Looking:
        def match(self, event: bytes) -> None:
            looked_at.append(event)

    monkeypatch.setattr(forms, "_TEXT", Looking())
    assert around_text(made_slow) is None
    assert not looked_at
    assert around_text(event("water")) is None
    assert looked_at == [event("water")]


def test_another_id_within_a_stream_does_not_pass():
    exchange = of(primed())
    read(exchange, chunk(opening("another")))
    assert not exchange.passes(chunk(event("down", stream_id="first")))


def test_an_id_that_is_found_elsewhere_too_is_not_learnt():
    host = Host()
    exchange = of(host)
    read(exchange, chunk(opening("role")))
    read(exchange, chunk(event("water", stream_id="role")))
    exchange = of(host)
    read(exchange, chunk(opening("another")))
    assert not exchange.passes(chunk(event("down", stream_id="another")))


_TEXTS = some.text(max_size=6).map(lambda text: json.dumps(text)[1:-1])
_EVENTS = some.one_of(
    some.builds(event, _TEXTS, stream_id=some.sampled_from(["a", "b"])),
    some.builds(event, _TEXTS, some.just(',"usage":{"completion_tokens":7,"prompt_tokens":2}')),
    some.builds(event, _TEXTS, some.just(',"error":{"message":"no"}'), some.just("a")),
    some.builds(opening, some.sampled_from(["a", "b"]), some.integers(1, 2)),
    some.sampled_from([b": waiting\n\n", b"data: [DONE]\n\n", b"data: {}\n\n", b"\n"]),
)


@settings(max_examples=150, deadline=None)
@given(
    some.sampled_from([opening("a"), opening("b", 2), event("x"), b": a\n\n"]),
    some.lists(_EVENTS, max_size=6),
    some.integers(0, 3),
)
def test_a_stream_is_read_the_same_whatever_was_learnt(
    begins: bytes, rest: list[bytes], together: int
):
    begins = b"".join((begins, *rest[:together]))
    seen: list[tuple[object, ...]] = []
    for host in (Host(), primed()):
        exchange = of(host)
        for each in (begins, *rest[together:]):
            if not exchange.over:
                read(exchange, chunk(each))
        exchange.answer_complete(framed=True)
        record = exchange.record
        seen.append((record.chunks, record.output_tokens, record.input_tokens, record.error))
    assert seen[0] == seen[1]
