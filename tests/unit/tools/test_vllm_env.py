"""When the environment with a real vLLM has to be made anew."""

from pathlib import Path

import pytest

from tools import vllm_env


def test_one_that_is_reached_through_a_link_is_the_same(tmp_path: Path, monkeypatch):
    """As where several work trees share one `.cache/vllm`."""
    (tmp_path / "made").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "made")
    for place in ("made", "link"):
        monkeypatch.setattr(vllm_env, "FOLDER", tmp_path / place)
        monkeypatch.setattr(vllm_env, "_STAMP", tmp_path / place / "made-from")
        if place == "made":
            with pytest.raises(vllm_env.VllmUnavailableError, match=r"vllm_env\.py"):
                vllm_env.find()
            (tmp_path / place / "made-from").write_text(vllm_env._fingerprint())
        vllm_env.find()
