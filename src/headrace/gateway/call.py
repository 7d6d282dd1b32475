"""A client's request as the gateway understands it, and the body it sends on.

The body is parsed once into members whose values stay spans of the original bytes. An edit
replaces one member; all others go out byte for byte, and no key can stand there twice.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import msgspec

from headrace.core.message import message
from headrace.core.model import Endpoint, Request
from headrace.edges.http.heads import Header
from headrace.edges.http.ports import HttpRequest
from headrace.engines.booleans import read_boolean
from headrace.gateway.endpoints import endpoint_of
from headrace.gateway.form import BadForm, FormScanner, boundary_of, is_form
from headrace.gateway.large_body import (
    MAX_MEMBERS,
    MemberScanner,
    NotAnObject,
    Scan,
    Span,
    TooManyMembers,
    cut,
    replace,
)
from headrace.gateway.notes import RequestNotes
from headrace.gateway.prompt import Members, Prompt, read_large_prompt, read_prompt
from headrace.gateway.usual_chat import choices_of, read_usual_chat

MAX_MODEL_CHARS: Final = 512
"""Longest model name that is looked up."""
LARGE_BODY_BYTES: Final = 1024 * 1024
"""A longer body is scanned in turns instead of being read at one go."""
TURN_BYTES: Final = 16 * 1024
"""How much of it is scanned before others get their turn: 10 ms of the densest JSON."""
MAX_MEMBER_BYTES: Final = 64 * 1024
"""Longest value of a large body that is read; those that matter are short."""

_decode_members: Final = msgspec.json.Decoder(Members).decode
_decode_value: Final = msgspec.json.Decoder().decode
_encode: Final = msgspec.json.Encoder().encode
_OBJECT_OR_NULL: Final = frozenset((b"{", b"n"))
_TRUE: Final = msgspec.Raw(b"true")
_ASK_USAGE: Final = msgspec.Raw(b'{"include_usage":true}')
_OUTPUT_LIMITS = ("max_completion_tokens", "max_tokens", "max_output_tokens")
_CHAT: Final = Endpoint.CHAT
_ESCAPE: Final = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    rb"|(?P<half>\\u[dD][89a-fA-F][0-9a-fA-F]{2})|\\.",
    re.DOTALL,
)
"""`half`: a surrogate alone, as JavaScript writes one where a string was cut inside an emoji. What
follows an escaped backslash is none."""
_WHOLE: Final = re.compile(r"\s*([+-]?[0-9]+(?:_[0-9]+)*)(?:\.0+)?\s*")
_MOST_DIGITS: Final = 32
_HAVE_CHOICES = (Endpoint.CHAT, Endpoint.COMPLETIONS)
"""Elsewhere `n` means nothing."""
_READ_MEMBERS: Final = frozenset(
    ("model", "n", "stream", "stream_options", "previous_response_id", *_OUTPUT_LIMITS)
)


class BadRequest(Exception):
    """A request that cannot be served as it is; becomes an error in OpenAI's shape."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        code: str | None = None,
        param: str | None = None,
        allow: bytes = b"",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.code = code
        self.param = param
        self.allow = allow


@dataclass(slots=True)
class Call:
    """One request: what the core sees of it, and what its body is made of."""

    request: Request
    http: HttpRequest
    members: Members | None
    """None for a body that is not JSON, or not cut into members yet."""
    prompts: int = 1
    uncut: bool = False
    """Whether it is JSON whose members are still to be cut out, should they be needed."""
    scan: Scan | None = None
    """For a large body; then `members` holds only the small members that are ever read."""
    model_span: Span | None = None
    """For a form: where the model is named."""

    def body_for(self, model: str, *, ask_usage: bool) -> tuple[list[bytes], bool]:
        """Return the pieces of the body to send, and whether a request for usage was merged in.

        `model` is the id that the engine knows. The client's own request for usage is left alone.
        """
        if not ask_usage and (not model or model == self.request.model):
            return self.http.pieces, False
        if self.uncut:
            self.members, self.uncut = _decode_members(self.http.body), False
        members = self.members
        if members is None:
            if self.model_span is None or not model or model == self.request.model:
                return self.http.pieces, False
            return replace(self.http.pieces, [(self.model_span, model.encode())]), False
        edits: Members = {}
        if "model" in members and model and model != self.request.model:
            edits["model"] = msgspec.Raw(_encode(model))
        options = _with_usage(members.get("stream_options")) if ask_usage else None
        if options is not None:
            edits["stream_options"] = options
        if not edits:
            return self.http.pieces, False
        if self.scan is not None:
            return _edit_large(self.http.pieces, self.scan, edits), options is not None
        return [_encode({**members, **edits})], options is not None

    def forget_body(self) -> None:
        """Let go of what a further attempt would be sent."""
        self.members = self.scan = None
        self.uncut = False


