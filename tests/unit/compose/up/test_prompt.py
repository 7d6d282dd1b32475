"""What `headrace up --prompt` asks."""

from headrace.compose.up.command import UpOptions, question


def test_a_small_model_is_kept_from_rambling():
    asked = question(UpOptions(max_tokens=9), "Say hello.")
    assert asked["messages"] == [{"role": "user", "content": "Say hello."}]
    assert asked["max_tokens"] == 9
    assert isinstance(asked["temperature"], float)
    assert 0.0 < asked["temperature"] <= 0.3
