"""A client's request as the gateway understands it, and the body it sends on.

The body is parsed once into members whose values stay spans of the original bytes. An edit
replaces one member; all others go out byte for byte, and no key can stand there twice.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import msgspec

from headrace.core.model import Endpoint, Request
from headrace.edges.http.server import HttpRequest
from headrace.gateway.endpoints import endpoint_of
from headrace.gateway.prompt import Members, Prompt, read_prompt

MAX_MODEL_CHARS = 512
"""Longest model name that is looked up."""

_decode_members = msgspec.json.Decoder(Members).decode
_decode_value = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode
_TRUE = msgspec.Raw(b"true")
_ASK_USAGE = msgspec.Raw(b'{"include_usage":true}')
_OUTPUT_LIMITS = ("max_completion_tokens", "max_tokens", "max_output_tokens")
_CLIENT_ID = re.compile(rb"[\x21-\x7e]{1,128}")


class BadRequest(Exception):
    """A request that cannot be served as it is; becomes an error in OpenAI's shape."""

    def __init__(
        self, message: str, *, status: int = 400, code: str | None = None, param: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.code = code
        self.param = param


@dataclass(slots=True)
class Call:
    """One request: what the core sees of it, and what its body is made of."""

    request: Request
    http: HttpRequest
    members: Members | None
    prompts: int = 1

    def body_for(self, model: str, *, ask_usage: bool) -> tuple[bytes, bool]:
        """Return the body to send, and whether a request for usage was merged in.

        `model` is the id that the engine knows. The client's own request for usage is left alone.
        """
        members = self.members
        if members is None:
            return self.http.body, False
        edits: Members = {}
        if "model" in members and model and model != self.request.model:
            edits["model"] = msgspec.Raw(_encode(model))
        options = _with_usage(members.get("stream_options")) if ask_usage else None
        if options is not None:
            edits["stream_options"] = options
        if not edits:
            return self.http.body, False
        return _encode({**members, **edits}), options is not None


def _with_usage(options: msgspec.Raw | None) -> msgspec.Raw | None:
    """Return `stream_options` with usage asked for; None where nothing is to be changed."""
    if options is None or bytes(options) == b"null":
        return _ASK_USAGE
    try:
        members = _decode_members(options)
    except msgspec.DecodeError:
        return None  # the engine will say what is wrong with it
    if bytes(members.get("include_usage", b"")) == b"true":
        return None
    return msgspec.Raw(_encode({**members, "include_usage": _TRUE}))


def client_id(http: HttpRequest) -> str:
    """Return the caller's `x-request-id` if it is fit to be sent back, else ""."""
    value = http.header(b"x-request-id")
    return value.decode("ascii") if value and _CLIENT_ID.fullmatch(value) else ""


def read_call(
    http: HttpRequest, request_id: str, *, replica: str = "", model: str = "", tenant: str = ""
) -> Call:
    """Understand a request. Raises `BadRequest`.

    `replica` and `model` are given for a stored response, whose holder is known. `tenant` is the
    name of the API key.
    """
    endpoint = endpoint_of(http.path)
    members = _read_members(http, endpoint)
    if members is None:
        request = Request(
            id=request_id,
            model=model,
            endpoint=endpoint,
            streamed=False,
            replica=replica,
            tenant=tenant,
            client_id=client_id(http),
        )
        return Call(request, http, None)
    prompt = _read_prompt(endpoint, members)
    request = Request(
        id=request_id,
        model=_read_model(members, endpoint) or model,
        endpoint=endpoint,
        streamed=bytes(members.get("stream", b"")) == b"true",
        text_bytes=prompt.text_bytes,
        prompt_tokens=prompt.tokens,
        media_items=prompt.media_items,
        blocks=prompt.blocks,
        max_output_tokens=_read_output_limit(members),
        replica=replica,
        tenant=tenant,
        client_id=client_id(http),
    )
    return Call(request, http, members, prompt.prompts)


def previous_response_id(body: bytes) -> str:
    """Return the stored response that a `/v1/responses` body continues, or ""."""
    if b'"previous_response_id"' not in body:
        return ""
    try:
        value = _decode_value(_decode_members(body).get("previous_response_id", b"null"))
    except (msgspec.DecodeError, RecursionError):
        return ""  # read_call says what is wrong
    return value if isinstance(value, str) else ""


def _read_members(http: HttpRequest, endpoint: Endpoint) -> Members | None:
    """Return the members of a JSON body; None for a body that is not ours to read."""
    if endpoint is Endpoint.OTHER and not http.body.lstrip().startswith(b"{"):
        return None
    if http.method != b"POST":
        return None
    try:
        return _decode_members(http.body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        if endpoint is Endpoint.OTHER:
            return None
        raise BadRequest(
            f"The request body is not a JSON object: {error}. Send one with content-type"
            " application/json.",
            code="invalid_json",
        ) from None


def _read_model(members: Members, endpoint: Endpoint) -> str:
    raw = members.get("model")
    if raw is None:
        if endpoint is Endpoint.OTHER:
            return ""
        raise BadRequest("'model' is missing: name the model to use.", param="model")
    model = _decode(raw)
    if not isinstance(model, str) or not 0 < len(model) <= MAX_MODEL_CHARS:
        raise BadRequest(
            f"'model' must be a string of 1 to {MAX_MODEL_CHARS} characters.", param="model"
        )
    return model


def _read_output_limit(members: Members) -> int | None:
    for name in _OUTPUT_LIMITS:
        raw = members.get(name)
        if raw is not None:
            value = _decode(raw)
            if isinstance(value, int) and not isinstance(value, bool) and value > 0:
                return value
    return None


def _read_prompt(endpoint: Endpoint, members: Members) -> Prompt:
    try:
        return read_prompt(endpoint, members)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        # Odd messages are the engine's to judge: it knows its own API best.
        return Prompt()


def _decode(raw: msgspec.Raw) -> object:
    try:
        return _decode_value(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
