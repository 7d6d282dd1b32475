"""What of a request's body makes its prompt's identity."""

import msgspec

from headrace.core.model import Endpoint
from headrace.gateway.prompt import Members, Prompt, read_prompt


def prompt_of(endpoint: Endpoint, body: object) -> Prompt:
    return read_prompt(endpoint, msgspec.json.decode(msgspec.json.encode(body), type=Members))


def test_tool_calls_without_content_are_part_of_the_prompt():
    def asking(arguments: str) -> Prompt:
        call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": arguments}}
        question = {"role": "user", "content": "what now?"}
        turns = [question, {"role": "assistant", "tool_calls": [call]}, question]
        return prompt_of(Endpoint.CHAT, {"messages": turns})

    assert asking("a" * 4096).blocks != asking("b" * 4096).blocks
    assert asking("a" * 4096).text_bytes > 4096


def test_items_of_two_members_are_part_of_the_prompt():
    def referring(item: str) -> Prompt:
        return prompt_of(Endpoint.RESPONSES, {"input": [{"type": "item_reference", "id": item}]})

    assert referring("a" * 4096).blocks != referring("b" * 4096).blocks
