"""Who may use the gateway: API keys, of which only hashes are stored.

A key is `hr-<id>-<secret>`; the file holds one line per key, `#` starts a comment:

    alice   9f2c41d07b3e  sha256:5e88…      made by `headrace keys new alice --file FILE`
    ci      sha256:03ac…                    the hash of any other key with enough entropy

A plain SHA-256 is enough, and a slow password hash would be a mistake: the secret is 192 random
bits, so nobody can guess it from its hash however fast hashing is, while a slow hash on every
request would hand strangers a way to burn the gateway's CPU. A key that people made up has no
place here.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import stat
from dataclasses import dataclass, field
from pathlib import Path

MAX_KEYS = 100_000
MAX_FILE_BYTES = 16 * 1024 * 1024
MAX_PRESENTED_BYTES = 512
"""A longer header value cannot be a key and is not hashed."""

KEY_PREFIX = "hr-"
"""How every key begins."""
_PREFIX = KEY_PREFIX.encode()
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_ID = re.compile(r"[0-9a-f]{12}")
_HASH = re.compile(r"sha256:([0-9a-f]{64})")


class KeyFileError(Exception):
    """A key file that cannot be used; the message names the file, the line and the remedy."""


@dataclass(frozen=True, slots=True)
class NewKey:
    """A fresh key: `key` is shown once to its owner, `line` goes into the file."""

    key: str
    line: str


def new_key(name: str) -> NewKey:
    """Make a key for `name`. Raises ValueError if the name cannot stand in a key file."""
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"key name {name!r}: use up to 64 letters, digits or . _ @ - starting with a "
            "letter or digit"
        )
    identity, secret = secrets.token_hex(6), secrets.token_hex(24)
    key = f"{KEY_PREFIX}{identity}-{secret}"
    digest = hashlib.sha256(key.encode()).hexdigest()
    return NewKey(key, f"{name} {identity} sha256:{digest}")


def add_key(path: Path, name: str) -> str:
    """Make a key, append its line to the file (made with mode 600 if new) and return the key.

    Raises ValueError for a bad name, KeyFileError where the file holds anything but keys (a line
    more would spoil it), and OSError if it cannot be written.
    """
    made = new_key(name)
    before = path.read_bytes() if path.exists() else b""
    if problems := KeyRing().read(before.decode("utf-8", "replace"), str(path)):
        raise KeyFileError(
            f"{problems[0]}; nothing was added: name a file that holds keys and nothing else, or "
            "a new one"
        )
    separator = "" if not before or before.endswith(b"\n") else "\n"
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    with os.fdopen(descriptor, "a", encoding="utf-8") as file:
        file.write(f"{separator}{made.line}\n")
    return made.key


def count_keys(path: Path, name: str) -> int:
    """How many keys of a file belong to `name`. Raises OSError if it cannot be read."""
    owners = (line.split(maxsplit=1)[:1] for line in path.read_text("utf-8").splitlines())
    return sum(owner == [name] for owner in owners)


@dataclass(slots=True)
class KeyRing:
    """The known keys. Changing the file takes a new `load`."""

    by_id: dict[bytes, tuple[bytes, str]] = field(default_factory=dict[bytes, tuple[bytes, str]])
    """Key id to the digest of the whole key and the owner's name."""
    by_digest: dict[bytes, str] = field(default_factory=dict[bytes, str])
    """Digest to name, for keys without an id."""
    warnings: list[str] = field(default_factory=list[str])

    def __len__(self) -> int:
        return len(self.by_id) + len(self.by_digest)

    @classmethod
    def load(cls, path: Path | str) -> KeyRing:
        """Read a key file. Raises KeyFileError naming every bad line."""
        path = Path(path)
        try:
            state = path.stat()
            text = path.read_text("utf-8") if state.st_size <= MAX_FILE_BYTES else ""
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
            if isinstance(error, FileNotFoundError):
                reason = f"there is no such file; make one: headrace keys new NAME --file {path}"
            raise KeyFileError(f"{path}: cannot read the API keys: {reason}") from None
        if state.st_size > MAX_FILE_BYTES:
            raise KeyFileError(f"{path}: is larger than {MAX_FILE_BYTES} bytes")
        ring = cls()
        if state.st_mode & stat.S_IROTH:
            ring.warnings.append(f"{path}: every user can read it; run: chmod 600 {path}")
        problems = ring.read(text, str(path))
        if not problems and not len(ring):
            problems = [f"{path}: holds no key; make one: headrace keys new NAME --file {path}"]
        if problems:
            raise KeyFileError("\n".join(problems))
        return ring

    def read(self, text: str, source: str) -> list[str]:
        """Take in the text of a key file; the answer says what is wrong, line by line."""
        problems: list[str] = []
        for number, line in enumerate(text.splitlines(), start=1):
            words = line.partition("#")[0].split()
            if not words:
                continue
            if problem := self._add(words):
                problems.append(f"{source}:{number}: {problem}")
            if len(self) > MAX_KEYS:
                problems.append(f"{source}:{number}: more than {MAX_KEYS} keys")
                break
        return problems

    def _add(self, words: list[str]) -> str | None:
        """Take in one line; the answer says what is wrong with it. It never repeats the line:
        somebody may have put the key itself there.
        """
        expected = "expected `NAME ID sha256:HASH` or `NAME sha256:HASH`"
        if len(words) not in {2, 3}:
            return f"has {len(words)} words; {expected}"
        if not _NAME.fullmatch(words[0]):
            return f"the name is not plain letters, digits or . _ @ -; {expected}"
        match = _HASH.fullmatch(words[-1])
        if match is None:
            return f"the last word is not sha256: and 64 hex digits; {expected}"
        digest = bytes.fromhex(match[1])
        if len(words) == 2:
            if digest in self.by_digest:
                return "this hash is in the file twice"
            self.by_digest[digest] = words[0]
            return None
        if not _ID.fullmatch(words[1]):
            return f"the key id is not 12 hex digits; {expected}"
        if words[1].encode() in self.by_id:
            return f"key id {words[1]} is in the file twice"
        self.by_id[words[1].encode()] = (digest, words[0])
        return None

    def identify(self, presented: bytes) -> str | None:
        """The name a header value belongs to, or None.

        `presented` is the value of `Authorization` (`Bearer KEY`) or of `x-api-key` (`KEY`).
        The secret is compared by its digest in constant time. The lookups before that tell only
        whether a public id, or a digest nobody can steer, is in the file.
        """
        if len(presented) > MAX_PRESENTED_BYTES:
            return None
        key = presented.strip()
        if key[:7].lower() == b"bearer ":
            key = key[7:].lstrip()
        if key.startswith(_PREFIX):
            known = self.by_id.get(key[3:15])
            if known is not None:
                digest, name = known
                same = hmac.compare_digest(hashlib.sha256(key).digest(), digest)
                return name if same else None
        return self.by_digest.get(hashlib.sha256(key).digest())
