"""What every dialect must do. A new one is picked up by itself, with the captures it brings."""

from __future__ import annotations

import pkgutil
from dataclasses import fields
from importlib import import_module

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import headrace.engines
from headrace.core.model import Endpoint
from headrace.engines.dialect import Dialect
from headrace.engines.reading import EngineReading, Refusal
from headrace.engines.registry import DIALECTS, dialect
from tests.conformance.captures import Capture, all_of

NAMES = sorted(DIALECTS)
CAPTURES = [capture for name in NAMES for capture in all_of(name)]
STREAMS = [capture for capture in CAPTURES if capture.streamed]
BODIES = [capture for capture in CAPTURES if capture.status == 200 and not capture.streamed]
ERRORS = [capture for capture in CAPTURES if capture.status >= 400]

each_dialect = pytest.mark.parametrize("name", NAMES)
each_stream = pytest.mark.parametrize("capture", STREAMS, ids=str)


def test_every_dialect_module_is_registered():
    modules = {
        f"headrace.engines.{module.name}"
        for module in pkgutil.iter_modules(headrace.engines.__path__)
        if hasattr(import_module(f"headrace.engines.{module.name}"), "DIALECT")
    }
    assert modules == set(DIALECTS.values())


@each_dialect
def test_the_file_is_named_like_the_dialect(name: str):
    assert dialect(name).name == name
    assert DIALECTS[name].rsplit(".", 1)[1] == name


@each_dialect
def test_an_engine_that_tells_nothing_reads_as_nothing(name: str):
    paths = dialect(name).metrics_paths
    refused = dict.fromkeys(paths, (501, b'{"error":{"message":"off"}}'))
    assert dialect(name).read({}) == EngineReading()
    assert dialect(name).read(refused) == EngineReading()
    assert dialect(name).read(dict.fromkeys(paths, (200, b""))) == EngineReading()


@each_dialect
@given(garbage=st.binary(max_size=300))
def test_garbage_is_never_an_exception(name: str, garbage: bytes):
    known = dialect(name)
    assert isinstance(known.read(dict.fromkeys(known.metrics_paths, (200, garbage))), EngineReading)
    assert isinstance(known.classify_error(500, garbage), Refusal)
    for endpoint in Endpoint:
        known.read_body(endpoint, garbage)
        assert known.stream_reader(endpoint, injected=True).feed(garbage) == garbage
    with pytest.raises(ValueError, match="/v1/models"):
        known.models(garbage)


@each_dialect
def test_every_field_it_reads_is_documented(name: str):
    known = dialect(name)
    documented = set(known.sources)
    assert documented <= {field.name for field in fields(EngineReading)}
    assert all(known.sources.values())


@each_dialect
def test_every_endpoint_that_tells_usage_has_a_rule_in_words(name: str):
    rules = dialect(name).usage_rules
    assert set(rules) == set(Endpoint) - {Endpoint.OTHER}
    assert all(rule.where for rule in rules.values())
    asked = {endpoint for endpoint, rule in rules.items() if rule.inject_usage}
    assert asked <= {Endpoint.CHAT, Endpoint.COMPLETIONS}


@each_dialect
def test_what_no_dialect_reads_passes_unread(name: str):
    reader = dialect(name).stream_reader(Endpoint.OTHER, injected=True)
    event = b'data: {"choices":[],"usage":{"prompt_tokens":1}}\n\n'
    assert reader.feed(event) is event
    assert reader.usage is None


@each_stream
def test_a_stream_passes_untouched_unless_we_asked_for_usage(capture: Capture):
    reader = dialect(capture.dialect).stream_reader(capture.endpoint)
    for event in capture.events:
        assert reader.feed(event) is event


@each_stream
def test_a_stream_tells_first_content_and_end(capture: Capture):
    reader = dialect(capture.dialect).stream_reader(capture.endpoint)
    for event in capture.events:
        assert not reader.done
        reader.feed(event)
    assert reader.done
    assert reader.error == capture.name.endswith("-failed")
    assert reader.content_chunks == sum(has_content(event) for event in capture.events)
    assert (reader.first_kind is not None) == (reader.content_chunks > 0)


@pytest.mark.parametrize(
    "capture", [c for c in STREAMS if c.endpoint in {Endpoint.CHAT, Endpoint.COMPLETIONS}], ids=str
)
def test_usage_we_asked_for_is_taken_out_and_nothing_else(capture: Capture):
    """Each event is as the engine would have sent it had nobody asked."""
    known: Dialect = dialect(capture.dialect)
    plain = known.stream_reader(capture.endpoint)
    reader = known.stream_reader(capture.endpoint, injected=True)
    for event in capture.events:
        plain.feed(event)
        relayed = reader.feed(event)
        before = json_of(event)
        if relayed is None:
            assert before["choices"] == []
            assert before["usage"]
        elif "usage" in before:
            assert json_of(relayed) == {k: v for k, v in before.items() if k != "usage"}
        else:
            assert relayed is event
    assert reader.usage == plain.usage
    assert reader.content_chunks == plain.content_chunks


@each_stream
@settings(max_examples=30)  # for each of more than thirty streams
@given(data=st.data())
def test_a_damaged_stream_is_relayed_and_never_an_exception(capture: Capture, data: st.DataObject):
    event = data.draw(st.sampled_from(capture.events))
    cut = data.draw(st.integers(1, len(event) - 4))
    reader = dialect(capture.dialect).stream_reader(capture.endpoint, injected=True)
    for whole in capture.events[:3]:
        reader.feed(whole)
    for piece in (event[:cut], event[cut:]):
        assert reader.feed(piece) == piece


@pytest.mark.parametrize("capture", ERRORS, ids=str)
def test_an_error_is_classified(capture: Capture):
    refusal = dialect(capture.dialect).classify_error(capture.status, capture.body)
    may_be_retried = capture.status in {424, 429, 503} or "unknown-model" in capture.name
    assert refusal.retryable == may_be_retried


@pytest.mark.parametrize(
    "capture", [c for c in BODIES if c.name.split("-")[0] in {"chat", "completion"}], ids=str
)
def test_a_body_tells_its_usage(capture: Capture):
    usage = dialect(capture.dialect).read_body(capture.endpoint, capture.body).usage
    told = msgspec.json.decode(capture.body)["usage"]
    assert usage is not None
    assert usage.input_tokens == told["prompt_tokens"]
    assert usage.output_tokens == told["completion_tokens"]


def json_of(event: bytes) -> dict:
    payload = event.partition(b"data: ")[2].strip()
    # llama.cpp sends a `data: null` now and then when a request holds several prompts.
    return {} if payload in {b"", b"[DONE]", b"null"} else msgspec.json.decode(payload)


_CONTENT = ("content", "tool_calls", "reasoning", "reasoning_content")


def has_content(event: bytes) -> bool:
    """The slow, obvious way to tell whether an event brings something to the reader of it."""
    told = json_of(event)
    if told.get("type", "").endswith("response.output_item.added"):
        return told["item"]["type"] == "function_call"
    if told.get("type") == "content_block_start":
        return told["content_block"]["type"] == "tool_use"
    if "delta" in told:
        delta = told["delta"]
        if isinstance(delta, str):
            return delta != ""
        return any(delta.get(key) for key in ("text", "thinking", "partial_json"))
    return any(
        choice.get("text") or any(choice.get("delta", {}).get(key) for key in _CONTENT)
        for choice in told.get("choices", ())
    )
