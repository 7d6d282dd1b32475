"""What an emulated engine refuses, held to what a real vLLM 0.32.0 answered."""

from __future__ import annotations

import json

import httpx
import pytest

from headrace.emulator.prompt import read_ask, read_prompt, token_ids
from headrace.emulator.refusals import Refused
from headrace.emulator.settings import EngineSettings
from tests.conformance.captures import load

SETTINGS = EngineSettings(model="smollm2-135m-instruct", max_context_tokens=2048)
NAMED = {"model": SETTINGS.model}


def refusal(body: bytes, *, chat: bool = True) -> dict[str, object]:
    with pytest.raises(Refused) as caught:
        read_ask(body, SETTINGS, chat=chat)
    return json.loads(caught.value.body())


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("err-bad-json", b'{"model": "x", bad'),
        ("err-no-messages", json.dumps(NAMED).encode()),
        (
            "err-negative-max-tokens",
            json.dumps({**NAMED, "messages": [{"role": "user"}], "max_tokens": -5}).encode(),
        ),
        ("err-empty-messages", json.dumps({**NAMED, "messages": []}).encode()),
        (
            "err-wrong-type",
            json.dumps({**NAMED, "messages": [{"role": "user"}], "max_tokens": "many"}).encode(),
        ),
        (
            "err-unknown-model",
            json.dumps({"model": "no-such-model", "messages": [{"role": "user"}]}).encode(),
        ),
    ],
)
def test_words_are_vllms(name: str, body: bytes):
    assert refusal(body) == json.loads(load("vllm", name).body)


@pytest.mark.parametrize("value", [1, 1.0, "1", "Yes", "on", "T", True], ids=repr)
def test_a_boolean_is_read_as_pydantic_reads_it(value: object):
    asked = {**NAMED, "messages": [{"role": "user"}], "stream": value, "max_tokens": 7}
    options = {"include_usage": value, "continuous_usage_stats": None}
    body = {**asked, "ignore_eos": value, "stream_options": options}
    ask = read_ask(json.dumps(body).encode(), SETTINGS, chat=True)
    assert ask.stream is True
    assert ask.options.include_usage is True
    assert not ask.options.continuous_usage_stats
    assert ask.output_tokens == 7


@pytest.mark.parametrize("value", [0, 0.0, "0", "No", "off", "F", False], ids=repr)
def test_so_is_one_that_says_no(value: object):
    options = {"include_usage": value}
    body = {**NAMED, "messages": [{"role": "user"}], "stream": True, "stream_options": options}
    assert not read_ask(json.dumps(body).encode(), SETTINGS, chat=True).options.include_usage


@pytest.mark.parametrize("value", [2, "maybe", " yes", [], {}], ids=repr)
def test_what_is_no_boolean_is_refused(value: object):
    body = {**NAMED, "messages": [{"role": "user"}], "stream": value}
    assert refusal(json.dumps(body).encode())["error"]["param"] == "body.stream"  # pyright: ignore[reportIndexIssue]
    options = {**body, "stream": 1, "stream_options": {"include_usage": value}}
    assert "include_usage" in str(refusal(json.dumps(options).encode()))


def test_a_temperature_below_nothing_is_refused_in_vllms_words():
    body = {**NAMED, "messages": [{"role": "user"}], "temperature": -3}
    assert refusal(json.dumps(body).encode())["error"] == {
        "message": "temperature must be non-negative, got -3.0. "
        "(parameter=temperature, value=-3.0)",
        "type": "BadRequestError",
        "param": "temperature",
        "code": 400,
    }
    warm = json.dumps({**body, "temperature": 0.7, "max_tokens": 1}).encode()
    assert read_ask(warm, SETTINGS, chat=True).output_tokens == 1


@pytest.mark.parametrize(
    ("given", "kind", "words"),
    [
        ({"max_tokens": []}, "int_type", "integer"),
        ({"temperature": "hot"}, "float_parsing", "number, unable to parse string as a number"),
        ({"stream": "perhaps"}, "bool_parsing", "boolean, unable to interpret input"),
        ({"model": 5}, "string_type", "string"),
        ({"messages": "hello"}, "list_type", "list"),
        ({"stream_options": []}, "dict_type", "dictionary"),
    ],
)
def test_a_field_of_the_wrong_type_is_named(given: dict[str, object], kind: str, words: str):
    error = refusal(json.dumps({"messages": [{"role": "user"}], **given}).encode())["error"]
    [field] = given
    assert isinstance(error, dict)
    assert error["param"] == f"body.{field}"
    assert f"'type': '{kind}'" in error["message"]
    assert f"'Input should be a valid {words}'" in error["message"]


def test_an_empty_conversation_is_refused_in_vllms_words():
    error = refusal(json.dumps({**NAMED, "messages": []}).encode())["error"]
    assert isinstance(error, dict)
    assert error["message"] == (
        "Cannot apply chat template to an empty conversation. Provide at least one message."
    )
    assert error["type"] == "BadRequestError"


