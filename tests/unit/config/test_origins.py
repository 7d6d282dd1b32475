"""Origins of pages that may use the API are held against what browsers send."""

import pytest

from headrace.config.origins import origin_problem


@pytest.mark.parametrize(
    "origin",
    [
        "*",
        "null",
        "https://app.example",
        "https://app.example:8443",
        "http://localhost:3000",
        "http://[::1]:3000",
        "https://xn--bcher-kva.example",
        "chrome-extension://abcdefghijklmnop",
        "tauri://localhost",
    ],
)
def test_what_browsers_send_is_right(origin):
    assert origin_problem(origin) is None


@pytest.mark.parametrize(
    ("origin", "written"),
    [
        ("https://app.example/", "https://app.example"),
        ("https://app.example/chat?a=b", "https://app.example"),
        ("HTTPS://App.Example", "https://app.example"),
        ("https://app.example:443", "https://app.example"),
        ("http://app.example:80/", "http://app.example"),
        ("https://bücher.example", "https://xn--bcher-kva.example"),
    ],
)
def test_what_they_never_send_is_told_as_they_do(origin, written):
    problem = origin_problem(origin)
    assert problem is not None
    assert repr(written) in problem


@pytest.mark.parametrize(
    "origin",
    ["", "app.example", "https://", "https://*.example", "https://a@b.example", "https://a:x"],
)
def test_what_is_no_origin_is_refused(origin):
    assert origin_problem(origin) is not None
