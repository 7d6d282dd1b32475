from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.engines.spans import without_member

JSON = st.recursive(
    st.none() | st.integers() | st.text(max_size=8) | st.just("usage"),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=4) | st.just("usage"), inner, max_size=3)
    ),
    max_leaves=8,
)
STYLES = st.sampled_from([{}, {"separators": (",", ":")}, {"indent": 1}])


@pytest.mark.parametrize(
    ("payload", "rest"),
    [
        (b'{"usage":{"a":[1,{"b":2}]},"x":1}', b'{"x":1}'),
        (b'{"x":1,"usage":null}', b'{"x":1}'),
        (b'{"x":1, "usage" : null , "y":2}', b'{"x":1 , "y":2}'),
        (b'{"usage":1}', b"{}"),
        (b'{"a":{"usage":1},"usage":1,"b":"usage"}', b'{"a":{"usage":1},"b":"usage"}'),
        (b'{"a":"usage","b":2,"usage":2}', b'{"a":"usage","b":2}'),
    ],
)
def test_one_member_and_one_comma_go(payload: bytes, rest: bytes):
    assert without_member(payload, "usage") == rest


@pytest.mark.parametrize(
    "payload",
    [b'{"a":{"usage":1}}', b'{"a":"usage"}', b'["usage"]', b'{"a":"\\"usage\\":1"}', b"{", b""],
)
def test_without_the_member_the_very_same_object_comes_back(payload: bytes):
    assert without_member(payload, "usage") is payload


@given(st.dictionaries(st.text(max_size=4) | st.just("usage"), JSON, max_size=5), STYLES)
def test_all_else_stays(value: dict, style: dict):
    payload = json.dumps(value, **style).encode()
    rest = without_member(payload, "usage")
    assert json.loads(rest) == {k: v for k, v in value.items() if k != "usage"}
