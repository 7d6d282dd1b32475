"""What `headrace up --prompt` asks."""

import asyncio
import os
import signal

from headrace.compose.process.terminal import Terminal
from headrace.compose.up import command
from headrace.compose.up.command import UpOptions, question
from headrace.edges.fleets.local import LocalFleetSettings


def test_a_small_model_is_kept_from_rambling():
    asked = question(UpOptions(max_tokens=9), "Say hello.")
    assert asked["messages"] == [{"role": "user", "content": "Say hello."}]
    assert asked["max_tokens"] == 9
    assert isinstance(asked["temperature"], float)
    assert 0.0 < asked["temperature"] <= 0.3


def test_a_prompt_that_was_not_answered_before_a_signal_is_no_success(
    monkeypatch, tmp_path, capsys
):
    """Nor is it at the second place where it could come, while the model answers."""

    async def interrupted(*_):
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.sleep(60)

    async def prepared(_self):
        return None

    settings = LocalFleetSettings(model_path=tmp_path / "model.gguf", log_dir=tmp_path)
    for name in ("_prepare", "_answer"):
        with monkeypatch.context() as patch:
            patch.setattr(command._Up, "_prepare", prepared)
            patch.setattr(command._Up, name, interrupted)
            options = UpOptions(prompt="Say hello.", port=0, control_port=0)
            up = command._Up(options, settings, Terminal(), None)
            assert asyncio.run(up.run()) == 130
    assert "stopping" in capsys.readouterr().err