def _edit_large(pieces: list[bytes], scan: Scan, edits: Members) -> list[bytes]:
    """Edit by span; a member that is not there yet is put in front of the others."""
    spans: list[tuple[Span, bytes]] = []
    for name, value in edits.items():
        span = scan.members.get(name)
        if span is not None:
            spans.append((span, bytes(value)))
        else:
            spans.append(((scan.begin, scan.begin), b'"%b":%b,' % (name.encode(), bytes(value))))
    return replace(pieces, spans)


def _with_usage(options: msgspec.Raw | None) -> msgspec.Raw | None:
    """Return `stream_options` with usage asked for; None where nothing is to be changed."""
    if options is None or bytes(options) == b"null":
        return _ASK_USAGE
    try:
        members = _decode_members(options)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None  # the engine will say what is wrong with it
    asked = bytes(members.get("include_usage", b"null"))
    if asked != b"null" and read_boolean(asked) is not False:
        return None  # the client's own, however it is written, or the engine's to refuse
    return msgspec.Raw(_encode({**members, "include_usage": _TRUE}))


@message
class Origin:
    """What is known of a request before its body is read.

    `replica` and `model` are given for a stored response, whose holder is known. `tenant` is the
    name of the API key, `caller` as in `Request`. `holder_of` finds replica and model of a response
    that is continued.
    """

    request_id: str
    tenant: str = ""
    replica: str = ""
    model: str = ""
    holder_of: Callable[[str], tuple[str, str]] = lambda _: ("", "")
    caller: str = ""


def read_call(http: HttpRequest, origin: Origin) -> Call:
    """Understand a request. Raises `BadRequest`."""
    notes: RequestNotes | None = http.head.notes
    if notes is not None and not origin.replica:
        usual = read_usual_call(http, notes, origin.request_id, origin.tenant, origin.caller)
        if usual is not None:
            return usual
    return read_other_call(http, origin)


def read_other_call(http: HttpRequest, origin: Origin) -> Call:
    """Understand a request that is not a usual chat. Raises `BadRequest`."""
    endpoint = endpoint_of(http.path)
    check_encoding(http.headers)
    members = _read_members(http, endpoint)
    if members is None:
        return _opaque(http, origin)
    return _routed(http, members, _read_prompt(endpoint, members), origin)


def read_usual_call(
    http: HttpRequest, notes: RequestNotes, request_id: str, tenant: str, caller: str
) -> Call | None:
    """A chat like most, read in one pass; None for any other, and for what is to be refused."""
    if notes.endpoint is not _CHAT or not notes.is_call:
        return None
    chat = read_usual_chat(http.body)
    if chat is None:
        return None
    options = chat.stream_options
    if options is not None and bytes(options)[:1] not in _OBJECT_OR_NULL:
        return None
    if not 0 < len(chat.model) <= MAX_MODEL_CHARS:
        return None
    promise = notes.promise
    request = Request(
        request_id,
        chat.model,
        _CHAT,
        chat.streamed,
        chat.text_bytes,
        None,
        0,
        chat.blocks,
        chat.max_output_tokens,
        "",
        tenant,
        promise.tier,
        notes.client_id,
        promise.ttft_s,
        promise.tpot_s,
        chat.choices,
        caller,
    )
    return Call(request, http, None, uncut=True)


