"""A request's body, as far as an engine that generates nothing needs to understand it.

A prompt becomes a text in template order: tools, then each message behind its role. Four bytes of
it are a token, English under the tokenizers of current models, roughly; token ids are four bytes
each. So prompts that begin alike have the same tokens there, and an id says what it stands for.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import msgspec

from headrace.core.model import Endpoint
from headrace.emulator.answer_text import Stop, stop_of
from headrace.emulator.refusals import Refused, malformed, missing
from headrace.emulator.settings import EngineSettings
from headrace.emulator.tool_choice import tool_called
from headrace.engines.booleans import read_boolean

BYTES_PER_TOKEN = 4
MESSAGE_BYTES = 16
"""What a chat template adds per message: four tokens, roughly."""
VOCABULARY = 128_000
"""Token ids of text are below it, as for current models."""
MOST_LOGPROBS = 20
"""Of one token: vLLM's `--max-logprobs`."""


MOST_CHOICES = 128
"""As OpenAI has it; vLLM's own limit is 16,384."""
MOST_SEQUENCES = 1024
"""Of one request: the choices of all its prompts. vLLM has no such limit."""


class _ForModel(Protocol):
    model: str | None


T = TypeVar("T", bound=_ForModel)


class StreamOptions(msgspec.Struct):
    """`stream_options` of a request."""

    include_usage: bool | None = False
    continuous_usage_stats: bool | None = False


class Message(msgspec.Struct):
    """One of a chat."""

    role: str
    content: msgspec.Raw = msgspec.Raw(b"")


class Body(msgspec.Struct):
    """What is understood of a request's body, in the words of the completions API."""

    model: str | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    min_tokens: int = 0
    ignore_eos: bool = False
    n: int | None = 1
    stop: str | list[str] | None = None
    temperature: float | None = None
    logprobs: bool | int | None = None
    top_logprobs: int | None = None
    messages: list[Message] | None = None
    prompt: msgspec.Raw = msgspec.Raw(b"")
    tools: msgspec.Raw = msgspec.Raw(b"")
    tool_choice: msgspec.Raw = msgspec.Raw(b"")
    return_token_strs: bool | None = False


class Ask(msgspec.Struct, frozen=True):
    """What a request wants: tokens in, tokens out, and how they are sent."""

    endpoint: Endpoint
    prompt: bytes
    """Its text, `BYTES_PER_TOKEN` each."""
    prompt_tokens: int
    output_tokens: int
    most_tokens: int
    """What the request, or else the context, has room for."""
    cut: bool
    """Whether `max_tokens` ends the answer, rather than its own end."""
    stream: bool
    options: StreamOptions
    choices: int = 1
    stop: Stop | None = None
    """What ends the answer, if a stop string does."""
    logprobs: int | None = None
    """Of how many likely tokens each one's log probabilities are told; None: of none at all."""
    tool: str = ""
    """The function that is to be called, "" if none must be."""
    others: tuple[Ask, ...] = ()
    """The other prompts of a list, each as if it were asked by itself."""

    @property
    def chat(self) -> bool:
        """Whether it is one of the endpoint for chats."""
        return self.endpoint is Endpoint.CHAT


class _Tokens(msgspec.Struct):
    tokens: list[int]


_decode = msgspec.json.Decoder(Body).decode
_decode_tokens = msgspec.json.Decoder(_Tokens).decode
_decode_any = msgspec.json.Decoder().decode
_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode
_TRUE, _FALSE = msgspec.Raw(b"true"), msgspec.Raw(b"false")
_BOOLEANS = ("stream", "stream_options", "ignore_eos", "return_token_strs")
_STREAM_BOOLEANS = ("include_usage", "continuous_usage_stats")


def read_ask(body: bytes, settings: EngineSettings, *, chat: bool) -> Ask:
    """Understand a completion request. Raises Refused."""
    asked = read_body(_decode, body, settings)
    if (asked.messages is None) if chat else not asked.prompt:
        raise missing(body, "messages" if chat else "prompt")
    return ask_of(asked, settings, Endpoint.CHAT if chat else Endpoint.COMPLETIONS)


