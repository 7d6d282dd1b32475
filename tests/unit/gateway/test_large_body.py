"""The scan of large bodies says what a parser says, wherever the pieces are cut."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.gateway.large_body import MemberScanner, NotAnObject, Scan, cut, replace

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
bodies = st.dictionaries(st.text(max_size=8), values, max_size=6)


def pieces_of(data: bytes, size: int) -> list[bytes]:
    return [data[i : i + size] for i in range(0, len(data), size)]


def scan(pieces: list[bytes]) -> Scan:
    scanner = MemberScanner()
    for piece in pieces:
        scanner.feed(piece)
    return scanner.finish()


@given(bodies, st.integers(1, 40), st.booleans(), st.sampled_from([None, 1]))
def test_members_are_those_a_parser_finds(body, size, ascii_only, indent):
    data = json.dumps(body, ensure_ascii=ascii_only, indent=indent).encode("utf-8", "surrogatepass")
    pieces = pieces_of(data, size)
    found = scan(pieces)
    assert list(found.members) == list(body)
    for name, span in found.members.items():
        assert json.loads(cut(pieces, span)) == body[name]


@given(bodies.filter(len), st.integers(1, 40), st.data())
def test_an_edit_changes_its_member_and_nothing_else(body, size, data):
    pieces = pieces_of(json.dumps(body).encode(), size)
    name = data.draw(st.sampled_from(sorted(body)))
    found = scan(pieces)
    insertion = ((found.begin, found.begin), b'"added":1,')
    edited = b"".join(replace(pieces, [(found.members[name], b'"new"'), insertion]))
    assert json.loads(edited) == {"added": 1, **body, name: "new"}


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"[1]",
        b'{"a":1',
        b'{"a":"x',
        b'{"a":1}{',
        b'{"a":1} x',
        b"null",
        b'{"a":1,2}',
        b'{"a\\q":1}',
    ],
)
def test_what_is_no_object_is_refused(bad):
    with pytest.raises(NotAnObject):
        scan([bad])


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_media_are_told_from_text(size):
    body = {
        "model": "m",
        "messages": [
            {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 5000}},
            {"type": "input_audio", "input_audio": {"data": "B" * 3000, "format": "wav"}},
            {"type": "text", "text": "not data: at all " * 500},
        ],
    }
    found = scan(pieces_of(json.dumps(body).encode(), size))
    assert found.media_items == 2
    assert 8000 < found.media_bytes < 8100


def test_repeated_members_are_named():
    found = scan([b'{"model":"a","x":1,"mod\\u0065l":"b"}'])
    assert found.repeated == {"model"}
    assert (
        msgspec.json.decode(cut([b'{"model":"a","x":1,"mod\\u0065l":"b"}'], found.members["model"]))
        == "b"
    )