async def read_large_call(http: HttpRequest, origin: Origin) -> Call:
    """Understand a request with a large body, in turns with everything else on the loop.

    Raises `BadRequest`.
    """
    endpoint = endpoint_of(http.path)
    check_encoding(http.headers)
    if not _may_be_json(http, endpoint):
        return await _large_opaque(http, origin)
    scanner = MemberScanner()
    try:
        await _in_turns(http.pieces, scanner.feed)
        scan = scanner.finish()
    except NotAnObject as error:
        if endpoint is Endpoint.OTHER:
            return await _large_opaque(http, origin)
        raise _not_json(error) from None
    except TooManyMembers:
        raise BadRequest(
            f"The request body has over {MAX_MEMBERS} members at its top level, more than are read"
            " (MAX_MEMBERS, a fixed limit of bodies over 1 MiB)."
        ) from None
    repeated = scan.repeated & _READ_MEMBERS
    if repeated:
        name = min(repeated)
        raise BadRequest(f"{name!r} stands in the body more than once.", param=name)
    members: Members = {
        name: msgspec.Raw(cut(http.pieces, (start, end)).strip())
        for name, (start, end) in scan.members.items()
        if name in _READ_MEMBERS and end - start <= MAX_MEMBER_BYTES
    }
    prompt = read_large_prompt(endpoint, http.pieces, scan)
    return _routed(http, members, prompt, origin, scan)


async def _in_turns(pieces: list[bytes], feed: Callable[[bytes], None]) -> None:
    for piece in pieces:
        for at in range(0, len(piece), TURN_BYTES):
            feed(piece[at : at + TURN_BYTES])
            await asyncio.sleep(0)


def is_large(http: HttpRequest) -> bool:
    """Whether the body must be read by `read_large_call`, whatever it holds."""
    return http.body_bytes > LARGE_BODY_BYTES


def _opaque(http: HttpRequest, origin: Origin) -> Call:
    """A request whose body is not JSON: a form that names its model, or nothing we can read."""
    with _form_faults():
        scanner = _form_scanner(http)
        if scanner is not None:
            for piece in http.pieces:
                scanner.feed(piece)
    return _passed(http, origin, scanner)


async def _large_opaque(http: HttpRequest, origin: Origin) -> Call:
    """As `_opaque`, in turns."""
    with _form_faults():
        scanner = _form_scanner(http)
        if scanner is not None:
            await _in_turns(http.pieces, scanner.feed)
    return _passed(http, origin, scanner)


def _form_scanner(http: HttpRequest) -> FormScanner | None:
    content_type = http.header(b"content-type")
    if content_type is None or not is_form(content_type) or not any(http.pieces):
        return None  # a GET may have the field by its client's habit
    return FormScanner(boundary_of(content_type))


@contextmanager
def _form_faults() -> Iterator[None]:
    """Turn what is wrong with a form into what its client is told."""
    try:
        yield
    except BadForm as error:
        raise BadRequest(f"The form cannot be read: {error}.", param=error.param) from None


def _passed(http: HttpRequest, origin: Origin, form: FormScanner | None) -> Call:
    """A request whose body passes as it is, but for the model that a form names."""
    model, span = origin.model, None if form is None else form.span
    if span is not None:
        if span[1] - span[0] > MAX_MODEL_CHARS:
            raise BadRequest(f"'model' is over {MAX_MODEL_CHARS} bytes.", param="model")
        model = cut(http.pieces, span).decode("utf-8", "replace")
    notes = _notes_on(http)
    request = Request(
        id=origin.request_id,
        model=model,
        endpoint=endpoint_of(http.path),
        streamed=False,
        replica=origin.replica,
        tenant=origin.tenant,
        tier=notes.promise.tier,
        client_id=notes.client_id,
        ttft_target_s=notes.promise.ttft_s,
        tpot_target_s=notes.promise.tpot_s,
        caller=origin.caller,
    )
    return Call(request, http, None, model_span=span)


