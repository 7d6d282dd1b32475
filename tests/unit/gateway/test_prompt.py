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


def test_media_in_the_results_of_tools_count_as_items_not_as_text():
    image = {"type": "base64", "media_type": "image/png", "data": "A" * 200_000}
    result = {"type": "tool_result", "content": [{"type": "image", "source": image}]}
    prompt = prompt_of(Endpoint.MESSAGES, {"messages": [{"role": "user", "content": [result]}]})
    assert prompt.media_items == 1
    assert prompt.text_bytes < 2000
    output = {"type": "computer_screenshot", "image_url": "data:image/png;base64," + "A" * 200_000}
    item = {"type": "computer_call_output", "call_id": "1", "output": output}
    prompt = prompt_of(Endpoint.RESPONSES, {"input": [item]})
    assert prompt.media_items == 1
    assert prompt.text_bytes < 2000