def ask_of(asked: Body, settings: EngineSettings, endpoint: Endpoint) -> Ask:
    """What a body that could be read asks for. Raises Refused."""
    completions = endpoint is Endpoint.COMPLETIONS
    prompts = _prompt_texts(bytes(asked.prompt)) if completions else [chat_text(asked)]
    choices = 1 if asked.n is None else asked.n
    if not 1 <= choices <= MOST_CHOICES:
        raise _off("n", choices, f"n must be from 1 to {MOST_CHOICES}, got {choices}.")
    if asked.temperature is not None and asked.temperature < 0:
        message = f"temperature must be non-negative, got {asked.temperature}."
        raise _off("temperature", asked.temperature, message)
    if asked.stream_options is not None and not asked.stream:
        message = "Stream options can only be defined when `stream=True`."
        raise Refused(message, param="stream_options", kind=_BAD)
    if len(prompts) * choices > MOST_SEQUENCES:
        message = f"the emulated engine takes {MOST_SEQUENCES} choices of all prompts per request"
        raise Refused(message, param="prompt", kind=_BAD)
    first, *others = [_ask(asked, prompt, choices, settings, endpoint) for prompt in prompts]
    return msgspec.structs.replace(first, others=tuple(others)) if others else first


def _ask(
    asked: Body, prompt: bytes, choices: int, settings: EngineSettings, endpoint: Endpoint
) -> Ask:
    """What is asked of one prompt. Raises Refused."""
    prompt = filled(prompt)
    prompt_tokens = len(prompt) // BYTES_PER_TOKEN
    most_tokens, output_tokens = _lengths(asked, prompt_tokens, settings)
    chat = endpoint is Endpoint.CHAT
    tool = tool_called(bytes(asked.tools), bytes(asked.tool_choice)) if chat else ""
    stop = None if tool else _stop(asked, output_tokens)
    return Ask(
        endpoint=endpoint,
        prompt=prompt,
        prompt_tokens=prompt_tokens,
        output_tokens=output_tokens if stop is None else stop.tokens,
        most_tokens=most_tokens,
        cut=output_tokens == most_tokens and stop is None,
        stream=bool(asked.stream),
        options=asked.stream_options or StreamOptions(),
        choices=choices,
        stop=stop,
        logprobs=_logprobs(asked, chat=chat),
        tool=tool,
    )


def _logprobs(asked: Body, *, chat: bool) -> int | None:
    """A chat says whether and how many, a completion how many. Raises Refused."""
    name, most = "top_logprobs", asked.top_logprobs or 0
    if not chat:
        name, most = "logprobs", int(asked.logprobs or 0)
    if most < -1:
        raise _off(name, most, f"`{name}` must be a positive value or -1.")
    if chat and most and not asked.logprobs:
        words = "when using `top_logprobs`, `logprobs` must be set to true."
        raise Refused(f"{words} (parameter={name})", param=name, kind=_BAD)
    told = VOCABULARY if most == -1 else most
    if told > MOST_LOGPROBS:
        words = f"Requested sample logprobs of {told}, which is greater than max allowed: "
        raise _off("logprobs", told, f"{words}{MOST_LOGPROBS}")
    wanted = asked.logprobs if chat else asked.logprobs is not None
    return told if wanted else None


def _stop(asked: Body, output_tokens: int) -> Stop | None:
    """The stop string that ends an answer of so many tokens, if one does. Raises Refused."""
    strings = [asked.stop] if isinstance(asked.stop, str) else asked.stop
    if not strings:
        return None
    if "" in strings:
        raise Refused("stop cannot contain an empty string.", param="stop", kind=_BAD)
    return stop_of(strings, asked.min_tokens, output_tokens)


def read_prompt(body: bytes, settings: EngineSettings) -> tuple[bytes, bool]:
    """The prompt's text of a `/tokenize` body, and whether it is wanted back. Raises Refused."""
    asked = read_body(_decode, body, settings)
    if asked.messages is not None:
        texts = [chat_text(asked)]
    elif asked.prompt:
        texts = _prompt_texts(bytes(asked.prompt))
    else:
        raise missing(body, "prompt", "messages")
    if len(texts) > 1:
        raise Refused("/tokenize takes one prompt", param="prompt", kind=_BAD)
    return filled(texts[0]), bool(asked.return_token_strs)