def test_a_body_without_a_prompt_is_told_what_could_be_in_it():
    """As real vLLM answers llama.cpp's `{"content": …}`."""
    with pytest.raises(Refused) as caught:
        read_prompt(b'{"content":"hello world"}', SETTINGS)
    missing = "{{'type': 'missing', 'loc': 'body.{}', 'msg': 'Field required', {}}}"
    given = "'input': '<dict of 1 items>'"
    assert json.loads(caught.value.body())["error"] == {
        "message": "2 validation errors:\n  "
        + missing.format("prompt", given)
        + "\n  "
        + missing.format("messages", given),
        "type": "Bad Request",
        "param": "body.prompt",
        "code": 400,
    }
    assert "body.prompt" in str(refusal(b"{}", chat=False))


UNREAD = {
    "message": "There was an error parsing the body",
    "type": "Bad Request",
    "param": None,
    "code": 400,
}
"""What vLLM says of a body that Python's parser cannot even begin with."""


@pytest.mark.parametrize(
    "body",
    [
        b'{"messages":[{"role":"user","content":"\xff"}]}',
        b'{"messages":[{"role":"user","content":"x"}],"user":"\xff"}',
        b'{"messages":[{"role":"user","content":"x"}],"\xe9":1}',
    ],
    ids=["content", "a field nobody reads", "a name"],
)
def test_a_body_that_is_not_utf_8_is_refused_wherever_it_is_not(body: bytes):
    assert refusal(body)["error"] == UNREAD
    with pytest.raises(Refused):
        read_prompt(body, SETTINGS)


def test_letters_of_any_language_are_read():
    assert read_ask('{"messages":[{"role":"user","content":"é中"}]}'.encode(), SETTINGS, chat=True)


TOO_MANY = "Requested sample logprobs of {}, which is greater than max allowed: 20"


@pytest.mark.parametrize(
    ("fields", "chat", "said", "param"),
    [
        (
            b'"logprobs":true,"top_logprobs":100',
            True,
            f"{TOO_MANY.format(100)} (parameter=logprobs, value=100)",
            "logprobs",
        ),
        (
            b'"logprobs":21',
            False,
            f"{TOO_MANY.format(21)} (parameter=logprobs, value=21)",
            "logprobs",
        ),
        (
            b'"logprobs":true,"top_logprobs":-2',
            True,
            "`top_logprobs` must be a positive value or -1. (parameter=top_logprobs, value=-2)",
            "top_logprobs",
        ),
        (
            b'"logprobs":-2',
            False,
            "`logprobs` must be a positive value or -1. (parameter=logprobs, value=-2)",
            "logprobs",
        ),
        (
            b'"top_logprobs":100',
            True,
            "when using `top_logprobs`, `logprobs` must be set to true. (parameter=top_logprobs)",
            "top_logprobs",
        ),
    ],
)
def test_more_log_probabilities_than_vllm_tells_are_refused_in_its_words(
    fields: bytes, chat: bool, said: str, param: str
):
    prompt = b'"messages":[{"role":"user","content":"x"}]' if chat else b'"prompt":"x"'
    body = b"{" + prompt + b"," + fields + b"}"
    error = refusal(body, chat=chat)["error"]
    assert error == {"message": said, "type": "BadRequestError", "param": param, "code": 400}


@pytest.mark.parametrize(
    "content",
    [b"[" * 5000 + b"]" * 5000, b'"\\ud800"', b'"\\q"', b'["\xff"]'],
    ids=["deep", "half a letter", "no escape", "no letter"],
)
def test_content_that_cannot_be_read_is_refused(content: bytes):
    body = b'{"messages":[{"role":"user","content":' + content + b"}]}"
    assert refusal(body)["error"]


TEXT = 'Wie groß ist 北京?\n"quoted" / and \\ so on'


def written(escaping: bool, content: object) -> bytes:
    return json.dumps(content, ensure_ascii=escaping).encode()


@pytest.mark.parametrize("content", [TEXT, [{"type": "text", "text": TEXT}]], ids=["text", "parts"])
def test_a_text_is_the_same_tokens_however_its_client_writes_it(content: object):
    """Python's `json` escapes letters that are not ASCII, httpx and browsers do not."""
    bodies = [
        written(escaping, {"messages": [{"role": "user", "content": content}]})
        for escaping in (True, False)
    ]
    bodies.append(httpx.Request("POST", "http://e", json=json.loads(bodies[0])).read())
    tokens = [token_ids(read_prompt(body, SETTINGS)[0]) for body in bodies]
    assert tokens[0] == tokens[1] == tokens[2]


def test_a_text_is_the_same_tokens_alone_and_in_a_list():
    alone, listed = (
        read_ask(written(True, {"prompt": prompt}), SETTINGS, chat=False)
        for prompt in (TEXT, [TEXT])
    )
    assert alone.prompt == listed.prompt