def _routed(
    http: HttpRequest, members: Members, prompt: Prompt, origin: Origin, scan: Scan | None = None
) -> Call:
    endpoint = endpoint_of(http.path)
    replica, model = origin.replica, origin.model
    previous = members.get("previous_response_id") if endpoint is Endpoint.RESPONSES else None
    if previous is not None:
        named = _decode(previous)
        replica, model = origin.holder_of(named) if isinstance(named, str) else ("", "")
    _check_stream_options(members)
    stream = bytes(members.get("stream", b"null"))
    if stream not in {b"true", b"false", b"null"}:
        # Engines that take "true" or 1 for true would stream what we think is no stream.
        raise BadRequest("'stream' must be true or false.", param="stream")
    notes = _notes_on(http)
    request = Request(
        id=origin.request_id,
        model=_read_model(members, endpoint) or model,
        endpoint=endpoint,
        streamed=stream == b"true",
        text_bytes=prompt.text_bytes,
        prompt_tokens=prompt.tokens,
        media_items=prompt.media_items,
        blocks=prompt.blocks,
        max_output_tokens=_read_output_limit(members),
        replica=replica,
        tenant=origin.tenant,
        tier=notes.promise.tier,
        client_id=notes.client_id,
        ttft_target_s=notes.promise.ttft_s,
        tpot_target_s=notes.promise.tpot_s,
        sequences=prompt.prompts * _read_choices(endpoint, members),
        prompts=prompt.prompts,
        caller=origin.caller,
    )
    return Call(request, http, members, prompt.prompts, scan=scan)


def _notes_on(http: HttpRequest) -> RequestNotes:
    """The notes on its head; made for a request that came without."""
    notes: RequestNotes | None = http.head.notes
    return RequestNotes(http.head, None) if notes is None else notes


def _read_members(http: HttpRequest, endpoint: Endpoint) -> Members | None:
    """Return the members of a JSON body; None for a body that is not ours to read."""
    body = http.body
    if not body and endpoint is not Endpoint.OTHER:
        raise BadRequest("The request body is empty; send a JSON object.", code="invalid_json")
    if not _may_be_json(http, endpoint) or (
        endpoint is Endpoint.OTHER and not body.lstrip().startswith(b"{")
    ):
        return None
    try:
        return _decode_members(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        if endpoint is Endpoint.OTHER:
            return None
        raise _not_json(error, body) from None


def _may_be_json(http: HttpRequest, endpoint: Endpoint) -> bool:
    """Where forms are taken, one is a form whatever its body looks like: so engines read it."""
    if http.method != b"POST":
        return False
    return endpoint is not Endpoint.OTHER or not is_form(http.header(b"content-type"))


def check_encoding(headers: list[Header]) -> None:
    """Raise `BadRequest` for a compressed body."""
    for name, coding in headers:
        if name == b"content-encoding" and coding.lower() != b"identity":
            raise BadRequest(
                "The request body has a Content-Encoding; send it uncompressed.",
                status=415,
                code="unsupported_encoding",
            )


def _not_json(error: Exception, body: bytes = b"") -> BadRequest:
    why = str(error)
    half = next((each for each in _ESCAPE.finditer(body) if each["half"]), None)
    if half is not None:
        # What parsers say of it, "truncated" among it, sends people looking elsewhere.
        why = (
            f"the escape {half[0].decode()} at byte {half.start()} is half of a character, as where"
            " text is cut inside an emoji"
        )
    return BadRequest(
        f"The request body is not a JSON object: {why}. Send one with content-type"
        " application/json.",
        code="invalid_json",
    )


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


def _check_stream_options(members: Members) -> None:
    """Usage is asked for in there, so it must be what the API says it is."""
    options = members.get("stream_options")
    if options is not None and bytes(options)[:1] not in _OBJECT_OR_NULL:
        raise BadRequest("'stream_options' must be an object.", param="stream_options")


def _read_output_limit(members: Members) -> int | None:
    for name in _OUTPUT_LIMITS:
        raw = members.get(name)
        value = None if raw is None else _whole(raw)
        if value is not None and value > 0:
            return value
    return None


def _read_choices(endpoint: Endpoint, members: Members) -> int:
    """The choices of each prompt; what is no number of them is the engine's to refuse."""
    raw = members.get("n") if endpoint in _HAVE_CHOICES else None
    return choices_of(None if raw is None else _whole(raw))


def _whole(raw: msgspec.Raw) -> int | None:
    """A whole number as engines read it: for pydantic, and so for vLLM, SGLang and TensorRT-LLM,
    "3" and 3.0 are 3.
    """
    value = _decode(raw)
    if isinstance(value, str):
        written = (
            _WHOLE.fullmatch(value) if value.isascii() and len(value) <= _MOST_DIGITS else None
        )
        return None if written is None else int(written[1])
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    return int(value) if isinstance(value, int) else None


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
