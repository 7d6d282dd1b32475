"""The page about profiles is made from them, and its example is a configuration."""

import re
from pathlib import Path

import pytest

from headrace.config.load import load
from headrace.core.latency import LatencyProfile
from headrace.engine_model.profiles import profile, profile_names
from tools import profiles_reference


def test_the_page_is_fresh():
    assert profiles_reference.PAGE.read_text("utf-8") == profiles_reference.render_page(), (
        "run: python -m tools.profiles_reference"
    )


def test_every_profile_is_in_both_tables():
    page = profiles_reference.render_page()
    assert [page.count(f"| `{name}` |") for name in profile_names()] == [2] * len(profile_names())


def test_the_example_gives_a_pool_the_profile(tmp_path: Path):
    page = profiles_reference.render_page()
    found = re.search(r"^```yaml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert found is not None
    file = tmp_path / "headrace.yaml"
    file.write_text(found[1])
    (pool,) = load(file).config.pools
    assert isinstance(pool.profile, LatencyProfile)
    wanted = profile(profiles_reference.EXAMPLE).latency
    assert pool.profile.name == wanted.name
    assert pool.profile.prefill_s(8192) == pytest.approx(wanted.prefill_s(8192), rel=1e-3)
    assert pool.profile.step_s(32, 131_072) == pytest.approx(wanted.step_s(32, 131_072), rel=1e-3)
