"""`/v1/chat/completions` and `/v1/completions`: choices, and a stream of chunks."""

from __future__ import annotations

from collections.abc import Sequence

from headrace.emulator.answer_form import Ended, Spent, encode

_DONE = b"data: [DONE]\n\n"


class ChunkForm:
    """See `answer_form.Form`."""

    __slots__ = ("_chat", "_identity", "_index", "head", "tail")
    alike: bool = True

    def __init__(
        self, answer_id: str, created: int, model: str, index: int, *, chat: bool, stream: bool
    ) -> None:
        self._chat = chat
        self._index = index
        kind = "chat.completion" if chat else "text_completion"
        if chat and stream:
            kind += ".chunk"
        self._identity: dict[str, object] = {
            "id": f"{'chatcmpl' if chat else 'cmpl'}-{answer_id}",
            "object": kind,
            "created": created,
            "model": model,
        }
        self.head = self.tail = b""

    def opening(self, spent: Spent, *, usage: bool) -> bytes:
        """See `Form`: the event of a chat that says who speaks."""
        if self.alike:
            self.head, self.tail = self.event(b"\0", None, None).split(b"\\u0000")
        if not self._chat:
            return b""
        choice = {
            "index": self._index,
            "delta": {"role": "assistant", "content": ""},
            "logprobs": None,
            "finish_reason": None,
        }
        return self._chunk(choice, spent if usage else None)

    def event(
        self,
        word: bytes,
        reason: str | None,
        spent: Spent | None,
        stop_reason: str | None = None,
        logprobs: dict[str, object] | None = None,
    ) -> bytes:
        """See `Form`."""
        choice: dict[str, object] = {"index": self._index, **self._piece(word, reason)}
        choice |= {"logprobs": logprobs, "finish_reason": reason}
        if reason is not None or not self._chat:
            choice["stop_reason"] = stop_reason
        choice["token_ids"] = None
        return self._chunk(choice, spent)

    def ending(self, ended: Ended, *, usage: bool) -> list[bytes]:
        """See `Form`."""
        if not usage:
            return [_DONE]
        total = _usage(ended.spent)
        return [_event({**self._identity, "choices": [], "usage": total}), _DONE]

    def whole(self, choices: Sequence[Ended], spent: Spent) -> bytes:
        """See `Form`."""
        listed = [self._choice(each) for each in choices]
        return encode({**self._identity, "choices": listed, "usage": _usage(spent)})

    def _piece(self, word: bytes, reason: str | None) -> dict[str, object]:  # noqa: ARG002 - for others
        """What a choice holds of an event's token."""
        text = word.decode()
        return {"delta": {"content": text}} if self._chat else {"text": text}

    def _content(self, ended: Ended) -> dict[str, object]:
        """What a choice of a whole answer holds."""
        if not self._chat:
            return {"text": ended.text}
        return {"message": {"role": "assistant", "content": ended.text, "refusal": None}}

    def _choice(self, ended: Ended) -> dict[str, object]:
        return {
            "index": ended.number,
            **self._content(ended),
            "logprobs": ended.logprobs,
            "finish_reason": ended.reason,
            "stop_reason": ended.stop_reason,
        }

    def _chunk(self, choice: dict[str, object], spent: Spent | None) -> bytes:
        chunk = {**self._identity, "choices": [choice]}
        return _event(chunk if spent is None else {**chunk, "usage": _usage(spent)})


def _usage(spent: Spent) -> dict[str, object]:
    usage: dict[str, object] = {
        "prompt_tokens": spent.prompt_tokens,
        "total_tokens": spent.prompt_tokens + spent.output_tokens,
        "completion_tokens": spent.output_tokens,
    }
    if spent.cached_tokens is not None:
        usage["prompt_tokens_details"] = {"cached_tokens": spent.cached_tokens}
    return usage


def _event(chunk: dict[str, object]) -> bytes:
    return b"data: " + encode(chunk) + b"\n\n"
