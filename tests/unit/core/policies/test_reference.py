"""The page about policies is made from them, and every parameter is on it."""

import pytest

from headrace.core.policies import POLICIES, parameters_of
from tools import policies_reference


def test_the_page_is_fresh():
    assert policies_reference.PAGE.read_text("utf-8") == policies_reference.page(), (
        "run: python -m tools.policies_reference"
    )


@pytest.mark.parametrize("name", list(POLICIES))
def test_every_parameter_is_documented(name):
    assert list(policies_reference.documented(name)) == list(parameters_of(name))
