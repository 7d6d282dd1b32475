"""Which bytes of a form name its model, wherever the pieces are cut."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.gateway.form import MAX_PARTS, BadForm, FormScanner, boundary_of, is_form

FIELD = b'Content-Disposition: form-data; name="model"'


def form(*parts: tuple[bytes, bytes], boundary: bytes = b"XX", close: bytes = b"--\r\n") -> bytes:
    mark = b"--" + boundary
    whole = b"".join(mark + b"\r\n" + head + b"\r\n\r\n" + value + b"\r\n" for head, value in parts)
    return whole + mark + close


def named(body: bytes, size: int = 1 << 20) -> bytes | None:
    scanner = FormScanner(b"XX")
    for at in range(0, len(body), size):
        scanner.feed(body[at : at + size])
    return None if scanner.span is None else body[slice(*scanner.span)]


contents = st.binary(max_size=40) | st.sampled_from(
    [b"\r\n--X" * 40, b"--XX", b"\r\n--XXX", b"\r\n--XX-", b"\r\n", b'\r\nname="model"\r\n\r\nm']
)
contents = contents.filter(lambda each: not re.search(rb"\r\n--XX(--|\s)", each + b"\r\n"))


@given(st.lists(contents, max_size=4), contents, st.integers(1, 50), st.booleans())
def test_the_model_is_found_between_any_files(files, model, size, begins_late):
    parts = [(b'Content-Disposition: form-data; name="f"; filename="a"', data) for data in files]
    parts.insert(len(parts) // 2, (FIELD, model))
    body = (b"preamble\r\n" if begins_late else b"") + form(*parts) + b"\r\n--XX\r\nepilogue"
    assert named(body, size) == model


@pytest.mark.parametrize(
    "head",
    [
        b"content-disposition:form-data;name=model",
        b'Content-Type: text/plain\r\nContent-Disposition: form-data; NAME = "mod\\el"',
        b'Content-Disposition: form-data;\r\n name="model"; x="a; name=b"',
        b'Content-Disposition: form-data; name="model";',
    ],
)
def test_spellings_of_the_field(head):
    assert named(form((head, b"m"))) == b"m"


@pytest.mark.parametrize(
    "head",
    [
        b'Content-Disposition: form-data; name="file"; filename="a; name=model"',
        b'Content-Disposition: form-data; name="file"; filename="a\\"; name=\\"model"',
        b'Content-Disposition: form-data; name="file"; filename=a',
        b'Content-Disposition: form-data; name="model"; filename="a"',
        b"Content-Disposition: form-data; name=model; filename*=utf-8''a",
        b'Content-Disposition: form-data; name="my model"',
        b'Content-Disposition: form-data; name="MODEL"',
        b"Content-Type: text/plain; name=model",
        b"",
    ],
)
def test_what_is_not_the_field(head):
    assert named(form((head, b"m"))) is None


@pytest.mark.parametrize(
    ("body", "word"),
    [
        (form((FIELD, b"a"), (FIELD, b"b")), "more than once"),
        (form((FIELD, b"a"), (FIELD + b'; filename="x"', b"b")), "more than once"),
        (form((FIELD + b"; name=other", b"a")), "'name' more than once"),
        (form((b"Content-Disposition: form-data; name*=utf-8''model", b"a")), "encoded"),
        (form((FIELD + b"\r\n" + FIELD, b"a")), "two Content-Disposition"),
        (form((b'Content-Disposition: form-data; name="model', b"a")), "malformed"),
        (form((FIELD + b"; x=" + b"y" * 9000, b"a")), "head of a part"),
        (form(*[(b"", b"")] * MAX_PARTS, (FIELD, b"m")), "MAX_PARTS"),
    ],
)
def test_what_two_readers_might_read_differently_is_refused(body, word):
    with pytest.raises(BadForm, match=word):
        named(body)


def test_as_many_parts_as_may_be():
    assert named(form(*[(b"", b"")] * (MAX_PARTS - 1), (FIELD, b"m"))) == b"m"


def test_a_form_that_is_cut_off_names_no_model():
    assert named(form((FIELD, b"m"), close=b"")) is None


def test_what_stays_to_be_read_is_bounded():
    scanner = FormScanner(b"XX")
    for _ in range(100):
        scanner.feed(b"\r\n--XX" + b" " * 1000)
        assert len(scanner._rest) < 2000


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        (b"multipart/form-data; boundary=XX", b"XX"),
        (b'Multipart/Form-Data;x="boundary=AA";boundary="X\\"X"', b'X"X'),
    ],
)
def test_boundaries(content_type, boundary):
    assert is_form(content_type)
    assert boundary_of(content_type) == boundary


@pytest.mark.parametrize(
    "rest", [b"", b"; boundary=", b"; boundary=" + b"x" * 71, b"; boundary=a; boundary=b"]
)
def test_no_boundary_or_two_is_refused(rest):
    with pytest.raises(BadForm):
        boundary_of(b"multipart/form-data" + rest)
