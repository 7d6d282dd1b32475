"""`/v1/messages`: Anthropic's API, as vLLM speaks it."""

from __future__ import annotations

from collections.abc import Sequence

from headrace.emulator.answer_form import Ended, Spent, encode, named_event

_REASONS = {"stop": "end_turn", "length": "max_tokens"}


class MessageForm:
    """See `answer_form.Form`."""

    __slots__ = ("_message", "head", "tail")
    alike: bool = True

    def __init__(self, answer_id: str, model: str) -> None:
        self._message: dict[str, object] = {
            "id": f"chatcmpl-{answer_id}",
            "type": "message",
            "role": "assistant",
            "content": [],
            "model": model,
            "stop_reason": None,
        }
        self.head = self.tail = b""

    def opening(self, spent: Spent, *, usage: bool) -> bytes:  # noqa: ARG002 - usage is always there
        """See `Form`."""
        self.head, self.tail = self.event(b"\0", None, None).split(b"\\u0000")
        message = {**self._message, "stop_sequence": None, "usage": _usage(spent)}
        block = {"type": "text", "text": ""}
        return named_event("message_start", message=message) + named_event(
            "content_block_start", content_block=block, index=0
        )

    def event(
        self,
        word: bytes,
        reason: str | None,  # noqa: ARG002 - told in the ending
        spent: Spent | None,  # noqa: ARG002 - as above
        stop_reason: str | None = None,  # noqa: ARG002 - as above
        logprobs: dict[str, object] | None = None,  # noqa: ARG002 - not in this API
    ) -> bytes:
        """See `Form`."""
        delta = {"type": "text_delta", "text": word.decode()}
        return named_event("content_block_delta", delta=delta, index=0)

    def ending(self, ended: Ended, *, usage: bool) -> list[bytes]:  # noqa: ARG002 - as above
        """See `Form`."""
        delta = {"stop_reason": _reason(ended), "stop_sequence": ended.stop_reason}
        return [
            named_event("content_block_stop", index=0),
            named_event("message_delta", delta=delta, usage=_usage(ended.spent)),
            named_event("message_stop"),
        ]

    def whole(self, choices: Sequence[Ended], spent: Spent) -> bytes:
        """See `Form`."""
        [ended] = choices
        answer = {
            **self._message,
            "content": [{"type": "text", "text": ended.text}],
            "stop_reason": _reason(ended),
        }
        if ended.stop_reason is not None:
            answer["stop_sequence"] = ended.stop_reason
        return encode({**answer, "usage": _usage(spent)})


def _reason(ended: Ended) -> str | None:
    if ended.stop_reason is not None:
        return "stop_sequence"
    return _REASONS.get(ended.reason)


def _usage(spent: Spent) -> dict[str, object]:
    """Input without what the cache gave, which this API counts apart."""
    usage: dict[str, object] = {
        "input_tokens": spent.prompt_tokens - (spent.cached_tokens or 0),
        "output_tokens": spent.output_tokens,
    }
    if spent.cached_tokens is not None:
        usage["cache_read_input_tokens"] = spent.cached_tokens
    return usage