def read_tokens(body: bytes) -> int:
    """How many tokens a `/detokenize` body has. Raises Refused."""
    try:
        _check_encoding(body)
        return len(_decode_tokens(body).tokens)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise malformed(body, error) from None


def token_ids(prompt: bytes) -> list[int]:
    """The token ids of a prompt's text, or of a whole number of its tokens."""
    whole = memoryview(prompt)[: len(prompt) // BYTES_PER_TOKEN * BYTES_PER_TOKEN]
    return [number % VOCABULARY for number in whole.cast("I")]


def token_strs(prompt: bytes) -> list[str]:
    """The text of each of these tokens, as far as it is one: letters may be cut."""
    size = BYTES_PER_TOKEN
    whole = range(0, len(prompt) // size * size, size)
    return [prompt[at : at + size].decode(errors="replace") for at in whole]


_BAD = "BadRequestError"


def read_body(decode: Callable[[bytes], T], body: bytes, settings: EngineSettings) -> T:
    """Decode a body that is for the model served here. Raises Refused."""
    try:
        _check_encoding(body)
        asked = _decoded(decode, body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise malformed(body, error) from None
    if asked.model is not None and asked.model != settings.model:
        message = f"The model `{asked.model}` does not exist. Valid aliases: {settings.model}."
        raise Refused(message, param="model", status=404, kind="NotFoundError")
    return asked


def _check_encoding(body: bytes) -> None:
    """Raises UnicodeDecodeError. What is decoded late, or not at all, is in the body too."""
    if not body.isascii():
        body.decode("utf-8", "surrogatepass")  # as Python's own parser, and so vLLM, reads it


def _decoded(decode: Callable[[bytes], T], body: bytes) -> T:
    """A body whose booleans may be written in any way that vLLM takes; only such ones are read
    twice.
    """
    try:
        return decode(body)
    except msgspec.ValidationError:
        plain = _with_plain_booleans(body, _BOOLEANS)
        if plain is None:
            raise
        return decode(plain)


def _with_plain_booleans(text: bytes, names: tuple[str, ...]) -> bytes | None:
    """An object with true and false for what is read so; None where nothing is to be changed."""
    plain: dict[str, msgspec.Raw] = {}
    members = _decode_members(text)
    for name in names:
        value = bytes(members.get(name, b""))
        truth = read_boolean(value)
        if truth is not None:
            plain[name] = _TRUE if truth else _FALSE
        elif name == "stream_options" and value.startswith(b"{"):
            options = _with_plain_booleans(value, _STREAM_BOOLEANS)
            if options is not None:
                plain[name] = msgspec.Raw(options)
    changed = any(bytes(value) != bytes(members[name]) for name, value in plain.items())
    return _encode({**members, **plain}) if changed else None


def _plain(raw: msgspec.Raw | bytes) -> bytes:
    """JSON in one spelling: a text is the same tokens whether its writer escapes letters or not.

    Raises Refused.
    """
    text = bytes(raw)
    if b"\\" not in text and not text.startswith((b"[", b"{")):
        return text
    try:
        return _encode(_decode_any(text))
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise malformed(text, error) from None


def filled(text: bytes) -> bytes:
    """At least one token."""
    return text if len(text) >= BYTES_PER_TOKEN else text.ljust(BYTES_PER_TOKEN)


def chat_text(asked: Body) -> bytes:
    """A chat's text in template order. Raises Refused."""
    if not asked.messages:
        message = (
            "Cannot apply chat template to an empty conversation. Provide at least one message."
        )
        raise Refused(message, param=None, kind=_BAD)
    pieces = [_plain(asked.tools)]
    for message in asked.messages:
        role = message.role.encode()[: MESSAGE_BYTES - 4]
        pieces += (b"<|%b|>" % role.ljust(MESSAGE_BYTES - 4), _plain(message.content))
    return b"".join(pieces)


def _prompt_texts(prompt: bytes) -> list[bytes]:
    """The text of each prompt. Raises Refused."""
    if prompt.startswith(b'"'):
        return [_plain(prompt)]
    if not prompt.startswith(b"["):
        message = f"prompt: expected text or token ids, got {prompt[:20].decode(errors='replace')}"
        raise Refused(message, param="prompt", kind=_BAD)
    try:
        return _list_texts(_decode_any(prompt))
    except RecursionError as error:
        raise Refused(f"prompt: {error}", param="prompt", kind=_BAD) from None


def _list_texts(prompt: list[Any]) -> list[bytes]:
    """Token ids count exactly. Raises Refused."""
    if not prompt or [] in prompt:
        raise Refused("prompt: there is no token in it", param="prompt", kind=_BAD)
    if all(isinstance(each, int) for each in prompt):
        return [_packed(prompt)]
    kinds = {type(each) for each in prompt}
    if kinds not in ({str}, {list}):
        message = "prompt: expected texts, or lists of token ids, of one kind"
        raise Refused(message, param="prompt", kind=_BAD)
    # A text as it would stand there alone.
    return [_packed(each) if isinstance(each, list) else _encode(each) for each in prompt]


def _packed(ids: list[Any]) -> bytes:
    try:
        return array("I", ids).tobytes()
    except (TypeError, OverflowError) as error:
        raise Refused(f"prompt: no token id: {error}", param="prompt", kind=_BAD) from None


def _lengths(asked: Body, prompt_tokens: int, settings: EngineSettings) -> tuple[int, int]:
    """(tokens that the answer may have, those that it has). Raises Refused."""
    limit = asked.max_completion_tokens
    limit = asked.max_tokens if limit is None else limit
    room = _room(limit, prompt_tokens, settings.max_context_tokens)
    most = room if limit is None else limit
    if asked.min_tokens < 0:
        message = f"min_tokens must be greater than or equal to 0, got {asked.min_tokens}."
        raise _off("min_tokens", asked.min_tokens, message)
    if asked.min_tokens > most:
        at_most = f"less than or equal to max_tokens={most}"
        message = f"min_tokens must be {at_most}, got {asked.min_tokens}."
        raise _off("min_tokens", asked.min_tokens, message)
    wanted = max(settings.output_tokens, asked.min_tokens)
    if limit is not None and asked.ignore_eos:
        wanted = limit
    return most, min(wanted, most)


def _room(asked_tokens: int | None, prompt_tokens: int, context_tokens: int) -> int:
    """Tokens that an answer may have at most. Raises Refused where they are too few."""
    if asked_tokens is not None and asked_tokens < 1:
        message = f"max_tokens must be at least 1, got {asked_tokens}."
        raise _off("max_tokens", asked_tokens, message)
    if asked_tokens is not None and asked_tokens > context_tokens:
        message = (
            f"max_tokens={asked_tokens} cannot be greater than max_model_len={context_tokens}. "
            "Please request fewer output tokens."
        )
        raise _off("max_tokens", asked_tokens, message)
    if prompt_tokens > context_tokens:
        least = context_tokens + 1  # no more is counted
        message = (
            f"This model's maximum context length is {context_tokens} tokens. However, your prompt "
            f"contains at least {least} input tokens, which exceeds this limit even without any "
            "output tokens. Please reduce the length of the input prompt."
        )
        raise _off("input_tokens", least, message)
    room = context_tokens - prompt_tokens
    if room < (asked_tokens or 1):
        message = (
            f"This model's maximum context length is {context_tokens} tokens. However, your prompt "
            f"contains {prompt_tokens} input tokens and leaves too little room for the output. "
            "Please reduce the length of the input prompt or max_tokens."
        )
        raise _off("input_tokens", prompt_tokens, message)
    return room


def _off(param: str, value: float, message: str) -> Refused:
    shown = f"{message} (parameter={param}, value={value})"
    return Refused(shown, param=param, kind=_BAD)
