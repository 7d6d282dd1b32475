"""Which reads pass as they came: those that are one chunk with one event like the one before."""

from typing import Any

import pytest

from headrace.bench.endpoint.requests import choices_in
from headrace.bench.sending.exchange import Exchange
from headrace.bench.sending.lengths import Lengths
from tests.unit.bench.exchanges import Host, chunk, event, of, read


def begun(first: bytes, **settings: Any) -> Exchange:
    """An exchange that has read its first token from this chunk."""
    exchange = of(Host(), **settings)
    exchange.answer_chunk(first, first.index(b"\r\n") + 2)
    return exchange


@pytest.mark.parametrize(("choices", "gaps"), [(1, 1), (2, 0)])
def test_the_gaps_of_choices_in_turns_are_no_itl(choices: int, gaps: int):
    exchange = begun(USUAL)
    exchange.record.choices = choices
    read(exchange, chunk(event("mill")))
    exchange.answer_chunk(chunk(b"data: [DONE]\n\n"), 4)
    exchange.answer_complete(framed=True)
    assert exchange.record.chunks == 2
    assert len(exchange.record.itl_s) == gaps


def test_each_choice_is_planned_with_the_tokens_of_an_answer():
    exchange, lengths = of(Host(), max_tokens=8), Lengths()
    exchange.record.choices, exchange.record.output_tokens = 2, 16
    exchange.add_lengths(lengths)
    assert lengths.output_share == 1.0


@pytest.mark.parametrize(
    ("extra", "choices"),
    [("", 1), ("{}", 1), ('{"n": 3, "x": [1]}', 3), ('{"n": 0}', 1), ('{"n": "2"}', 1)],
)
def test_how_many_choices_a_body_asks_for(extra: str, choices: int):
    assert choices_in(extra) == choices


USUAL = chunk(event("water"))
LONG = "m" * 300


@pytest.mark.parametrize(
    ("read", "passes"),
    [
        (chunk(event(" mill")), True),
        (chunk(event(LONG)), True),  # its size has a digit more
        (chunk(event("")), False),
        (chunk(event('a\\"b')), False),
        (chunk(event("a", ',"usage":{"completion_tokens":3}')), False),
        (chunk(event("a")) + chunk(event("b")), False),
        (chunk(event("a"))[:-1], False),
        (chunk(event("a") + event("b")), False),
        (b"0" + chunk(event("a")), False),
        (b"3f\r\n" + chunk(event("a")).partition(b"\r\n")[2], False),  # another size than it has
        (b"0\r\n\r\n", False),
        (b"", False),
    ],
)
def test_only_one_usual_event_alone_in_its_read_passes(read: bytes, passes: bool):
    exchange = begun(USUAL)
    assert exchange.passes(read) == passes


def test_sizes_in_capitals_pass_once_they_were_seen():
    small, large = chunk(event("water"), b"%X"), chunk(event("m" * 117), b"%X")
    assert not small[:2].isdigit()
    assert not large[:2].isdigit()
    assert begun(small).passes(large)
    assert not begun(chunk(event("water"))).passes(large)


def test_an_answer_over_its_limit_does_not_pass():
    exchange = begun(USUAL, max_answer_bytes=4 * len(USUAL))
    assert [exchange.passes(chunk(event("mills"))) for _ in range(5)] == [True] * 4 + [False]


def with_its_end(*end: bytes) -> Exchange:
    """A stream of two tokens whose body ends as it should behind these events."""
    exchange = begun(USUAL)
    read(exchange, chunk(event("mill")))
    for each in map(chunk, end):
        exchange.answer_chunk(each, each.index(b"\r\n") + 2)
    exchange.answer_complete(framed=True)
    return exchange


def test_a_body_that_ends_well_is_no_whole_answer_unless_an_event_says_so():
    finished = b'data: {"choices":[{"delta":{},"finish_reason":"length"}]}\n\n'
    usage = b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}\n\n'
    running = b'data: {"choices":[{"delta":{"content":"a"},"finish_reason":null}]}\n\n'
    for end in ([finished], [usage], [b"data: [DONE]\n\n"], [finished, usage]):
        assert with_its_end(*end).record.error == ""
    for end in ([], [running]):
        cut = with_its_end(*end).record
        assert (cut.error, cut.error_detail) == ("cut", "no finish_reason, usage or [DONE] came")
