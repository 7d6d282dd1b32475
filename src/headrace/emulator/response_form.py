"""`/v1/responses`: a whole answer as vLLM's, a stream of the events that OpenAI publishes.

Nothing is stored.
"""

from __future__ import annotations

from collections.abc import Sequence

from headrace.emulator.answer_form import Answer, Ended, Spent, Token, encode, named_event

_PLACE: dict[str, object] = {"output_index": 0, "content_index": 0}


class ResponseForm:
    """See `answer_form.Form`. Events are numbered, so no two are alike."""

    __slots__ = ("_item_id", "_numbered", "_response", "head", "tail")
    alike: bool = False

    def __init__(self, answer: Answer, *, most_tokens: int) -> None:
        self._item_id = f"msg_{answer.id}"
        self._numbered = 0
        self.head = self.tail = b""
        self._response: dict[str, object] = {
            "id": f"resp_{answer.id}",
            "created_at": answer.created,
            "incomplete_details": None,
            "model": answer.model,
            "object": "response",
            "output": [],
            "max_output_tokens": most_tokens,
            "status": "in_progress",
            "usage": None,
        }

    def opening(self, spent: Spent) -> bytes:  # noqa: ARG002 - a port
        """See `Form`."""
        item = {**self._item("", "in_progress"), "content": []}
        return (
            self._event("response.created", response=self._response)
            + self._event("response.in_progress", response=self._response)
            + self._event("response.output_item.added", output_index=0, item=item)
            + self._part("response.content_part.added", part=_part(""))
        )

    def event(self, token: Token) -> bytes:
        """See `Form`."""
        return self._part("response.output_text.delta", delta=token.word.decode(), logprobs=[])

    def ending(self, ended: Ended) -> list[bytes]:
        """See `Form`."""
        response = self._ended(ended, ended.spent)
        item = self._item(ended.text, "completed")
        return [
            self._part("response.output_text.done", text=ended.text, logprobs=[]),
            self._part("response.content_part.done", part=_part(ended.text)),
            self._event("response.output_item.done", output_index=0, item=item),
            self._event(f"response.{response['status']}", response=response),
        ]

    def whole(self, choices: Sequence[Ended], spent: Spent) -> bytes:
        """See `Form`."""
        [ended] = choices
        return encode(self._ended(ended, spent))

    def _ended(self, ended: Ended, spent: Spent) -> dict[str, object]:
        cut = ended.reason == "length"
        return {
            **self._response,
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            "output": [self._item(ended.text, "completed")],
            "status": "incomplete" if cut else "completed",
            "usage": {
                "input_tokens": spent.prompt_tokens,
                "input_tokens_details": {"cached_tokens": spent.cached_tokens or 0},
                "output_tokens": spent.output_tokens,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": spent.prompt_tokens + spent.output_tokens,
            },
        }

    def _item(self, text: str, status: str) -> dict[str, object]:
        return {
            "id": self._item_id,
            "content": [_part(text)],
            "role": "assistant",
            "status": status,
            "type": "message",
        }

    def _part(self, kind: str, **fields: object) -> bytes:
        return self._event(kind, item_id=self._item_id, **_PLACE, **fields)

    def _event(self, kind: str, **fields: object) -> bytes:
        number, self._numbered = self._numbered, self._numbered + 1
        return named_event(kind, sequence_number=number, **fields)


def _part(text: str) -> dict[str, object]:
    return {"annotations": [], "text": text, "type": "output_text", "logprobs": None}
